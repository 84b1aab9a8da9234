#pragma once

#include <mpi.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/error.hpp"

namespace astroclip::comm {

// The ranks of a job and the host values they share (counts, names, stop flags, errors). Made once in
// stage::run and handed down by reference; tensors travel through comm::Communicator. "Collective" members
// must be called by all ranks, in the same order. Every member throws PeerLost when MPI reports a failure.
class World {
public:
    explicit World(MPI_Comm comm);  // collective; duplicates the communicator
    ~World();
    World(const World&) = delete;
    World& operator=(const World&) = delete;

    int rank() const { return rank_; }
    int size() const { return size_; }
    bool is_root() const { return rank_ == 0; }
    int local_rank() const { return local_rank_; }  // among the ranks of this host: picks the GPU
    MPI_Comm handle() const { return comm_; }       // for parallel HDF5 and the tensor backends

    // All collective.
    void barrier() const;
    std::string broadcast(const std::string& text, int root = 0) const;
    std::int64_t sum(std::int64_t value) const;
    double sum(double value) const;
    std::int64_t max(std::int64_t value) const;
    double max(double value) const;
    bool any(bool value) const;

    // Concatenates the ranks' vectors in rank order; lengths may differ and may be zero. Collective.
    template <typename T>
    requires std::is_trivially_copyable_v<T> std::vector<T> all_gather(std::span<const T> local)
    const;
    template <typename T>
    std::vector<T> all_gather(const std::vector<T>& local) const
    {
        return all_gather(std::span<const T>(local));
    }
    std::vector<std::string> all_gather(const std::string& local) const;  // one text a rank

    // Collective. Runs `work` on every rank; if it throws on some, all ranks throw the error of the lowest
    // such rank, so that a failure of one is the failure of all and is reported once.
    void together(const std::function<void()>& work) const;
    // Collective. Runs `work` on rank 0 alone, with the same promise; its result is known to rank 0 only.
    void on_root(const std::function<void()>& work) const;

    // Collective: has any rank been asked to stop (SIGTERM, SIGUSR2)?
    bool stop_requested() const;

private:
    std::vector<char> all_gather_bytes(const char* local, std::size_t bytes) const;

    MPI_Comm comm_;
    int rank_ = 0;
    int size_ = 1;
    int local_rank_ = 0;
};

// Throws PeerLost naming the call, unless code is MPI_SUCCESS.
void check(int code, const char* call);

template <typename T>
requires std::is_trivially_copyable_v<T> std::vector<T> World::all_gather(std::span<const T> local)
const
{
    const auto bytes = all_gather_bytes(reinterpret_cast<const char*>(local.data()), local.size_bytes());
    std::vector<T> all(bytes.size() / sizeof(T));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(all.data()));
    return all;
}

}  // namespace astroclip::comm
