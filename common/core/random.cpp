#include "core/random.hpp"

#include <cmath>

namespace astroclip {

std::uint64_t mix64(std::uint64_t x)
{
    x += 0x9E3779B97F4A7C15ULL;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

std::uint64_t stream_key(std::uint64_t seed, std::string_view purpose)
{
    std::uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
    for (const unsigned char c : purpose) {
        hash = (hash ^ c) * 0x100000001b3ULL;
    }
    return mix64(hash ^ mix64(seed));
}

std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key)
{
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0];
        const std::uint64_t b = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return counter;
}

Random::Random(std::uint64_t seed, std::string_view purpose, std::uint32_t epoch, std::uint64_t object)
{
    const auto key = stream_key(seed, purpose);
    key_ = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
    counter_ = {static_cast<std::uint32_t>(object), static_cast<std::uint32_t>(object >> 32), 0, epoch};
}

std::uint32_t Random::bits()
{
    if (used_ == 4) {
        block_ = philox4x32(counter_, key_);
        ++counter_[2];
        used_ = 0;
    }
    return block_[used_++];
}

double Random::uniform()
{
    const std::uint64_t high = bits() >> 5;
    const std::uint64_t low = bits() >> 6;
    return static_cast<double>((high << 26) | low) * 0x1p-53;
}

double Random::uniform(double low, double high) { return low + (high - low) * uniform(); }

std::uint64_t Random::below(std::uint64_t limit)
{
    // Rejection keeps it unbiased: draws under `skip` would favour small results.
    const std::uint64_t skip = (0 - limit) % limit;
    for (;;) {
        const std::uint64_t high = bits();
        const std::uint64_t draw = (high << 32) | bits();
        if (draw >= skip) {
            return draw % limit;
        }
    }
}

double Random::normal()
{
    const double radius = std::sqrt(-2.0 * std::log(1.0 - uniform()));
    return radius * std::cos(6.283185307179586 * uniform());
}

}  // namespace astroclip
