#include "catalogue/few_shot.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "catalogue/regression.hpp"
#include "catalogue/small_network.hpp"
#include "core/error.hpp"

namespace astroclip::catalogue {

FewShot few_shot_regression(const at::Tensor& train, const at::Tensor& targets, const at::Tensor& query,
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
    const auto rows = divide(x.size(0), config.validation_fraction, config.seed);
    const auto check_x = x.index_select(0, rows.held_out), check_y = y.index_select(0, rows.held_out);
    const bool chooses = check_x.size(0) > 0;
    BestEpoch best(network.parameters());
    int trained = 0;
    fit(
        network.parameters(), rows.fitted.size(0),
        {config.learning_rate, config.batch, config.epochs, config.seed},
        [&](const at::Tensor& some) {
            const auto of = rows.fitted.index_select(0, some);
            return at::mse_loss(network.train(x.index_select(0, of)), y.index_select(0, of));
        },
        [&](int epoch) {
            const at::NoGradGuard no_grad;
            trained = epoch + 1;
            if (!chooses) return false;
            best.look(epoch, at::mse_loss(network(check_x), check_y).item<double>());
            return config.patience > 0 && epoch - best.epoch() >= config.patience;
        });
    if (chooses) best.restore();

    const auto predicted = network(x_scale.standardise(query).to(at::kFloat)).detach().to(at::kDouble);
    if (!predicted.isfinite().all().item<bool>()) {
        throw NumericsError("few-shot regression: the predictions are not finite");
    }
    return {predicted * y_scale.std + y_scale.mean, chooses ? best.epoch() + 1 : trained, trained};
}

}  // namespace astroclip::catalogue
