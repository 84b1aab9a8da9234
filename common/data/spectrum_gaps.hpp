#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "data/spectrum_masks.hpp"
#include "data/spectrum_tokens.hpp"

// From masked tokens back to the flux samples that they hide, in standardised units (no unit).
namespace astroclip::data {

// The samples that no visible token covers: sections overlap, so both ends of a masked run can still be seen.
//
//   starts  [B, chunks] as mask_starts gives them; width: tokens of a run
//   return  [B, samples] bool
at::Tensor hidden_samples(const at::Tensor& starts, int width, std::int64_t samples,
                          const SpectrumTokensConfig& config);

// Samples from predicted tokens: the mean of what the tokens that cover a sample say. Samples that no token
// covers (behind the dropped section) are 0.
//
//   tokens  [B, N, F] in the layout of spectrum_tokens
//   return  [B, samples]
at::Tensor samples_of_tokens(const at::Tensor& tokens, std::int64_t samples,
                             const SpectrumTokensConfig& config);

// What needs no learning: each run of hidden samples replaced by the straight line between the means of the
// `reach` visible samples on its two sides; at an end of the spectrum, by the mean of the one side.
//
//   values [B, L] float32, hidden [B, L] bool
at::Tensor interpolated(const at::Tensor& values, const at::Tensor& hidden, std::int64_t reach);

}  // namespace astroclip::data
