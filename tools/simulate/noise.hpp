#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

namespace astroclip::simulate {

// A stream of standard normal numbers for whole images and spectra: the generator and streams of
// core/random.hpp, four numbers from each block, where Random spends a block on one.
class Noise {
public:
    Noise(std::uint64_t seed, std::string_view purpose, std::uint32_t realization, std::uint64_t object);
    float operator()();

private:
    void refill();

    std::array<std::uint32_t, 2> key_;
    std::array<std::uint32_t, 4> counter_;
    std::array<float, 4> ready_{};
    int used_ = 4;
};

}  // namespace astroclip::simulate
