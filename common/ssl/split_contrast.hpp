#pragma once

#include "ssl/contrast.hpp"

namespace astroclip::ssl {

// contrast_sums and add_contrast_gradients in float32 on processors that multiply bfloat16 matrices
// (AMX, AVX-512): products are made of three of these, each factor being split into a bfloat16 and the
// bfloat16 rest, and rest by rest left out, with float32 sums. What is left out is 2^-16 of each term, of
// random signs: a cosine of E = 1024 terms is off by some 1e-7, as it is in float32 arithmetic (at a third of
// the time), a gradient by less than 1e-5 of its largest element. Of two rows that are almost the same it is
// up to 1e-6; matches' cosines are therefore computed by themselves. Exponentials are good to 2e-7, sums over
// rows and columns are float64.
//
// Threads share the strips of a tile; the results do not depend on their number.
//
// For float32, E >= 256 in whole blocks of 64, and tiles of such blocks; any number of rows.
bool has_split_contrast(const Contrast& of);
ContrastSums split_sums(const Contrast& of);
void add_split_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                         at::Tensor& spectra_grad);

}  // namespace astroclip::ssl
