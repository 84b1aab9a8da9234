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
                at_least(0));
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

at::Tensor spectrum_tokens(const at::Tensor& flux, const SpectrumTokensConfig& config)
{
    auto x = flux.dim() == 3 ? flux.squeeze(2) : flux;
    x = x.is_floating_point() && x.scalar_type() != at::kDouble ? x.to(at::kFloat) : x.to(at::kDouble);
    const auto tokens = token_count(x.size(1), config);
    const auto mean = x.mean(1, true);
    const auto std =
        x.std(at::OptionalIntArrayRef({1}), at::Scalar(config.std_ddof), true).clamp_min(config.std_min);
    // With std_min 0 a constant spectrum has std 0: its tokens are zeros.
    const auto divisor = at::where(std > 0, std, at::ones_like(std));

    auto out = at::zeros({x.size(0), tokens, config.token_dim()}, x.options());
    const auto sections = ((x - mean) / divisor).unfold(1, config.section_length, config.stride());
    out.narrow(1, 1, tokens - 1).narrow(2, 2, config.section_length).copy_(sections.narrow(1, 0, tokens - 1));
    const auto statistics = out.select(1, 0);
    statistics.select(1, 0).copy_((mean.squeeze(1) - 2) / 2);
    statistics.select(1, 1).copy_((std.squeeze(1) - 2) / 8);
    return out;
}

std::map<std::string, std::string> describe(const SpectrumTokensConfig& config)
{
    return {{"slice_section_length", std::to_string(config.section_length)},
            {"slice_overlap", std::to_string(config.overlap)},
            {"std_ddof", std::to_string(config.std_ddof)},
            {"std_min", fmt::format("{}", config.std_min)}};
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
    return config;
}

}  // namespace astroclip::data
