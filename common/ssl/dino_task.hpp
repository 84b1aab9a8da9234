#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/image_views.hpp"
#include "data/loader.hpp"
#include "nn/dino_head.hpp"
#include "nn/vision_transformer.hpp"
#include "ssl/dino_loss.hpp"
#include "train/schedule.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

struct DinoTaskConfig {
    std::int64_t batch_size = 1440;  // images a step, over all ranks
    // What couples samples (stochastic depth) works on fixed groups of this many images, so that it does not
    // depend on the ranks; a rank owns whole groups. The published run's groups were a GPU's batch.
    std::int64_t group_size = 72;
    double student_temperature = 0.1;
    double centre_momentum = 0.9;
    double layer_decay = 0.9;        // learning rate from block to block, towards the input
    double patch_embed_scale = 0.2;  // of the patch embedding's learning rate, in addition
    nn::ViTConfig backbone;
    nn::DinoHeadConfig head;
    data::MultiCropConfig views;
    train::DinoSchedule schedule;
};
void bind(config::Section options, DinoTaskConfig& config);

// Self-distillation of an image transformer on the cls token (DINO: Caron et al. 2021, with the networks,
// schedules and crops of AstroDINO): the student learns from two global and several local crops of a galaxy
// what the teacher, its own moving average, says of the other global crop.
class DinoTask : public train::Task {
public:
    // `galaxies` (with images) and `ranks` outlive the task. Throws ConfigError if ranks, groups and batch do
    // not divide.
    DinoTask(const DinoTaskConfig& config, const data::Galaxies& galaxies, comm::Communicator& ranks,
             std::uint64_t seed);
    ~DinoTask() override;

    std::vector<train::Parameter> parameters() const override;
    std::int64_t steps_per_epoch() const override;
    std::int64_t global_batch() const override { return config_.batch_size; }
    void seek(std::int64_t step) override;
    void fetch() override;
    train::Loss forward(std::int64_t step) override;
    train::Rates rates(std::int64_t step) const override;
    void after_step(std::int64_t step) override;
    std::vector<std::int64_t> batch_ids() const override { return batch_.object_ids; }
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;
    std::map<std::string, at::Tensor> model()
        const override;  // the teacher: its backbone without prefix, dino_head.*
    std::map<std::string, std::string> model_metadata() const override;

private:
    struct Network;  // backbone.*, dino_head.*

    DinoTaskConfig config_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    std::shared_ptr<Network> student_, teacher_;
    DinoCentre centre_;
    data::Loader loader_;
    data::Batch batch_;
    at::Tensor teacher_logits_;  // of the last forward, float32: the centre's next update
};

}  // namespace astroclip::ssl
