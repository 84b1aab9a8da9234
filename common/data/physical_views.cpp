#include "data/physical_views.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "core/error.hpp"
#include "core/random.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_draws.hpp"

namespace astroclip::data {

void bind(config::Section options, PhysicalViewConfig& config)
{
    using config::at_least;
    options
        .option(
            "augmentations", config.augmentations,
            "moco: of a view, in order: gr dust, rr rotation, ss size, gb blur, jc shifted crop, cc centre "
            "crop, gn noise, rg colours")
        .option("validation-augmentations", config.validation, "moco: the same for validation")
        .option("view-crop", config.crop, "moco: side of a view (pixels)", at_least(1))
        .option("jitter", config.jitter, "moco: largest shift of a view from the centre (pixels)",
                at_least(0))
        .option("min-scale", config.min_scale, "moco: smallest factor of ss", at_least(0.01))
        .option("max-scale", config.max_scale, "moco: largest factor of ss", at_least(0.01))
        .option("scale-one-axis", config.scale_one_axis,
                "moco: ss scales columns alone, as the released code does")
        .option("view-rgb", config.rgb, "moco: how rg makes colours of fluxes",
                config::one_of({"asinh", "stein", "none"}))
        .option("uniform-draws", config.uniform_draws,
                "moco: new dust, blur and noise are drawn uniformly, as trained; false: from lognormals");
}

std::vector<std::string> augmentation_codes(const std::string& augmentations)
{
    const std::vector<std::string> known{"gr", "rr", "ss", "gb", "jc", "cc", "gn", "rg"};
    std::vector<std::string> codes;
    int crops = 0;
    for (std::size_t i = 0; i < augmentations.size(); i += 2) {
        codes.push_back(augmentations.substr(i, 2));
        if (std::find(known.begin(), known.end(), codes.back()) == known.end()) {
            throw ConfigError(fmt::format("augmentations '{}': '{}' is not one of {}", augmentations,
                                          codes.back(), fmt::join(known, " ")));
        }
        crops += codes.back() == "jc" || codes.back() == "cc";
    }
    if (crops != 1) {
        throw ConfigError(fmt::format("augmentations '{}': {} crops, exactly one of jc and cc expected",
                                      augmentations, crops));
    }
    return codes;
}

std::string without_flux_steps(const std::string& augmentations)
{
    std::string rest;
    for (const auto& code : augmentation_codes(augmentations)) {
        if (code != "gr" && code != "gn" && code != "rg") rest += code;
    }
    return rest;
}

namespace {

// What one view of a batch draws, on the CPU.
struct Draws {
    at::Tensor ebv;                      // [b, 2] old and new, mag
    at::Tensor flips, shift;             // [b, 2] int64, of rows and columns
    at::Tensor turn, scale;              // [b] of a full turn, factor
    at::Tensor blur_sigma, noise_sigma;  // [b, 3] pixels, nanomaggy

