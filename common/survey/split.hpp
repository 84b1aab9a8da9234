#pragma once

#include <cstdint>

namespace astroclip::survey {

enum class Split : std::uint8_t { train = 0, test = 1 };

// The side of an object: a hash of its id and the seed, so that it depends neither on order nor on what else
// is there, and one galaxy is on one side in images and spectra alike. test_fraction in [0, 1].
Split split_of(std::int64_t object_id, std::uint64_t seed, double test_fraction);

}  // namespace astroclip::survey
