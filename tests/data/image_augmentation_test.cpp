#include "data/image_augmentation.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "core/error.hpp"
#include "support/deterministic_fill.hpp"
#include "support/reference.hpp"

namespace astroclip::data {
namespace {

using test::relative_difference;

// Pixels of (g, r, z) in a row, as an image [3, 1, n].
at::Tensor pixels(const std::vector<std::array<float, 3>>& colours)
{
    auto image = at::empty({3, 1, static_cast<std::int64_t>(colours.size())});
    for (std::size_t i = 0; i < colours.size(); ++i) {
        for (int band = 0; band < 3; ++band) {
            image[band][0][static_cast<std::int64_t>(i)] = colours[i][static_cast<std::size_t>(band)];
        }
    }
    return image;
}

TEST(Rgb, OfAstroDinoGivesTheKnownColours)
{
    const auto flux = pixels({{0, 0, 0},
                              {0.01f, 0.02f, 0.04f},
                              {0.1f, 0.2f, 0.3f},
                              {-0.02f, 0.01f, 0.05f},
                              {-0.01f, -0.02f, -0.03f},
                              {1, 2, 3}});
    const auto expected = pixels({{0.127193f, 0.127193f, 0.127193f},
                                  {0.378034f, 0.313960f, 0.288331f},
                                  {0.752366f, 0.774174f, 0.686943f},
                                  {0.513084f, 0.234553f, 0},
                                  {0, 0, 0},
                                  {1, 1, 1}});
    EXPECT_TRUE(to_rgb(flux).allclose(expected, 0, 2e-6));
}

TEST(Rgb, OfSteinGivesTheKnownColours)
{
    const auto flux = pixels({{0, 0, 0}, {0.01f, 0.02f, 0.04f}, {0.1f, 0.2f, 0.3f}});
    const auto expected =
        pixels({{0, 0, 0}, {0.091844f, 0.069922f, 0.060961f}, {0.669813f, 0.686542f, 0.603271f}});
    EXPECT_TRUE(to_rgb(flux, Rgb::stein).allclose(expected, 0, 2e-6));
}

TEST(Rgb, AndCentreCropEqualThePublishedCode)
{
    const auto reference = test::read_reference(TEST_DATA "/data/image_rgb.safetensors");
    const auto stored = reference.at("odd/in/image_hwc").permute({2, 1, 0});  // stored as (x, y, band)
    const auto view = centre_crop(to_rgb(stored), 30);
    EXPECT_LT((view - reference.at("odd/out/image")).abs().max().item<double>(), 1e-5);

    const auto image = reference.at("stein/in/image_chw");
    const auto dr2 = to_rgb(image).permute({1, 2, 0});
    EXPECT_LT((dr2 - reference.at("stein/out/dr2_rgb")).abs().max().item<double>(), 1e-5);
    const auto trained = to_rgb(image, Rgb::stein).permute({2, 1, 0});
    EXPECT_LT((trained - reference.at("stein/out/augmentation_torgb")).abs().max().item<double>(), 1e-5);
}

TEST(Rgb, NoneKeepsNanomaggies)
{
    const auto flux = test::fill_tensor(1, {2, 3, 5, 5});
    EXPECT_TRUE(to_rgb(flux, Rgb::none).equal(flux));
    EXPECT_THROW(rgb_from_name("grey"), ConfigError);
}

TEST(CentreCrop, RoundsItsOffsetToEven)
{
    const auto offset = [](std::int64_t n, std::int64_t size) {
        return centre_crop(at::arange(n).expand({n, n}), size)[0][0].item<std::int64_t>();
    };
    EXPECT_EQ(offset(152, 144), 4);
    EXPECT_EQ(offset(41, 30), 6);  // 5.5
    EXPECT_EQ(offset(39, 30), 4);  // 4.5
    EXPECT_THROW(centre_crop(at::zeros({3, 10, 12}), 11), DataError);
}

TEST(CropAndFlip, TakesTheRightPixels)
{
    const auto image = at::arange(2 * 2 * 6 * 7, at::kFloat).view({2, 2, 6, 7});
    const auto longs = [](std::vector<std::int64_t> values) { return at::tensor(values); };
    const auto crops = crop_and_flip(image, {longs({1, 2}), longs({3, 0}), longs({0, 1}), longs({1, 0})}, 4);
    EXPECT_TRUE(crops[0].equal(image[0].slice(1, 1, 5).slice(2, 3, 7).flip(2)));
    EXPECT_TRUE(crops[1].equal(image[1].slice(1, 2, 6).slice(2, 0, 4).flip(1)));
}

TEST(GaussianBlur, EqualsThePublishedCodeAlsoBeyondTheImage)
{
    const auto reference = test::read_reference(TEST_DATA "/data/image_augment.safetensors");
    for (const std::string name : {"blur", "blur_wide"}) {
        const auto sigma =
            added_sigma(reference.at(name + "/in/sigma_true"), reference.at(name + "/in/sigma_final"));
        EXPECT_LT(relative_difference(sigma, reference.at(name + "/out/sigma_augment")), 1e-6) << name;
        const auto blurred =
            gaussian_blur(reference.at(name + "/in/image_chw").unsqueeze(0), sigma.unsqueeze(0));
        EXPECT_LT(relative_difference(blurred[0], reference.at(name + "/out/image")), 2e-5) << name;
    }
}

TEST(GaussianBlur, KeepsTheFluxOfEveryBandAndLeavesTheOthersAlone)
{
    const auto image = test::fill_tensor(3, {4, 3, 20, 31}).to(at::kDouble);
    auto sigma = 3.0 * test::fill_tensor(4, {4, 3}).to(at::kDouble).abs();
    sigma[1][2] = 0.0;
    const auto blurred = gaussian_blur(image, sigma);
    // A half-sample symmetric border loses nothing.
    EXPECT_TRUE(blurred.sum(at::IntArrayRef{2, 3}).allclose(image.sum(at::IntArrayRef{2, 3}), 0, 1e-10));
    EXPECT_TRUE(blurred[1][2].equal(image[1][2]));
    EXPECT_TRUE(gaussian_blur(image, at::zeros({4, 3})).equal(image));
}

TEST(GaussianBlur, DoesNotDependOnTheRestOfTheBatch)
{
    const auto image = test::fill_tensor(3, {90, 3, 16, 16}).to(at::kDouble);
    const auto sigma = 2.0 * test::fill_tensor(4, {90, 3}).to(at::kDouble).abs();
    const auto alone = gaussian_blur(image.narrow(0, 88, 1), sigma.narrow(0, 88, 1));
    EXPECT_TRUE(gaussian_blur(image, sigma)[88].allclose(alone[0], 0, 1e-12));
}

TEST(BlurByThree, SpreadsAPixelAsAGaussianOfThreeByThreeAndMirrorsTheBorder)
{
    auto image = at::zeros({2, 1, 5, 6});
    image.index_put_({at::tensor({0, 1}), at::tensor({0, 0}), at::tensor({2, 0}), at::tensor({3, 1})},
                     at::ones({2}));
    const auto blurred = blur_by_three(image, at::tensor({0.5, 1.0}));
    const auto weight = [](double sigma) {
        const auto beside = std::exp(-0.5 / (sigma * sigma));
        return std::array{1 / (1 + 2 * beside), beside / (1 + 2 * beside)};
    };
    const auto near = [&](std::int64_t which, std::int64_t row, std::int64_t column, double expected) {
        EXPECT_NEAR(blurred[which][0][row][column].item<float>(), expected, 1e-6);
    };
    const auto [middle, beside] = weight(0.5);
    near(0, 2, 3, middle * middle);
    near(0, 1, 3, middle * beside);
    near(0, 3, 4, beside * beside);
    near(0, 2, 5, 0);
    // The row outside is row 1, the column outside column 1 in which the pixel lies.
    const auto [centre, side] = weight(1.0);
    near(1, 0, 1, centre * centre);
    near(1, 0, 0, centre * 2 * side);
    near(1, 1, 1, side * centre);
    EXPECT_NEAR(blur_by_three(at::ones({1, 3, 8, 8}), at::tensor({2.0})).min().item<float>(), 1, 1e-6);
}

TEST(AddNoise, EqualsThePublishedCode)
{
    const auto reference = test::read_reference(TEST_DATA "/data/image_augment.safetensors");
    const auto sigma = added_sigma(reference.at("noise/in/sigma_true"), reference.at("noise/in/sigma_final"));
    const auto noisy = add_noise(reference.at("noise/in/image_chw").unsqueeze(0), sigma.unsqueeze(0),
                                 reference.at("noise/in/unit_normals").unsqueeze(0));
    EXPECT_LT(relative_difference(noisy[0], reference.at("noise/out/image")), 2e-5);
}

TEST(Steps, TogetherEqualTheCropsOfThePublishedTransform)
{
    const auto reference = test::read_reference(TEST_DATA "/data/image_augment.safetensors");
    const auto image = reference.at("dino/in/image_chw").unsqueeze(0);
    const auto sigmas = reference.at("dino/in/sigmas");
    for (std::int64_t crop = 0; crop < 3; ++crop) {
        const auto draw = reference.at("dino/in/geometry")[crop].to(at::kLong);
        const auto expected =
            crop < 2 ? reference.at("dino/out/global_crops")[crop] : reference.at("dino/out/local_crops")[0];
        const auto one = [&](int column) { return draw.narrow(0, column, 1); };
        auto view = crop_and_flip(image, {one(0), one(1), one(3), one(2)}, expected.size(1));
        if (draw[4].item<std::int64_t>() == 1) {
            view = gaussian_blur(view, added_sigma(sigmas[crop][0], sigmas[crop][1]).unsqueeze(0));
        }
        if (draw[5].item<std::int64_t>() == 1) {
            const auto normals = reference.at("dino/in/unit_normals_" + std::to_string(crop)).unsqueeze(0);
            view = add_noise(view, added_sigma(sigmas[crop][2], sigmas[crop][3]).unsqueeze(0), normals);
        }
        EXPECT_LT(relative_difference(to_rgb(view)[0], expected), 2e-5) << crop;
    }
}

TEST(Extinction, LetsThroughTheKnownFractions)
{
    const auto known = at::tensor({0.74377, 0.81922, 0.89446}, at::kFloat).unsqueeze(0);
    EXPECT_TRUE(transmission(at::tensor({0.1f}), 3).allclose(known, 0, 1e-5));
    EXPECT_THROW(transmission(at::tensor({0.1f}), 6), DataError);
}

TEST(Extinction, OfEachImageIsItsOwnAndCanBeTakenBack)
{
    const auto image = test::fill_tensor(1, {2, 3, 4, 5});
    const auto thin = at::tensor({0.02f, 0.3f}), thick = at::tensor({0.5f, 0.3f});
    const auto reddened = redden(image, thin, thick);
    EXPECT_TRUE(reddened[1].allclose(image[1]));
    const auto ratio = transmission(thick, 3)[0][1] / transmission(thin, 3)[0][1];
    EXPECT_TRUE(reddened[0][1].allclose(image[0][1] * ratio, 1e-5));
    EXPECT_TRUE(redden(reddened, thick, thin).allclose(image, 1e-5));
}

TEST(Rotation, ByQuarterTurnsMovesPixelsAlone)
{
    const auto image = test::fill_tensor(1, {4, 3, 7, 7});
    const auto rotated = rotate(image, at::tensor({0.0f, 0.25f, 0.5f, 0.75f}));
    for (std::int64_t quarters = 0; quarters < 4; ++quarters) {
        // rot90 turns the first axis towards the second: counter-clockwise with rows downwards.
        EXPECT_TRUE(rotated[quarters].allclose(at::rot90(image[quarters], quarters, {1, 2}), 0, 1e-5));
    }
}

TEST(Rotation, InterpolatesAndIsZeroOutside)
{
    const auto rotated = rotate(at::ones({1, 1, 21, 21}), at::tensor({0.125f}));
    EXPECT_EQ(rotated[0][0][0][0].item<float>(), 0);
    EXPECT_TRUE(rotated[0][0].narrow(0, 5, 11).narrow(1, 5, 11).allclose(at::ones({11, 11}), 1e-5));
    // A plane stays a plane, turned: x becomes x cos - y sin, as seen from the centre.
    const auto plane = (at::arange(21, at::kFloat) - 10).expand({1, 1, 21, 21});
    const auto turned = rotate(plane, at::tensor({0.125f}));
    EXPECT_NEAR((turned[0][0][10][13].item<double>()), 3 * std::sqrt(0.5), 1e-5);
    EXPECT_NEAR((turned[0][0][13][10].item<double>()), -3 * std::sqrt(0.5), 1e-5);
}

}  // namespace
}  // namespace astroclip::data
