#include "data/physical_views.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.hpp"
#include "data/image_augmentation.hpp"
#include "support/deterministic_fill.hpp"

namespace astroclip::data {
namespace {

const std::vector<std::int64_t> ids{11, 12, 13, 14};

at::Tensor galaxies() { return test::fill_tensor(1, {4, 3, 60, 60}).abs(); }

PhysicalViewConfig small() { return {.crop = 32, .jitter = 5}; }

at::Tensor view_of(const std::string& augmentations, std::int64_t number = 0, std::uint32_t epoch = 0,
                   const PhysicalViewConfig& config = small())
{
    return physical_view(galaxies(), ids, 3, epoch, number, augmentations, config);
}

TEST(PhysicalView, HasThePublishedSizeAndRange)
{
    const auto view =
        physical_view(test::fill_tensor(1, {2, 3, 152, 152}), {ids.data(), 2}, 1, 0, 0, "grrrssgbjcgnrg", {});
    EXPECT_EQ(view.sizes(), at::IntArrayRef({2, 3, 96, 96}));
    EXPECT_GE(view.min().item<double>(), 0);
    EXPECT_LE(view.max().item<double>(), 1);
}

TEST(PhysicalView, IsAFunctionOfSeedEpochObjectAndViewAlone)
{
    const auto all = view_of("grrrssgbjcgnrg");
    EXPECT_TRUE(all.equal(view_of("grrrssgbjcgnrg")));
    EXPECT_FALSE(all.equal(view_of("grrrssgbjcgnrg", 1)));
    EXPECT_FALSE(all.equal(view_of("grrrssgbjcgnrg", 0, 1)));
    const std::vector<std::int64_t> last{ids[3]};
    const auto alone = physical_view(galaxies().narrow(0, 3, 1), last, 3, 0, 0, "grrrssgbjcgnrg", small());
    EXPECT_TRUE(alone[0].allclose(all[3], 1e-4, 1e-5));  // other sizes of matrices round otherwise
}

TEST(PhysicalView, DrawsOfOneAugmentationDoNotDependOnTheOthers)
{
    // The shift of the crop is the same with and without dust before it.
    const auto dusty = view_of("grjc"), plain = view_of("jc");
    const auto ratio = (dusty / plain).flatten(2);
    EXPECT_TRUE(ratio.allclose(ratio.select(2, 0).unsqueeze(2).expand(ratio.sizes()), 1e-4));
    EXPECT_FALSE(dusty.allclose(plain, 1e-2));
}

TEST(PhysicalView, WithoutDrawsIsTheCentre)
{
    EXPECT_TRUE(view_of("cc").equal(centre_crop(galaxies(), 32)));
    auto still = small();
    still.jitter = 0;
    EXPECT_TRUE(view_of("jc", 0, 0, still).equal(centre_crop(galaxies(), 32)));
    still.min_scale = still.max_scale = 1;
    EXPECT_TRUE(view_of("ssjc", 0, 0, still).allclose(centre_crop(galaxies(), 32), 1e-4, 1e-5));
    EXPECT_TRUE(view_of("ccrg").allclose(to_rgb(centre_crop(galaxies(), 32), Rgb::stein)));
}

TEST(PhysicalView, ReddensByMagnitudesAndNeverTowardsTheBlueOfTheBands)
{
    const auto ratio = (view_of("grcc") / view_of("cc")).select(2, 0).select(2, 0);  // [4, 3] of g, r, z
    // More dust takes more of g than of z, less dust gives back more of it.
    const auto logs = ratio.log();
    EXPECT_TRUE((logs.select(1, 0).abs() > logs.select(1, 2).abs()).all().item<bool>());
    EXPECT_TRUE((logs.select(1, 0) / logs.select(1, 2)).allclose(at::full({4}, 1.2856 / 0.4844), 1e-3));
}

TEST(PhysicalView, NamesWhatIsWrongWithAnOrder)
{
    EXPECT_EQ(augmentation_codes("grjcrg"), (std::vector<std::string>{"gr", "jc", "rg"}));
    for (const auto* wrong : {"grxxjc", "jcr", "grrg", "jccc", ""}) {
        EXPECT_THROW(augmentation_codes(wrong), ConfigError) << wrong;
    }
    auto large = small();
    large.crop = 55;
    EXPECT_THROW(view_of("jc", 0, 0, large), DataError);
    EXPECT_NO_THROW(view_of("cc", 0, 0, large));
}

TEST(PhysicalView, OfDisplayImagesLeavesOutWhatIsMeantForFluxes)
{
    EXPECT_EQ(without_flux_steps("grrrssgbjcgnrg"), "rrssgbjc");
    EXPECT_EQ(without_flux_steps("ccrg"), "cc");
}

TEST(Rescale, OfAPlaneIsThePlaneWithAnotherSlope)
{
    const auto plane = (at::arange(41, at::kDouble) - 20).expand({1, 1, 41, 41});
    const auto scale = at::tensor({1.0, 61.0 / 41.0}, at::kDouble).unsqueeze(0);
    const auto wide = rescale(plane, scale);
    // Around the centre, which stays: a step of a pixel is a step of 41/61 of one.
    EXPECT_NEAR(wide[0][0][5][20].item<double>(), 0, 1e-9);
    EXPECT_NEAR(wide[0][0][5][30].item<double>(), 10 * 41.0 / 61.0, 1e-9);
    EXPECT_EQ(rescale(plane, scale, {41, 61}).size(3), 61);
}

}  // namespace
}  // namespace astroclip::data
