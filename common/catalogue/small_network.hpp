#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "train/task.hpp"

namespace astroclip::catalogue {

// A stack of linear layers with ReLU and dropout between them; the last one is plain. Small enough that every
// number of it is a function of the seed alone: it is trained on one rank, without threads of its own.
class SmallNetwork {
public:
    // widths: of input, hidden layers and output. Weights as PyTorch draws them: U(-1/√in, 1/√in).
    SmallNetwork(std::vector<std::int64_t> widths, double dropout, std::uint64_t seed);

    at::Tensor operator()(const at::Tensor& x) const;  // [B, in] -> [B, out], without dropout
    at::Tensor train(const at::Tensor& x);             // the same with it; draws the next random numbers

    std::vector<train::Parameter> parameters(const std::string& prefix = "") const;

private:
    at::Tensor run(at::Tensor x, const std::function<at::Tensor(const at::Tensor&)>& drop) const;

    std::vector<at::Tensor> weights_, biases_;
    double dropout_;
    std::mt19937_64 draws_;
};

struct Fit {
    double learning_rate = 1e-3;
    int batch = 64;
    int epochs = 10;
    std::uint64_t seed = 42;
};

// Adam (without weight decay) over mini-batches of rows 0 … n-1: shuffled anew each epoch, the last one of
// an epoch smaller; or, with `weights` [n], drawn with replacement in proportion to them, n an epoch.
//
//   loss       of the rows given, a scalar with gradient
//   rate       learning rate of an epoch, from 0
//   epoch_end  called after each; true: stop
void fit(const std::vector<train::Parameter>& parameters, std::int64_t n, const Fit& config,
         const std::function<at::Tensor(const at::Tensor& rows)>& loss,
         const std::function<bool(int epoch)>& epoch_end = {}, const std::vector<double>& weights = {},
         const std::function<double(int epoch)>& rate = {});

// Rows 0 … n-1 in two parts by chance: `share` of them, rounded, to choose an epoch by, the others to fit. Of
// a share above 0 neither part is empty, if there are two rows.
struct Division {
    at::Tensor fitted, held_out;  // int64 row numbers
};
Division divide(std::int64_t n, double share, std::uint64_t seed);

// The parameters' values of the epoch with the least loss on held-out rows.
class BestEpoch {
public:
    explicit BestEpoch(std::vector<train::Parameter> parameters) : parameters_(std::move(parameters)) {}

    void look(int epoch, double loss);
    void restore() const;  // Throws NumericsError if no loss was finite.
    int epoch() const { return epoch_; }

private:
    std::vector<train::Parameter> parameters_;
    std::vector<at::Tensor> values_;
    double least_ = std::numeric_limits<double>::infinity();
    int epoch_ = -1;
};

}  // namespace astroclip::catalogue
