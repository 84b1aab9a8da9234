#pragma once

#include <functional>
#include <string>

#include "comm/communicator.hpp"
#include "nn/encoder.hpp"

namespace astroclip::bench {

struct AlignmentSizes {
    nn::ViTConfig image;
    nn::SpecFormerConfig spectrum;
    nn::HeadConfig head;
};

// One step of astroclip-align from a token cache that lies in `folder`, of random tokens of as many galaxies
// as four batches need: reading, heads, loss, backward pass, optimiser. Collective.
std::function<void()> cached_alignment(const std::string& folder, const AlignmentSizes& sizes,
                                       std::int64_t batch, const std::string& precision,
                                       const comm::World& world, comm::Communicator& ranks);

}  // namespace astroclip::bench
