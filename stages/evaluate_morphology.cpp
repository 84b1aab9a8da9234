#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <span>
#include <utility>

#include "catalogue/metrics.hpp"
#include "catalogue/morphology.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

constexpr double least_votes = 3, sure_votes = 34;

// Why galaxies are left out of a question, with their number.
using Reasons = std::map<std::string, std::int64_t>;

std::string text_of(const Reasons& reasons)
{
    std::string text;
    for (const auto& [reason, n] : reasons) {
        text += fmt::format("{}{} {}", text.empty() ? "" : ", ", n, reason);
    }
    return text.empty() ? "none" : text;
}

// One question: the shares of votes [n, answers] and the rows to learn from and to ask. Published: those with
// at least three votes on the first question; asked are those with more than 34 on this one.
struct Asked {
    at::Tensor shares;
    Rows rows;
    Reasons not_trained{}, not_asked{};
    std::string left_out{};  // why, if it is
};

// Votes of every galaxy of the sample on a question, as columns.
struct Votes {
    std::vector<Target> shares;
    std::vector<double> number, first;
};

// Why a galaxy is not to be learned from, or not to be asked about; "" if it is.
std::string reason_against(std::int64_t galaxy, const Votes& votes, const Case& of)
{
    const auto i = static_cast<std::size_t>(galaxy);
    const auto& first = catalogue::galaxy_zoo_questions().front();
    if (!of.inputs.votes->has_row(i)) return "not in the table";
    if (std::isnan(votes.first[i])) return fmt::format("without a number in {}", first.votes_column());
    if (votes.first[i] < least_votes) return fmt::format("with fewer than {} votes in all", least_votes);
    for (const auto& share : votes.shares) {
        if (std::isnan(share.truth[i])) return "without a share of each answer";
    }
    if (galaxy < of.sample().train) return "";
    if (std::isnan(votes.number[i])) return "without a number of votes on it";
    if (votes.number[i] <= sure_votes) return fmt::format("with {} votes on it or fewer", sure_votes);
    return "";
}

Asked ask(const catalogue::Question& question, const std::vector<double>& first_votes, const Case& of)
{
    const auto& labels = *of.inputs.votes;
    Asked asked;
    Votes votes{{}, {}, first_votes};
    for (std::size_t i = 0; i < question.answers.size(); ++i) {
        if (!labels.has(question.answer_column(i)) || !labels.has(question.votes_column())) {
            asked.left_out =
                "the table lacks " + question.votes_column() + " or " + question.answer_column(i);
            return asked;
        }
        votes.shares.push_back({question.answers[i], labels.of(question.answer_column(i))});
    }
    votes.number = labels.of(question.votes_column());
    for (std::int64_t row = 0; row < of.sample().size(); ++row) {
        const bool train = row < of.sample().train;
        if (const auto reason = reason_against(row, votes, of); !reason.empty()) {
            ++(train ? asked.not_trained : asked.not_asked)[reason];
        } else {
            (train ? asked.rows.train : asked.rows.test).push_back(row);
        }
    }
    std::vector<std::int64_t> all(static_cast<std::size_t>(of.sample().size()));
    std::iota(all.begin(), all.end(), 0);
    asked.shares = truth_of(votes.shares, all);
    if (asked.rows.test.empty()) {
        asked.left_out =
            fmt::format("no test galaxy has more than {} votes on it, and a share of each answer: {}",
                        sure_votes, text_of(asked.not_asked));
    } else if (asked.rows.train.size() < 10) {
        asked.left_out = fmt::format("{} training galaxies have votes on it; left out are {}",
                                     asked.rows.train.size(), text_of(asked.not_trained));
    } else if ((chosen(asked.shares, asked.rows.train).sum(0) > 0).sum().item<std::int64_t>() < 2) {
        asked.left_out = "all votes of the training galaxies are for one answer";
    }
    return asked;
}

// What was given to a question from one description, of the held-out galaxies `test` of the sample.
struct Answered {
    catalogue::MorphologyTally tally;
    std::vector<std::int64_t> row;  // of each held-out galaxy in the tally, -1: not asked

    Answered(const at::Tensor& shares, const at::Tensor& guess, const std::vector<std::int64_t>& test,
             const Sample& sample)
        : tally(shares, guess), row(static_cast<std::size_t>(sample.test()), -1)
    {
        for (std::size_t i = 0; i < test.size(); ++i) {
            row[static_cast<std::size_t>(test[i] - sample.train)] = static_cast<std::int64_t>(i);
        }
    }
    std::vector<std::int64_t> rows_of(std::span<const std::int64_t> galaxies) const
    {
        std::vector<std::int64_t> rows;
        for (const auto galaxy : galaxies) {
            if (const auto one = row[static_cast<std::size_t>(galaxy)]; one >= 0) rows.push_back(one);
        }
        return rows;
    }
};
using Statistic = double (catalogue::MorphologyTally::*)(std::span<const std::int64_t>) const;
constexpr std::array<std::pair<const char*, Statistic>, 2> statistics{
    {{"accuracy", &catalogue::MorphologyTally::accuracy}, {"f1", &catalogue::MorphologyTally::f1}}};

