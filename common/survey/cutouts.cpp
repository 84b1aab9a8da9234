#include "survey/cutouts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace astroclip::survey {
namespace {

bool blank_edge(const float* band, int size)
{
    bool rows[2] = {true, true}, columns[2] = {true, true};
    for (int i = 0; i < size; ++i) {
        rows[0] &= band[i] == 0;
        rows[1] &= band[(size - 1) * size + i] == 0;
        columns[0] &= band[i * size] == 0;
        columns[1] &= band[i * size + size - 1] == 0;
    }
    return rows[0] || rows[1] || columns[0] || columns[1];
}

}  // namespace

Refusal judge_pixels(Cutout& cutout, int bands, int size)
{
    const auto bad =
        std::count_if(cutout.flux.begin(), cutout.flux.end(), [](float v) { return !std::isfinite(v); });
    if (bad > 0) {
        return {"non-finite pixels", true, fmt::format("{} of {}", bad, cutout.flux.size())};
    }
    if (std::all_of(cutout.flux.begin(), cutout.flux.end(), [](float v) { return v == 0; })) {
        return {"no good pixels", false, "every pixel is 0"};
    }
    for (int band = 0; band < bands; ++band) {
        cutout.blank_edge |=
            blank_edge(cutout.flux.data() + static_cast<std::ptrdiff_t>(band) * size * size, size);
    }
    return {};
}

}  // namespace astroclip::survey
