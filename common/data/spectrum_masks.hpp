#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "config/options.hpp"

namespace astroclip::data {

// Which tokens are hidden from the SpecFormer in pretraining: one run of `width` tokens in each of `chunks`
// equal parts of the sequence.
struct SpectrumMasksConfig {
    int chunks = 6;
    int width = 50;  // tokens
};
void bind(config::Section options, SpectrumMasksConfig& config);

// As strings in a model's metadata, and back; what is absent there keeps its default. Throws DataError for
// what is not a number.
std::map<std::string, std::string> describe(const SpectrumMasksConfig& config);
SpectrumMasksConfig spectrum_masks_config(const std::map<std::string, std::string>& metadata);

// First masked token of each chunk: floor(i·tokens/chunks) + uniform integer in [0, floor(tokens/chunks) -
// width), drawn for each spectrum by itself from (seed, epoch, object id). Without an epoch the masks are
// those of validation, which stay the same through training (and differ from those of all epochs).
//
//   return  [B, chunks] int64
//
// Throws ConfigError if the sequence is too short: (2·chunks - 1)·width > tokens.
at::Tensor mask_starts(std::span<const std::int64_t> object_ids, std::int64_t tokens, std::uint64_t seed,
                       std::optional<std::uint32_t> epoch, const SpectrumMasksConfig& config = {});

// The tokens that runs of `width` from each start [B, chunks] on hide, as rows of the flattened tokens [B·N,
// F] of a batch: spectrum after spectrum.
//
//   return  [B · chunks · width] int64
at::Tensor masked_rows(const at::Tensor& starts, int width, std::int64_t tokens);

// A copy of tokens [B, N, F] in which the `width` tokens from each start [B, chunks] on are zero in all
// features.
at::Tensor mask_tokens(const at::Tensor& tokens, const at::Tensor& starts, int width);

}  // namespace astroclip::data
