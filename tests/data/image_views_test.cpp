#include "data/image_views.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/error.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_draws.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::data {
namespace {

std::vector<std::int64_t> ids_from(std::int64_t first, std::int64_t count)
{
    std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
    std::iota(ids.begin(), ids.end(), first);
    return ids;
}

constexpr MultiCropConfig small() { return {.global_size = 24, .local_size = 10, .local_crops = 3}; }

// The pixel's number, the same in all bands: shows where a crop came from.
at::Tensor numbered(std::int64_t count, std::int64_t side)
{
    return at::arange(side * side, at::kFloat).view({1, 1, side, side}).repeat({count, 3, 1, 1});
}

TEST(MultiCrop, OfDisplayImagesHasNeitherNoiseNorColoursOfFluxes)
{
    auto config = small();
    config.fluxes = false;
    config.first_global_probability = 0;
    config.second_global_probability = config.local_probability = 1;
    const auto images = at::full({2, 3, 30, 30}, 0.25);
    const auto views = multi_crop(images, ids_from(7, 2), 1, 0, config);
    EXPECT_TRUE(views.global.allclose(at::full_like(views.global, 0.25), 1e-5));
    EXPECT_TRUE(views.local.allclose(at::full_like(views.local, 0.25), 1e-5));
}

TEST(MultiCrop, HasThePublishedSizesAndRange)
{
    const auto views = multi_crop(test::fill_tensor(1, {2, 3, 152, 152}), ids_from(7, 2), 1, 0);
    EXPECT_EQ(views.global.sizes(), at::IntArrayRef({4, 3, 144, 144}));
    EXPECT_EQ(views.local.sizes(), at::IntArrayRef({16, 3, 60, 60}));
    EXPECT_GE(views.global.min().item<double>(), 0.0);
    EXPECT_LE(views.local.max().item<double>(), 1.0);
}

TEST(MultiCrop, OfAnObjectDoesNotDependOnItsBatch)
{
    const auto flux = 0.1 * test::fill_tensor(1, {4, 3, 30, 30});
    const auto ids = ids_from(100, 4);
    auto config = small();
    config.crop_within = 26;
    config.rotate = true;
    const auto together = multi_crop(flux, ids, 5, 2, config);
    for (std::int64_t i = 0; i < 4; ++i) {
        const auto alone = multi_crop(flux.narrow(0, i, 1),
                                      std::span(ids).subspan(static_cast<std::size_t>(i), 1), 5, 2, config);
        for (std::int64_t view = 0; view < 2; ++view) {
            // Matrix products of other shapes may round differently.
            EXPECT_TRUE(together.global[view * 4 + i].allclose(alone.global[view], 1e-5, 1e-6));
        }
        for (std::int64_t view = 0; view < 3; ++view) {
            EXPECT_TRUE(together.local[view * 4 + i].allclose(alone.local[view], 1e-5, 1e-6));
        }
    }
}

TEST(MultiCrop, WithinTheCentreIsThatOfACutImage)
{
    const auto flux = 0.1 * test::fill_tensor(1, {2, 3, 40, 40});
    const auto ids = ids_from(1, 2);
    auto within = small();
    within.crop_within = 30;
    const auto views = multi_crop(flux, ids, 5, 2, within);
    const auto of_cut = multi_crop(centre_crop(flux, 30), ids, 5, 2, small());
    EXPECT_TRUE(views.global.equal(of_cut.global));
    EXPECT_TRUE(views.local.equal(of_cut.local));
    EXPECT_THROW(multi_crop(centre_crop(flux, 28), ids, 5, 2, within), DataError);
}

TEST(MultiCrop, TurnsWhatLiesAroundTheCentreIntoTheCrops)
{
    auto config = small();
    config.rgb = "none";
    config.second_global_probability = config.local_probability = 0;
    config.global_size = config.crop_within = 24;
    config.rotate = true;
    // A step across the centre, flat elsewhere: its direction tells the angle.
    auto image = at::zeros({1, 3, 48, 48});
    image.narrow(3, 24, 24).fill_(1);
    const std::int64_t count = 400;
    const auto ids = ids_from(0, count);
    const auto crops = multi_crop(image.repeat({count, 1, 1, 1}), ids, 3, 0, config).global.select(1, 0);
    const auto across = crops.narrow(2, 12, 12).mean({1, 2}) - crops.narrow(2, 0, 12).mean({1, 2});
    const auto down = crops.narrow(1, 12, 12).mean({1, 2}) - crops.narrow(1, 0, 12).mean({1, 2});
    // At an angle of tangent t, up to 45 degrees, `across` is 1 - t/2 and `down` t/2. All directions alike: a
    // quarter of them within 22.5 degrees of the rows, to five standard errors.
    const auto t = std::tan(std::acos(-1.0) / 8);
    const auto near_rows = down.abs().lt(across.abs() * (t / (2 - t))).to(at::kDouble);
    EXPECT_NEAR(near_rows.mean().item<double>(), 0.25, 5 * std::sqrt(0.25 * 0.75 / (2 * count)));
    // About the step's own middle: half of every crop is 1, to the rounding of a mean of 576 numbers.
    EXPECT_TRUE(crops.mean({1, 2}).allclose(at::full({2 * count}, 0.5), 0, 1e-4));
    // Every view by an angle of its own.
    EXPECT_GT((across.narrow(0, 0, count) - across.narrow(0, count, count)).abs().median().item<double>(),
              0.1);
    config.rotate = false;
    const auto upright = multi_crop(image, ids_from(0, 1), 3, 0, config).global.select(1, 0);
    EXPECT_TRUE(upright.select(1, 0).equal(upright.select(1, 23)));
}

TEST(MultiCrop, OfATurnedImageHasNothingFromOutsideOfIt)
{
    auto config = small();
    config.rgb = "none";
    config.second_global_probability = config.local_probability = 0;
    config.rotate = true;
    const auto ids = ids_from(0, 50);
    const auto least = [&](std::int64_t side, int within) {
        config.crop_within = within;
        return multi_crop(at::ones({50, 3, side, side}), ids, 3, 0, config).global.min().item<double>();
    };
    for (const auto within : {24, 25, 30, 31}) EXPECT_NEAR(least(60, within), 1, 1e-5) << within;
    EXPECT_EQ(least(31, 30), 0);  // its corners
    EXPECT_EQ(least(30, 0), 0);
}

TEST(MultiCrop, IsTheSameForTheSameSeedAndEpochOnly)
{
    const auto flux = 0.1 * test::fill_tensor(1, {4, 3, 30, 30});
    const auto ids = ids_from(1, 4);
    const auto views = multi_crop(flux, ids, 5, 2, small());
    EXPECT_TRUE(views.global.equal(multi_crop(flux, ids, 5, 2, small()).global));
    EXPECT_FALSE(views.global.equal(multi_crop(flux, ids, 5, 3, small()).global));
    EXPECT_FALSE(views.global.equal(multi_crop(flux, ids, 6, 2, small()).global));
}

TEST(MultiCrop, CutsAtNativeResolutionEverywhereAndFlipsHalfOfTheTime)
{
    auto config = small();
    config.second_global_probability = config.local_probability = 0.0;
    config.rgb = "none";
    const std::int64_t count = 400;
    const auto views = multi_crop(numbered(count, 30), ids_from(0, count), 3, 0, config);
    for (const auto& crops : {views.global, views.local}) {
        const auto down =
            crops.select(1, 0).select(1, 1) - crops.select(1, 0).select(1, 0);  // one row further
        const auto right =
            crops.select(1, 0).select(2, 1) - crops.select(1, 0).select(2, 0);  // one column further
        EXPECT_TRUE(down.abs().eq(30).all().item<bool>());
        EXPECT_TRUE(right.abs().eq(1).all().item<bool>());
        const auto crops_total = static_cast<double>(crops.size(0));
        const auto five_errors = 5 * 0.5 / std::sqrt(crops_total);
        EXPECT_NEAR(down.select(1, 0).eq(-30).sum().item<double>() / crops_total, 0.5, five_errors);
        EXPECT_NEAR(right.select(1, 0).eq(-1).sum().item<double>() / crops_total, 0.5, five_errors);
        // Every corner is reached, the last one included.
        EXPECT_EQ(crops.min().item<double>(), 0.0);
        EXPECT_EQ(crops.max().item<double>(), 899.0);
    }
}

TEST(MultiCrop, BlursAndAddsNoiseWithTheEffectiveProbabilities)
{
    auto config = small();
    config.rgb = "none";
    const std::int64_t count = 400;
    const auto ids = ids_from(0, count);
    // On a constant image blur changes nothing, so that what differs has noise in some band. Each band's
    // noise is widened with probability ½, so 7 of 8 crops with noise show it.
    const auto flat = multi_crop(at::ones({count, 3, 30, 30}), ids, 3, 0, config);
    const auto share = [](const at::Tensor& crops, double tolerance) {
        return crops.sub(1.0)
            .abs()
            .amax(at::IntArrayRef{1, 2, 3})
            .gt(tolerance)
            .to(at::kDouble)
            .mean()
            .item<double>();
    };
    EXPECT_EQ(share(flat.global.narrow(0, 0, count), 1e-4), 0.0);
    EXPECT_NEAR(share(flat.global.narrow(0, count, count), 1e-4), 0.9 * 0.875, 0.1);
    EXPECT_NEAR(share(flat.local, 1e-4), 0.5 * 0.875, 0.08);
}

TEST(RandomFlips, TurnHalfOfTheImagesOverEachWayAsTheirIdsSay)
{
    constexpr std::int64_t count = 2000;
    std::vector<std::int64_t> ids(count);
    std::iota(ids.begin(), ids.end(), 17);
    const auto image = at::arange(12, at::kFloat).view({1, 1, 3, 4}).expand({count, 1, 3, 4});
    const auto flipped = random_flips(image, ids, 5, 2);
    std::array<int, 4> found{};
    for (std::int64_t i = 0; i < count; ++i) {
        for (int way = 0; way < 4; ++way) {
            at::Tensor expected = image[i];
            expected = way % 2 == 1 ? expected.flip({1}) : expected;
            expected = way / 2 == 1 ? expected.flip({2}) : expected;
            found[static_cast<std::size_t>(way)] += flipped[i].equal(expected) ? 1 : 0;
        }
    }
    for (const int times : found) {
        EXPECT_NEAR(times, count / 4, 100);  // five standard deviations of a binomial distribution
    }
    EXPECT_TRUE(random_flips(image.narrow(0, 7, 1), std::span(ids).subspan(7, 1), 5, 2)[0].equal(flipped[7]));
    EXPECT_FALSE(random_flips(image, ids, 5, 3).equal(flipped));
}

TEST(FlipAndBlur, IsOneForTheBatchOrOneForEachImage)
{
    const auto images = test::fill_tensor(3, {64, 3, 12, 12});
    const auto unblurred = [](std::uint64_t object) { return Random(1, "test", 0, object); };
    std::vector<Random> each;
    for (std::uint64_t i = 0; i < 64; ++i) each.push_back(unblurred(i));
    const auto own = flip_and_blur(images, each);
    const auto together = flip_and_blur(images, {unblurred(7)});
    EXPECT_TRUE(own[7].allclose(together[7], 1e-6, 1e-6));
    EXPECT_FALSE(own[8].allclose(together[8], 1e-3, 1e-3));
    // Of an image whose halves differ, each quarter of the draws turns it each of four ways.
    auto corner = at::zeros({64, 1, 12, 12});
    corner.slice(2, 0, 6).slice(3, 0, 6).fill_(1);
    const auto turned = flip_and_blur(corner, each).flatten(1);
    std::array<int, 4> ways{};
    for (std::int64_t i = 0; i < 64; ++i) {
        const auto at = turned[i].argmax().item<std::int64_t>();
        ++ways[static_cast<std::size_t>(2 * (at / 12 > 5) + (at % 12 > 5))];
    }
    for (const auto count : ways) EXPECT_NEAR(count, 16, 11);  // three deviations of 64 draws
}

TEST(UnitNormals, HaveTheMomentsOfANormalDistribution)
{
    const auto x = unit_normals(ids_from(0, 10), {3, 50, 67}, 1, "test", 0).to(at::kDouble);
    ASSERT_EQ(x.sizes(), at::IntArrayRef({10, 3, 50, 67}));
    const auto error =
        1.0 / std::sqrt(static_cast<double>(x.numel()));  // of the mean; ×√2, √15, √96 of the others
    EXPECT_NEAR(x.mean().item<double>(), 0.0, 5 * error);
    EXPECT_NEAR(x.square().mean().item<double>(), 1.0, 5 * 1.5 * error);
    EXPECT_NEAR(x.pow(3).mean().item<double>(), 0.0, 5 * 3.9 * error);
    EXPECT_NEAR(x.pow(4).mean().item<double>(), 3.0, 5 * 9.8 * error);
    const auto rows = x.flatten(1);
    EXPECT_NEAR((rows[0] * rows[1]).mean().item<double>(), 0.0, 5 / std::sqrt(10050.0));
}

TEST(CentreView, IsRgbThenTheMiddleThenNormalised)
{
    const auto flux = test::fill_tensor(1, {2, 3, 152, 152});
    const auto view = centre_view(flux);
    EXPECT_TRUE(view.equal(to_rgb(flux).slice(2, 4, 148).slice(3, 4, 148)));
    const auto normalised = centre_view(flux, {.image_norm = "imagenet"});
    EXPECT_TRUE(normalised.select(1, 0).allclose((view.select(1, 0) - 0.485) / 0.229, 1e-5, 1e-6));
    EXPECT_TRUE(normalised.select(1, 2).allclose((view.select(1, 2) - 0.406) / 0.225, 1e-5, 1e-6));
    EXPECT_TRUE(
        centre_view(flux, {.crop = 96, .rgb = "none"}).equal(flux.slice(2, 28, 124).slice(3, 28, 124)));
    EXPECT_THROW(centre_view(flux, {.crop = 200}), DataError);
    EXPECT_THROW(centre_view(flux, {.image_norm = "max"}), ConfigError);
}

}  // namespace
}  // namespace astroclip::data
