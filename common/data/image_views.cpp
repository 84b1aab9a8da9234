#include "data/image_views.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "core/error.hpp"
#include "core/random.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_draws.hpp"

namespace astroclip::data {

using config::at_least;
using config::between;

void bind(config::Section options, MultiCropConfig& config)
{
    options.option("global-crop", config.global_size, "side of the two global crops [pixel]", at_least(1))
        .option("local-crop", config.local_size, "side of the local crops [pixel]", at_least(1))
        .option("local-crops", config.local_crops, "local crops of an image", at_least(0))
        .option("crop-within", config.crop_within,
                "side of the image's centre that all crops lie in; 0: the whole image [pixel]", at_least(0))
        .option("rotate", config.rotate,
                "each crop's image is turned by any angle before it is cut; 0 outside of it")
        .option("first-global-probability", config.first_global_probability,
                "probability of blur, and of noise, on the first global crop", between(0, 1))
        .option("second-global-probability", config.second_global_probability,
                "probability of blur, and of noise, on the second global crop", between(0, 1))
        .option("local-probability", config.local_probability,
                "probability of blur, and of noise, on a local crop", between(0, 1))
        .option("rgb", config.rgb, "how fluxes become colours", config::one_of({"asinh", "stein", "none"}));
}

void bind(config::Section options, CentreViewConfig& config)
{
    options.option("crop", config.crop, "side of the centre crop [pixel]", at_least(1))
        .option("rgb", config.rgb, "how fluxes become colours", config::one_of({"asinh", "stein", "none"}))
        .option("image-norm", config.image_norm, "normalisation after rgb",
                config::one_of({"none", "imagenet"}));
}

namespace {

// What one view of a batch draws. Sigmas are 0 where blur or noise is not applied.
struct ViewDraws {
    CropDraws crop;
    at::Tensor blur_sigma;   // [b, 3] pixels
    at::Tensor noise_sigma;  // [b, 3] nanomaggy
    at::Tensor turns;        // [b] of a full turn
};

std::string view_name(std::int64_t view) { return fmt::format("image-view-{}", view); }

ViewDraws draw_view(std::span<const std::int64_t> object_ids, at::IntArrayRef image, std::int64_t size,
                    double probability, std::uint64_t seed, std::uint32_t epoch, std::int64_t view)
{
    const auto count = static_cast<std::int64_t>(object_ids.size());
    const auto geometry = at::empty({4, count}, at::kLong);
    ViewDraws draws{{geometry[0], geometry[1], geometry[2], geometry[3]},
                    at::empty({count, 3}),
                    at::empty({count, 3}),
                    at::empty({count})};
    auto* corner = geometry.data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < count; ++i) {
        Random random(seed, view_name(view), epoch, static_cast<std::uint64_t>(object_ids[i]));
        corner[i] = static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(image[2] - size + 1)));
        corner[count + i] =
            static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(image[3] - size + 1)));
        corner[3 * count + i] = random.uniform() < 0.5;
        corner[2 * count + i] = random.uniform() < 0.5;
        const bool blur = random.uniform() < probability;
        const bool noise = random.uniform() < probability;
        // Drawn whether they are applied or not, so that what follows does not depend on it.
        const auto blur_sigma = draw_widening(random, psf_sigma_pixels, false);
        const auto noise_sigma = draw_widening(random, noise_sigma_nanomaggy, false);
        for (std::int64_t band = 0; band < 3; ++band) {
            draws.blur_sigma.data_ptr<float>()[3 * i + band] = blur ? blur_sigma[band] : 0.0f;
            draws.noise_sigma.data_ptr<float>()[3 * i + band] = noise ? noise_sigma[band] : 0.0f;
        }
        draws.turns.data_ptr<float>()[i] = static_cast<float>(random.uniform());
    }
    return draws;
}

// Images turned about their centre, of which `within` pixels a side are kept (0: all).
at::Tensor turned_centre(const at::Tensor& images, const at::Tensor& turns, std::int64_t within)
{
    if (within == 0) return rotate(images, turns);
    // What of an image may come to lie in it. Even margins keep the middle where centre_crop has it.
    const auto around = within + 4 * (within / 8 + 1);
    auto side = std::min({around, images.size(2), images.size(3)});
    side -= (side - within) % 2;
    return centre_crop(rotate(centre_crop(images, side).contiguous(), turns), within);
}

