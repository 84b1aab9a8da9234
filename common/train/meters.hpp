#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "train/task.hpp"

namespace astroclip::train {

// What one rank has to say of one step; `agree` makes it what all ranks know.
struct StepReport {
    double loss = 0;                      // this rank's share
    std::map<std::string, double> terms;  // the same names on all ranks
    bool finite = true;                   // of loss and gradients
    bool stop = false;                    // this rank was asked to stop
    bool checkpoint_due = false;          // rank 0's clock says so
    double data_wait_s = 0, step_s = 0;
    double mem_bytes = 0;        // resident
    std::vector<int> bad_ranks;  // out: whose loss or gradient was not finite
};

// One collective: means of losses and terms, any of the flags (checkpoint_due: rank 0's), the longest times
// and the largest memory, each in rank order and so with the same bits on all ranks.
StepReport agree(const comm::World& world, const StepReport& own);

// The line of metrics.jsonl. The gradient norm of the clip group "" is grad_norm, of others
// and of parts grad_norm_NAME.
nlohmann::json step_metrics(const StepReport& report, const Rates& rates,
                            const std::map<std::string, double>& norms);

double resident_bytes();  // of this process

}  // namespace astroclip::train
