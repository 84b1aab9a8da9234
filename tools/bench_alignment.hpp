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

// One step of astroclip-align on a global batch, its stores in `folder`, of random images and spectra of as
// many galaxies as four batches need: reading, frozen encoders, heads, loss, backward pass, optimiser.
// `cached`: from a cache of random tokens instead. Collective.
std::function<void()> alignment(const std::string& folder, bool cached, const AlignmentSizes& sizes,
                                std::int64_t batch, const std::string& precision, const comm::World& world,
                                comm::Communicator& ranks);

}  // namespace astroclip::bench
