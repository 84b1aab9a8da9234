#include "comm/communicator.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace astroclip::comm {
namespace {

// One suite for every backend there is: CUDA tensors by NCCL where each rank has a GPU, host tensors by MPI
// always.
class CommunicatorTest : public testing::TestWithParam<std::string> {
protected:
    void SetUp() override
    {
        const bool gpu = GetParam() == "nccl";
        if (gpu && world.any(world.local_rank() >= cuda_device_count())) {
            GTEST_SKIP() << "not every rank has a GPU of its own";
        }
        const auto device = local_device(world, gpu ? "cuda" : "cpu");
        ranks = make_communicator(world, device, GetParam());
        options = at::TensorOptions().device(device);
    }

    World world{MPI_COMM_WORLD};
    std::unique_ptr<Communicator> ranks;
    at::TensorOptions options;
};

TEST_P(CommunicatorTest, SumsOverAllRanksInEveryFloatType)
{
    for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf}) {
        auto x = at::full({3, 2}, world.rank() + 1.0, options.dtype(type));
        ranks->all_reduce_sum(x);
        const double expected = world.size() * (world.size() + 1) / 2.0;
        EXPECT_TRUE(x.eq(expected).all().item<bool>());
    }
}

TEST_P(CommunicatorTest, AsynchronousSumsComeBackInOrder)
{
    std::vector<at::Tensor> tensors;
    std::vector<std::unique_ptr<Work>> works;
    for (int i = 0; i < 8; ++i) {
        tensors.push_back(at::full({1000}, double(i), options.dtype(at::kFloat)));
        works.push_back(ranks->all_reduce_sum_async(tensors.back()));
    }
    for (int i = 0; i < 8; ++i) {
        works[i]->wait();
        EXPECT_TRUE(tensors[i].eq(i * world.size()).all().item<bool>());
    }
}

TEST_P(CommunicatorTest, GathersInRankOrderAndScattersBack)
{
    const auto own = at::full({2, 3}, double(world.rank()), options.dtype(at::kFloat));
    const auto all = ranks->all_gather(own);
    ASSERT_EQ(all.size(0), 2 * world.size());
    for (int r = 0; r < world.size(); ++r) {
        EXPECT_TRUE(all.narrow(0, 2 * r, 2).eq(r).all().item<bool>());
    }
    EXPECT_TRUE(ranks->reduce_scatter_sum(all).eq(world.rank() * world.size()).all().item<bool>());

    const auto half = all.to(at::kBFloat16);
    EXPECT_TRUE(ranks->reduce_scatter_sum(half).eq(world.rank() * world.size()).all().item<bool>());

    at::Tensor later;
    const auto work = ranks->all_gather_async(own, later);
    auto between = at::ones({3}, options.dtype(at::kFloat));  // other collectives may go on meanwhile
    ranks->all_reduce_sum(between);
    work->wait();
    EXPECT_TRUE(later.equal(all));
}

TEST_P(CommunicatorTest, BroadcastsFromAnyRank)
{
    auto x = at::full({5}, world.rank(), options.dtype(at::kLong));
    ranks->broadcast(x, world.size() - 1);
    EXPECT_TRUE(x.eq(world.size() - 1).all().item<bool>());
}

TEST_P(CommunicatorTest, GatherWithGradientSumsTheGradientsOfAllRanks)
{
    // Every rank's loss is w · gathered with its own weights w: the gradient of a row is the sum of all
    // ranks' weights.
    auto x = at::ones({2}, options.dtype(at::kDouble)).requires_grad_(true);
    const auto weights = at::arange(2 * world.size(), options.dtype(at::kDouble)) * (world.rank() + 1);
    (all_gather_with_grad(*ranks, x) * weights).sum().backward();
    const double factor = world.size() * (world.size() + 1) / 2.0;
    const auto expected = (at::arange(2, options.dtype(at::kDouble)) + 2 * world.rank()) * factor;
    EXPECT_TRUE(x.grad().equal(expected));
}

INSTANTIATE_TEST_SUITE_P(Backends, CommunicatorTest, testing::Values("mpi", "nccl"),
                         [](const auto& backend) { return backend.param; });

}  // namespace
}  // namespace astroclip::comm
