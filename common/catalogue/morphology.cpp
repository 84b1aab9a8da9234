#include "catalogue/morphology.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

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
    const auto n = static_cast<double>(truth.size(0));
    const MorphologyTally tally(shares, predicted);
    std::vector<std::int64_t> all(static_cast<std::size_t>(truth.size(0)));
    std::iota(all.begin(), all.end(), 0);

    MorphologyScores scores;
    scores.accuracy = tally.accuracy(all);
    scores.f1 = tally.f1(all);
    for (std::int64_t c = 0; c < classes; ++c) {
        const auto always = at::one_hot(at::full({truth.size(0)}, c, at::kLong), classes).to(at::kBool);
        scores.majority = std::max(scores.majority, truth.eq(always).all(1).sum().item<double>() / n);
    }
    const auto cell = truth.to(at::kInt).argmax(1) * classes + answer;
    scores.confusion = at::bincount(cell, {}, classes * classes).view({classes, classes});
    return scores;
}

MorphologyTally::MorphologyTally(const at::Tensor& shares, const at::Tensor& predicted)
    : answers_(static_cast<std::size_t>(shares.size(1)))
{
    const auto truth = is_largest(shares.to(at::kDouble)).contiguous();  // [n, c]
    const auto answer = predicted.argmax(1).contiguous();
    true_.assign(truth.const_data_ptr<bool>(), truth.const_data_ptr<bool>() + truth.numel());
    given_.assign(answer.const_data_ptr<std::int64_t>(),
                  answer.const_data_ptr<std::int64_t>() + answer.numel());
    for (std::size_t i = 0; i < given_.size(); ++i) {
        const auto* row = &true_[i * answers_];
        exact_.push_back(row[given_[i]] && std::count(row, row + answers_, 1) == 1);
    }
}

double MorphologyTally::accuracy(std::span<const std::int64_t> rows) const
{
    const auto hits = std::count_if(rows.begin(), rows.end(), [&](auto row) { return exact_[row] != 0; });
    return static_cast<double>(hits) / static_cast<double>(rows.size());  // 0 / 0: NaN
}

double MorphologyTally::f1(std::span<const std::int64_t> rows) const
{
    std::vector<std::int64_t> support(answers_, 0), predicted(answers_, 0), hits(answers_, 0);
    for (const auto row : rows) {
        const auto* truth = &true_[static_cast<std::size_t>(row) * answers_];
        const auto answer = given_[static_cast<std::size_t>(row)];
        for (std::size_t c = 0; c < answers_; ++c) support[c] += truth[c];
        ++predicted[answer];
        hits[answer] += truth[answer];
    }
    double sum = 0, weight = 0;
    for (std::size_t c = 0; c < answers_; ++c) {
        const auto all = static_cast<double>(support[c] + predicted[c]);
        if (all > 0) sum += 2.0 * static_cast<double>(hits[c] * support[c]) / all;
        weight += static_cast<double>(support[c]);
    }
    return sum / weight;
}

}  // namespace astroclip::catalogue
