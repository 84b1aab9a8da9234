#include <ATen/ATen.h>
#include <fmt/format.h>

#include <limits>
#include <span>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

// The held-out galaxies are cut into compute batches by their place among them, and a rank owns whole
// batches, so that the bits do not depend on how many ranks there are.
at::Tensor predictions_of(const Supervised& supervised, const Inputs& inputs, at::Device device,
                          stage::Context& context)
{
    const auto& world = context.world;
    const auto test = std::span(inputs.sample.number).subspan(static_cast<std::size_t>(inputs.sample.train));
    const auto size = std::ssize(test);
    const auto batches = (size + nn::compute_batch - 1) / nn::compute_batch;
    const auto first = batches * world.rank() / world.size(),
               last = batches * (world.rank() + 1) / world.size();
    auto model = supervised.model;
    std::vector<double> own;
    context.progress.begin("predicting by " + supervised.name, last - first, "batches");
    for (auto batch = first; batch < last; ++batch) {
        alive("predicting a batch");
        const auto begin = batch * nn::compute_batch, count = std::min(size - begin, nn::compute_batch);
        const auto galaxies = inputs.galaxies.read(
            test.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count)));
        const auto x = model->resnet ? data::centre_view(galaxies.images, supervised.view) : galaxies.spectra;
        const auto predicted =
            model->predict(data::padded(x, nn::compute_batch).to(device)).narrow(0, 0, count).contiguous();
        own.insert(own.end(), predicted.const_data_ptr<double>(),
                   predicted.const_data_ptr<double>() + predicted.numel());
        context.progress.update(batch - first + 1);
    }
    context.progress.end();
    return at::tensor(world.all_gather(own), at::kDouble).view({size, -1});
}

}  // namespace

std::vector<Learned> learned_predictions(const Inputs& inputs, const stage::Compute& compute,
                                         stage::Context& context)
{
    std::vector<Learned> all;
    for (const auto& supervised : inputs.supervised) {
        const auto& config = supervised.model->config();
        const auto held_out = predictions_of(supervised, inputs, compute.device, context);
        if (!held_out.isfinite().all().item<bool>()) {
            throw NumericsError(
                fmt::format("the model '{}' predicts numbers that are not finite", supervised.name));
        }
        const auto unknown = at::full({inputs.sample.train, held_out.size(1)},
                                      std::numeric_limits<double>::quiet_NaN(), at::kDouble);
        all.push_back({supervised.name, config.modality, config.targets, at::cat({unknown, held_out}),
                       supervised.epochs});
    }
    return all;
}

}  // namespace astroclip::evaluate
