#include "survey/object_id.hpp"

#include <string>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace astroclip::survey {
namespace {

constexpr int objid_bits = 22, brickid_bits = 20, release_bits = 16;
constexpr int fibre_bits = 12, mjd_bits = 16, plate_bits = 16;
constexpr std::int64_t no_targetid_bit = std::int64_t{1} << 62, sdss_bit = std::int64_t{1} << 61;

bool fits(std::int64_t value, int bits) { return value >= 0 && value < (std::int64_t{1} << bits); }

}  // namespace

std::int64_t pack_object_id(const BrickId& id)
{
    if (!fits(id.objid, objid_bits) || !fits(id.brickid, brickid_bits) || !fits(id.release, release_bits)) {
        return -1;
    }
    return std::int64_t{id.objid} | std::int64_t{id.brickid} << objid_bits |
           std::int64_t{id.release} << (objid_bits + brickid_bits);
}

BrickId unpack_object_id(std::int64_t object_id)
{
    if (!fits(object_id, objid_bits + brickid_bits + release_bits)) {
        return {};
    }
    const auto part = [&](int shift, int bits) {
        return static_cast<std::int32_t>(object_id >> shift & ((std::int64_t{1} << bits) - 1));
    };
    return {part(objid_bits + brickid_bits, release_bits), part(objid_bits, brickid_bits),
            part(0, objid_bits)};
}

std::int64_t sdss_object_id(std::int64_t plate, std::int64_t mjd, std::int64_t fibre)
{
    if (!fits(plate, plate_bits) || !fits(mjd, mjd_bits) || !fits(fibre, fibre_bits)) {
        return -1;
    }
    return no_targetid_bit | sdss_bit | plate << (fibre_bits + mjd_bits) | mjd << fibre_bits | fibre;
}

std::int64_t anonymous_object_id(std::string_view file_name, std::int64_t row)
{
    if (!fits(row, objid_bits)) {
        throw DataError(std::string(file_name),
                        "row " + std::to_string(row) + " is beyond the 2^22 that an id of its own can count");
    }
    const auto hash = std::stoull(digest_of(file_name).substr(0, 10), nullptr, 16);  // 40 bits
    return no_targetid_bit | (static_cast<std::int64_t>(hash) << objid_bits & ~sdss_bit) | row;
}

bool is_anonymous(std::int64_t object_id)
{
    return object_id > 0 && (object_id & no_targetid_bit) != 0 && (object_id & sdss_bit) == 0;
}

bool is_targetid(std::int64_t object_id) { return object_id >= 0 && (object_id & no_targetid_bit) == 0; }

}  // namespace astroclip::survey