    explicit Draws(std::int64_t count)
        : ebv(at::empty({count, 2})),
          flips(at::empty({count, 2}, at::kLong)),
          shift(at::empty({count, 2}, at::kLong)),
          turn(at::empty({count})),
          scale(at::empty({count})),
          blur_sigma(at::empty({count, 3})),
          noise_sigma(at::empty({count, 3}))
    {
    }
};

double draw_ebv(Random& random) { return ebv_scale * std::exp(ebv_shape * random.normal()) + ebv_loc; }

template <typename T, std::size_t N>
void put(const at::Tensor& table, std::int64_t row, const std::array<T, N>& values)
{
    std::copy(values.begin(), values.end(), table.data_ptr<T>() + row * std::int64_t(N));
}

void draw_object(Draws& draws, std::int64_t i, Random& random, const PhysicalViewConfig& config)
{
    const double old_ebv = draw_ebv(random);
    const double new_ebv = config.uniform_draws ? random.uniform() : draw_ebv(random);
    put<float, 2>(draws.ebv, i, {float(old_ebv), float(new_ebv)});
    const std::int64_t flip_rows = random.uniform() < 0.5, flip_columns = random.uniform() < 0.5;
    put<std::int64_t, 2>(draws.flips, i, {flip_rows, flip_columns});
    draws.turn.data_ptr<float>()[i] = float(random.uniform());
    draws.scale.data_ptr<float>()[i] = float(random.uniform(config.min_scale, config.max_scale));
    put(draws.blur_sigma, i, draw_widening(random, psf_sigma_pixels, config.uniform_draws));
    const auto shift = [&] {
        return std::int64_t(random.below(std::uint64_t(2 * config.jitter + 1))) - config.jitter;
    };
    const auto down = shift(), right = shift();
    put<std::int64_t, 2>(draws.shift, i, {down, right});
    put(draws.noise_sigma, i, draw_widening(random, noise_sigma_nanomaggy, config.uniform_draws));
}

at::Tensor flipped_and_turned(const at::Tensor& image, const Draws& draws)
{
    if (image.size(2) != image.size(3)) {
        throw DataError("image",
                        fmt::format("{}x{} pixels, a square expected", image.size(2), image.size(3)));
    }
    const auto corner = at::zeros({image.size(0)}, at::kLong);
    const CropDraws whole{corner, corner, draws.flips.select(1, 0), draws.flips.select(1, 1)};
    return rotate(crop_and_flip(image, whole, image.size(2)), draws.turn);
}

at::Tensor shifted_crop(const at::Tensor& image, const at::Tensor& shift, const PhysicalViewConfig& config)
{
    const auto least = config.crop + 2 * config.jitter;
    if (image.size(2) < least || image.size(3) < least) {
        throw DataError("image",
                        fmt::format("{}x{} pixels, at least {} expected for a crop of {} that is shifted by "
                                    "up to {} pixels",
                                    image.size(2), image.size(3), least, config.crop, config.jitter));
    }
    const auto no = at::zeros({image.size(0)}, at::kLong);
    const auto corner = [&](std::int64_t axis) {
        return shift.select(1, axis) + (image.size(2 + axis) - config.crop) / 2;
    };
    return crop_and_flip(image, {corner(0), corner(1), no, no}, config.crop);
}

at::Tensor rescaled(const at::Tensor& image, const at::Tensor& scale, bool one_axis)
{
    return rescale(image, at::stack({one_axis ? at::ones_like(scale) : scale, scale}, 1));
}

}  // namespace

at::Tensor physical_view(const at::Tensor& flux, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                         std::uint32_t epoch, std::int64_t view, const std::string& augmentations,
                         const PhysicalViewConfig& config)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto purpose = fmt::format("physical-view-{}", view);
    Draws draws(static_cast<std::int64_t>(object_ids.size()));
    for (std::size_t i = 0; i < object_ids.size(); ++i) {
        Random random(seed, purpose, epoch, static_cast<std::uint64_t>(object_ids[i]));
        draw_object(draws, std::int64_t(i), random, config);
    }
    auto image = flux;
    for (const auto& code : augmentation_codes(augmentations)) {
        if (code == "gr") image = redden(image, draws.ebv.select(1, 0), draws.ebv.select(1, 1));
        if (code == "rr") image = flipped_and_turned(image, draws);
        if (code == "ss") image = rescaled(image, draws.scale, config.scale_one_axis);
        if (code == "gb") image = gaussian_blur(image, draws.blur_sigma);
        if (code == "jc") image = shifted_crop(image, draws.shift, config);
        if (code == "cc") image = centre_crop(image, config.crop).contiguous();
        if (code == "gn") {
            image = with_noise(image, draws.noise_sigma, object_ids, seed, purpose + "-noise", epoch);
        }
        if (code == "rg") image = to_rgb(image, rgb_from_name(config.rgb));
    }
    return image;
}

}  // namespace astroclip::data