void add_interval(nlohmann::json& scores, const std::string& name, const catalogue::Interval& interval)
{
    scores[name + "_low"] = interval.low;
    scores[name + "_high"] = interval.high;
}

nlohmann::json score_question(const Answered& answered, const at::Tensor& shares, const at::Tensor& guess,
                              const Case& of)
{
    const auto found = catalogue::morphology_scores(shares, guess);
    auto confusion = nlohmann::json::array();
    for (std::int64_t row = 0; row < found.confusion.size(0); ++row) {
        confusion.push_back(flat(found.confusion[row]));
    }
    nlohmann::json scores = {{"accuracy", found.accuracy},
                             {"f1", found.f1},
                             {"majority", found.majority},
                             {"n", shares.size(0)},
                             {"confusion", confusion}};
    for (const auto& [name, statistic] : statistics) {
        const auto of_rows = [&](std::span<const std::int64_t> rows) {
            return (answered.tally.*statistic)(rows);
        };
        add_interval(scores, name, catalogue::bootstrap(shares.size(0), of_rows, of.seed(), of.o.bootstraps));
    }
    return scores;
}

// The mean over the questions that could be asked. Resampled are the held-out galaxies, each with all that it
// was asked, since the questions share them; a resample without a galaxy for one of the questions has no
// mean.
nlohmann::json mean_over_questions(const std::vector<Answered>& questions, const Case& of)
{
    nlohmann::json scores = {{"questions", questions.size()}};
    std::vector<std::int64_t> all(static_cast<std::size_t>(of.sample().test()));
    std::iota(all.begin(), all.end(), 0);
    for (const auto& [name, statistic] : statistics) {
        alive("resampling answers to all questions");
        const auto mean = [&](std::span<const std::int64_t> galaxies) {
            double sum = 0;
            for (const auto& one : questions) sum += (one.tally.*statistic)(one.rows_of(galaxies));
            return sum / static_cast<double>(questions.size());  // 0 / 0: NaN
        };
        scores[name] = mean(all);
        add_interval(scores, name,
                     catalogue::bootstrap(of.sample().test(), mean, of.seed(), of.o.bootstraps));
    }
    return scores;
}

// What was answered, by the name of the description.
using Answers = std::map<std::string, std::vector<Answered>>;

// Adds what a question showed, or why it is left out.
void add_question(nlohmann::json& all, Answers& answers, const catalogue::Question& question,
                  const std::vector<double>& first_votes, const std::vector<const Features*>& features,
                  const Case& of)
{
    const auto asked = ask(question, first_votes, of);
    auto& one = all[question.name];
    one["answers"] = question.answers;
    one["excluded"] = {{"train", asked.not_trained}, {"test", asked.not_asked}};
    if (!asked.left_out.empty()) {
        if (of.world().is_root()) {
            log::warn("morphology, '{}' is left out: {}", question.name, asked.left_out);
        }
        one["left_out"] = asked.left_out;
        return;
    }
    const auto train_shares = chosen(asked.shares, asked.rows.train);
    const auto predicted = shared_out(of.world(), features.size(), [&](std::size_t job) {
        const auto& values = features[job]->values;
        return flat(catalogue::predict_shares(
            chosen(values, asked.rows.train), train_shares, chosen(values, asked.rows.test),
            {.epochs = of.o.morphology_epochs, .double_softmax = of.o.double_softmax, .seed = of.seed()}));
    });
    const auto shares = chosen(asked.shares, asked.rows.test);
    for (std::size_t i = 0; i < features.size(); ++i) {
        const auto guess = at::tensor(predicted[i], at::kDouble).view(shares.sizes());
        const auto& answered =
            answers[features[i]->name].emplace_back(shares, guess, asked.rows.test, of.sample());
        auto& scores = one[features[i]->name];
        scores = score_question(answered, shares, guess, of);
        scores["train"] = asked.rows.train.size();
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
    Answers answers;
    for (const auto& question : questions) {
        add_question(all, answers, question, first_votes, features, of);
    }
    for (const auto* each : features) {
        all["mean"][each->name] = mean_over_questions(answers[each->name], of);
    }
    return all;
}

}  // namespace astroclip::evaluate
