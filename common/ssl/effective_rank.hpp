#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace astroclip::ssl {

// How many directions embeddings use (RankMe, Garrido et al. 2023): exp of the entropy of the singular
// values, normalised to sum 1; from 1 (all embeddings parallel: the training collapsed) to min(group_rows,
// D). Taken of every group of `group_rows` consecutive rows and averaged, so that it does not depend on the
// ranks.
//
//   x  [n, D], n a multiple of group_rows; in float64, without gradient
double effective_rank(const at::Tensor& x, std::int64_t group_rows);

// Tells once when the effective rank falls below half of the best so far, and again after it had recovered.
// The first steps do not count: an untrained network's random features use many directions, and lose some as
// they become features.
class CollapseWatch {
public:
    static constexpr std::int64_t first_step = 100;
    bool fell(double rank, std::int64_t step);
    double best() const { return best_; }

private:
    double best_ = 0;
    bool told_ = false;
};

}  // namespace astroclip::ssl
