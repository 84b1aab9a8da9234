#include "ssl/masked_spectrum_loss.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

struct Batch {
    at::Tensor prediction, target, masked;
};

// Four spectra of which each hides another number of tokens.
Batch uneven_batch()
{
    Batch batch{test::fill_tensor(1, {4, 12, 22}), test::fill_tensor(2, {4, 12, 22}), {}};
    batch.masked = batch.target.clone();
    for (std::int64_t i = 0; i < 4; ++i) {
        batch.masked[i].narrow(0, i, 2 * i + 1).zero_();
    }
    return batch;
}

TEST(MaskedSpectrumLoss, EqualsThePublishedLoss)
{
    const auto reference = test::read_reference(TEST_DATA "/data/spectrum_tokens.safetensors");
    const auto alone = test::this_rank_alone();
    for (const std::string name : {"main", "exact"}) {
        const auto target = reference.at(name + "/out/preprocessed");
        const auto sums = masked_sums(reference.at(name + "/out/reconstructions_masked"), target,
                                      reference.at(name + "/out/masked_input"));
        const auto expected = reference.at(name + "/out/loss").item<double>();
        EXPECT_NEAR(masked_spectrum_loss(alone, sums).loss, expected, 1e-5 * expected) << name;
        const auto fraction = reference.at(name + "/out/mask_fraction").item<double>();
        EXPECT_NEAR(sums.count.item<double>() / static_cast<double>(target.numel()), fraction, 1e-6) << name;
    }
}

TEST(MaskedSpectrumLoss, IsOneRatioOverTheGlobalBatchOnAnyNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto batch = uneven_batch();
    const auto hidden = (batch.masked != batch.target).to(at::kFloat);
    const auto whole = batch.prediction.clone().requires_grad_();
    const auto expected = ((whole - batch.target) * hidden).square().sum() / hidden.sum();
    expected.backward();

    const auto own = ranks.share(batch.prediction).clone().requires_grad_();
    const auto result =
        masked_spectrum_loss(ranks, masked_sums(own, ranks.share(batch.target), ranks.share(batch.masked)));
    result.share.backward();
    EXPECT_NEAR(result.loss, expected.item<double>(), 1e-5);
    EXPECT_EQ(result.count, hidden.sum().item<double>());
    EXPECT_NEAR(ranks.mean(result.share).item<double>(), expected.item<double>(), 1e-5);
    EXPECT_TRUE((own.grad() / ranks.size()).allclose(ranks.share(whole.grad()), 1e-5, 1e-8));
}

TEST(MaskedSpectrumLoss, CanBeTheMeanOfTheRanksOwnRatios)
{
    const auto ranks = test::all_ranks();
    const auto batch = uneven_batch();
    auto whole = batch.prediction.clone().requires_grad_();
    auto expected = at::zeros({});
    for (int rank = 0; rank < ranks.size(); ++rank) {
        const auto rows = 4 / ranks.size();
        const auto of = [&](const at::Tensor& all) { return all.narrow(0, rank * rows, rows); };
        const auto hidden = (of(batch.masked) != of(batch.target)).to(at::kFloat);
        expected = expected + ((of(whole) - of(batch.target)) * hidden).square().sum() / hidden.sum();
    }
    expected = expected / ranks.size();
    expected.backward();

    const auto own = ranks.share(batch.prediction).clone().requires_grad_();
    const auto result = masked_spectrum_loss(
        ranks, masked_sums(own, ranks.share(batch.target), ranks.share(batch.masked)), MaskedRatio::rank);
    result.share.backward();
    EXPECT_NEAR(result.loss, expected.item<double>(), 1e-5);
    EXPECT_TRUE((own.grad() / ranks.size()).allclose(ranks.share(whole.grad()), 1e-5, 1e-8));
}

TEST(MaskedSpectrumLoss, WeighsTheElementsThatCount)
{
    const auto batch = uneven_batch();
    const auto weight = at::rand({4, 12, 22});
    const auto hidden = (batch.masked != batch.target).to(at::kFloat) * weight;
    const auto expected = ((batch.prediction - batch.target).square() * hidden).sum() / hidden.sum();
    const auto sums = masked_sums(batch.prediction, batch.target, batch.masked, weight);
    EXPECT_NEAR(masked_spectrum_loss(test::this_rank_alone(), sums).loss, expected.item<double>(), 1e-5);
}

TEST(MaskedSpectrumLoss, OfZeroSpectraIsZeroWithoutGradient)
{
    const auto ranks = test::all_ranks();
    const auto zeros = at::zeros({2, 12, 22});
    const auto prediction = at::ones({2, 12, 22}).requires_grad_();
    const auto result = masked_spectrum_loss(ranks, masked_sums(prediction, zeros, zeros));
    result.share.backward();
    EXPECT_EQ(result.loss, 0.0);
    EXPECT_EQ(result.count, 0.0);
    EXPECT_TRUE(prediction.grad().eq(0).all().item<bool>());
}

}  // namespace
}  // namespace astroclip::ssl
