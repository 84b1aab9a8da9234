#include "ssl/dino_loss.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

using test::fill_tensor;
using test::relative_difference;

constexpr double tolerance = 1e-5;  // rounding of float32 sums over prototypes

TEST(DinoLoss, HasTheKnownValues)
{
    const auto alone = test::this_rank_alone();
    DinoCentre centre(16);
    centre.update(alone, fill_tensor(1, {6, 16}));
    const auto teacher = fill_tensor(2, {6, 16});
    const auto targets = centre.targets(teacher, 0.04);
    EXPECT_NEAR(dino_cross_entropy(fill_tensor(3, {6, 16}), targets, 6).item<double>(), 10.640114, 2e-5);

    const auto local = dino_cross_entropy(fill_tensor(4, {24, 16}), targets, 3).item<double>();
    EXPECT_NEAR(local, 142.131012, 2e-4);
    EXPECT_NEAR(local / 18, 7.896167, 1e-5);

    centre.update(alone, teacher);
    centre.targets(teacher, 0.04);
    const auto expected = at::tensor({-0.015133, 0.012773, -0.030805}, at::kFloat);
    EXPECT_TRUE(centre.centre()[0].narrow(0, 0, 3).allclose(expected, 0, 1e-6));
}

TEST(DinoLoss, EqualsThePublishedCodeOverTwoSteps)
{
    const auto alone = test::this_rank_alone();
    const auto reference = test::read_reference(TEST_DATA "/ssl/dino_losses.safetensors");
    DinoCentre centre(48);
    const auto start = reference.at("dino/state/center");
    centre.load_state({{"centre", start}, {"next_centre", start}});
    const auto first = reference.at("dino/in/teacher_step0");
    const auto second = reference.at("dino/in/teacher_step1");

    EXPECT_LT(relative_difference(centre.targets(first, 0.04), reference.at("dino/out/probs_step0")),
              tolerance);
    centre.update(alone, first);
    EXPECT_TRUE(centre.centre().equal(reference.at("dino/out/center_before_step1")));
    const auto targets = centre.targets(second, 0.055);
    EXPECT_LT(relative_difference(targets, reference.at("dino/out/probs_step1")), tolerance);
    EXPECT_LT(relative_difference(centre.centre(), reference.at("dino/out/center_at_step1")), tolerance);
    centre.update(alone, second);
    centre.targets(second, 0.055);
    EXPECT_LT(relative_difference(centre.centre(), reference.at("dino/out/center_after_step1")), tolerance);

    const auto student = reference.at("dino/in/student").clone().requires_grad_();
    const auto loss = dino_cross_entropy(student, targets, 3);
    loss.backward();
    EXPECT_LT(relative_difference(loss, reference.at("dino/out/loss")), tolerance);
    EXPECT_LT(relative_difference(student.grad(), reference.at("dino/grad/student")), tolerance);
}

TEST(DinoLoss, TeachesEachCropByTheOtherCropOfItsImage)
{
    const std::int64_t batch = 3, prototypes = 16;
    const auto targets = fill_tensor(1, {2 * batch, prototypes}).to(at::kDouble).softmax(1);
    const auto global = fill_tensor(2, {2 * batch, prototypes}).to(at::kDouble);
    const auto local = fill_tensor(3, {4 * batch, prototypes}).to(at::kDouble);
    const auto entropy = [&](const at::Tensor& student, std::int64_t target) {
        return -(targets.narrow(0, target * batch, batch) * (student / 0.1).log_softmax(1)).sum(1).mean();
    };
    auto expected_global =
        entropy(global.narrow(0, 0, batch), 1) + entropy(global.narrow(0, batch, batch), 0);
    auto expected_local = at::zeros({}, at::kDouble);
    for (std::int64_t crop = 0; crop < 4; ++crop) {
        expected_local += entropy(local.narrow(0, crop * batch, batch), 0) +
                          entropy(local.narrow(0, crop * batch, batch), 1);
    }
    const auto terms = dino_terms(global, local, targets);
    EXPECT_NEAR(terms.global.item<double>(), expected_global.item<double>() / 10, 1e-12);
    EXPECT_NEAR(terms.local.item<double>(), expected_local.item<double>() / 10, 1e-12);
    EXPECT_EQ(dino_terms(global, local.narrow(0, 0, 0), targets).local.item<double>(), 0.0);
}

TEST(DinoLoss, GradientInChunksEqualsThatOfTheFormula)
{
    const auto targets = fill_tensor(1, {6, 16}).to(at::kDouble).softmax(1);
    const auto student = fill_tensor(2, {12, 16}).to(at::kDouble).requires_grad_();
    const auto summed = targets.view({2, 3, 16}).sum(0);
    const auto formula = -(summed * (student / 0.1).log_softmax(1).view({4, 3, 16}).sum(0)).sum() / 3;
    formula.backward();
    const auto expected = student.grad().clone();
    student.mutable_grad().reset();
    dino_cross_entropy(student, targets, 3).backward();
    EXPECT_LT(relative_difference(student.grad(), expected), 1e-12);
}

