#include "survey/split.hpp"

#include "core/random.hpp"

namespace astroclip::survey {

Split split_of(std::int64_t object_id, std::uint64_t seed, double test_fraction)
{
    const auto hash = mix64(static_cast<std::uint64_t>(object_id) ^ stream_key(seed, "split"));
    const double uniform = static_cast<double>(hash >> 11) * 0x1p-53;  // [0, 1)
    return uniform < test_fraction ? Split::test : Split::train;
}

}  // namespace astroclip::survey
