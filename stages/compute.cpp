#include "stages/compute.hpp"

#include <ATen/Parallel.h>

#include "core/memory.hpp"

namespace astroclip::stage {

Compute start_compute(const Context& context)
{
    keep_freed_memory();
    at::set_num_threads(context.run.threads);
    Compute compute{at::kCPU, nullptr};
    context.world.together([&] { compute.device = comm::local_device(context.world, context.run.device); });
    compute.ranks = comm::make_communicator(context.world, compute.device, context.run.backend);
    return compute;
}

}  // namespace astroclip::stage
