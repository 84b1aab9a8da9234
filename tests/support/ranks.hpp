#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "comm/communicator.hpp"

namespace astroclip::test {

// The ranks of the test, or this rank alone: what all ranks compute together is compared with what one
// computes.
struct Ranks {
    explicit Ranks(MPI_Comm comm) : world(comm), tensors(comm::make_communicator(world, at::kCPU, "mpi")) {}

    int rank() const { return world.rank(); }
    int size() const { return world.size(); }
    operator comm::Communicator&() const { return *tensors; }

    // This rank's block of the rows of `whole`, whose number the ranks divide evenly.
    at::Tensor share(const at::Tensor& whole) const
    {
        const auto rows = whole.size(0) / size();
        return whole.narrow(0, rank() * rows, rows);
    }

    // Mean over the ranks.
    at::Tensor mean(const at::Tensor& own) const
    {
        auto sum = own.detach().clone();
        tensors->all_reduce_sum(sum);
        return sum / size();
    }

    comm::World world;
    std::unique_ptr<comm::Communicator> tensors;
};

inline Ranks all_ranks() { return Ranks(MPI_COMM_WORLD); }
inline Ranks this_rank_alone() { return Ranks(MPI_COMM_SELF); }

}  // namespace astroclip::test
