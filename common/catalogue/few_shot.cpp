#include "catalogue/few_shot.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <limits>

#include "catalogue/regression.hpp"
#include "catalogue/small_network.hpp"
#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::catalogue {
namespace {

// [n] bool: the rows that the epoch is chosen by. Never all of them.
at::Tensor held_out(std::int64_t n, const FewShotConfig& config)
{
    auto held = at::zeros({n}, at::kBool);
    Random random(config.seed, "few-shot-validation");
    for (std::int64_t i = 1; i < n; ++i) {
        held.data_ptr<bool>()[i] = random.uniform() < config.validation_fraction;
    }
    return held;
}

}  // namespace

at::Tensor few_shot_regression(const at::Tensor& train, const at::Tensor& targets, const at::Tensor& query,
                               const FewShotConfig& config)
{
    if (train.size(0) == 0) {
        throw DataError("few-shot regression", "the training set is empty");
    }
    const auto x_scale = ColumnScale::of(train);
    const auto columns = targets.view({train.size(0), -1});
    const auto y_scale = ColumnScale::of(columns);
    const auto x = x_scale.standardise(train).to(at::kFloat);
    const auto y = y_scale.standardise(columns).to(at::kFloat);

    std::vector<std::int64_t> widths{x.size(1)};
    widths.insert(widths.end(), config.hidden.begin(), config.hidden.end());
    widths.push_back(y.size(1));
    SmallNetwork network(widths, config.dropout, config.seed);
    const auto held = held_out(x.size(0), config);
    const auto fitted = held.logical_not().nonzero().squeeze(1), checked = held.nonzero().squeeze(1);
    auto best = network.copy();
    auto least = std::numeric_limits<double>::infinity();
    fit(
        network.parameters(), fitted.size(0),
        {config.learning_rate, config.batch, config.epochs, config.seed},
        [&](const at::Tensor& rows) {
            const auto some = fitted.index_select(0, rows);
            return at::mse_loss(network.train(x.index_select(0, some)), y.index_select(0, some));
        },
        [&](int) {
            const at::NoGradGuard no_grad;
            const auto loss = checked.size(0) == 0 ? 0.0
                                                   : at::mse_loss(network(x.index_select(0, checked)),
                                                                  y.index_select(0, checked))
                                                         .item<double>();
            if (checked.size(0) == 0 || loss < least) {
                least = loss;
                best = network.copy();
            }
            return false;
        });
    network.restore(best);

    const auto predicted = network(x_scale.standardise(query).to(at::kFloat)).detach().to(at::kDouble);
    if (!predicted.isfinite().all().item<bool>()) {
        throw NumericsError("few-shot regression: the predictions are not finite");
    }
    return predicted * y_scale.std + y_scale.mean;
}

}  // namespace astroclip::catalogue
