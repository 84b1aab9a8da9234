#pragma once

#include <memory>
#include <optional>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/loader.hpp"
#include "data/physical_views.hpp"
#include "nn/resnet.hpp"
#include "ssl/effective_rank.hpp"
#include "ssl/grouped_norm.hpp"
#include "ssl/moco_loss.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

// As Stein et al. (2021) trained.
struct MocoTaskConfig {
    std::int64_t batch_size = 32'768;  // images a step, over all ranks
    // Batch normalisation takes its statistics of fixed groups of this many images, so that they do not
    // depend on the ranks; a rank owns whole groups. The published run's groups were a GPU's batch.
    std::int64_t group_size = 256;
    std::int64_t queue = 65'536;  // keys
    double key_momentum = 0.996, temperature = 0.2;
    double learning_rate = 0.24, sgd_momentum = 0.9, weight_decay = 1e-4;
    std::int64_t epochs = 1500;             // of the learning rate's cosine
    at::ScalarType precision = at::kFloat;  // of weights and images; double where rounding must not count
    nn::ResNetConfig encoder;
    data::PhysicalViewConfig views;
};
void bind(config::Section options, MocoTaskConfig& config);  // all but batch_size, group_size, precision

// MoCo v2 (Chen et al. 2020) on galaxies (Stein et al. 2021): the query of one view of an image shall be
// nearer to the key of another view, from a slowly following encoder, than to the keys of earlier batches of
// all ranks. Key images are shuffled over all ranks before they are normalised in groups, since query and key
// would else recognise each other by their group's statistics.
class MocoTask : public train::Task {
public:
    // `galaxies` (with images) and `ranks` outlive the task. Throws ConfigError if ranks, groups, batch and
    // queue do not divide.
    MocoTask(const MocoTaskConfig& config, const data::Galaxies& galaxies, comm::Communicator& ranks,
             std::uint64_t seed);

    std::vector<train::Parameter> parameters() const override;
    std::int64_t steps_per_epoch() const override { return loader_.sampler().steps_per_epoch(); }
    std::int64_t global_batch() const override { return config_.batch_size; }
    void seek(std::int64_t step) override { loader_.seek(step); }
    void fetch() override { batch_ = loader_.next(); }
    train::Loss forward(std::int64_t step) override;
    train::Rates rates(std::int64_t step) const override;
    std::optional<double> sgd_momentum() const override { return config_.sgd_momentum; }
    void after_step(std::int64_t step) override;
    // "contrast" (the loss) and "top1" of the test galaxies in whole batches, against a queue of their own.
    std::map<std::string, double> validate() override;
    std::vector<std::int64_t> batch_ids() const override { return batch_.object_ids; }
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;
    std::map<std::string, at::Tensor> model() const override;  // encoder_q.*
    std::map<std::string, std::string> model_metadata() const override;

private:
    at::Tensor view(const data::Batch& batch, std::uint32_t epoch, std::int64_t number,
                    const std::string& augmentations) const;
    at::Tensor in_groups(nn::ResNet& encoder, const at::Tensor& images, GroupedNorm& norm) const;
    at::Tensor keys(const at::Tensor& images, std::int64_t step);
    void watch(double rank, std::int64_t step);

    MocoTaskConfig config_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    nn::ResNet query_, key_;
    MocoQueue queue_, validation_queue_;
    at::Tensor new_keys_;  // of the last forward
    GroupedNorm query_norm_, key_norm_;
    data::Loader loader_;
    data::Batch batch_;
    CollapseWatch collapse_;
};

}  // namespace astroclip::ssl
