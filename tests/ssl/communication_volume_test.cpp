// What a step of alignment sends, counted, is what common/comm/README.md says.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "ssl/info_nce.hpp"
#include "support/ranks.hpp"
#include "train/gradient_sync.hpp"

namespace astroclip::ssl {
namespace {

// Counts the bytes that a rank sends, by the algorithms that move least: a gather or a scatter passes every
// block but one on, an all-reduce is the two together.
class Counted : public comm::Communicator {
public:
    explicit Counted(comm::Communicator& of) : of_(of) {}

    int rank() const override { return of_.rank(); }
    int size() const override { return of_.size(); }
    at::Device device() const override { return of_.device(); }
    std::string backend() const override { return of_.backend(); }
    void barrier() override { of_.barrier(); }
    void broadcast(at::Tensor& tensor, int root) override { of_.broadcast(tensor, root); }
    void all_reduce_sum(at::Tensor& tensor) override
    {
        reduced += bytes(tensor);
        of_.all_reduce_sum(tensor);
    }
    std::unique_ptr<comm::Work> all_reduce_sum_async(at::Tensor& tensor) override
    {
        reduced += bytes(tensor);
        return of_.all_reduce_sum_async(tensor);
    }
    at::Tensor all_gather(const at::Tensor& tensor) override
    {
        sent += (size() - 1) * bytes(tensor);
        return of_.all_gather(tensor);
    }
    std::unique_ptr<comm::Work> all_gather_async(const at::Tensor& tensor, at::Tensor& all) override
    {
        sent += (size() - 1) * bytes(tensor);
        return of_.all_gather_async(tensor, all);
    }
    at::Tensor reduce_scatter_sum(const at::Tensor& tensor) override
    {
        sent += (size() - 1) * bytes(tensor) / size();
        return of_.reduce_scatter_sum(tensor);
    }

    // In all, over the run so far.
    std::int64_t volume() const { return sent + 2 * (size() - 1) * reduced / size(); }
    std::int64_t sent = 0, reduced = 0;

private:
    static std::int64_t bytes(const at::Tensor& tensor) { return static_cast<std::int64_t>(tensor.nbytes()); }
    comm::Communicator& of_;
};

TEST(CommunicationVolume, OfAnAlignmentStepIsThatOfTheFormula)
{
    const auto ranks = test::all_ranks();
    Counted counted(ranks);
    const std::int64_t size = ranks.size(), batch = 64, own = batch / size, width = 32;
    // A head with P parameters on each side, whose output is the embedding.
    const auto weight = at::eye(width).requires_grad_();
    train::GradientSync sync({weight}, counted, 1 << 20);
    sync.begin();
    const auto x = at::ones({own, width}) + ranks.rank();
    info_nce(counted, x.mm(weight), (2 * x).mm(weight)).backward();
    sync.finish();

    const auto others = size - 1;
    const auto spectra = others * own * width * 4;  // gathered, and their gradient scattered
    const auto matches = others * own * 8;          // cosines of the pairs
    const auto columns = size > 1 ? 2 * others * batch * 8 / size : 0;  // sums of the columns
    const auto parameters = size > 1 ? 2 * others * width * width * 4 / size : 0;
    EXPECT_EQ(counted.volume(), 2 * spectra + matches + columns + parameters);
}

}  // namespace
}  // namespace astroclip::ssl
