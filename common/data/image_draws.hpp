#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "core/random.hpp"
#include "data/image_augmentation.hpp"

// The random numbers of the image transforms, each from a stream of (seed, purpose, epoch, object id).
namespace astroclip::data {

// One value of a lognormal prior: of a band's point-spread function (pixels) or noise (nanomaggy).
double draw_sigma(Random& random, const LognormalBands& prior, std::size_t band);

// Widening that takes each band from one draw of its prior to another; `uniform`: to one that is uniform over
// the prior's range (Stein et al. 2021).
std::array<float, 3> draw_widening(Random& random, const LognormalBands& prior, bool uniform);

// Standard normal numbers [b, shape...], float32, row i from the stream of (seed, purpose, epoch,
// object_ids[i]).
at::Tensor unit_normals(std::span<const std::int64_t> object_ids, at::IntArrayRef shape, std::uint64_t seed,
                        const std::string& purpose, std::uint32_t epoch);

// Adds normal noise to the images that have any: numbers are drawn for these alone.
//
//   images  [b, 3, H, W]    sigma  [b, 3] on the CPU, in the unit of the images; 0: none
at::Tensor with_noise(const at::Tensor& images, const at::Tensor& sigma,
                      std::span<const std::int64_t> object_ids, std::uint64_t seed,
                      const std::string& purpose, std::uint32_t epoch);

}  // namespace astroclip::data