at::Tensor make_view(const at::Tensor& images, std::span<const std::int64_t> object_ids, std::int64_t size,
                     double probability, std::uint64_t seed, std::uint32_t epoch, std::int64_t view,
                     const MultiCropConfig& config)
{
    const auto centre = config.crop_within > 0 ? centre_crop(images, config.crop_within) : images;
    const auto draws = draw_view(object_ids, centre.sizes(), size, probability, seed, epoch, view);
    const auto from = config.rotate ? turned_centre(images, draws.turns, config.crop_within) : centre;
    const auto crops = gaussian_blur(crop_and_flip(from, draws.crop, size), draws.blur_sigma);
    if (!config.fluxes) return crops;
    return to_rgb(with_noise(crops, draws.noise_sigma, object_ids, seed, view_name(view) + "-noise", epoch),
                  rgb_from_name(config.rgb));
}

void require_pixels(const at::Tensor& flux, std::int64_t size)
{
    if (flux.size(2) < size || flux.size(3) < size) {
        throw DataError("image", fmt::format("{}x{} pixels, at least {}x{} expected", flux.size(2),
                                             flux.size(3), size, size));
    }
}

}  // namespace

ImageViews multi_crop(const at::Tensor& flux, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                      std::uint32_t epoch, const MultiCropConfig& config)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    require_pixels(flux, std::max({config.global_size, config.local_size, config.crop_within}));
    const auto global = [&](double probability, std::int64_t view) {
        return make_view(flux, object_ids, config.global_size, probability, seed, epoch, view, config);
    };
    ImageViews views;
    views.global =
        at::cat({global(config.first_global_probability, 0), global(config.second_global_probability, 1)});
    std::vector<at::Tensor> local;
    for (std::int64_t crop = 0; crop < config.local_crops; ++crop) {
        local.push_back(make_view(flux, object_ids, config.local_size, config.local_probability, seed, epoch,
                                  2 + crop, config));
    }
    views.local = local.empty() ? flux.new_empty({0, flux.size(1), config.local_size, config.local_size})
                                : at::cat(local);
    return views;
}

at::Tensor random_flips(const at::Tensor& image, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                        std::uint32_t epoch)
{
    const auto draws = at::empty({2, static_cast<std::int64_t>(object_ids.size()), 1, 1, 1}, at::kBool);
    auto* flip = draws.data_ptr<bool>();
    for (std::size_t i = 0; i < object_ids.size(); ++i) {
        Random random(seed, "image-flips", epoch, static_cast<std::uint64_t>(object_ids[i]));
        flip[i] = random.uniform() < 0.5;
        flip[object_ids.size() + i] = random.uniform() < 0.5;
    }
    const auto where = draws.to(image.device());
    const auto turned = at::where(where[0], image.flip({2}), image);
    return at::where(where[1], turned.flip({3}), turned);
}

at::Tensor flip_and_blur(const at::Tensor& image, std::vector<Random> draws)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto count = static_cast<std::int64_t>(draws.size());
    const auto flips = at::empty({2, count, 1, 1, 1}, at::kBool);
    const auto sigma = at::empty({count}, at::kDouble);
    for (std::int64_t i = 0; i < count; ++i) {
        auto& random = draws[static_cast<std::size_t>(i)];
        for (const auto axis : {0, 1}) flips.data_ptr<bool>()[axis * count + i] = random.uniform() < 0.5;
        sigma.data_ptr<double>()[i] = random.uniform(0.1, 2.0);
    }
    const auto where = flips.to(image.device());
    const auto mirrored = at::where(where[0], image.flip({3}), image);
    return blur_by_three(at::where(where[1], mirrored.flip({2}), mirrored), sigma);
}

at::Tensor centre_view(const at::Tensor& flux, const CentreViewConfig& config)
{
    const auto cropped = centre_crop(to_rgb(flux, rgb_from_name(config.rgb)), config.crop);
    if (config.image_norm == "imagenet") {
        return imagenet_normalise(cropped);
    }
    if (config.image_norm != "none") {
        throw ConfigError(fmt::format("image-norm = {}: none or imagenet expected", config.image_norm));
    }
    return cropped.contiguous();
}

std::map<std::string, std::string> describe(const CentreViewConfig& config)
{
    return {{"crop", std::to_string(config.crop)}, {"rgb", config.rgb}, {"image_norm", config.image_norm}};
}

CentreViewConfig centre_view_config(const std::map<std::string, std::string>& metadata,
                                    const std::string& prefix, CentreViewConfig absent)
{
    const auto text = [&](const char* key, const std::string& otherwise) {
        const auto found = metadata.find(prefix + key);
        return found == metadata.end() ? otherwise : found->second;
    };
    CentreViewConfig config;
    config.rgb = text("rgb", absent.rgb);
    config.image_norm = text("image_norm", absent.image_norm);
    const auto crop = text("crop", std::to_string(absent.crop));
    if (std::from_chars(crop.data(), crop.data() + crop.size(), config.crop).ptr !=
        crop.data() + crop.size()) {
        throw DataError("model",
                        fmt::format("metadata '{}crop' = '{}' is not a number of pixels", prefix, crop));
    }
    return config;
}

}  // namespace astroclip::data
