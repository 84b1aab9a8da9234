#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace astroclip {

// Counter-based random numbers: every stream is a pure function of (seed, purpose, epoch, object), so a draw
// depends neither on the rank that makes it nor on what was drawn before for other objects. Generator:
// Philox4x32-10 (Salmon et al. 2011, SC'11), key = hash of (seed, purpose), counter = (object, draw, epoch).
//
//   Random random(seed, "spectrum-mask", epoch, object_id);
//   const auto offset = random.below(79);
class Random {
public:
    Random(std::uint64_t seed, std::string_view purpose, std::uint32_t epoch = 0, std::uint64_t object = 0);

    std::uint32_t bits();                      // 32 uniform bits
    double uniform();                          // [0, 1), 53 bits
    double uniform(double low, double high);   // [low, high)
    std::uint64_t below(std::uint64_t limit);  // integer in [0, limit), unbiased; limit > 0
    double normal();                           // standard normal (Box-Muller)

private:
    std::array<std::uint32_t, 2> key_;
    std::array<std::uint32_t, 4> counter_;
    std::array<std::uint32_t, 4> block_{};
    int used_ = 4;
};

// One Philox4x32-10 block; public so that tensor code can draw whole batches from the same streams.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

// 64 bits that look random, from 64 bits (splitmix64 finaliser): hashing of ids, e.g. for the train/test
// split.
std::uint64_t mix64(std::uint64_t x);

// The key of the streams of (seed, purpose).
std::uint64_t stream_key(std::uint64_t seed, std::string_view purpose);

}  // namespace astroclip
