// 64 pairs on W ranks against 64 pairs on one: the loss of the task and every gradient that it gives.
#include <gtest/gtest.h>

#include <cmath>

#include "ssl/tiny_alignment.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

constexpr std::int64_t pairs = 64;

class AlignmentOfRanks : public test::TinyAlignment {
protected:
    AlignmentOfRanks() : TinyAlignment(108)  // of which some 78 train
    {
        config_.batch_size = pairs;
        config_.image_encoder_rate = config_.spectrum_encoder_rate = 0.1;  // all the way into the encoders
        config_.loss.learn_scale = true;
        config_.loss.tile = 7;  // no divisor of a rank's pairs
    }
    struct First {
        double loss = 0;
        std::map<std::string, at::Tensor> gradients;
    };
    // Of the first step, averaged over the ranks.
    First first(test::Ranks& ranks, const std::string& gather) const
    {
        auto config = config_;
        config.loss.gather = gather;
        ClipTask trained{config, model(), image_, test::tiny_specformer, *galaxies_, ranks, 5};
        train::Step step(trained, {.clip_norm = 0, .bucket_bytes = 1 << 12}, ranks);
        trained.seek(0);
        trained.fetch();
        First result;
        result.loss =
            ranks.mean(at::scalar_tensor(step.gradient(trained, 0).loss, at::kDouble)).item<double>();
        for (const auto& parameter : step.parameters()) {
            result.gradients[parameter.name] = parameter.tensor.grad().clone();
        }
        return result;
    }
    // Rounding of sums in another order, in float32 and in float64.
    const std::map<at::ScalarType, double> tolerances_{{at::kFloat, 1e-5}, {at::kDouble, 1e-10}};
};

TEST_F(AlignmentOfRanks, HasTheLossAndTheGradientsOfOneRankWithEveryGatherThatPromisesIt)
{
    auto alone = test::this_rank_alone();
    for (const auto& [type, tolerance] : tolerances_) {
        type_ = type;
        const auto whole = first(alone, "grad");
        ASSERT_GT(whole.gradients.size(), 60u);
        for (const std::string gather : {"grad", "full"}) {
            const auto ours = first(ranks_, gather);
            EXPECT_NEAR(ours.loss / whole.loss, 1, tolerance) << gather;
            for (const auto& [name, gradient] : whole.gradients) {
                EXPECT_EQ(gradient.scalar_type(), type) << name;
                EXPECT_LT(test::relative_difference(ours.gradients.at(name), gradient), tolerance)
                    << gather << " " << name;
            }
        }
    }
}

// As published: its own pairs are all that a rank knows.
TEST_F(AlignmentOfRanks, WithoutGatheringHasTheLossOfFewerNegativesAndOtherGradients)
{
    type_ = at::kDouble;
    auto alone = test::this_rank_alone();
    const auto whole = first(alone, "grad"), local = first(ranks_, "none");
    const auto& name = "spectrum_encoder.cross_attention.query";
    if (ranks_.size() == 1) {
        EXPECT_NEAR(local.loss / whole.loss, 1, 1e-10);
        return;
    }
    // Of networks that know nothing yet the loss is about the logarithm of the number of pairs.
    EXPECT_NEAR(whole.loss - local.loss, std::log(ranks_.size()), 0.3);
    EXPECT_GT(test::relative_difference(local.gradients.at(name), whole.gradients.at(name)), 0.1);
}

}  // namespace
}  // namespace astroclip::ssl
