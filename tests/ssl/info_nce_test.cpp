#include "ssl/info_nce.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/reference.hpp"

namespace astroclip::ssl {
namespace {

struct Pairs {
    at::Tensor image, spectrum;
};

// Loss and gradients by image and spectrum embeddings and the scale.
struct Outcome {
    at::Tensor loss, image, spectrum, scale;
};

constexpr bool tiled = true;

Outcome outcome(comm::Communicator& ranks, const Pairs& pairs, double scale_value, Gather gather,
                bool by_tiles, std::int64_t tile = 3)
{
    const auto image = pairs.image.clone().requires_grad_();
    const auto spectrum = pairs.spectrum.clone().requires_grad_();
    const auto scale = at::scalar_tensor(scale_value, image.options().requires_grad(false)).requires_grad_();
    const auto loss = by_tiles ? info_nce(ranks, image, spectrum, scale, gather, tile)
                               : info_nce_plain(ranks, image, spectrum, scale, gather);
    loss.backward();
    return {loss.detach(), image.grad(), spectrum.grad(), scale.grad()};
}

Pairs fill_pairs(std::int64_t rows, std::int64_t width, at::ScalarType type)
{
    return {test::fill_tensor(11, {rows, width}).to(type), test::fill_tensor(12, {rows, width}).to(type)};
}

void expect_equal(const Outcome& a, const Outcome& b, double tolerance)
{
    EXPECT_LT(test::relative_difference(a.loss, b.loss), tolerance);
    EXPECT_LT(test::relative_difference(a.image, b.image), tolerance);
    EXPECT_LT(test::relative_difference(a.spectrum, b.spectrum), tolerance);
    EXPECT_LT(test::relative_difference(a.scale, b.scale), tolerance);
}

// The outcome of the ranks as data-parallel training sees it: losses and gradients averaged over ranks. The
// gradient of an embedding reaches parameters on its own rank only, so that averaging divides it by the
// number of ranks.
Outcome averaged(const test::Ranks& ranks, const Outcome& own)
{
    const auto gathered = [&](const at::Tensor& x) {
        return ranks.tensors->all_gather(x.contiguous()) / ranks.size();
    };
    return {ranks.mean(own.loss), gathered(own.image), gathered(own.spectrum), ranks.mean(own.scale)};
}

TEST(InfoNce, HasTheKnownValuesAndGradients)
{
    const auto alone = test::this_rank_alone();
    const auto pairs = fill_pairs(6, 8, at::kFloat);
    for (const bool by_tiles : {tiled, !tiled}) {
        const auto result = outcome(alone, pairs, 15.5, Gather::grad, by_tiles);
        EXPECT_NEAR(result.loss.item<double>(), 4.544612, 5e-6);
        EXPECT_NEAR(result.image.norm().item<double>(), 4.292239, 5e-6);
        EXPECT_NEAR(result.spectrum.norm().item<double>(), 3.387686, 5e-6);
        EXPECT_NEAR(result.scale.item<double>(), 0.262325, 5e-6);
        EXPECT_NEAR(outcome(alone, pairs, 1.0, Gather::grad, by_tiles).loss.item<double>(), 1.719332, 2e-6);
    }
}

TEST(InfoNce, EqualsThePublishedCodeOnAnyNumberOfRanks)
{
    const auto ranks = test::all_ranks();
    const auto reference = test::read_reference(TEST_DATA "/ssl/clip_loss.safetensors");
    for (const std::string name : {"normal", "small_norm"}) {
        const Pairs pairs{ranks.share(reference.at(name + "/in/image_features")),
                          ranks.share(reference.at(name + "/in/spectrum_features"))};
        const auto result = averaged(ranks, outcome(ranks, pairs, 15.5, Gather::grad, tiled));
        EXPECT_LT(test::relative_difference(result.loss, reference.at(name + "/out/loss")), 1e-5) << name;
        EXPECT_LT(test::relative_difference(result.image, reference.at(name + "/grad/image_features")), 1e-5)
            << name;
        EXPECT_LT(test::relative_difference(result.spectrum, reference.at(name + "/grad/spectrum_features")),
                  1e-5)
            << name;
    }
}

TEST(InfoNce, WithoutGatheringIsTheMeanOfLocalLosses)
{
    const auto ranks = test::all_ranks();
    const auto reference = test::read_reference(TEST_DATA "/ssl/clip_loss.safetensors");
    if (ranks.size() == 4) {
        const Pairs pairs{ranks.share(reference.at("normal/in/image_features")),
                          ranks.share(reference.at("normal/in/spectrum_features"))};
        const auto expected = reference.at("normal/out/local_losses")[ranks.rank()].item<double>();
        const auto ours = outcome(ranks, pairs, 15.5, Gather::none, tiled).loss.item<double>();
        // The smallest of the four is 0.003: a float32 logarithm of 1.003 is good to 1e-7, absolutely.
        EXPECT_NEAR(ours, expected, 1e-6);
    }
    const auto alone = test::this_rank_alone();
    const auto pairs = fill_pairs(6, 8, at::kFloat);
    double sum = 0.0;
    for (const std::int64_t first : {0, 3}) {
        const Pairs half{pairs.image.narrow(0, first, 3), pairs.spectrum.narrow(0, first, 3)};
        sum += outcome(alone, half, 15.5, Gather::none, tiled).loss.item<double>();
    }
    EXPECT_NEAR(sum / 2, 3.752055, 5e-6);
}

// float64: to rounding of double sums; float32: to rounding of single ones.
const std::vector<std::pair<at::ScalarType, double>> precisions{{at::kDouble, 1e-10}, {at::kFloat, 1e-5}};

TEST(InfoNce, OfManyRanksEqualsThatOfOneWithItsGradients)
{
    const auto ranks = test::all_ranks();
    const auto alone = test::this_rank_alone();
    for (const auto& [type, tolerance] : precisions) {
        const auto pairs = fill_pairs(24, 10, type);
        const Pairs own{ranks.share(pairs.image), ranks.share(pairs.spectrum)};
        const auto whole = outcome(alone, pairs, 15.5, Gather::none, !tiled);
        for (const auto gather : {Gather::grad, Gather::full}) {
            for (const bool by_tiles : {tiled, !tiled}) {
                expect_equal(averaged(ranks, outcome(ranks, own, 15.5, gather, by_tiles)), whole, tolerance);
            }
        }
    }
}

// 64 pairs on 1, 2 or 4 ranks, wide enough for products of packed factors (packed_contrast.hpp).
TEST(InfoNce, OfWideEmbeddingsOfManyRanksEqualsTheExactOneOfOneRank)
{
    const auto ranks = test::all_ranks();
    const auto exact = fill_pairs(64, 256, at::kDouble);
    for (const double scale : {15.5, 80.0}) {  // 80: exponentials in float64
        const auto whole = outcome(test::this_rank_alone(), exact, scale, Gather::none, !tiled);
        for (const auto& [type, tolerance] : precisions) {
            const Pairs own{ranks.share(exact.image.to(type)), ranks.share(exact.spectrum.to(type))};
            for (const auto gather : {Gather::grad, Gather::full}) {
                expect_equal(averaged(ranks, outcome(ranks, own, scale, gather, tiled, 64)), whole,
                             tolerance);
            }
        }
    }
}

// Numbers of pairs that fill no tile, strip or vector; some rows are short, one spectrum is almost its image.
TEST(InfoNce, OfWideEmbeddingsIsExactForAnyNumberOfPairs)
{
    const auto alone = test::this_rank_alone();
    for (const std::int64_t n : {2, 7, 67, 129, 333}) {
        auto exact = fill_pairs(n, 320, at::kDouble);
        exact.image.narrow(0, n / 2, 1).mul_(1e-6);
        exact.spectrum[0].copy_(exact.image[0] + 1e-3 * exact.spectrum[0]);
        const Pairs single{exact.image.to(at::kFloat), exact.spectrum.to(at::kFloat)};
        for (const double scale : {1.0, 15.5, 100.0}) {
            const auto whole = outcome(alone, exact, scale, Gather::none, !tiled);
            for (const std::int64_t tile : {64, 192, 512}) {
                const auto ours = outcome(alone, single, scale, Gather::none, tiled, tile);
                // A logit of 100 is itself known to 1e-5 in float32.
                const double tolerance = scale > 40 ? 5e-5 : 1e-5;
                EXPECT_LT(test::relative_difference(ours.loss, whole.loss), tolerance) << n << " " << scale;
                EXPECT_LT(test::relative_difference(ours.image, whole.image), tolerance) << n << " " << scale;
                EXPECT_LT(test::relative_difference(ours.spectrum, whole.spectrum), tolerance)
                    << n << " " << scale;
            }
        }
    }
}

TEST(InfoNce, OfWideEmbeddingsIsNotANumberWhereAnEmbeddingIsNone)
{
    auto pairs = fill_pairs(70, 256, at::kFloat);
    pairs.image[3][5] = NAN;
    const auto result = outcome(test::this_rank_alone(), pairs, 15.5, Gather::none, tiled, 64);
    EXPECT_TRUE(result.loss.isnan().item<bool>());
    EXPECT_TRUE(result.spectrum.isnan().any().item<bool>());
}

// Local losses over gathered embeddings, but no gradient through the gathering (open_clip: local_loss without
// gather_with_grad): the terms in which a row is another rank's negative are missing.
TEST(InfoNce, WithoutGradientThroughTheGatheringItsGradientIsWrong)
{
    const auto ranks = test::all_ranks();
    const auto pairs = fill_pairs(8, 8, at::kDouble);
    const auto whole = outcome(test::this_rank_alone(), pairs, 15.5, Gather::none, !tiled);
    const auto rows = 8 / ranks.size();
    const auto image = ranks.share(pairs.image).clone().requires_grad_();
    const auto images = unit_rows(image), spectra = unit_rows(ranks.share(pairs.spectrum));
    const auto gathered = [&](const at::Tensor& x) {  // the own block keeps its gradient
        const auto all = ranks.tensors->all_gather(x.detach());
        const auto first = ranks.rank() * rows, after = first + rows;
        return at::cat({all.narrow(0, 0, first), x, all.narrow(0, after, all.size(0) - after)});
    };
    const auto match = at::arange(rows, at::kLong) + ranks.rank() * rows;
    const auto loss = 0.5 * (at::cross_entropy_loss(15.5 * images.matmul(gathered(spectra).t()), match) +
                             at::cross_entropy_loss(15.5 * spectra.matmul(gathered(images).t()), match));
    loss.backward();
    const auto ours = ranks.tensors->all_gather(image.grad()) / ranks.size();
    EXPECT_LT(test::relative_difference(ranks.mean(loss), whole.loss), 1e-10);
    if (ranks.size() == 1) {
        EXPECT_LT(test::relative_difference(ours, whole.image), 1e-10);
    } else {
        EXPECT_GT(test::relative_difference(ours, whole.image), 0.1);
    }
}

// Six pairs of two ranks, all made by one matrix M, the unit matrix: what data-parallel training would take
// for the gradient by M.
TEST(InfoNce, ByASharedMatrixHasTheKnownGradientAndLocalLosses)
{
    const auto ranks = test::all_ranks();
    if (ranks.size() > 2) GTEST_SKIP() << "six pairs are for two ranks";
    const auto pairs = fill_pairs(6, 8, at::kDouble);
    for (const auto gather : {Gather::grad, Gather::full}) {
        const auto m = at::eye(8, at::kDouble).requires_grad_();
        const auto loss = info_nce(ranks, ranks.share(pairs.image).matmul(m),
                                   ranks.share(pairs.spectrum).matmul(m), 15.5, gather);
        loss.backward();
        EXPECT_NEAR(ranks.mean(loss).item<double>(), 4.544612, 1e-6);
        EXPECT_NEAR(ranks.mean(m.grad()).norm().item<double>(), 7.130172, 1e-6);
        if (ranks.size() == 2 && gather == Gather::grad) {  // of a rank's own pairs among all
            EXPECT_NEAR(loss.item<double>(), ranks.rank() == 0 ? 5.036754 : 4.052469, 1e-6);
        }
    }
}

// open_clip's gathering without gradient, of the same six pairs: what was gathered is constant, and in the
// loss of all pairs a rank's own rows are put back.
TEST(InfoNce, ByASharedMatrixIsWrongWithoutGradientThroughTheGatheringAsIsKnown)
{
    const auto pairs = fill_pairs(6, 8, at::kDouble);
    const auto cross_entropy = [](const at::Tensor& a, const at::Tensor& b, std::int64_t first) {
        const auto match = at::arange(a.size(0), at::kLong) + first;
        return at::cross_entropy_loss(15.5 * a.matmul(b.t()), match);
    };
    // The mean over two simulated ranks of the gradient by M.
    const auto gradient = [&](bool local_loss, bool with_grad) {
        const auto m = at::eye(8, at::kDouble).requires_grad_();
        for (const std::int64_t first : {0, 3}) {
            const auto own = at::zeros({6, 1}, at::kBool);
            own.narrow(0, first, 3).fill_(true);
            const auto gathered = [&](const at::Tensor& all) {
                return with_grad ? all : local_loss ? all.detach() : at::where(own, all, all.detach());
            };
            const auto image = unit_rows(pairs.image.matmul(m)),
                       spectrum = unit_rows(pairs.spectrum.matmul(m));
            const auto images = gathered(image), spectra = gathered(spectrum);
            const auto loss =
                local_loss ? 0.5 * (cross_entropy(image.narrow(0, first, 3), spectra, first) +
                                    cross_entropy(spectrum.narrow(0, first, 3), images, first))
                           : 0.5 * (cross_entropy(images, spectra, 0) + cross_entropy(spectra, images, 0));
            (loss / 2).backward();
        }
        return m.grad();
    };
    const auto whole = gradient(true, true);
    EXPECT_NEAR(whole.norm().item<double>(), 7.130172, 1e-6);
    const auto length = [&](const at::Tensor& g) { return (g.norm() / whole.norm()).item<double>(); };
    const auto cosine = [&](const at::Tensor& g) {
        return ((g * whole).sum() / (g.norm() * whole.norm())).item<double>();
    };
    EXPECT_NEAR(length(gradient(false, false)), 0.5, 1e-10);
    EXPECT_NEAR(cosine(gradient(false, false)), 1, 1e-10);
    EXPECT_NEAR(length(gradient(true, false)), 0.571, 5e-4);
    EXPECT_NEAR(cosine(gradient(true, false)), 0.886, 5e-4);
    EXPECT_LT(test::relative_difference(gradient(false, true), whole), 1e-10);
}

TEST(InfoNce, InTilesEqualsThePlainFormOnEveryRank)
{
    const auto ranks = test::all_ranks();
    for (const auto& [type, tolerance] : precisions) {
        const auto pairs = fill_pairs(28, 9, type);
        const Pairs own{ranks.share(pairs.image), ranks.share(pairs.spectrum)};
        for (const double scale : {1.0, 15.5, 100.0}) {
            const auto plain = outcome(ranks, own, scale, Gather::grad, !tiled);
            for (const std::int64_t tile : {1, 5, 1000}) {
                const auto ours = outcome(ranks, own, scale, Gather::grad, tiled, tile);
                EXPECT_LT(test::relative_difference(ours.loss, plain.loss), tolerance);
                EXPECT_LT(test::relative_difference(ours.image, plain.image), tolerance);
                EXPECT_LT(test::relative_difference(ours.spectrum, plain.spectrum), tolerance);
                // The tiled form shares the work of the scale's gradient out otherwise: by rows.
                EXPECT_LT(test::relative_difference(ranks.mean(ours.scale), ranks.mean(plain.scale)),
                          tolerance);
            }
        }
    }
}

TEST(InfoNce, IsExactAlsoForPairsThatAreToldApartWell)
{
    const auto ranks = test::all_ranks();
    // Pairs along different axes, almost aligned: a loss of 1e-5 and gradients to match.
    const auto spectrum = at::eye(16) + 0.02 * test::fill_tensor(12, {16, 16});
    const auto image = at::eye(16) + 0.02 * test::fill_tensor(11, {16, 16});
    const auto exact = outcome(test::this_rank_alone(), {image.to(at::kDouble), spectrum.to(at::kDouble)},
                               15.5, Gather::none, !tiled);
    const auto ours = averaged(
        ranks, outcome(ranks, {ranks.share(image), ranks.share(spectrum)}, 15.5, Gather::grad, tiled));
    ASSERT_LT(exact.loss.item<double>(), 1e-4);
    // A loss of l is log(1 + l): in float32 its relative error is 1e-7/l.
    EXPECT_LT(test::relative_difference(ours.loss, exact.loss), 0.02);
    EXPECT_LT(test::relative_difference(ours.image, exact.image), 0.02);
}

TEST(InfoNce, OfHalfPrecisionEmbeddingsIsComputedInSingle)
{
    const auto alone = test::this_rank_alone();
    const auto pairs = fill_pairs(8, 16, at::kBFloat16);
    const auto half = outcome(alone, pairs, 15.5, Gather::grad, tiled);
    const auto single = outcome(alone, {pairs.image.to(at::kFloat), pairs.spectrum.to(at::kFloat)}, 15.5,
                                Gather::grad, tiled);
    EXPECT_EQ(half.loss.scalar_type(), at::kFloat);
    EXPECT_EQ(half.image.scalar_type(), at::kBFloat16);
    // The scale, 15.5, is exact in bfloat16; the loss is then that of the same numbers.
    EXPECT_LT(test::relative_difference(half.loss, single.loss), 1e-6);
    // And so are the gradients, but for their own rounding to 8 bits: half of the last.
    EXPECT_LT(test::relative_difference(half.image, single.image), 0x1p-8);
    EXPECT_LT(test::relative_difference(half.spectrum, single.spectrum), 0x1p-8);
}

TEST(InfoNce, KnowsItsGatherModes)
{
    EXPECT_EQ(gather_from_name("grad"), Gather::grad);
    EXPECT_THROW(gather_from_name("some"), ConfigError);
}

}  // namespace
}  // namespace astroclip::ssl
