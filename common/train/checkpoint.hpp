#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "comm/world.hpp"

// OUTPUT/checkpoints/step-00001000/{model,optimizer}.safetensors, best-1.safetensors and so on of the best
// models yet, and state.json, which lists the files with their hashes and is published last: a folder without
// it is no checkpoint.
namespace astroclip::train {

using TensorMap = std::map<std::string, at::Tensor>;

struct Checkpoint {
    std::int64_t step = 0;  // steps done
    TensorMap model;        // the task's state
    TensorMap optimizer;
    std::vector<TensorMap> best;  // models of the lowest validation losses so far; known to rank 0 alone
    nlohmann::json state = nlohmann::json::object();  // what else the trainer remembers
};

class Checkpoints {
public:
    // `folder`: OUTPUT/checkpoints, made at need. `digest`: of the configuration.
    Checkpoints(const comm::World& world, std::string folder, std::string digest, int keep);

    // Collective. Removes what a killed run left unfinished; reads the newest checkpoint that is complete and
    // whose files are what their hashes say. A damaged one is passed over with a warning.
    std::optional<Checkpoint> newest() const;

    // Collective. Written by rank 0; older ones than the newest `keep` are removed. Throws IoError.
    void save(const Checkpoint& checkpoint) const;

private:
    std::string path(std::int64_t step) const;
    std::int64_t newest_step() const;
    void write(const Checkpoint& checkpoint) const;
    void remove_old() const;

    const comm::World& world_;
    std::string folder_, digest_;
    int keep_;
};

// A safetensors file published under `path` (rank 0; no communication).
void publish_tensors(const std::string& path, const TensorMap& tensors,
                     const std::map<std::string, std::string>& metadata = {});

}  // namespace astroclip::train
