#include "survey/lzf.hpp"

#include <hdf5.h>

#include <algorithm>

namespace astroclip::survey {
namespace {

constexpr std::size_t first_value = 2;  // of h5py's three: filter version, LZF version, bytes of a chunk

// HDF5 frees *buffer itself, so what replaces it comes from H5allocate_memory.
std::size_t unpack_chunk(unsigned flags, std::size_t values, const unsigned value[], std::size_t bytes,
                         std::size_t* buffer_bytes, void** buffer)
{
    if ((flags & H5Z_FLAG_REVERSE) == 0 || values <= first_value || value[first_value] == 0) {
        return 0;  // an error, to HDF5
    }
    const std::size_t size = value[first_value];
    auto* chunk = static_cast<unsigned char*>(H5allocate_memory(size, false));
    if (!chunk || !unpack_lzf({static_cast<const unsigned char*>(*buffer), bytes}, {chunk, size})) {
        H5free_memory(chunk);
        return 0;
    }
    H5free_memory(*buffer);
    *buffer = chunk;
    *buffer_bytes = size;
    return size;
}

}  // namespace

bool unpack_lzf(std::span<const unsigned char> packed, std::span<unsigned char> out)
{
    std::size_t from = 0, to = 0;
    while (from < packed.size()) {
        const std::size_t control = packed[from++];
        if (control < 32) {
            const auto length = control + 1;
            if (length > packed.size() - from || length > out.size() - to) {
                return false;
            }
            std::copy_n(packed.begin() + from, length, out.begin() + to);
            from += length;
            to += length;
            continue;
        }
        auto length = (control >> 5) + 2;
        if (packed.size() - from < (length == 9 ? 2 : 1)) {
            return false;
        }
        if (length == 9) {
            length += packed[from++];
        }
        const auto back = ((control & 31) << 8 | packed[from++]) + 1;
        if (back > to || length > out.size() - to) {
            return false;
        }
        for (std::size_t i = 0; i < length; ++i, ++to) {  // byte by byte: the two may overlap
            out[to] = out[to - back];
        }
    }
    return to == out.size();
}

void register_lzf()
{
    static constexpr H5Z_class2_t filter{H5Z_CLASS_T_VERS, lzf_filter, 0,           1, "lzf",
                                         nullptr,          nullptr,    unpack_chunk};
    H5Zregister(&filter);
}

}  // namespace astroclip::survey
