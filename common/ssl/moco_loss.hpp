#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

#include "comm/communicator.hpp"

// MoCo v2 (He et al. 2020, Chen et al. 2020). A step: the key encoder's parameters follow the query encoder's
// (train::ema); its keys, without gradient; the loss against the queue as it is; then the queue takes the
// keys.
namespace astroclip::ssl {

// The keys of earlier batches of all ranks, the negatives of the loss.
class MocoQueue {
public:
    // Starts with random unit keys, column by column from the seed and the queue's name.
    MocoQueue(std::int64_t width, std::int64_t size, std::uint64_t seed,
              at::TensorOptions options = at::kFloat, const std::string& name = "moco-queue");

    const at::Tensor& keys() const { return keys_; }  // [width, size], a key a column

    // Replaces the oldest columns by the keys [n, width] of all ranks, in rank order; n is the same on all
    // ranks and their sum divides the size (ConfigError). Collective.
    void push(comm::Communicator& ranks, const at::Tensor& keys);

    // For checkpoints, under the published names: {"queue" [width, size], "queue_ptr" [1] int64}.
    std::map<std::string, at::Tensor> state() const;
    void load_state(const std::map<std::string, at::Tensor>& state);  // throws DataError

private:
    at::Tensor keys_;
    std::int64_t next_ = 0;  // column of the next key
};

// [q·k, q·queue]/temperature, [B, 1 + K].  queries, keys  [B, E] unit rows    queue  [E, K]
at::Tensor moco_logits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& queue,
                       double temperature);

// Mean over this rank's rows of the cross-entropy with the own key as the answer; unit rows are made here. In
// float32 or better; no gradient goes to keys and queue.
at::Tensor moco_loss(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& queue,
                     double temperature);

}  // namespace astroclip::ssl
