#include "data/spectrum_gaps.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <span>

namespace astroclip::data {
namespace {

// Number of tokens with a weight that cover each sample. weight [B, N] -> [B, samples]; or of values, weight
// [B, N, section].
at::Tensor spread(const at::Tensor& sections, std::int64_t samples, const SpectrumTokensConfig& config)
{
    const auto length = config.section_length, stride = config.stride();
    const auto count = sections.size(1);
    const auto place =
        (at::arange(count, at::kLong).unsqueeze(1) * stride + at::arange(length, at::kLong)).flatten();
    auto sum =
        at::zeros({sections.size(0), std::max(samples, (count - 1) * stride + length)}, sections.options());
    sum.index_add_(1, place, sections.flatten(1));
    return sum.narrow(1, 0, samples);
}

// [B, N] true where masked, of the N - 1 tokens with samples.
at::Tensor masked_sections(const at::Tensor& starts, int width, std::int64_t tokens)
{
    const auto number = at::arange(tokens, at::kLong).view({1, 1, tokens});
    const auto first = starts.unsqueeze(2);
    return at::logical_and(number >= first, number < first + width).any(1).narrow(1, 1, tokens - 1);
}

double mean_of(std::span<const float> values)
{
    double sum = 0;
    for (const auto value : values) {
        sum += value;
    }
    return sum / static_cast<double>(values.size());
}

// The line over the hidden run [first, last) of a spectrum.
void bridge(std::span<const float> values, std::span<float> out, std::size_t first, std::size_t last,
            std::size_t reach)
{
    const auto left = values.subspan(first - std::min(first, reach), std::min(first, reach));
    const auto right = values.subspan(last, std::min(values.size() - last, reach));
    if (left.empty() && right.empty()) {
        std::fill(out.begin(), out.end(), 0.0f);
        return;
    }
    const double from = mean_of(left.empty() ? right : left), to = mean_of(right.empty() ? left : right);
    const double begin = static_cast<double>(first) - 0.5 * static_cast<double>(left.size() + 1);
    const double end = static_cast<double>(last) + 0.5 * static_cast<double>(right.size()) - 0.5;
    for (std::size_t i = first; i < last; ++i) {
        out[i] = static_cast<float>(from + (to - from) * (static_cast<double>(i) - begin) / (end - begin));
    }
}

}  // namespace

at::Tensor hidden_samples(const at::Tensor& starts, int width, std::int64_t samples,
                          const SpectrumTokensConfig& config)
{
    const auto tokens = token_count(samples, config);
    const auto masked = masked_sections(starts, width, tokens).to(at::kFloat);
    const auto cover = [&](const at::Tensor& weight) {
        return spread(weight.unsqueeze(2).expand({-1, -1, config.section_length}), samples, config);
    };
    return at::logical_and(cover(masked) > 0, cover(1 - masked) == 0);
}

at::Tensor samples_of_tokens(const at::Tensor& tokens, std::int64_t samples,
                             const SpectrumTokensConfig& config)
{
    const auto sections = tokens.narrow(1, 1, tokens.size(1) - 1).narrow(2, 2, config.section_length);
    return spread(sections, samples, config) / spread(at::ones_like(sections), samples, config).clamp_min(1);
}

at::Tensor interpolated(const at::Tensor& values, const at::Tensor& hidden, std::int64_t reach)
{
    const auto from = values.contiguous();
    auto out = from.clone();
    const auto flags = hidden.contiguous();
    const auto length = static_cast<std::size_t>(values.size(1));
    for (std::int64_t row = 0; row < values.size(0); ++row) {
        const std::span spectrum(from.const_data_ptr<float>() + row * values.size(1), length);
        const std::span filled(out.data_ptr<float>() + row * values.size(1), length);
        const bool* gone = flags.const_data_ptr<bool>() + row * values.size(1);
        for (std::size_t first = 0; first < length; ++first) {
            if (gone[first]) {
                const auto last =
                    static_cast<std::size_t>(std::find(gone + first, gone + length, false) - gone);
                bridge(spectrum, filled, first, last, static_cast<std::size_t>(reach));
                first = last;
            }
        }
    }
    return out;
}

}  // namespace astroclip::data
