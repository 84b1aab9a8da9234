#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "train/gradient_sync.hpp"
#include "train/optimizer.hpp"
#include "train/task.hpp"
#include "train/trainer.hpp"

namespace astroclip::train {

// One step of data-parallel training: the gradient of the fetched batch, averaged over the ranks and clipped,
// and then, if it is good, the optimiser.
class Step {
public:
    Step(const Task& task, const TrainerConfig& config, comm::Communicator& ranks);

    struct Gradient {
        double loss = 0;                      // this rank's share
        std::map<std::string, double> terms;  // this rank's shares
        std::map<std::string, double> norms;  // of each clip group and part, before clipping
        bool finite = true;                   // loss and norms
    };
    // Collective. Into .grad() of the parameters.
    Gradient gradient(Task& task, std::int64_t step);
    void apply(const Rates& rates) { optimizer_->step(rates); }

    const std::vector<Parameter>& parameters() const { return parameters_; }
    Optimizer& optimizer() { return *optimizer_; }
    const Optimizer& optimizer() const { return *optimizer_; }

private:
    std::string precision_;
    double clip_norm_;
    c10::DeviceType device_;
    std::vector<Parameter> parameters_;
    std::unique_ptr<Optimizer> optimizer_;
    GradientSync sync_;
};

}  // namespace astroclip::train
