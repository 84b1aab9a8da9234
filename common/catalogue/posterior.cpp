#include "catalogue/posterior.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "catalogue/regression.hpp"
#include "catalogue/small_network.hpp"
#include "catalogue/spline.hpp"
#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::catalogue {
namespace {

const double log_two_pi = std::log(2 * std::numbers::pi);

// A stack of splines from N(0, 1) to a property, for each property, given a context.
class Flow {
public:
    Flow(std::int64_t context, std::int64_t properties, int bins, std::uint64_t seed)
        : properties_(properties), bins_(bins)
    {
        Random random(seed, "posterior-architecture");
        const auto layers = static_cast<int>(random.uniform(2, 4));
        const auto hidden =
            static_cast<std::int64_t>(std::ceil(std::exp(random.uniform(std::log(16), std::log(32)))));
        for (int layer = 0; layer < layers; ++layer) {
            networks_.emplace_back(
                std::vector<std::int64_t>{context, hidden, hidden, hidden, properties * (3 * bins - 1)}, 0.0,
                mix64(seed) + static_cast<std::uint64_t>(layer));
        }
    }

    // y [n, p] -> the normal numbers that it comes from, and log |d normal / dy|.
    Transformed to_normal(at::Tensor y, const at::Tensor& context) const
    {
        auto log_derivative = at::zeros_like(y);
        for (auto network = networks_.rbegin(); network != networks_.rend(); ++network) {
            const auto x = inverse_spline(y, parameters((*network)(context)));
            y = x.value;
            log_derivative = log_derivative + x.log_derivative;
        }
        return {y, log_derivative};
    }

    at::Tensor nll(const at::Tensor& y, const at::Tensor& context) const  // [n]
    {
        const auto x = to_normal(y, context);
        return (0.5 * (x.value.square() + log_two_pi) - x.log_derivative).sum(1);
    }

    std::vector<train::Parameter> parameters() const
    {
        std::vector<train::Parameter> all;
        for (std::size_t i = 0; i < networks_.size(); ++i) {
            for (const auto& one : networks_[i].parameters(std::to_string(i) + ".")) all.push_back(one);
        }
        return all;
    }

private:
    // The network's numbers: widths, heights, derivatives of all properties, in this order.
    SplineParameters parameters(const at::Tensor& numbers) const
    {
        const auto n = numbers.size(0);
        const auto wide = properties_ * bins_;
        const auto part = [&](std::int64_t first, std::int64_t bins) {
            return numbers.narrow(1, first, properties_ * bins).view({n, properties_, bins});
        };
        return {part(0, bins_).softmax(-1), part(wide, bins_).softmax(-1),
                at::softplus(part(2 * wide, bins_ - 1))};
    }

    std::int64_t properties_, bins_;
    std::vector<SmallNetwork> networks_;
};

struct Trained {
    double nll;
    int best_epoch;
    at::Tensor cumulative;  // [m, p] normal cumulative distribution of the truth
};

struct Sample {
    at::Tensor x, y;  // [n, d] context, [n, p] properties, float32, standardised

    Sample rows(const at::Tensor& chosen) const
    {
        return {x.index_select(0, chosen), y.index_select(0, chosen)};
    }
};

Trained train_flow(const Sample& all, const Sample& test, const PosteriorConfig& config, int number)
{
    const auto seed = mix64(config.seed ^ mix64(static_cast<std::uint64_t>(number) + 1));
    const auto division = divide(all.x.size(0), config.validation_fraction, seed);
    const auto fitted = all.rows(division.fitted), held = all.rows(division.held_out);
    Flow flow(all.x.size(1), all.y.size(1), config.bins, seed);
    BestEpoch best(flow.parameters());
    std::vector<double> history;
    fit(
        flow.parameters(), fitted.x.size(0), {config.learning_rate, config.batch, config.epochs, seed},
        [&](const at::Tensor& rows) {
            return flow.nll(fitted.y.index_select(0, rows), fitted.x.index_select(0, rows)).mean();
        },
        [&](int epoch) {
            const at::NoGradGuard no_grad;
            const auto loss = flow.nll(held.y, held.x).mean().item<double>();
            best.look(epoch, loss);
            history.push_back(loss);
            const auto last = std::min<std::ptrdiff_t>(5, std::ssize(history));
            const auto mean =
                std::accumulate(history.end() - last, history.end(), 0.0) / static_cast<double>(last);
            return epoch > config.patience_from && loss > mean;
        },
        {},
        [&](int epoch) {
            const auto phase = std::numbers::pi * epoch / config.epochs;
            return config.last_learning_rate +
                   0.5 * (config.learning_rate - config.last_learning_rate) * (1 + std::cos(phase));
        });
    best.restore();
    const at::NoGradGuard no_grad;
    const auto normal = flow.to_normal(test.y, test.x).value.to(at::kDouble);
    return {flow.nll(test.y, test.x).mean().item<double>(), best.epoch(),
            0.5 * (1 + (normal / std::numbers::sqrt2).erf())};
}

}  // namespace

