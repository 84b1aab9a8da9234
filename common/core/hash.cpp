#include "core/hash.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstdio>
#include <memory>

#include "core/error.hpp"

namespace astroclip {

Digest::Digest() : state_(XXH3_createState()) { XXH3_128bits_reset(state_); }

Digest::~Digest() { XXH3_freeState(state_); }

Digest& Digest::add(const void* bytes, std::size_t size)
{
    XXH3_128bits_update(state_, bytes, size);
    return *this;
}

Digest& Digest::add(std::string_view text)
{
    const std::uint64_t size = text.size();
    add(&size, sizeof size);
    return add(text.data(), text.size());
}

std::string Digest::hex() const
{
    const auto hash = XXH3_128bits_digest(state_);
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

std::string digest_of(std::string_view bytes) { return Digest().add(bytes.data(), bytes.size()).hex(); }

std::vector<std::string> file_block_hashes(const std::string& path)
{
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
    if (!file) {
        throw MissingInput(path, "cannot be opened for reading");
    }
    std::vector<std::string> hashes;
    std::vector<char> chunk(1u << 20);
    for (bool more = true; more;) {
        Digest digest;
        std::size_t block = 0;
        while (block < hash_block_bytes) {
            const auto got = std::fread(chunk.data(), 1, chunk.size(), file.get());
            if (got == 0) {
                more = false;
                break;
            }
            digest.add(chunk.data(), got);
            block += got;
        }
        if (block > 0) {
            hashes.push_back(digest.hex());
        }
    }
    if (std::ferror(file.get())) {
        throw_errno(path, "read");
    }
    return hashes;
}

}  // namespace astroclip
