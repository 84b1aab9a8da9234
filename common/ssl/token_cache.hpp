#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "data/batches.hpp"
#include "store/publication.hpp"

namespace astroclip::ssl {

// The tokens that frozen encoders give each galaxy that has both an image and a spectrum, computed once and
// kept in a store: image_tokens and spectrum_tokens [N, D], float16 (their bits, as int16). Epochs then train
// the heads at the pace of the disk.

// Tokens of some galaxies, [B, N, D] each; any float type, on any device.
struct EncoderTokens {
    at::Tensor image, spectrum;
};
using Encode = std::function<EncoderTokens(const data::Batch&)>;

// Bytes on disk of the tokens of `pairs` galaxies. `encode` is asked for one galaxy's, to know their shape.
// ConfigError if no galaxy has both.
std::int64_t token_cache_bytes(const data::Galaxies& galaxies, const Encode& encode);

// Collective. Makes what is missing of the cache in `output`, in parts of `part_rows` galaxies (a killed run
// goes on after its last part). Batches are cut on global rows and padded, so the bytes depend neither on
// ranks nor on threads. `progress(done, total)`. Throws Stopped (75) at a part's boundary, IoError;
// NumericsError with the galaxy's id for a token that is not finite or beyond float16.
void make_token_cache(store::Output& output, const data::Galaxies& galaxies, const Encode& encode,
                      std::int64_t part_rows,
                      const std::function<void(std::int64_t, std::int64_t)>& progress);

// Reads it: batches as of Galaxies::read, but with tokens in place of pixels and fluxes.
class TokenCache {
public:
    // Hashes are not compared: store::verify_parts does it for all ranks. Throws MissingInput, DataError
    // (also if it is of other galaxies).
    TokenCache(const std::string& path, const data::Galaxies& galaxies);
    ~TokenCache();

    // Numbers of galaxies in `galaxies` that have both. Several threads may call it.
    data::Batch read(std::span<const std::int64_t> numbers) const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace astroclip::ssl
