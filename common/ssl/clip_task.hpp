#pragma once

#include <functional>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/image_views.hpp"
#include "data/loader.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "ssl/grouped_norm.hpp"
#include "ssl/info_nce.hpp"
#include "ssl/pair_augmentation.hpp"
#include "ssl/token_cache.hpp"
#include "train/schedule.hpp"
#include "train/task.hpp"

namespace astroclip::ssl {

struct ClipTaskConfig {
    std::int64_t batch_size = 1024;  // pairs a step, over all ranks: the pool of negatives
    // The encoders' learning rates, as factors of the heads'; 0: frozen, as published.
    double image_encoder_rate = 0, spectrum_encoder_rate = 0;
    int trained_blocks = 0;  // of an encoder that is trained, its last blocks and last norm; 0: all of it
    // Batch normalisation of a ResNet: "train" by the statistics of the batch, which the running ones follow,
    // even if it is frozen (as the workshop's code in effect did), or "eval" by those of its pretraining.
    std::string bn_mode = "train";
    // Images whose batch statistics are taken together; a rank owns whole groups. 0: the whole batch.
    std::int64_t group_size = 0;
    std::int64_t micro_batch = 0;  // pairs that a rank embeds at once; 0: all of its share
    double weight_decay = 0.05;
    PairAugmentation augmentation;
    bool frozen() const { return image_encoder_rate == 0 && spectrum_encoder_rate == 0; }
    bool normalises_by_batch(const nn::ImageConfig& image) const
    {
        return nn::is_resnet(image) && bn_mode == "train";
    }
    bool same_tokens_every_epoch(const nn::ImageConfig& image) const
    {
        return frozen() && !augmentation.changes_anything() && !normalises_by_batch(image);
    }
    nn::HeadConfig head;
    InfoNceConfig loss;
    data::CentreViewConfig view;
    data::SpectrumTokensConfig tokens;  // not an option: as the spectrum encoder was trained
    train::AlignmentSchedule schedule;
};
void bind(config::Section options, ClipTaskConfig& config);

// What an encoder, frozen or trained, sees of a batch, and the tokens [B, N, D] that it gives.
at::Tensor encode_images(const nn::AlignedModel& model, const data::Batch& batch,
                         const data::CentreViewConfig& view, at::Device device);
at::Tensor encode_spectra(const nn::AlignedModel& model, const data::Batch& batch,
                          const data::SpectrumTokensConfig& tokens, at::Device device);

// Contrastive alignment of image and spectrum of the same galaxy (AstroCLIP: Parker et al. 2024, §3):
// pretrained encoders, a cross-attention head on each, InfoNCE over the global batch. In the earlier variant
// (workshop, 2023) the image encoder is a ResNet, and its projection is the image head.
class ClipTask : public train::Task {
public:
    // `model`: encoders with their pretrained weights, heads at their first values. `cache`: tokens of frozen
    // encoders, or null. `galaxies`, `cache` and `ranks` outlive the task. Throws ConfigError if the ranks do
    // not divide the batch or its groups, or the pairs do not fill one.
    ClipTask(const ClipTaskConfig& config, nn::AlignedModel model, const nn::ImageConfig& image,
             const nn::SpecFormerConfig& spectrum, const data::Galaxies& galaxies, comm::Communicator& ranks,
             std::uint64_t seed, const TokenCache* cache = nullptr);

    std::vector<train::Parameter> parameters() const override;
    std::int64_t steps_per_epoch() const override { return loader_.sampler().steps_per_epoch(); }
    std::int64_t global_batch() const override { return config_.batch_size; }
    void seek(std::int64_t step) override { loader_.seek(step); }
    void fetch() override { batch_ = loader_.next(); }
    std::int64_t gradient_parts() const override { return micro_batches(); }
    train::Loss forward(std::int64_t step) override;
    train::Rates rates(std::int64_t step) const override;
    void after_step(std::int64_t step) override;
    // On the held-out pairs, without dropout: loss at the scale and at 1 (means over batches of the training
    // size; what is left over after the last whole one does not count), ln N - loss of these batches of N (a
    // bound on the mutual information, nats: van den Oord et al. 2018), and alignment_figures among up to
    // 4096 of them.
    std::map<std::string, double> validate() override;
    std::vector<std::int64_t> batch_ids() const override { return batch_.object_ids; }
    std::map<std::string, at::Tensor> state() const override;
    void load_state(const std::map<std::string, at::Tensor>& state) override;
    std::map<std::string, at::Tensor> model() const override;
    std::map<std::string, std::string> model_metadata() const override;

private:
    struct Embeddings {
        at::Tensor image, spectrum;  // z [n, E], float32
    };
    struct Draws {  // of a training step
        std::uint32_t step;
        nn::Dropout image, spectrum;
    };
    // on_spectra(z) once the spectra are embedded, before the images are (but after both with micro-batches).
    using OnSpectra = std::function<void(const at::Tensor& z)>;
    // `first`: number of the batch's first pair among this rank's.
    Embeddings embed(const data::Batch& batch, const Draws* draws, const OnSpectra& on_spectra = {},
                     std::int64_t first = 0);
    Embeddings embed_by_parts(const Draws& draws, const OnSpectra& on_spectra);
    at::Tensor image_tokens(const data::Batch& batch, bool training, std::int64_t first);
    at::Tensor spectrum_tokens(const data::Batch& batch) const;
    std::int64_t micro_batches() const;
    void require_trained_gradients();
    at::Tensor scale() const;  // of the logits; 0-dimensional
    Embeddings embed_held_out();

    ClipTaskConfig config_;
    nn::ImageConfig image_;
    nn::SpecFormerConfig spectrum_;
    nn::AlignedModel model_;
    GroupedNorm norm_;
    const data::Galaxies& galaxies_;
    comm::Communicator& ranks_;
    std::uint64_t seed_;
    data::Loader::Read read_;
    at::Tensor log_scale_;  // 0-dimensional; trained with learn-scale
    data::Loader loader_;
    data::Batch batch_;
};

}  // namespace astroclip::ssl
