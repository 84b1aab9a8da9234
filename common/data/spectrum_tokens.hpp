#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "config/options.hpp"

namespace astroclip::data {

// How a spectrum is cut into tokens. The defaults are those of the published SpecFormer; the workshop's
// predecessor was pretrained with std_ddof 0 and std_min 0.
struct SpectrumTokensConfig {
    int section_length = 20;  // flux samples in a token
    int overlap = 10;         // samples that neighbouring tokens share
    int std_ddof = 1;         // 1: unbiased standard deviation, 0: population
    double std_min = 0.2;     // lower bound of the standard deviation, 1e-17 erg s-1 cm-2 Angstrom-1

    int token_dim() const { return section_length + 2; }
    int stride() const { return section_length - overlap; }
};
void bind(config::Section options, SpectrumTokensConfig& config);

// As strings in a model's metadata, under the published names, and back; what is absent there keeps its
// default. Throws DataError for what is not a number.
std::map<std::string, std::string> describe(const SpectrumTokensConfig& config);
SpectrumTokensConfig spectrum_tokens_config(const std::map<std::string, std::string>& metadata,
                                            const std::string& prefix);
double metadata_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                       double absent);

// Tokens of a spectrum of `samples` bins: ceil((samples - overlap) / stride). This counts the token of
// statistics, and not the last section: the published code drops it even when it is complete, and its
// position table was trained so. Throws DataError if a spectrum is too short for one section beside the
// dropped one.
std::int64_t token_count(std::int64_t samples, const SpectrumTokensConfig& config = {});

// Standardises each spectrum by its own mean and standard deviation and cuts it into overlapping sections.
//
//   flux    [B, L] or [B, L, 1] float32 (float64 is kept), 1e-17 erg s-1 cm-2 Angstrom-1, finite
//   return  [B, N, section_length + 2], no unit, N = token_count(L). Columns 0 and 1 are zero, except in
//   token 0, which
//           holds (mean - 2)/2 and (std - 2)/8 there and zeros elsewhere.
//
// A constant spectrum gives zeros, never NaN, also with std_min 0.
at::Tensor spectrum_tokens(const at::Tensor& flux, const SpectrumTokensConfig& config = {});

}  // namespace astroclip::data
