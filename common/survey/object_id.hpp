#pragma once

#include <cstdint>
#include <string_view>

// The 64-bit id of an object: DESI's own packing of a Legacy Survey source, so that a galaxy has one id in
// images and spectra alike (bits 0-21 objid, 22-41 brickid, 42-57 release; bit 58 marks mocks, 59 sky fibres,
// 60-61 targets of Gaia; negative: not a target). Bit 62, which DESI reserves, marks ids that are not
// TARGETIDs.
namespace astroclip::survey {

struct BrickId {
    std::int32_t release = -1;
    std::int32_t brickid = -1;
    std::int32_t objid = -1;
    bool operator==(const BrickId&) const = default;
};

// objid + brickid 2^22 + release 2^42, or -1 if a number does not fit its bits.
std::int64_t pack_object_id(const BrickId& id);
BrickId unpack_object_id(std::int64_t object_id);  // of a packed id (0 <= id < 2^58), else all -1

// Id of an SDSS spectrum: bits 62 and 61, plate in bits 28-43, MJD in 12-27, fibre in 0-11; -1 if a number
// does not fit. (SDSS's own SPECOBJID is unsigned and beyond int64 from plate 8192 on; below, it would lie
// among TARGETIDs. It also names the reduction: here one exposure has one id.)
std::int64_t sdss_object_id(std::int64_t plate, std::int64_t mjd, std::int64_t fibre);

// Id of a spectrum without one: bit 62 and not 61, 39 bits of a hash of the file's name, 22 bits of the row.
// Throws DataError if the row does not fit.
std::int64_t anonymous_object_id(std::string_view file_name, std::int64_t row);
bool is_anonymous(std::int64_t object_id);

bool is_targetid(std::int64_t object_id);  // DESI's: neither of the two above, nor negative

}  // namespace astroclip::survey
