#include "catalogue/morphology.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "catalogue/small_network.hpp"
#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::catalogue {
namespace {

// Which rows are kept to choose the epoch by.
std::vector<char> validation_rows(std::int64_t n, const MorphologyConfig& config)
{
    std::vector<char> held(static_cast<std::size_t>(n));
    Random random(config.seed, "morphology-validation");
    for (auto& one : held) one = random.uniform() < config.validation_fraction;
    return held;
}

// Cross-entropy of soft targets. Published: of the softmax of the softmax.
at::Tensor loss_of(const at::Tensor& logits, const at::Tensor& shares, const MorphologyConfig& config)
{
    const auto given = config.double_softmax ? logits.softmax(1) : logits;
    return -(shares * given.log_softmax(1)).sum(1).mean();
}

at::Tensor is_largest(const at::Tensor& shares) { return shares == std::get<0>(shares.max(1, true)); }

}  // namespace

const std::vector<Question>& galaxy_zoo_questions()
{
    static const std::vector<Question> questions{
        {"smooth-or-featured", {"smooth", "featured-or-disk", "artifact"}},
        {"disk-edge-on", {"yes", "no"}},
        {"has-spiral-arms", {"yes", "no"}},
        {"bar", {"strong", "weak", "no"}},
        {"bulge-size", {"dominant", "large", "moderate", "small", "none"}},
        {"how-rounded", {"round", "in-between", "cigar-shaped"}},
        {"edge-on-bulge", {"boxy", "none", "rounded"}},
        {"spiral-winding", {"tight", "medium", "loose"}},
        {"spiral-arm-count", {"1", "2", "3", "4", "more-than-4", "cant-tell"}},
        {"merging", {"none", "minor-disturbance", "major-disturbance", "merger"}}};
    return questions;
}

at::Tensor predict_shares(const at::Tensor& train, const at::Tensor& shares, const at::Tensor& query,
                          const MorphologyConfig& config)
{
    constexpr std::int64_t fewest = 10;
    if (train.size(0) < fewest) {
        throw DataError("morphology",
                        fmt::format("{} training galaxies; at least {} are needed", train.size(0), fewest));
    }
    if ((shares.sum(0) > 0).sum().item<std::int64_t>() < 2) {
        throw DataError("morphology", "all votes are for one answer: there is nothing to tell apart");
    }
    const auto held = validation_rows(train.size(0), config);
    std::vector<std::int64_t> fitted, validated;
    for (std::int64_t i = 0; i < std::ssize(held); ++i) (held[i] ? validated : fitted).push_back(i);
    const auto rows_of = [](const at::Tensor& all, const std::vector<std::int64_t>& rows) {
        return all.to(at::kFloat).index_select(0, at::tensor(at::ArrayRef<std::int64_t>(rows), at::kLong));
    };
    const auto x = rows_of(train, fitted), y = rows_of(shares, fitted);
    const auto check_x = rows_of(train, validated), check_y = rows_of(shares, validated);
    std::vector<double> weights;
    const auto largest = std::get<0>(y.max(1)).to(at::kDouble);
    for (std::int64_t i = 0; i < largest.size(0); ++i) weights.push_back(largest.const_data_ptr<double>()[i]);

    std::vector<std::int64_t> widths{x.size(1)};
    widths.insert(widths.end(), config.hidden.begin(), config.hidden.end());
    widths.push_back(y.size(1));
    SmallNetwork network(widths, config.dropout, config.seed);
    auto best = network.copy();
    auto least = std::numeric_limits<double>::infinity();
    fit(
        network.parameters(), x.size(0), {config.learning_rate, config.batch, config.epochs, config.seed},
        [&](const at::Tensor& rows) {
            return loss_of(network.train(x.index_select(0, rows)), y.index_select(0, rows), config);
        },
        [&](int) {
            const at::NoGradGuard no_grad;
            const auto loss = loss_of(network(check_x), check_y, config).item<double>();
            if (config.last_epoch || validated.empty() || loss < least) {
                least = loss;
                best = network.copy();
            }
            return false;
        },
        weights);
    network.restore(best);
    const at::NoGradGuard no_grad;
    return network(query.to(at::kFloat)).softmax(1);
}

MorphologyScores morphology_scores(const at::Tensor& shares, const at::Tensor& predicted)
{
    const auto truth = is_largest(shares.to(at::kDouble));  // [n, c]
    const auto classes = truth.size(1);
    const auto answer = predicted.argmax(1);
    const auto given = at::one_hot(answer, classes).to(at::kBool);
    const auto n = static_cast<double>(truth.size(0));
    const auto support = truth.sum(0).to(at::kDouble);
    const auto hits = truth.logical_and(given).sum(0).to(at::kDouble);
    const auto f1 = (2 * hits / (support + given.sum(0))).nan_to_num(0);  // no such row, none predicted: 0

    MorphologyScores scores;
    scores.accuracy = truth.eq(given).all(1).sum().item<double>() / n;
    scores.f1 = (f1 * support).sum().item<double>() / support.sum().item<double>();
    for (std::int64_t c = 0; c < classes; ++c) {
        const auto always = at::one_hot(at::full({truth.size(0)}, c, at::kLong), classes).to(at::kBool);
        scores.majority = std::max(scores.majority, truth.eq(always).all(1).sum().item<double>() / n);
    }
    const auto cell = truth.to(at::kInt).argmax(1) * classes + answer;
    scores.confusion = at::bincount(cell, {}, classes * classes).view({classes, classes});
    return scores;
}

}  // namespace astroclip::catalogue
