#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "config/options.hpp"

namespace astroclip::data {

// The augmentations of Stein et al. (2021), named by two letters each and applied in the order of the string:
//   gr  other Galactic dust: E(B-V) from its lognormal prior to a new draw
//   rr  flips with probability ½ each, then a rotation by 0 to 360°
//   ss  rescaling of both axes by the same factor of [min-scale, max-scale]
//   gb  blur of every band from one point-spread function to a wider one
//   jc  crop around the centre, shifted by up to ±jitter pixels
//   cc  crop around the centre
//   gn  noise of every band from one level to a higher one
//   rg  colours, by the rule `rgb`
struct PhysicalViewConfig {
    std::string augmentations = "grrrssgbjcgnrg";
    std::string validation = "ccrg";
    int crop = 96;   // pixels
    int jitter = 7;  // pixels
    double min_scale = 0.9, max_scale = 1.1;
    bool scale_one_axis = false;  // as released: the columns alone
    bool uniform_draws = true;    // new E(B-V), seeing and noise: uniform (as trained), or lognormal
    std::string rgb = "stein";
};
void bind(config::Section options, PhysicalViewConfig& config);

// Throws ConfigError that names the first unknown code; a view needs exactly one of jc and cc.
std::vector<std::string> augmentation_codes(const std::string& augmentations);

// Without the steps that are meant for fluxes: for display images (gr, gn, rg are left out).
std::string without_flux_steps(const std::string& augmentations);

// View number `view` of each image, in float32 whatever autocast is on, every random draw a function of
// (seed, epoch, object id, view) alone; a draw does not depend on which other augmentations there are.
//
//   flux        [b, 3, H, W] float32, nanomaggy, bands g, r, z; H, W >= crop + 2·jitter where it is shifted
//   object_ids  b ids
//   return      [b, 3, crop, crop]
at::Tensor physical_view(const at::Tensor& flux, std::span<const std::int64_t> object_ids, std::uint64_t seed,
                         std::uint32_t epoch, std::int64_t view, const std::string& augmentations,
                         const PhysicalViewConfig& config);

}  // namespace astroclip::data
