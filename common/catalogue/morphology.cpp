#include "catalogue/morphology.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>

#include "catalogue/small_network.hpp"
#include "core/error.hpp"

namespace astroclip::catalogue {
namespace {

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

at::Tensor share_loss(const at::Tensor& logits, const at::Tensor& shares, bool double_softmax)
{
    const auto given = double_softmax ? logits.softmax(1) : logits;
    return -(shares * given.log_softmax(1)).sum(1).mean();
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
    const auto division = divide(train.size(0), config.validation_fraction, config.seed);
    const auto of = [](const at::Tensor& all, const at::Tensor& rows) {
        return all.to(at::kFloat).index_select(0, rows);
    };
    const auto x = of(train, division.fitted), y = of(shares, division.fitted);
    const auto check_x = of(train, division.held_out), check_y = of(shares, division.held_out);
    const bool chooses = check_x.size(0) > 0 && !config.last_epoch;
    std::vector<double> weights;
    const auto largest = std::get<0>(y.max(1)).to(at::kDouble);
    for (std::int64_t i = 0; i < largest.size(0); ++i) weights.push_back(largest.const_data_ptr<double>()[i]);

    std::vector<std::int64_t> widths{x.size(1)};
    widths.insert(widths.end(), config.hidden.begin(), config.hidden.end());
    widths.push_back(y.size(1));
    SmallNetwork network(widths, config.dropout, config.seed);
    BestEpoch best(network.parameters());
    fit(
        network.parameters(), x.size(0), {config.learning_rate, config.batch, config.epochs, config.seed},
        [&](const at::Tensor& rows) {
            return share_loss(network.train(x.index_select(0, rows)), y.index_select(0, rows),
                              config.double_softmax);
        },
        [&](int epoch) {
            const at::NoGradGuard no_grad;
            if (chooses) {
                best.look(epoch, share_loss(network(check_x), check_y, config.double_softmax).item<double>());
            }
            return false;
        },
        weights);
    if (chooses) best.restore();
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
