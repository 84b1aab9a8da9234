#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "comm/communicator.hpp"
#include "config/options.hpp"

namespace astroclip::bench {

// Rows of float32 numbers in plain files, each of `width`: so that other programs can search the same ones.
struct SearchOptions {
    std::string vectors, queries, found;
    std::int64_t width = 512, neighbours = 10;
};
void bind(config::Section options, SearchOptions& o);

// One search of all queries at once, or of one after the other with `single`, in a catalogue in memory that
// the ranks share out. The first call writes the rows found (int64) and their scores (float32) to `found`
// and `found`.scores. Collective.
std::function<void()> search(const SearchOptions& o, bool single, const comm::World& world,
                             comm::Communicator& ranks);

}  // namespace astroclip::bench
