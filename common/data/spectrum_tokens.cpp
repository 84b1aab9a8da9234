#include "data/spectrum_tokens.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <charconv>

#include "core/error.hpp"

namespace astroclip::data {

using config::at_least;

void bind(config::Section options, SpectrumTokensConfig& config)
{
    options.option("section-length", config.section_length, "flux samples in a token", at_least(2))
        .option("overlap", config.overlap, "flux samples that neighbouring tokens share", at_least(0))
        .option("std-ddof", config.std_ddof, "1: unbiased standard deviation, 0: population",
                config::between(0, 1))
        .option("std-min", config.std_min, "lower bound of the standard deviation [1e-17 erg/s/cm2/Angstrom]",
                at_least(0))
        .option("bad-bins", config.bad_bins,
                "bins without inverse variance, or masked: keep (as published) or leave-out (of statistics "
                "and targets)",
                config::one_of({"keep", "leave-out"}));
}

std::int64_t token_count(std::int64_t samples, const SpectrumTokensConfig& config)
{
    const auto stride = config.stride();
    if (stride < 1) {
        throw ConfigError(fmt::format("overlap {} must be less than section-length {}", config.overlap,
                                      config.section_length));
    }
    const auto sections = (samples - config.overlap + stride - 1) / stride;  // with the one that is dropped
    if (sections < 2) {
        throw DataError(
            "spectrum",
            fmt::format("{} flux samples, at least {} expected (sections of {} that overlap by {})", samples,
                        config.overlap + stride + 1, config.section_length, config.overlap));
    }
    return sections;
}

Standardised standardised(const at::Tensor& flux, const SpectrumTokensConfig& config, const at::Tensor& ivar)
{
    at::Tensor mean, std, good;
    if (config.leaves_out_bad_bins()) {
        if (!ivar.defined()) {
            throw InternalError("bad bins are to be left out of a spectrum without inverse variance");
        }
        good = (ivar > 0).to(flux.scalar_type());
        const auto count = good.sum(1, true);
        mean = (flux * good).sum(1, true) / count.clamp_min(1);
        const auto squares = ((flux - mean) * good).square().sum(1, true);
        std = (squares / (count - config.std_ddof).clamp_min(1)).sqrt();
    } else {
        mean = flux.mean(1, true);
        std = flux.std(at::OptionalIntArrayRef({1}), at::Scalar(config.std_ddof), true);
    }
    std = std.clamp_min(config.std_min);
    const auto divisor = at::where(std > 0, std, at::ones_like(std));
    const auto values = (flux - mean) / divisor;
    return {good.defined() ? values * good : values, mean, std, divisor};
}

at::Tensor spectrum_sections(const at::Tensor& values, const SpectrumTokensConfig& config)
{
    const auto tokens = token_count(values.size(1), config);
    return values.unfold(1, config.section_length, config.stride()).narrow(1, 0, tokens - 1);
}

at::Tensor spectrum_tokens(const at::Tensor& flux, const SpectrumTokensConfig& config, const at::Tensor& ivar)
{
    auto x = flux.dim() == 3 ? flux.squeeze(2) : flux;
    x = x.is_floating_point() && x.scalar_type() != at::kDouble ? x.to(at::kFloat) : x.to(at::kDouble);
    const auto tokens = token_count(x.size(1), config);
    const auto spectrum = standardised(x, config, ivar);

    auto out = at::zeros({x.size(0), tokens, config.token_dim()}, x.options());
    out.narrow(1, 1, tokens - 1)
        .narrow(2, 2, config.section_length)
        .copy_(spectrum_sections(spectrum.values, config));
    const auto statistics = out.select(1, 0);
    statistics.select(1, 0).copy_((spectrum.mean.squeeze(1) - 2) / 2);
    statistics.select(1, 1).copy_((spectrum.std.squeeze(1) - 2) / 8);
    return out;
}

at::Tensor token_weights(const at::Tensor& ivar, const SpectrumTokensConfig& config)
{
    const auto mean = ivar.sum(1, true) / (ivar > 0).sum(1, true).clamp_min(1);
    const auto sections = spectrum_sections(ivar / at::where(mean > 0, mean, at::ones_like(mean)), config);
    auto weights = at::zeros({ivar.size(0), sections.size(1) + 1, config.token_dim()}, ivar.options());
    weights.narrow(1, 1, sections.size(1)).narrow(2, 2, config.section_length).copy_(sections);
    weights.select(1, 0).fill_(1);
    return weights;
}

std::map<std::string, std::string> describe(const SpectrumTokensConfig& config)
{
    return {{"slice_section_length", std::to_string(config.section_length)},
            {"slice_overlap", std::to_string(config.overlap)},
            {"std_ddof", std::to_string(config.std_ddof)},
            {"std_min", fmt::format("{}", config.std_min)},
            {"bad_bins", config.bad_bins}};
}

double metadata_number(const std::map<std::string, std::string>& metadata, const std::string& key,
                       double absent)
{
    const auto found = metadata.find(key);
    if (found == metadata.end()) {
        return absent;
    }
    double value = 0;
    const auto* end = found->second.data() + found->second.size();
    if (std::from_chars(found->second.data(), end, value).ptr != end) {
        throw DataError("model", fmt::format("metadata '{}' = '{}' is not a number", key, found->second));
    }
    return value;
}

SpectrumTokensConfig spectrum_tokens_config(const std::map<std::string, std::string>& metadata,
                                            const std::string& prefix)
{
    const auto number = [&](const std::string& key, double absent) {
        return metadata_number(metadata, prefix + key, absent);
    };
    SpectrumTokensConfig config;
    config.section_length = static_cast<int>(number("slice_section_length", config.section_length));
    config.overlap = static_cast<int>(number("slice_overlap", config.overlap));
    config.std_ddof = static_cast<int>(number("std_ddof", config.std_ddof));
    config.std_min = number("std_min", config.std_min);
    if (const auto found = metadata.find(prefix + "bad_bins"); found != metadata.end()) {
        config.bad_bins = found->second;
    }
    return config;
}

}  // namespace astroclip::data
