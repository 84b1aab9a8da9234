#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <span>

#include "catalogue/metrics.hpp"
#include "catalogue/morphology.hpp"
#include "core/log.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// One question: the shares of votes [n, answers] and the rows to learn from and to ask. Published: those with
// at least three votes on the first question; asked are those with more than 34 on this one.
struct Asked {
    at::Tensor shares;
    Rows rows;
    std::string left_out{};  // why, if it is
};

Asked ask(const catalogue::Question& question, const std::vector<double>& first_votes, const Case& of)
{
    constexpr double least_votes = 3, sure_votes = 34;
    const auto& labels = *of.inputs.votes;
    Asked asked;
    std::vector<Target> answers;
    for (std::size_t i = 0; i < question.answers.size(); ++i) {
        if (!labels.has(question.answer_column(i)) || !labels.has(question.votes_column())) {
            asked.left_out =
                "the table lacks " + question.votes_column() + " or " + question.answer_column(i);
            return asked;
        }
        answers.push_back({question.answers[i], labels.of(question.answer_column(i))});
    }
    const auto votes = labels.of(question.votes_column());
    const auto known = known_rows(answers, of.sample());
    for (const auto row : known.train) {
        if (first_votes[row] >= least_votes) asked.rows.train.push_back(row);
    }
    for (const auto row : known.test) {
        if (first_votes[row] >= least_votes && votes[row] > sure_votes) asked.rows.test.push_back(row);
    }
    std::vector<std::int64_t> all(static_cast<std::size_t>(of.sample().size()));
    std::iota(all.begin(), all.end(), 0);
    asked.shares = truth_of(answers, all);
    if (asked.rows.test.empty()) {
        asked.left_out = fmt::format("no test galaxy has more than {} votes on it", sure_votes);
    }
    return asked;
}

nlohmann::json score_question(const Asked& asked, const std::vector<double>& predicted, const Case& of)
{
    const auto shares = chosen(asked.shares, asked.rows.test);
    const auto guess = at::tensor(predicted, at::kDouble).view(shares.sizes());
    const auto scores = catalogue::morphology_scores(shares, guess);
    const auto interval = catalogue::bootstrap(
        shares.size(0),
        [&](std::span<const std::int64_t> rows) {
            const auto some = at::tensor(at::ArrayRef<std::int64_t>(rows.data(), rows.size()), at::kLong);
            return catalogue::morphology_scores(shares.index_select(0, some), guess.index_select(0, some))
                .accuracy;
        },
        of.seed(), std::min(of.o.bootstraps, 200));
    auto confusion = nlohmann::json::array();
    for (std::int64_t row = 0; row < scores.confusion.size(0); ++row) {
        confusion.push_back(flat(scores.confusion[row]));
    }
    return {{"accuracy", scores.accuracy},      {"accuracy_low", interval.low},
            {"accuracy_high", interval.high},   {"f1", scores.f1},
            {"majority", scores.majority},      {"n", shares.size(0)},
            {"train", asked.rows.train.size()}, {"confusion", confusion}};
}

// Adds what a question showed, or why it is left out.
void add_question(nlohmann::json& all, const catalogue::Question& question,
                  const std::vector<double>& first_votes, const std::vector<const Features*>& features,
                  const Case& of)
{
    auto asked = ask(question, first_votes, of);
    auto& one = all[question.name];
    one["answers"] = question.answers;
    const auto train_shares = asked.left_out.empty() ? chosen(asked.shares, asked.rows.train) : at::Tensor();
    if (train_shares.defined() && (train_shares.sum(0) > 0).sum().item<std::int64_t>() < 2) {
        asked.left_out = "all votes of the training galaxies are for one answer";
    } else if (train_shares.defined() && train_shares.size(0) < 10) {
        asked.left_out = fmt::format("{} training galaxies have votes on it", train_shares.size(0));
    }
    if (!asked.left_out.empty()) {
        if (of.world().is_root()) {
            log::warn("morphology, '{}' is left out: {}", question.name, asked.left_out);
        }
        one["left_out"] = asked.left_out;
        return;
    }
    const auto predicted = shared_out(of.world(), features.size(), [&](std::size_t job) {
        const auto& values = features[job]->values;
        return flat(catalogue::predict_shares(
            chosen(values, asked.rows.train), train_shares, chosen(values, asked.rows.test),
            {.epochs = of.o.morphology_epochs, .double_softmax = of.o.double_softmax, .seed = of.seed()}));
    });
    for (std::size_t i = 0; i < features.size(); ++i) {
        one[features[i]->name] = score_question(asked, predicted[i], of);
    }
}

}  // namespace

nlohmann::json morphology(const Case& of)
{
    auto all = nlohmann::json::object();
    if (!of.inputs.votes) {
        return all;
    }
    std::vector<const Features*> features;
    for (const auto& each : of.features) {
        if (each.embedding || each.name == "untrained") features.push_back(&each);
    }
    const auto& questions = catalogue::galaxy_zoo_questions();
    const auto first_votes = of.inputs.votes->of(questions.front().votes_column());
    for (const auto& question : questions) {
        add_question(all, question, first_votes, features, of);
    }
    for (const auto* each : features) {
        std::vector<double> accuracy, f1;
        for (const auto& question : questions) {
            if (!all[question.name].contains(each->name)) continue;
            accuracy.push_back(all[question.name][each->name]["accuracy"]);
            f1.push_back(all[question.name][each->name]["f1"]);
        }
        const auto mean = [](const std::vector<double>& values) {
            return values.empty() ? nan
                                  : std::accumulate(values.begin(), values.end(), 0.0) / std::ssize(values);
        };
        all["mean"][each->name] = {
            {"accuracy", mean(accuracy)}, {"f1", mean(f1)}, {"questions", accuracy.size()}};
    }
    return all;
}

}  // namespace astroclip::evaluate
