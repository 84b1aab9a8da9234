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
    // keep: every bin counts, as published. leave-out: bins without inverse variance are left out of mean and
    // standard deviation, and are zero (the mean) in the tokens; a masked loss then never asks for them.
    std::string bad_bins = "keep";

    bool leaves_out_bad_bins() const { return bad_bins == "leave-out"; }
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

// Each spectrum in units of its own deviation: (flux - mean)/std. `mean` and `std` tell how, so that other
// values (a noiseless spectrum) go into the same units.
struct Standardised {
    at::Tensor values;     // [B, L]
    at::Tensor mean, std;  // [B, 1]; std after its lower bound
    at::Tensor divisor;    // [B, 1]; std, but 1 where that is 0 (a constant spectrum with std_min 0)
};

//   flux [B, L]; ivar [B, L], needed where bad bins are left out (InternalError), else not looked at
Standardised standardised(const at::Tensor& flux, const SpectrumTokensConfig& config,
                          const at::Tensor& ivar = {});

// The sections of [B, L] as spectrum_tokens cuts them, the last one dropped. -> [B, N - 1, section_length]
at::Tensor spectrum_sections(const at::Tensor& values, const SpectrumTokensConfig& config);

// Standardises each spectrum by its own mean and standard deviation and cuts it into overlapping sections.
//
//   flux    [B, L] or [B, L, 1] float32 (float64 is kept), 1e-17 erg s-1 cm-2 Angstrom-1, finite
//   return  [B, N, section_length + 2], no unit, N = token_count(L). Columns 0 and 1 are zero, except in
//   token 0, which
//           holds (mean - 2)/2 and (std - 2)/8 there and zeros elsewhere.
//
// A constant spectrum gives zeros, never NaN, also with std_min 0.
at::Tensor spectrum_tokens(const at::Tensor& flux, const SpectrumTokensConfig& config = {},
                           const at::Tensor& ivar = {});

// The weight of each token feature in a loss: the inverse variance of its sample divided by the mean over the
// spectrum's good bins; 1 for the features of token 0. ivar [B, L] -> [B, N, F]
at::Tensor token_weights(const at::Tensor& ivar, const SpectrumTokensConfig& config);

}  // namespace astroclip::data
