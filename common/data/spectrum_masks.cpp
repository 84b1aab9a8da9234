#include "data/spectrum_masks.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/error.hpp"
#include "core/random.hpp"
#include "data/spectrum_tokens.hpp"

namespace astroclip::data {

void bind(config::Section options, SpectrumMasksConfig& config)
{
    options.option("mask-chunks", config.chunks, "runs of masked tokens in a spectrum", config::at_least(1))
        .option("mask-width", config.width, "tokens in a masked run", config::at_least(1));
}

std::map<std::string, std::string> describe(const SpectrumMasksConfig& config)
{
    return {{"mask_chunks", std::to_string(config.chunks)}, {"mask_width", std::to_string(config.width)}};
}

SpectrumMasksConfig spectrum_masks_config(const std::map<std::string, std::string>& metadata)
{
    SpectrumMasksConfig config;
    config.chunks = static_cast<int>(metadata_number(metadata, "mask_chunks", config.chunks));
    config.width = static_cast<int>(metadata_number(metadata, "mask_width", config.width));
    return config;
}

at::Tensor mask_starts(std::span<const std::int64_t> object_ids, std::int64_t tokens, std::uint64_t seed,
                       std::optional<std::uint32_t> epoch, const SpectrumMasksConfig& config)
{
    const auto room = tokens / config.chunks - config.width;  // places that a run can take in its chunk
    if ((2 * config.chunks - 1) * config.width > tokens || room < 1) {
        throw ConfigError(fmt::format("mask-chunks {} of mask-width {} need more than {} tokens",
                                      config.chunks, config.width, tokens));
    }
    const auto* purpose = epoch ? "spectrum-mask" : "spectrum-mask-validation";
    const auto starts = at::empty({static_cast<std::int64_t>(object_ids.size()), config.chunks}, at::kLong);
    auto* start = starts.data_ptr<std::int64_t>();
    for (const auto id : object_ids) {
        Random random(seed, purpose, epoch.value_or(0), static_cast<std::uint64_t>(id));
        for (std::int64_t chunk = 0; chunk < config.chunks; ++chunk) {
            const auto offset = random.below(static_cast<std::uint64_t>(room));
            *start++ = chunk * tokens / config.chunks + static_cast<std::int64_t>(offset);
        }
    }
    return starts;
}

at::Tensor masked_rows(const at::Tensor& starts, int width, std::int64_t tokens)
{
    const auto in_run = at::arange(width, starts.options());
    const auto first_row = at::arange(starts.size(0), starts.options()).view({-1, 1, 1}) * tokens;
    return (starts.unsqueeze(2) + in_run + first_row).flatten();
}

at::Tensor mask_tokens(const at::Tensor& tokens, const at::Tensor& starts, int width)
{
    const auto first = starts.to(tokens.device(), at::kLong).unsqueeze(2);  // [B, chunks, 1]
    const auto position = at::arange(tokens.size(1), first.options());      // [N]
    const auto masked = at::logical_and(position >= first, position < first + width).any(1, false);  // [B, N]
    return tokens.masked_fill(masked.unsqueeze(2), 0.0);
}

}  // namespace astroclip::data