TEST(DinoLoss, CentreAndLossDoNotDependOnTheNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    // 4 images: crops A, then crops B; a rank holds both crops of its own.
    const auto crops = [&](const at::Tensor& x) {
        return at::cat({ranks.share(x.narrow(0, 0, 4)), ranks.share(x.narrow(0, 4, 4))});
    };
    const auto teacher = fill_tensor(1, {8, 16});
    const auto student = fill_tensor(2, {8, 16});
    DinoCentre whole(16), shared(16);
    whole.update(alone, teacher);
    shared.update(ranks, crops(teacher));
    const auto expected = dino_terms(student, student.narrow(0, 0, 0), whole.targets(teacher, 0.04)).global;
    const auto own =
        dino_terms(crops(student), student.narrow(0, 0, 0), shared.targets(crops(teacher), 0.04)).global;
    EXPECT_LT(relative_difference(shared.centre(), whole.centre()), 1e-6);
    EXPECT_LT(relative_difference(ranks.mean(own), expected), tolerance);
}

// Patches: 4 images, 2 and 3 of their patches masked in images 0 and 2.
at::Tensor five_masked_patches()
{
    const auto masks = at::zeros({4, 9}, at::kBool);
    for (const auto& [image, patch] : {std::pair{0, 1}, {0, 7}, {2, 0}, {2, 3}, {2, 4}}) {
        masks[image][patch] = true;
    }
    return masks;
}

TEST(PatchLoss, HasTheKnownValue)
{
    DinoCentre centre(16);
    const auto targets = centre.targets(fill_tensor(5, {5, 16}), 0.05);
    const auto weights = masked_patch_weights(five_masked_patches());
    EXPECT_NEAR(ibot_loss(fill_tensor(6, {5, 16}), targets, weights, 4).item<double>(), 7.038374, 2e-5);
}

TEST(PatchLoss, EqualsThePublishedCode)
{
    const auto alone = test::this_rank_alone();
    const auto reference = test::read_reference(TEST_DATA "/ssl/dino_losses.safetensors");
    DinoCentre centre(48);
    const auto start = reference.at("ibot/state/center").view({1, 48});
    centre.load_state({{"centre", start}, {"next_centre", start}});
    const auto teacher = reference.at("ibot/in/teacher_masked");
    const auto targets = centre.targets(teacher, 0.055);
    EXPECT_LT(relative_difference(targets, reference.at("ibot/out/probs")), tolerance);
    centre.update(alone, group_means(teacher, {32}));
    centre.targets(teacher, 0.055);
    EXPECT_LT(relative_difference(centre.centre(), reference.at("ibot/out/center_after").view({1, 48})),
              tolerance);

    const auto masks = reference.at("ibot/in/masks").to(at::kBool);
    const auto weights = masked_patch_weights(masks);
    EXPECT_LT(relative_difference(weights, reference.at("ibot/out/masks_weight")), 1e-7);
    const auto student = reference.at("ibot/in/student_masked").clone().requires_grad_();
    const auto loss = ibot_loss(student, targets, weights, masks.size(0));
    loss.backward();
    EXPECT_LT(relative_difference(loss, reference.at("ibot/out/loss_masked")), tolerance);
    EXPECT_LT(relative_difference(student.grad(), reference.at("ibot/grad/student_masked")), tolerance);
}

TEST(PatchLoss, IsZeroWithAGradientOfZeroWithoutMaskedPatches)
{
    const auto student = at::zeros({0, 16}).requires_grad_();
    const auto loss =
        ibot_loss(student, at::zeros({0, 16}), masked_patch_weights(at::zeros({4, 9}, at::kBool)), 4);
    loss.backward();
    EXPECT_EQ(loss.item<double>(), 0);
    EXPECT_TRUE(student.grad().defined());
}

TEST(PatchLoss, CentreAndLossDoNotDependOnTheNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    // 4 groups of an image each; the rows of a group are its masked patches. Group 1 has none.
    const std::vector<std::int64_t> rows{2, 0, 3, 1};
    const auto teacher = fill_tensor(1, {6, 16}), student = fill_tensor(2, {6, 16});
    const auto weights = at::tensor({0.5, 0.5, 1 / 3.0, 1 / 3.0, 1 / 3.0, 1.0}, at::kFloat);
    const std::int64_t groups = 4 / ranks.size(), first_group = ranks.rank() * groups;
    const std::vector<std::int64_t> own(rows.begin() + first_group, rows.begin() + first_group + groups);
    const auto first = std::accumulate(rows.begin(), rows.begin() + first_group, std::int64_t{0});
    const auto count = std::accumulate(own.begin(), own.end(), std::int64_t{0});
    const auto share = [&](const at::Tensor& x) { return x.narrow(0, first, count); };

    DinoCentre whole(16), shared(16);
    whole.update(alone, group_means(teacher, rows));
    shared.update(ranks, group_means(share(teacher), own));
    const auto expected = ibot_loss(student, whole.targets(teacher, 0.05), weights, 4);
    const auto loss = ibot_loss(share(student), shared.targets(share(teacher), 0.05), share(weights), groups);
    EXPECT_LT(relative_difference(shared.centre(), whole.centre()), 1e-6);
    EXPECT_LT(relative_difference(ranks.mean(loss), expected), tolerance);
}

