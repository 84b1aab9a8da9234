#pragma once

#include <optional>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/loader.hpp"
#include "data/spectrum_masks.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/specformer.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "train/schedule.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

// The defaults are those of AstroCLIP's SpecFormer (64 spectra on each of 4 GPUs).
struct MaskedSpectrumConfig {
    std::int64_t batch_size = 256;  // spectra of a step, over all ranks
    data::SpectrumTokensConfig tokens;
    data::SpectrumMasksConfig masks;
    nn::SpecFormerConfig model;  // its token_dim follows from the tokens
    train::WarmupCosine schedule{
        .learning_rate = 1e-5, .warmup_steps = 2000, .total_steps = 500'000, .eta_min = 0.0};
    double weight_decay = 0.1;          // on all parameters
    std::string loss_ratio = "global";  // global | rank, see MaskedRatio
    std::string weighting = "none";     // none | ivar
    std::int64_t validation_batches = 100;
    int read_ahead = 2;  // steps

    bool needs_ivar() const { return weighting == "ivar" || tokens.leaves_out_bad_bins(); }
};
void bind(config::Section options, MaskedSpectrumConfig& config);

// Masked spectrum modelling: the SpecFormer sees a spectrum's tokens with some runs of them set to zero and
// predicts them back; the loss is the mean squared error over what was masked, one ratio over the global
// batch. Masks are drawn anew in each epoch; those of the validation, on the held-out side of the split, stay
// the same. A spectrum's bins may be weighted by their inverse variance, which is divided by its mean over
// the spectrum: each spectrum counts alike, and in it what was measured well counts more.
class MaskedSpectrumTask : public train::Task {
public:
    // `galaxies` must read ivar if the configuration needs it. Throws ConfigError if a spectrum's tokens do
    // not fit the model or the masks, or the batch the sample.
    MaskedSpectrumTask(const MaskedSpectrumConfig& config, const data::Galaxies& galaxies,
                       comm::Communicator& ranks, std::uint64_t seed);

    std::vector<train::Parameter> parameters() const override;
    std::int64_t steps_per_epoch() const override { return loader_.sampler().steps_per_epoch(); }
    std::int64_t global_batch() const override { return config_.batch_size; }
    void seek(std::int64_t step) override { loader_.seek(step); }
    void fetch() override { batch_ = loader_.next(); }
    train::Loss forward(std::int64_t step) override;
    train::Rates rates(std::int64_t step) const override;
    std::map<std::string, double> validate() override;
    std::vector<std::int64_t> batch_ids() const override { return batch_.object_ids; }
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;
    std::map<std::string, at::Tensor> model() const override { return state(); }
    std::map<std::string, std::string> model_metadata() const override;

private:
    // The masked tokens of a batch and their prediction, as the two sums of the loss.
    MaskedSums sums_of(const data::Batch& batch, std::optional<std::uint32_t> epoch,
                       const nn::Dropout* dropout = nullptr);

    MaskedSpectrumConfig config_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    std::vector<std::int64_t> held_out_;
    data::Loader loader_;
    nn::SpecFormer model_{nullptr};
    data::Batch batch_;
    std::optional<nn::Dropout> dropout_{};  // of the step; the backward pass may draw from it again
};

}  // namespace astroclip::ssl
