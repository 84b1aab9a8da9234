#pragma once

#include <string>

#include "comm/world.hpp"

namespace astroclip::store {

// Collective. Compares the hashes of all parts of a store, each by one rank, since a large store must not be
// read by every rank. The ranks may then read it with Reader's `trust`. MissingInput without a manifest or a
// part; DataError for a wrong size or hash.
void verify_parts(const comm::World& world, const std::string& path);

}  // namespace astroclip::store
