#include "ssl/prototype_loss.hpp"

#include <ATen/ATen.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.hpp"
#include "ssl/dino_loss.hpp"
#include "support/deterministic_fill.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

using test::fill_tensor;
using test::relative_difference;

struct Case {
    at::Tensor features, prototypes, targets;

    // More prototypes than one piece of rows holds, so that a piece is a few rows.
    Case(std::int64_t rows, std::int64_t batch, std::int64_t count, at::ScalarType type)
        : features(fill_tensor(1, {rows, 16}).to(type).requires_grad_()),
          prototypes(fill_tensor(2, {count, 16}).to(type).requires_grad_()),
          targets(at::softmax(4 * fill_tensor(3, {batch, count}).to(type), 1))
    {
    }
    TargetRows rows() const
    {
        return [this](std::int64_t first, std::int64_t count) { return targets.narrow(0, first, count); };
    }
};

TEST(PrototypeLoss, IsThatOfTheWholeLogitsWithItsGradients)
{
    Case pieces(24, 6, 300'000, at::kDouble), whole(24, 6, 300'000, at::kDouble);
    const auto loss = prototype_cross_entropy(pieces.features, pieces.prototypes, 6, pieces.rows());
    const auto expected = dino_cross_entropy(at::linear(whole.features, whole.prototypes), whole.targets, 6);
    EXPECT_NEAR(loss.item<double>() / expected.item<double>(), 1, 1e-12);
    (3 * loss).backward();
    (3 * expected).backward();
    EXPECT_LT(relative_difference(pieces.features.grad(), whole.features.grad()), 1e-11);
    EXPECT_LT(relative_difference(pieces.prototypes.grad(), whole.prototypes.grad()), 1e-11);
}

TEST(PrototypeLoss, TakesTargetsOfAnyMass)
{
    Case pieces(5, 5, 40, at::kDouble), whole(5, 5, 40, at::kDouble);
    const auto mass = at::arange(5, at::kDouble).unsqueeze(1) / 3;
    pieces.targets *= mass;
    whole.targets *= mass;
    prototype_cross_entropy(pieces.features, pieces.prototypes, 5, pieces.rows()).backward();
    dino_cross_entropy(at::linear(whole.features, whole.prototypes), whole.targets, 5).backward();
    EXPECT_LT(relative_difference(pieces.features.grad(), whole.features.grad()), 1e-12);
}

TEST(PrototypeLoss, OfBfloat16FeaturesHasFloat32SoftmaxesAndGradientsInTheOwnTypes)
{
    Case narrow(12, 6, 512, at::kFloat), wide(12, 6, 512, at::kFloat);
    const auto loss =
        prototype_cross_entropy(narrow.features.to(at::kBFloat16), narrow.prototypes, 6, narrow.rows());
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    loss.backward();
    const auto expected = dino_cross_entropy(at::linear(wide.features, wide.prototypes), wide.targets, 6);
    expected.backward();
    // 8 bits of mantissa in the products, at logits of order 10.
    EXPECT_NEAR(loss.item<double>() / expected.item<double>(), 1, 0.02);
    EXPECT_EQ(narrow.prototypes.grad().scalar_type(), at::kFloat);
    EXPECT_LT((narrow.prototypes.grad() - wide.prototypes.grad()).norm().item<double>(),
              0.05 * wide.prototypes.grad().norm().item<double>());
}

TEST(PrototypeLoss, WithoutGradientsMakesNone)
{
    Case none(6, 6, 40, at::kDouble);
    const at::NoGradGuard no_grad;
    EXPECT_FALSE(prototype_cross_entropy(none.features.detach(), none.prototypes.detach(), 6, none.rows())
                     .requires_grad());
}

TEST(PrototypeLoss, RefusesRowsThatAreNotWholeChunks)
{
    Case uneven(5, 3, 8, at::kFloat);
    EXPECT_THROW(prototype_cross_entropy(uneven.features, uneven.prototypes, 3, uneven.rows()),
                 InternalError);
}

// The most memory that tensors of this thread held at once while it lives.
class PeakMemory : public c10::MemoryReportingInfoBase {
public:
    void reportMemoryUsage(void*, std::int64_t size, std::size_t, std::size_t, c10::Device) override
    {
        held_ += size;
        peak = std::max(peak, held_);
    }
    bool memoryProfilingEnabled() const override { return true; }
    std::int64_t peak = 0;

private:
    std::int64_t held_ = 0;
};

template <typename Work>
std::int64_t peak_of(Work work)
{
    const auto memory = std::make_shared<PeakMemory>();
    const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, memory);
    work();
    return memory->peak;
}

TEST(PrototypeLoss, HoldsLessThanHalfOfTheMemoryOfTheWholeLogits)
{
    Case pieces(384, 384, 65'536, at::kFloat), whole(384, 384, 65'536, at::kFloat);
    const auto in_pieces = peak_of(
        [&] { prototype_cross_entropy(pieces.features, pieces.prototypes, 384, pieces.rows()).backward(); });
    const auto at_once = peak_of([&] {
        dino_cross_entropy(at::linear(whole.features, whole.prototypes), whole.targets, 384).backward();
    });
    EXPECT_GT(at_once, whole.targets.nbytes());
    EXPECT_LT(in_pieces, at_once / 2);
    RecordProperty("megabytes_in_pieces", static_cast<int>(in_pieces >> 20));
    RecordProperty("megabytes_at_once", static_cast<int>(at_once >> 20));
}

}  // namespace
}  // namespace astroclip::ssl
