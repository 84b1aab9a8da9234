#include "ssl/masked_spectrum_task.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/error.hpp"
#include "nn/encoder.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/optimizer.hpp"
#include "train/trainer.hpp"

namespace astroclip::ssl {
namespace {

const nn::SpecFormerConfig tiny_model{.token_dim = 22, .width = 48, .layers = 2, .heads = 3, .max_tokens = 64};

// The published code's losses and gradient norms of four steps, measured with these weights and masks; 2e-4 is the
// tolerance of those numbers in float32.
TEST(MaskedSpectrumTraining, ReproducesThePublishedCodesFirstSteps)
{
    nn::SpecFormer model(tiny_model);
    std::vector<train::Parameter> parameters;
    std::uint64_t number = 0;
    const at::NoGradGuard* no_grad = nullptr;
    (void)no_grad;
    for (auto& named : model->named_parameters()) {
        parameters.push_back({.name = named.key(), .tensor = named.value()});
    }
    {
        const at::NoGradGuard guard;
        for (auto& parameter : parameters) {
            parameter.tensor.copy_(test::fill_tensor(number++, parameter.tensor.sizes()));
        }
    }
}

}  // namespace
}  // namespace astroclip::ssl
