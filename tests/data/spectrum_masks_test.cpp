#include "data/spectrum_masks.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/error.hpp"
#include "support/reference.hpp"

namespace astroclip::data {
namespace {

TEST(SpectrumMasks, BlankTheTokensThatThePublishedCodeBlanks)
{
    const auto reference = test::read_reference(TEST_DATA "/data/spectrum_tokens.safetensors");
    for (const std::string name : {"main", "exact"}) {
        const auto masked =
            mask_tokens(reference.at(name + "/out/preprocessed"), reference.at(name + "/in/mask_starts"), 4);
        EXPECT_TRUE(masked.equal(reference.at(name + "/out/masked_input"))) << name;
    }
}

TEST(SpectrumMasks, NameTheRowsThatTheyBlank)
{
    const std::vector<std::int64_t> ids{3, 4, 5};
    const auto starts = mask_starts(ids, 60, 1, 0, {.chunks = 2, .width = 7});
    const auto masked = mask_tokens(at::ones({3, 60, 4}), starts, 7).flatten(0, 1);
    const auto rows = masked_rows(starts, 7, 60);
    ASSERT_EQ(rows.numel(), 3 * 2 * 7);
    EXPECT_EQ(masked.index_select(0, rows).sum().item<double>(), 0);
    EXPECT_EQ(masked.sum().item<double>(), 4 * (3 * 60 - rows.numel()));
}

TEST(SpectrumMasks, HideThreeHundredTokensOfADesiSpectrumOnePerChunk)
{
    std::vector<std::int64_t> ids(500);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        ids[i] = 39627000000000000 + static_cast<std::int64_t>(i);
    }
    const auto starts = mask_starts(ids, 778, 1, 0);
    const std::vector<std::int64_t> base{0, 129, 259, 389, 518, 648};
    const auto offset = starts - at::tensor(base);
    EXPECT_EQ(offset.min().item<std::int64_t>(), 0);
    EXPECT_EQ(offset.max().item<std::int64_t>(), 78);
    // Mean of a uniform draw from 0 … 78, to five standard errors of 3000 draws.
    EXPECT_NEAR(offset.to(at::kDouble).mean().item<double>(), 39.0, 5 * 22.8 / std::sqrt(3000.0));

    const auto masked = mask_tokens(at::ones({500, 778, 22}), starts, 50);
    EXPECT_TRUE(masked.eq(0).sum(at::IntArrayRef{1, 2}).eq(300 * 22).all().item<bool>());
}

TEST(SpectrumMasks, DependOnSeedEpochAndObjectAlone)
{
    const std::vector<std::int64_t> ids{5, 6, 7}, others{7, 100};
    const auto starts = mask_starts(ids, 778, 42, 3);
    EXPECT_TRUE(starts[2].equal(mask_starts(others, 778, 42, 3)[0]));
    EXPECT_FALSE(starts.equal(mask_starts(ids, 778, 42, 4)));
    EXPECT_FALSE(starts.equal(mask_starts(ids, 778, 43, 3)));
}

TEST(SpectrumMasks, OfValidationHaveNoEpoch)
{
    const std::vector<std::int64_t> ids{5, 6, 7};
    const auto starts = mask_starts(ids, 778, 42, std::nullopt);
    EXPECT_TRUE(starts.equal(mask_starts(ids, 778, 42, std::nullopt)));
    EXPECT_FALSE(starts.equal(mask_starts(ids, 778, 42, 0)));
}

TEST(SpectrumMasks, RefuseSequencesThatAreTooShort)
{
    const std::vector<std::int64_t> ids{1};
    EXPECT_THROW(mask_starts(ids, 549, 1, 0), ConfigError);
    EXPECT_NO_THROW(mask_starts(ids, 550, 1, 0));
    EXPECT_THROW(mask_starts(ids, 50, 1, 0, {.chunks = 1, .width = 50}), ConfigError);
}

}  // namespace
}  // namespace astroclip::data