TEST(DinoCentre, StaysWithoutAnyRow)
{
    const auto ranks = test::all_ranks();
    DinoCentre centre(16);
    centre.update(ranks, fill_tensor(1, {6, 16}));
    const auto before = centre.targets(fill_tensor(2, {6, 16}), 0.04);
    centre.update(ranks, group_means(at::zeros({0, 16}), {0, 0}));
    EXPECT_TRUE(centre.targets(fill_tensor(2, {6, 16}), 0.04).equal(before));
}

TEST(Sinkhorn, EqualsThePublishedCode)
{
    const auto alone = test::this_rank_alone();
    const auto reference = test::read_reference(TEST_DATA "/ssl/dino_losses.safetensors");
    const auto cls = sinkhorn_targets(alone, reference.at("dino/in/teacher_step1"), 0.055);
    EXPECT_LT(relative_difference(cls, reference.at("dino/out/sinkhorn")), tolerance);
    const auto patches = sinkhorn_targets(alone, reference.at("ibot/in/teacher_masked"), 0.055);
    EXPECT_LT(relative_difference(patches, reference.at("ibot/out/sinkhorn")), tolerance);
    const auto student = reference.at("dino/in/student").clone().requires_grad_();
    const auto loss = dino_cross_entropy(student, cls, 3);
    loss.backward();
    EXPECT_LT(relative_difference(loss, reference.at("dino/out/loss_sinkhorn")), tolerance);
    EXPECT_LT(relative_difference(student.grad(), reference.at("dino/grad/student_sinkhorn")), tolerance);
}

// Ranks with one row more than others, and one without any.
TEST(Sinkhorn, BalancesOverTheRowsOfAllRanks)
{
    const auto ranks = test::all_ranks();
    const auto teacher = fill_tensor(1, {6, 16});
    const auto expected = sinkhorn_targets(test::this_rank_alone(), teacher, 0.05);
    const std::int64_t borders[3][5] = {{0, 6}, {0, 2, 6}, {0, 2, 2, 5, 6}};
    const auto* of_ranks = borders[ranks.size() / 2];
    const auto first = of_ranks[ranks.rank()], count = of_ranks[ranks.rank() + 1] - first;
    const auto own = sinkhorn_targets(ranks, teacher.narrow(0, first, count), 0.05);
    EXPECT_TRUE(own.allclose(expected.narrow(0, first, count), tolerance, 1e-9));
}

TEST(Koleo, HasTheKnownValueAndThatOfThePublishedCode)
{
    EXPECT_NEAR(koleo_loss(fill_tensor(7, {6, 8}), 6).item<double>(), -0.170269, 1e-6);
    const auto reference = test::read_reference(TEST_DATA "/ssl/dino_losses.safetensors");
    const auto x = reference.at("koleo/in/x").clone().requires_grad_();
    EXPECT_TRUE(nearest_in_group(x, 7).equal(reference.at("koleo/out/neighbour").to(at::kLong)));
    const auto loss = koleo_loss(x, 7);
    loss.backward();
    EXPECT_LT(relative_difference(loss, reference.at("koleo/out/loss")), tolerance);
    EXPECT_LT(relative_difference(x.grad(), reference.at("koleo/grad/x")), tolerance);
}

TEST(Koleo, KnowsNoNeighboursBeyondTheGroupAndSoNoRanks)
{
    const auto ranks = test::all_ranks();
    const auto x = fill_tensor(3, {12, 8});
    const auto neighbours = nearest_in_group(x, 3);
    EXPECT_TRUE(neighbours.floor_divide(3).equal(at::arange(12).floor_divide(3)));
    EXPECT_FALSE(neighbours.equal(nearest_in_group(x, 12)));
    EXPECT_LT(relative_difference(ranks.mean(koleo_loss(ranks.share(x), 3)), koleo_loss(x, 3)), tolerance);
    EXPECT_THROW(koleo_loss(x, 5), InternalError);
    EXPECT_THROW(koleo_loss(x, 1), InternalError);
}

TEST(DinoCentre, GoesOnFromItsStateWithTheUpdateThatWaits)
{
    const auto alone = test::this_rank_alone();
    DinoCentre centre(16), resumed(16);
    centre.update(alone, fill_tensor(1, {6, 16}));
    resumed.load_state(centre.state());
    const auto teacher = fill_tensor(2, {6, 16});
    EXPECT_TRUE(resumed.targets(teacher, 0.04).equal(centre.targets(teacher, 0.04)));
    EXPECT_THROW(resumed.load_state({{"centre", at::zeros({1, 16})}}), DataError);
}

}  // namespace
}  // namespace astroclip::ssl
