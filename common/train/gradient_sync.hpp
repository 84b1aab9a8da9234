#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "comm/communicator.hpp"

namespace astroclip::train {

// Averages gradients over the ranks while the backward pass still runs. Gradients lie in flat buckets of
// about `bucket_bytes`, filled from the last parameter to the first as the backward pass goes; a full bucket
// is summed at once. Buckets start in the same order on all ranks, whatever the order in which their
// gradients come. A parameter without a gradient counts as 0. A single rank keeps autograd's own gradients:
// no copies, no buckets.
//
//   sync.begin(); loss.backward(); sync.finish();   // .grad() of every parameter is now the mean over ranks
class GradientSync {
public:
    GradientSync(const std::vector<at::Tensor>& parameters, comm::Communicator& ranks,
                 std::int64_t bucket_bytes);
    ~GradientSync();  // takes its hooks off the parameters
    GradientSync(const GradientSync&) = delete;
    GradientSync& operator=(const GradientSync&) = delete;

    // Gradients to 0. A bucket is full when each of its parameters was added to `parts` times.
    void begin(std::int64_t parts = 1);
    void finish();  // collective; waits for all sums

private:
    struct Bucket;
    class Arrival;  // hook: one parameter's gradient is there
    void make_buckets(std::int64_t bucket_bytes);
    void start_full_buckets();

    std::vector<at::Tensor> parameters_;
    comm::Communicator& ranks_;
    std::vector<std::unique_ptr<Bucket>> buckets_;
    std::size_t started_ = 0;  // buckets whose sum is under way
};

}  // namespace astroclip::train