Posteriors estimate_posteriors(const comm::World& world, const at::Tensor& train, const at::Tensor& targets,
                               const at::Tensor& query, const at::Tensor& truth,
                               const PosteriorConfig& config)
{
    constexpr std::int64_t fewest = 20;
    if (train.size(0) < fewest) {
        throw DataError("posteriors",
                        fmt::format("{} training galaxies; at least {} are needed", train.size(0), fewest));
    }
    const auto context = train.to(at::kDouble);
    const auto mean = context.mean(), deviation = context.std();
    if (!(deviation.item<double>() > 0)) {
        throw DataError("posteriors", "the embeddings do not vary");
    }
    const auto y_scale = ColumnScale::of(targets);
    const auto sample_std =
        y_scale.std * std::sqrt(static_cast<double>(train.size(0)) / static_cast<double>(train.size(0) - 1));
    const auto standard = [&](const at::Tensor& x, const at::Tensor& y) {
        return Sample{((x.to(at::kDouble) - mean) / deviation).to(at::kFloat),
                      ((y.to(at::kDouble) - y_scale.mean) / sample_std).to(at::kFloat)};
    };
    const auto all = standard(train, targets), test = standard(query, truth);

    std::vector<double> own;  // of each flow of this rank: number, likelihood, best epoch, cumulative [m p]
    for (int number = world.rank(); number < config.flows; number += world.size()) {
        const auto trained = train_flow(all, test, config, number);
        own.insert(own.end(), {double(number), trained.nll, double(trained.best_epoch + 1)});
        const auto flat = trained.cumulative.contiguous();
        own.insert(own.end(), flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
    }
    auto gathered = world.all_gather(own);
    const auto each = static_cast<std::size_t>(3 + truth.numel());
    std::vector<double*> of(static_cast<std::size_t>(config.flows));
    for (std::size_t at = 0; at < gathered.size(); at += each) {
        of[static_cast<std::size_t>(gathered[at])] = gathered.data() + at;
    }
    Posteriors result{at::zeros({config.flows}, at::kDouble), at::zeros(truth.sizes(), at::kDouble), {}};
    for (std::size_t number = 0; number < of.size(); ++number) {
        result.nll.data_ptr<double>()[number] = of[number][1];
        result.epochs.push_back(static_cast<int>(of[number][2]));
        result.pit += at::from_blob(of[number] + 3, truth.sizes(), at::kDouble) / config.flows;
    }
    return result;
}

Calibration calibration(std::vector<double> pit)
{
    std::sort(pit.begin(), pit.end());
    const auto n = static_cast<double>(pit.size());
    Calibration found;
    for (std::size_t i = 0; i < pit.size(); ++i) {
        const auto below = static_cast<double>(i) / n, with = static_cast<double>(i + 1) / n;
        found.ks = std::max({found.ks, std::abs(pit[i] - below), std::abs(with - pit[i])});
    }
    const auto within = [&](double share) {
        return static_cast<double>(std::count_if(pit.begin(), pit.end(),
                                                 [&](double p) { return std::abs(p - 0.5) <= share / 2; })) /
               n;
    };
    found.within_68 = within(0.68);
    found.within_95 = within(0.95);
    return found;
}

}  // namespace astroclip::catalogue
