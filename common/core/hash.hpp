#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct XXH3_state_s;

namespace astroclip {

// XXH3-128 over a stream of bytes, as 32 hexadecimal digits: content ids of files, stores and configurations.
class Digest {
public:
    Digest();
    ~Digest();
    Digest(const Digest&) = delete;
    Digest& operator=(const Digest&) = delete;

    Digest& add(const void* bytes, std::size_t size);
    Digest& add(std::string_view text);  // with its length, so that ("ab","c") and ("a","bc") differ
    std::string hex() const;

private:
    XXH3_state_s* state_;
};

std::string digest_of(std::string_view bytes);

inline constexpr std::size_t hash_block_bytes = 64u << 20;

// XXH3-128 of each 64 MiB block of a file, in order. Throws MissingInput or IoError.
std::vector<std::string> file_block_hashes(const std::string& path);

}  // namespace astroclip
