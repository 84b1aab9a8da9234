#include "tools/simulate/noise.hpp"

#include <cmath>

#include "core/random.hpp"

namespace astroclip::simulate {

Noise::Noise(std::uint64_t seed, std::string_view purpose, std::uint32_t realization, std::uint64_t object)
{
    const auto key = stream_key(seed, purpose);
    key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
    counter_ = {static_cast<std::uint32_t>(object), static_cast<std::uint32_t>(object >> 32), 0, realization};
}

float Noise::operator()()
{
    if (used_ == 4) {
        refill();
    }
    return ready_[static_cast<std::size_t>(used_++)];
}

void Noise::refill()
{
    const auto block = philox4x32(counter_, key_);
    ++counter_[2];
    used_ = 0;
    for (std::size_t i = 0; i < 4; i += 2) {  // Box-Muller; + 0.5 keeps the logarithm's argument off 0
        const float u = (static_cast<float>(block[i] >> 8) + 0.5f) * 0x1p-24f;
        const float angle = 6.28318531f * (static_cast<float>(block[i + 1] >> 8) * 0x1p-24f);
        const float radius = std::sqrt(-2 * std::log(u));
        ready_[i] = radius * std::cos(angle);
        ready_[i + 1] = radius * std::sin(angle);
    }
}

}  // namespace astroclip::simulate
