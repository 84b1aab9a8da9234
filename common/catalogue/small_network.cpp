#include "catalogue/small_network.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "core/random.hpp"
#include "train/optimizer.hpp"

namespace astroclip::catalogue {
namespace {

at::Tensor uniform(Random& random, at::IntArrayRef shape, double bound)
{
    auto values = at::empty(shape, at::kFloat);
    for (std::int64_t i = 0; i < values.numel(); ++i) {
        values.data_ptr<float>()[i] = static_cast<float>(random.uniform(-bound, bound));
    }
    return values.set_requires_grad(true);
}

std::vector<std::int64_t> shuffled(std::int64_t n, Random& random)
{
    std::vector<std::int64_t> order(static_cast<std::size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    for (auto i = n - 1; i > 0; --i) {
        std::swap(order[i], order[random.below(static_cast<std::uint64_t>(i) + 1)]);
    }
    return order;
}

at::Tensor numbers(const std::int64_t* first, std::int64_t count)
{
    return at::tensor(at::ArrayRef<std::int64_t>(first, static_cast<std::size_t>(count)), at::kLong);
}

// Row numbers of one epoch in the order in which they are seen.
std::vector<std::int64_t> order_of_epoch(std::int64_t n, std::uint64_t seed, int epoch,
                                         const std::vector<double>& cumulated)
{
    Random random(seed, "small-network-order", static_cast<std::uint32_t>(epoch));
    if (cumulated.empty()) {
        return shuffled(n, random);
    }
    std::vector<std::int64_t> order(static_cast<std::size_t>(n));
    for (auto& row : order) {
        const auto at = random.uniform() * cumulated.back();
        const auto found = std::upper_bound(cumulated.begin(), cumulated.end(), at);
        row = std::min<std::int64_t>(found - cumulated.begin(), n - 1);
    }
    return order;
}

}  // namespace

SmallNetwork::SmallNetwork(std::vector<std::int64_t> widths, double dropout, std::uint64_t seed)
    : dropout_(dropout), draws_(stream_key(seed, "small-network-dropout"))
{
    for (std::size_t layer = 0; layer + 1 < widths.size(); ++layer) {
        Random random(seed, "small-network-weights", 0, layer);
        const auto bound = 1.0 / std::sqrt(static_cast<double>(widths[layer]));
        weights_.push_back(uniform(random, {widths[layer + 1], widths[layer]}, bound));
        biases_.push_back(uniform(random, {widths[layer + 1]}, bound));
    }
}

at::Tensor SmallNetwork::run(at::Tensor x, const std::function<at::Tensor(const at::Tensor&)>& drop) const
{
    for (std::size_t layer = 0; layer < weights_.size(); ++layer) {
        x = at::linear(x, weights_[layer], biases_[layer]);
        if (layer + 1 < weights_.size()) {
            x = drop(at::relu(x));
        }
    }
    return x;
}

at::Tensor SmallNetwork::operator()(const at::Tensor& x) const
{
    return run(x, [](const at::Tensor& y) { return y; });
}

at::Tensor SmallNetwork::train(const at::Tensor& x)
{
    return run(x, [this](const at::Tensor& y) {
        if (dropout_ == 0) {
            return y;
        }
        auto kept = at::empty(y.sizes(), at::kFloat);
        const auto scale = static_cast<float>(1.0 / (1.0 - dropout_));
        const auto limit = static_cast<std::uint32_t>(dropout_ * 4294967296.0);
        for (std::int64_t i = 0; i < kept.numel(); i += 2) {  // 32 of 64 bits decide one element
            const auto bits = draws_();
            kept.data_ptr<float>()[i] = static_cast<std::uint32_t>(bits) < limit ? 0.0F : scale;
            if (i + 1 < kept.numel()) {
                kept.data_ptr<float>()[i + 1] = static_cast<std::uint32_t>(bits >> 32) < limit ? 0.0F : scale;
            }
        }
        return y * kept;
    });
}

std::vector<train::Parameter> SmallNetwork::parameters(const std::string& prefix) const
{
    std::vector<train::Parameter> all;
    for (std::size_t layer = 0; layer < weights_.size(); ++layer) {
        const auto name = prefix + std::to_string(layer);
        all.push_back({.name = name + ".weight", .tensor = weights_[layer]});
        all.push_back({.name = name + ".bias", .tensor = biases_[layer]});
    }
    return all;
}

void fit(const std::vector<train::Parameter>& parameters, std::int64_t n, const Fit& config,
         const std::function<at::Tensor(const at::Tensor&)>& loss, const std::function<bool(int)>& epoch_end,
         const std::vector<double>& weights, const std::function<double(int)>& rate)
{
    train::AdamW optimizer(parameters, {});
    std::vector<double> cumulated(weights.size());
    std::partial_sum(weights.begin(), weights.end(), cumulated.begin());
    if (!weights.empty() && !(cumulated.back() > 0)) {
        throw InternalError("the weights of a sampler add up to nothing");
    }
    for (int epoch = 0; epoch < config.epochs; ++epoch) {
        const auto learning_rate = rate ? rate(epoch) : config.learning_rate;
        const auto order = order_of_epoch(n, config.seed, epoch, cumulated);
        for (std::int64_t first = 0; first < n; first += config.batch) {
            alive("fitting a small network");
            const auto count = std::min<std::int64_t>(config.batch, n - first);
            const auto rows = numbers(order.data() + first, count);
            for (const auto& parameter : parameters) {
                parameter.tensor.mutable_grad() = at::Tensor();
            }
            const at::AutoGradMode with_gradients(true);
            loss(rows).backward();
            optimizer.step({learning_rate, learning_rate, 0.0});
        }
        if (epoch_end && epoch_end(epoch)) {
            return;
        }
    }
}

Division divide(std::int64_t n, double share, std::uint64_t seed)
{
    Random random(seed, "small-network-held-out");
    const auto order = shuffled(n, random);
    const auto least = std::int64_t{share > 0 && n > 1}, most = std::max<std::int64_t>(n - 1, 0);
    const auto held = std::clamp<std::int64_t>(std::llround(share * static_cast<double>(n)), least, most);
    return {numbers(order.data() + held, n - held), numbers(order.data(), held)};
}

void BestEpoch::look(int epoch, double loss)
{
    if (!(loss < least_)) {
        return;
    }
    least_ = loss;
    epoch_ = epoch;
    values_.clear();
    for (const auto& parameter : parameters_) values_.push_back(parameter.tensor.detach().clone());
}

void BestEpoch::restore() const
{
    if (epoch_ < 0) {
        throw NumericsError("fitting a small network: no epoch's loss was finite");
    }
    const at::NoGradGuard no_grad;
    for (std::size_t i = 0; i < values_.size(); ++i) parameters_[i].tensor.copy_(values_[i]);
}

}  // namespace astroclip::catalogue
