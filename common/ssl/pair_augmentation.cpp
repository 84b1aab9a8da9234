#include "ssl/pair_augmentation.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>

#include "core/error.hpp"
#include "core/random.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_draws.hpp"
#include "data/image_views.hpp"

namespace astroclip::ssl {
namespace {

// The middle of each image, but for a random shift of up to `shift` pixels each way.
at::Tensor shifted(const at::Tensor& image, const std::vector<std::int64_t>& ids, std::int64_t shift,
                   std::int64_t crop, std::uint64_t seed, std::uint32_t step)
{
    const auto size = std::min(image.size(2), image.size(3)) - 2 * shift;
    if (size < crop) {
        throw DataError("image", fmt::format("{}x{} pixels, at least {} expected: crop = {} and shift = {}",
                                             image.size(2), image.size(3), crop + 2 * shift, crop, shift));
    }
    const auto corner = at::empty({2, static_cast<std::int64_t>(ids.size())}, at::kLong);
    auto* at = corner.data_ptr<std::int64_t>();
    for (std::size_t i = 0; i < ids.size(); ++i) {
        Random random(seed, "image-shift", step, static_cast<std::uint64_t>(ids[i]));
        for (std::size_t axis = 0; axis < 2; ++axis) {
            const auto middle = (image.size(2 + static_cast<std::int64_t>(axis)) - size) / 2;
            at[axis * ids.size() + i] =
                middle - shift +
                static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(2 * shift + 1)));
        }
    }
    const auto unflipped = at::zeros_like(corner[0]);
    return data::crop_and_flip(
        image, {.top = corner[0], .left = corner[1], .flip_rows = unflipped, .flip_columns = unflipped},
        size);
}

// Offsets of each galaxy in the bands [B, 3], mag.
at::Tensor band_offsets(const std::vector<std::int64_t>& ids, const PairAugmentation& config,
                        std::uint64_t seed, std::uint32_t step)
{
    const auto offsets = at::empty({static_cast<std::int64_t>(ids.size()), 3}, at::kDouble);
    auto* at = offsets.data_ptr<double>();
    for (const auto id : ids) {
        Random random(seed, "pair-flux", step, static_cast<std::uint64_t>(id));
        const auto common = config.brightness * random.uniform(-1, 1);
        for (int band = 0; band < 3; ++band) {
            *at++ = common + config.colour * random.uniform(-1, 1);
        }
    }
    return offsets;
}

// [3, L]: what the offset of each band adds to that of each wavelength, by Lagrange's polynomials.
at::Tensor band_shares(const at::Tensor& wavelength)
{
    constexpr std::array<double, 3> centres{4730, 6420, 9260};  // Angstrom
    std::vector<at::Tensor> shares;
    for (const auto centre : centres) {
        auto share = at::ones_like(wavelength);
        for (const auto other : centres) {
            if (other != centre) {
                share.mul_((wavelength - other) / (centre - other));
            }
        }
        shares.push_back(share);
    }
    return at::stack(shares);
}

void change_flux(data::Batch& batch, const at::Tensor& offsets)
{
    const auto factor = [](const at::Tensor& mag) { return at::pow(10, -0.4 * mag).to(at::kFloat); };
    const auto of_bins = factor(offsets.matmul(band_shares(batch.wavelength)));
    batch.images = batch.images * factor(offsets).unsqueeze(2).unsqueeze(3);
    batch.spectra = batch.spectra * of_bins;
    if (batch.ivar.defined()) {
        batch.ivar = batch.ivar / of_bins.square();
    }
}

}  // namespace

void bind(config::Section options, PairAugmentation& config)
{
    options
        .option("flips", config.flips,
                "images turned over at random: none, train, or always (in validation too, as the workshop's "
                "code)",
                config::one_of({"none", "train", "always"}))
        .option("shift", config.shift, "random shift of the images in training, each way [pixel]",
                config::at_least(0))
        .option("spectrum-noise", config.spectrum_noise,
                "noise added to spectra in training, in units of each bin's own 1/sqrt(ivar)",
                config::at_least(0))
        .option("brightness", config.brightness,
                "image and spectrum of a pair alike made brighter or fainter by up to this in training [mag]",
                config::at_least(0))
        .option("colour", config.colour,
                "and each of the bands g, r, z by up to so much more, the spectrum likewise [mag]",
                config::at_least(0));
}

data::Batch augmented(data::Batch batch, const PairAugmentation& config, std::int64_t crop,
                      std::uint64_t seed, std::uint32_t step, bool training)
{
    const auto& ids = batch.object_ids;
    if (config.flips == "always" || (config.flips == "train" && training)) {
        batch.images = data::random_flips(batch.images, ids, seed, step);
    }
    if (config.shift > 0 && training) {
        batch.images = shifted(batch.images, ids, config.shift, crop, seed, step);
    }
    if (config.changes_flux() && training) {
        change_flux(batch, band_offsets(ids, config, seed, step));
    }
    if (config.spectrum_noise > 0 && training) {
        const auto deviation = at::where(batch.ivar > 0, batch.ivar.rsqrt(), 0);
        const auto normals =
            data::unit_normals(ids, batch.spectra.sizes().slice(1), seed, "spectrum-noise", step);
        batch.spectra = batch.spectra + config.spectrum_noise * deviation * normals;
    }
    return batch;
}

}  // namespace astroclip::ssl
