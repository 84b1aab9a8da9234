#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "stages/stage.hpp"

namespace astroclip::stage {

// What a stage that computes with tensors needs: this rank's device, its threads set, and the ranks'
// communicator.
struct Compute {
    at::Device device;
    std::unique_ptr<comm::Communicator> ranks;
};

Compute start_compute(const Context& context);  // collective; throws ConfigError

}  // namespace astroclip::stage
