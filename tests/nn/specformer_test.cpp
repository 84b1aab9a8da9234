#include "nn/specformer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>

#include "core/error.hpp"
#include "data/spectrum_tokens.hpp"
#include "support/fill_module.hpp"

namespace astroclip::nn {
namespace {

SpecFormer tiny()
{
    SpecFormer model(SpecFormerConfig{.width = 48, .layers = 2, .heads = 3, .max_tokens = 64});
    test::fill_module(*model);
    return model;
}

TEST(SpecFormer, GivesThePublishedCheckValues)
{
    auto model = tiny();
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    ASSERT_EQ(tokens.sizes(), at::IntArrayRef({2, 39, 22}));
    test::expect_near(tokens[0], {0.31411, -0.14478, 0}, -2.28612, 26.24658);
    test::expect_near(model->forward(tokens)[0], {0.04672, -1.85623, -0.12461}, 0.54379, 43.11215);
    test::expect_near(model->reconstruct(tokens)[1], {0.41349, -0.47782, -1.79989}, 0.38743, 33.26102);
}

TEST(SpecFormer, SeesOnlyWhatCameBeforeIfItIsCausal)
{
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    auto changed = tokens.clone();
    changed.narrow(1, 20, 19).add_(1);
    for (const bool causal : {false, true}) {
        SpecFormer model(
            SpecFormerConfig{.width = 48, .layers = 2, .heads = 3, .max_tokens = 64, .causal = causal});
        test::fill_module(*model);
        const auto before = model->forward(tokens).narrow(1, 0, 20),
                   after = model->forward(changed).narrow(1, 0, 20);
        EXPECT_EQ(before.allclose(after, 1e-5, 1e-6), causal);
    }
}

TEST(SpecFormer, DropsAShareOfWhatItAddsOnlyWhenItIsTold)
{
    SpecFormer model(
        SpecFormerConfig{.width = 48, .layers = 2, .heads = 3, .max_tokens = 64, .dropout = 0.5});
    test::fill_module(*model);
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    const Dropout one(1, 0, {7, 8}), same(1, 0, {7, 8}), other(1, 1, {7, 8});
    EXPECT_TRUE(model->forward(tokens).equal(tiny()->forward(tokens)));
    EXPECT_TRUE(model->forward(tokens, &one).equal(model->forward(tokens, &same)));
    EXPECT_FALSE(model->forward(tokens, &one).allclose(model->forward(tokens, &other)));
}

TEST(SpecFormer, HasThePublishedNamesInTheirOrder)
{
    const auto state = published_state(*tiny());
    ASSERT_EQ(state.size(), 31u);
    EXPECT_EQ(state[0].first, "data_embed.weight");
    EXPECT_EQ(state[2].first, "position_embed.weight");
    EXPECT_EQ(state[5].first, "blocks.0.attention.attention.weight");
    EXPECT_EQ(state[13].first, "blocks.0.mlp.decoder.weight");
    EXPECT_EQ(state[30].first, "head.bias");
    std::int64_t parameters = 0;
    for (const auto& item : state) parameters += item.second.numel();
    EXPECT_EQ(parameters, 61'894);
}

// Four steps of masked modelling with AdamW: losses and gradient norms are the published code's.
TEST(SpecFormer, TrainsAsThePublishedCode)
{
    auto model = tiny();
    const auto target = data::spectrum_tokens(test::check_spectra(400));
    auto input = target.clone();
    for (const auto& [sample, start] : {std::pair{0, 3}, {0, 22}, {1, 10}, {1, 30}}) {
        input[sample].narrow(0, start, 5).zero_();
    }
    const auto changed = input.ne(target).to(at::kFloat);
    ASSERT_EQ(changed.sum().item<double>(), 400);

    torch::optim::AdamW optimizer(model->parameters(),
                                  torch::optim::AdamWOptions().betas({0.9, 0.95}).weight_decay(0.1));
    const double rates[] = {0, 5e-4, 1e-3, 1e-3};
    const double losses[] = {1.5653476, 1.5653476, 1.1699286, 0.7971560};
    const double norms[] = {7.3754144, 7.3754144, 4.9915190, 4.0218287};
    for (int step = 0; step < 4; ++step) {
        optimizer.zero_grad();
        const auto error = (model->reconstruct(input) - target).square() * changed;
        const auto loss = error.sum() / changed.sum();
        loss.backward();
        EXPECT_NEAR(loss.item<double>(), losses[step], 2e-6);  // float32 rounding over four steps
        EXPECT_NEAR(torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0), norms[step], 2e-5);
        for (auto& group : optimizer.param_groups()) group.options().set_lr(rates[step]);
        optimizer.step();
    }
}

// Values and gradients of reconstruct_at against those of reconstruct. Float32 sums in another order: 1e-5.
void expect_chosen_tokens_alike(const SpecFormerConfig& config)
{
    SpecFormer model(config);
    test::fill_module(*model);
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    const auto rows = at::tensor({3, 4, 5, 20, 38, 39 + 0, 39 + 7, 39 + 8, 39 + 9, 39 + 30}, at::kLong);
    const auto weight = test::fill_tensor(9, {2, 5, 22});

    const auto all = token_rows(model->reconstruct(tokens), rows);
    (all * weight).sum().backward();
    std::vector<at::Tensor> expected;
    for (auto parameter : model->parameters()) {
        expected.push_back(parameter.grad().clone());
        parameter.mutable_grad().reset();
    }
    const auto chosen = model->reconstruct_at(tokens, rows);
    EXPECT_TRUE(chosen.allclose(all, 1e-5, 1e-5));
    (chosen * weight).sum().backward();
    for (std::size_t i = 0; i < expected.size(); ++i) {
        EXPECT_LT((model->parameters()[i].grad() - expected[i]).norm().item<double>(),
                  1e-5 * expected[i].norm().item<double>() + 1e-6)
            << model->named_parameters().pairs()[i].first;
    }
}

TEST(SpecFormer, ReconstructsChosenTokensAsItReconstructsAll)
{
    expect_chosen_tokens_alike({.width = 48, .layers = 2, .heads = 3, .max_tokens = 64});
    expect_chosen_tokens_alike({.width = 48, .layers = 2, .heads = 3, .max_tokens = 64, .causal = true});
}

TEST(SpecFormer, GivesTheSameBitsWhenActivationsAreRecomputed)
{
    const auto tokens = data::spectrum_tokens(test::check_spectra(400));
    const auto rows = at::tensor({3, 4, 39 + 3, 39 + 4}, at::kLong);
    const Dropout dropout(1, 2, {100, 200});
    std::vector<at::Tensor> results[2];
    for (const bool recompute : {false, true}) {
        SpecFormer model(SpecFormerConfig{
            .width = 48, .layers = 3, .heads = 3, .max_tokens = 64, .dropout = 0.1, .recompute = recompute});
        test::fill_module(*model);
        auto& found = results[recompute ? 1 : 0];
        found.push_back(model->reconstruct_at(tokens, rows, &dropout).square().sum());
        found.back().backward();
        for (const auto& parameter : model->parameters()) {
            found.push_back(parameter.grad());
        }
    }
    for (std::size_t i = 0; i < results[0].size(); ++i) {
        EXPECT_TRUE(results[0][i].equal(results[1][i])) << i;
    }
}

TEST(SpecFormer, RefusesMoreTokensThanItHasPositionsFor)
{
    EXPECT_THROW(tiny()->forward(at::zeros({1, 65, 22})), DataError);
    EXPECT_THROW(tiny()->forward(at::zeros({1, 39, 20})), DataError);
}

TEST(SpecFormer, StartsAsThePublishedCodeDoes)
{
    SpecFormer model(SpecFormerConfig{.width = 96, .layers = 2, .heads = 3, .max_tokens = 800});
    initialise(*model, 3);
    const auto parameters = model->named_parameters();
    const auto std = [&](const char* name) { return parameters[name].std().item<double>(); };
    const double cut = 0.98658;  // a normal cut at ±3 standard deviations is that much narrower
    // 2 % holds the 3-sigma sampling error of the smallest of these matrices (9216 elements: 2.2 % / √2).
    EXPECT_NEAR(std("position_embed.weight"), cut / std::sqrt(96.), 0.02 / std::sqrt(96.));
    EXPECT_NEAR(std("blocks.1.attention.attention.weight"), cut / std::sqrt(2. * 96 * 2),
                0.02 / std::sqrt(2. * 96 * 2));
    EXPECT_NEAR(std("blocks.1.mlp.decoder.weight"), cut / std::sqrt(8. * 96 * 2),
                0.02 / std::sqrt(8. * 96 * 2));
    EXPECT_LE(parameters["data_embed.bias"].abs().max().item<double>(), 1 / std::sqrt(22.));
    EXPECT_EQ(parameters["blocks.0.layernorm1.weight"].min().item<double>(), 1);
    EXPECT_EQ(parameters["head.bias"].abs().max().item<double>(), 0);
}

}  // namespace
}  // namespace astroclip::nn
