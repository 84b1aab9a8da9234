#pragma once

#include <cstddef>
#include <span>

// LZF, the compression of h5py's `compression="lzf"` (HDF5 filter 32000), which libhdf5 does not bring. Only
// unpacking: our own stores are not packed. After the format of Marc Lehmann's LibLZF: a control byte c below
// 32 is followed by c + 1 bytes as they are; any other repeats (c >> 5) + 2 bytes (where c >> 5 is 7, a
// further byte is added to the length), from as far back as the low 5 bits of c and the last byte of the code
// say, plus 1.
namespace astroclip::survey {

// Fills `out`; false if the packed bytes are damaged: they end early, reach back before the start, or make
// another number of bytes than `out` has.
bool unpack_lzf(std::span<const unsigned char> packed, std::span<unsigned char> out);

// Tells HDF5 of it, for reading. Any number of times.
void register_lzf();
inline constexpr int lzf_filter = 32000;

}  // namespace astroclip::survey
