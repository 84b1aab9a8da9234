#pragma once

#include <string>
#include <unordered_map>
#include <vector>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/image_views.hpp"
#include "data/loader.hpp"
#include "nn/regressor.hpp"
#include "ssl/grouped_norm.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

// As AstroCLIP's supervised baselines were trained.
struct SupervisedConfig {
    std::string modality = "image";  // image: ResNet-18; spectrum: convolutions and attention
    int resnet_width = 64;           // channels of the ResNet's first stage
    std::int64_t batch_size = 128;   // objects of a step, over all ranks
    // Images that are normalised together, see GroupedNorm; the published run's were the whole batch.
    std::int64_t group_size = 128;
    double learning_rate = 5e-4;
    std::int64_t epochs = 50;
    std::string schedule = "constant";         // constant | cosine
    std::string augmentation_draws = "batch";  // batch | object
    double validation_fraction = 0.2;          // of the labelled galaxies, chosen by a hash of their ids
    data::CentreViewConfig view;
    int read_ahead = 2;  // steps
};
void bind(config::Section options, SupervisedConfig& config);

// Galaxies with what is to be learned of them.
struct Labelled {
    std::vector<std::string> targets;
    std::vector<std::int64_t> numbers;  // in Galaxies
    at::Tensor values;                  // [numbers, targets] float64, finite
};

// Regression on labels: the mean squared error of the targets, each scaled to mean 0 and deviation 1 (of the
// sample, n - 1; where that is 0, 1) by all labelled galaxies. A share of these is held out of training and
// chooses the best epoch. Images are turned over and blurred in training, spectra stay as they are.
class SupervisedTask : public train::Task {
public:
    // `galaxies` (with the modality) and `ranks` outlive the task. Throws ConfigError if ranks, groups and
    // batch do not divide or the crop does not fit the images, DataError if no galaxy is left to choose the
    // epoch by.
    SupervisedTask(const SupervisedConfig& config, const data::Galaxies& galaxies, const Labelled& labelled,
                   comm::Communicator& ranks, std::uint64_t seed);

    std::vector<train::Parameter> parameters() const override;
    std::int64_t steps_per_epoch() const override { return loader_.sampler().steps_per_epoch(); }
    std::int64_t global_batch() const override { return config_.batch_size; }
    void seek(std::int64_t step) override { loader_.seek(step); }
    void fetch() override { batch_ = loader_.next(); }
    train::Loss forward(std::int64_t step) override;
    train::Rates rates(std::int64_t step) const override;
    void after_step(std::int64_t step) override;
    std::map<std::string, double> validate() override;
    std::vector<std::int64_t> batch_ids() const override { return batch_.object_ids; }
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;
    std::map<std::string, at::Tensor> model() const override { return state(); }
    std::map<std::string, std::string> model_metadata() const override;

private:
    struct Sides {
        std::vector<std::int64_t> fitted, held_out;  // numbers of galaxies
    };
    static Sides divide(const SupervisedConfig& config, const data::Galaxies& galaxies,
                        const Labelled& labelled, std::uint64_t seed);
    void scale_targets(const data::Galaxies& galaxies, const Labelled& labelled);
    at::Tensor input(const data::Batch& batch) const;
    at::Tensor augmented(const at::Tensor& images, std::int64_t step) const;
    at::Tensor targets_of(const data::Batch& batch) const;

    SupervisedConfig config_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    Sides sides_;
    data::Loader loader_;
    nn::Regressor model_;
    GroupedNorm norm_;
    at::Tensor scaled_;                                      // [labelled, targets] float32
    std::unordered_map<std::int64_t, std::int64_t> row_of_;  // in scaled_, by object id
    data::Batch batch_;
};

}  // namespace astroclip::ssl
