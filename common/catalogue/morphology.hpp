#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace astroclip::catalogue {

// One question of Galaxy Zoo DECaLS (GZD-5) with its answers; the columns of the catalogue are
// QUESTION_total-votes and QUESTION_ANSWER_debiased.
struct Question {
    std::string name;
    std::vector<std::string> answers;

    std::string votes_column() const { return name + "_total-votes"; }
    std::string answer_column(std::size_t answer) const { return name + "_" + answers[answer] + "_debiased"; }
};
const std::vector<Question>& galaxy_zoo_questions();  // the ten of the published table

struct MorphologyConfig {
    std::vector<std::int64_t> hidden{256, 256, 256};
    double dropout = 0.2;
    double learning_rate = 1e-3;
    int batch = 256;
    int epochs = 25;
    double validation_fraction = 0.1;
    // As published: a softmax on what is one already, and the last epoch instead of the best.
    bool double_softmax = false;
    bool last_epoch = false;
    std::uint64_t seed = 42;
};

// Cross-entropy of logits [n, c] with shares [n, c], the mean over rows; `double_softmax` as above. -> scalar
at::Tensor share_loss(const at::Tensor& logits, const at::Tensor& shares, bool double_softmax);

// Shares of the answers, by a small network on raw embeddings: cross-entropy with soft targets, rows drawn
// in proportion to their largest share; the epoch of the least validation loss is kept.
//
//   train [n, d], shares [n, c] of each row's votes, query [m, d] -> [m, c] float32, rows add up to 1
//   Throws DataError for fewer than 10 training rows or fewer than two answers with votes.
at::Tensor predict_shares(const at::Tensor& train, const at::Tensor& shares, const at::Tensor& query,
                          const MorphologyConfig& config);

// Of predictions, each the answer with the largest share, against those that most voters gave (several, if
// they tie: then no prediction is exactly right).
struct MorphologyScores {
    double accuracy = 0;     // exact matches
    double f1 = 0;           // of each answer, averaged with the number of its rows as weight
    double majority = 0;     // accuracy of always giving the commonest answer
    at::Tensor confusion{};  // [c, c] int64: row truth (the first of tied ones), column prediction
};
MorphologyScores morphology_scores(const at::Tensor& shares, const at::Tensor& predicted);

// The same accuracy and F1 of some rows, which may repeat: a resample costs no more than its rows.
class MorphologyTally {
public:
    MorphologyTally(const at::Tensor& shares, const at::Tensor& predicted);

    std::int64_t size() const { return static_cast<std::int64_t>(given_.size()); }
    double accuracy(std::span<const std::int64_t> rows) const;  // NaN for no rows
    double f1(std::span<const std::int64_t> rows) const;

private:
    std::size_t answers_ = 0;
    std::vector<char> true_;          // [n, answers]
    std::vector<std::size_t> given_;  // the answer predicted
    std::vector<char> exact_;
};

}  // namespace astroclip::catalogue
