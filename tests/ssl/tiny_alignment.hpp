#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ssl/clip_task.hpp"
#include "ssl/task_state.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/step.hpp"

// Alignment of a few dozen galaxies by small networks.
namespace astroclip::test {

inline const nn::ViTConfig tiny_vit{
    .image_size = 12, .patch_size = 4, .width = 32, .depth = 2, .heads = 2, .block_chunks = 0};
inline const nn::SpecFormerConfig tiny_specformer{.width = 24, .layers = 2, .heads = 2, .max_tokens = 64};

class TinyAlignment : public testing::Test {
protected:
    explicit TinyAlignment(std::int64_t galaxies = 48) : ranks_(all_ranks())
    {
        survey_.galaxies = galaxies;
        survey_.folder = scratch_folder(ranks_.world, "align");
        survey_.bins = 400;  // 39 tokens
        write_images(ranks_.world, survey_);
        write_spectra(ranks_.world, survey_);
        write_pairs(ranks_.world, survey_);
        galaxies_ = std::make_unique<data::Galaxies>(
            data::Stores{survey_.images(), survey_.spectra(), survey_.pairs()});
        config_.batch_size = 16;
        config_.head = {.embed_dim = 32, .attention_heads = 4, .dropout = 0.1};
        config_.view.crop = 12;
        config_.schedule.by_step = {.learning_rate = 1e-3, .warmup_steps = 2, .total_steps = 20};
    }
    ~TinyAlignment() override { remove_scratch(ranks_.world, survey_.folder); }

    nn::AlignedModel model() const
    {
        nn::AlignedModel fresh(image_, tiny_specformer, config_.head);
        // A ResNet's 11 million first values take their time: they are drawn once.
        static std::map<bool, std::map<std::string, at::Tensor>> drawn;
        auto& first = drawn[nn::is_resnet(image_)];
        if (first.empty()) {
            nn::initialise(*fresh, 3);
            for (const auto& [name, tensor] : nn::published_state(*fresh)) {
                first[name] = tensor.detach().clone();
            }
        }
        ssl::take_state(first, "", *fresh);
        fresh->eval();
        nn::convert(*fresh, at::kCPU, type_);
        return fresh;
    }
    ssl::ClipTask task(comm::Communicator& ranks, const ssl::TokenCache* cache = nullptr) const
    {
        return {config_, model(), image_, tiny_specformer, *galaxies_, ranks, 5, cache};
    }
    // The earlier variant: a ResNet that is normalised by groups of its batch, flipped images, its own
    // widths.
    void be_the_workshops()
    {
        image_ = nn::ResNetConfig{.layers = 18, .embed_dim = 32};
        config_.group_size = 4;
        config_.head.hidden_dropout = 0.1;
        config_.augmentation.flips = "always";
        config_.view.rgb = "none";
    }
    std::map<std::string, at::Tensor> buffers(const ssl::ClipTask& task) const
    {
        std::map<std::string, at::Tensor> all;
        for (const auto& [name, tensor] : task.state()) {
            if (name.find("running_") != std::string::npos || name.ends_with("num_batches_tracked")) {
                all[name] = tensor.clone();
            }
        }
        return all;
    }
    // Running statistics after two steps.
    std::map<std::string, at::Tensor> statistics(comm::Communicator& ranks) const
    {
        auto trained = task(ranks);
        trained.seek(0);
        for (std::int64_t step = 0; step < 2; ++step) {
            trained.fetch();
            trained.forward(step).share.backward();
            trained.after_step(step);
        }
        return buffers(trained);
    }
    std::vector<double> losses(comm::Communicator& ranks, const ssl::TokenCache* cache = nullptr) const
    {
        auto trained = task(ranks, cache);
        train::Step step(trained, {}, ranks);
        trained.seek(0);
        std::vector<double> all;
        for (std::int64_t i = 0; i < 10; ++i) {
            trained.fetch();
            auto loss = at::scalar_tensor(step.gradient(trained, i).loss, at::kDouble);
            ranks.all_reduce_sum(loss);
            all.push_back(loss.item<double>() / ranks.size());
            step.apply(trained.rates(i));
        }
        const at::NoGradGuard no_grad;
        all.push_back(trained.validate().at("loss"));
        return all;
    }
    // Of the first step, by parameter.
    std::map<std::string, at::Tensor> gradients(std::int64_t micro_batch)
    {
        return gradients(micro_batch, ranks_);
    }
    std::map<std::string, at::Tensor> gradients(std::int64_t micro_batch, comm::Communicator& ranks)
    {
        config_.micro_batch = micro_batch;
        auto trained = task(ranks);
        train::Step step(trained, {.clip_norm = 0, .bucket_bytes = 1 << 12}, ranks);
        trained.seek(0);
        trained.fetch();
        step.gradient(trained, 0);
        std::map<std::string, at::Tensor> all;
        for (const auto& parameter : step.parameters()) {
            all[parameter.name] = parameter.tensor.grad().clone();
        }
        return all;
    }

    Ranks ranks_;
    TinySurvey survey_;
    std::unique_ptr<data::Galaxies> galaxies_;
    ssl::ClipTaskConfig config_;
    at::ScalarType type_ = at::kFloat;
    nn::ImageConfig image_ = tiny_vit;
};

}  // namespace astroclip::test
