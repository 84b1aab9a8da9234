#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "config/options.hpp"
#include "core/random.hpp"

namespace astroclip::data {

// AstroDINO's multi-crop transform. The probabilities are those with which the published code in effect
// applies blur and (independently) noise; its configuration writes 1.0, 0.1 and 0.5, which its class inverts.
struct MultiCropConfig {
    int global_size = 144;  // pixels
    int local_size = 60;    // pixels
    int local_crops = 8;
    int crop_within = 0;  // pixels; side of the image's centre that crops lie in; 0: the whole image
    bool rotate = false;  // each crop's image by an angle of its own, before it is cut; not published
    double first_global_probability = 0.0;
    double second_global_probability = 0.9;
    double local_probability = 0.5;
    std::string rgb = "asinh";
    bool fluxes = true;  // false: display images, without the steps that are meant for fluxes (noise and rgb)
};
void bind(config::Section options, MultiCropConfig& config);  // all but fluxes

// The crops of a batch of b images, crop by crop: row v·b + i is view v of image i.
struct ImageViews {
    at::Tensor global;  // [2b, 3, global_size, global_size], first all crops A, then all crops B
    at::Tensor local;   // [local_crops·b, 3, local_size, local_size]
};

// Every random draw is a function of (seed, epoch, object id, view) alone. Per crop: with `rotate` a rotation
// by 0 to 360° about the image's centre (bilinear; what lies outside of the image is 0), random crop of the
// image or its centre at native resolution, flips with probability ½ each, blur, noise, RGB.
//
//   flux        [b, 3, H, W] float32, nanomaggy, bands g, r, z; H, W >= global_size, local_size, crop_within;
//               crop_within is 0 or no less than the crops
//   object_ids  b ids
ImageViews multi_crop(const at::Tensor& flux, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                      std::uint32_t epoch, const MultiCropConfig& config = {});

// The view without random draws, for alignment, embedding and evaluation.
struct CentreViewConfig {
    int crop = 144;                   // pixels
    std::string rgb = "asinh";        // asinh, stein or none
    std::string image_norm = "none";  // none or imagenet
};
void bind(config::Section options, CentreViewConfig& config);

// As strings in a model's metadata, and back; what is absent there keeps the value of `absent`.
std::map<std::string, std::string> describe(const CentreViewConfig& config);
CentreViewConfig centre_view_config(const std::map<std::string, std::string>& metadata,
                                    const std::string& prefix, CentreViewConfig absent);

// Fluxes [b, 3, H, W] in nanomaggy -> RGB -> centre crop -> [b, 3, crop, crop].
at::Tensor centre_view(const at::Tensor& flux, const CentreViewConfig& config = {});

// Each image turned over along its rows and along its columns with probability ½ each, a function of (seed,
// epoch, object id) alone: [b, C, H, W] -> the same shape.
at::Tensor random_flips(const at::Tensor& image, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                        std::uint32_t epoch);

// What the supervised baseline sees in training: turned over along columns and rows with probability ½ each,
// then blurred by three pixels, sigma uniform between 0.1 and 2 pixels. [b, C, H, W] -> the same shape.
//
//   draws  a stream an image, or one for the whole batch
at::Tensor flip_and_blur(const at::Tensor& image, std::vector<Random> draws);

}  // namespace astroclip::data
