#pragma once

#include "ssl/contrast.hpp"

namespace astroclip::ssl {

// contrast_sums and add_contrast_gradients in float32, by products whose factors are rearranged for the
// processor first (packed_product.hpp): split_product.hpp where the processor multiplies tiles of bfloat16,
// else float_product.hpp.
//
// What split products leave out is 3 · 2^-18 of a term at most, of random signs: a cosine of E = 1024 terms
// is off by some 1e-7, as it is in float32 arithmetic, and up to 1e-6 between two rows that are almost the
// same. A term of a gradient is off by 1e-5 at most, most by 4e-6. Matches, whose rows are the most alike and
// whose terms are the largest, are therefore computed by themselves in float32. Exponentials are good to
// 2e-7, sums over rows and columns are float64. float_product.hpp adds the E terms one after the other, which
// rounds a cosine by some 1e-7 too.
//
// Threads share the strips of a tile; the results do not depend on their number.
//
// For float32, AVX-512, E >= 256 in whole blocks of 64, and tiles of such blocks; any number of rows.
bool has_packed_contrast(const Contrast& of);
ContrastSums packed_sums(const Contrast& of);
void add_packed_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                          at::Tensor& spectra_grad);

}  // namespace astroclip::ssl
