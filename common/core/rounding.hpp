#pragma once

#include <cstdint>

namespace astroclip {

// The least multiple of `unit` that is not below n; n >= 0.
constexpr std::int64_t rounded_up(std::int64_t n, std::int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace astroclip
