#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace astroclip::ssl {

inline constexpr double unit_eps = 1e-3;  // rows shorter than this are divided by it

// The rows of `values` [n, E], contiguous, divided by `length` [n, 1]; undefined: they are divided already.
struct UnitRows {
    at::Tensor values, length;

    at::Tensor part(std::int64_t first, std::int64_t count) const;  // divided
};

// All pairs of a contrastive loss: the logit of rows i of `image` and j of `spectra` is scale · cosine. Row
// i's match is j = i + offset. Both passes compute the logits in tiles and hold no more than tile x tile; on
// the CPU as packed_contrast.hpp says, where it can.
struct Contrast {
    UnitRows image, spectra;
    double scale;
    std::int64_t offset, tile;
};

// Sums of exp(scale · (cosine - 1)) over the rows [n] and columns [m] but for the matches, and the matches'
// cosines [n]; float64.
struct ContrastSums {
    at::Tensor row, column, match;
};
ContrastSums contrast_sums(const Contrast& of);

// The derivative G by the logits: for all but the matches
//   exp(scale · (cosine - 1) + row_i) + exp(scale · (cosine - 1) + column_j),
// and for the match of row i match_i. row, match [n], column [m] float64.
struct ContrastWeights {
    at::Tensor row, column, match;
};
// Added to image_grad [n, E] and spectra_grad [m, E], zeros: G · spectra and Gᵀ · image.
void add_contrast_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                            at::Tensor& spectra_grad);

}  // namespace astroclip::ssl
