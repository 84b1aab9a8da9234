#pragma once

#include <memory>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/block_masks.hpp"
#include "data/image_views.hpp"
#include "data/loader.hpp"
#include "nn/dino_head.hpp"
#include "nn/vision_transformer.hpp"
#include "ssl/dino_loss.hpp"
#include "ssl/effective_rank.hpp"
#include "ssl/prototype_loss.hpp"
#include "train/schedule.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

struct DinoTaskConfig {
    std::int64_t batch_size = 1440;  // images a step, over all ranks
    // What couples samples (stochastic depth, masks, KoLeo, the patch centre) works on fixed groups of this
    // many images, so that it does not depend on the ranks; a rank owns whole groups. The published run's
    // groups were a GPU's batch.
    std::int64_t group_size = 72;
    double dino_weight = 1, ibot_weight = 1, koleo_weight = 0.1;  // of the terms of the loss
    std::string centering = "center";  // of the teacher's logits: center, or sinkhorn (Sinkhorn-Knopp)
    bool separate_ibot_head = false;   // else one head serves cls and patches
    double student_temperature = 0.1;
    double centre_momentum = 0.9;
    double layer_decay = 0.9;        // learning rate from block to block, towards the input
    double patch_embed_scale = 0.2;  // of the patch embedding's learning rate, in addition
    nn::ViTConfig backbone;
    nn::DinoHeadConfig head;
    data::MultiCropConfig views;
    data::BlockMasksConfig masks;
    train::DinoSchedule schedule;
};
void bind(config::Section options, DinoTaskConfig& config);  // all but batch_size and group_size

// Self-distillation of an image transformer as DINOv2 does it (Oquab et al. 2024), with the networks,
// schedules and crops of AstroDINO. From two global and several local crops of a galaxy the student learns
// what the teacher, its own moving average, says of the other global crop (DINO, on the cls token) and of
// patches that the student does not see (iBOT); KoLeo spreads the cls tokens.
class DinoTask : public train::Task {
public:
    // `galaxies` (with images) and `ranks` outlive the task. Throws ConfigError if ranks, groups and batch do
    // not divide, or the sizes of crops or masks do not fit each other.
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
    // The teacher: its backbone without prefix, dino_head.*, ibot_head.* if separate.
    std::map<std::string, at::Tensor> model() const override;
    std::map<std::string, std::string> model_metadata() const override;

private:
    struct Network;  // backbone.*, dino_head.*, ibot_head.*
    struct MaskedPatches;
    struct Targets;

    data::ImageViews views(std::int64_t step) const;
    MaskedPatches masked_patches(std::int64_t step) const;
    Targets teach(const at::Tensor& global_crops, const MaskedPatches& masked, std::int64_t step);
    TargetRows target_rows(const DinoCentre& centre, const at::Tensor& features, const at::Tensor& prototypes,
                           std::int64_t step) const;
    at::Tensor ibot(const nn::ImageTokens& global, const MaskedPatches& masked,
                    const TargetRows& targets) const;
    nn::StochasticDepth depth(int crops, const char* purpose, std::int64_t step) const;
    void watch(double rank, std::int64_t step);

    DinoTaskConfig config_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    std::shared_ptr<Network> student_, teacher_;
    DinoCentre cls_centre_, patch_centre_;
    at::Tensor cls_mean_,
        patch_means_;  // of the teacher's logits in the last forward: the centres' next update
    data::Loader loader_;
    data::Batch batch_;
    CollapseWatch collapse_;
};

}  // namespace astroclip::ssl
