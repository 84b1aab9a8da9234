#pragma once

#include <ATen/core/Tensor.h>

namespace astroclip::catalogue {

// Monotonic rational-quadratic splines (Durkan et al. 2019, arXiv:1906.04032, equations 4-8) on [-bound,
// bound], the identity outside of it.
struct SplineShape {
    double bound = 3;
    double least_width = 0.001, least_height = 0.001;  // of a bin, as a share of the whole
    double least_derivative = 0.001;
};

// The shape of one spline an element: widths and heights [..., K] positive with sum 1 (a softmax),
// derivatives [..., K - 1] positive (a softplus), at the inner knots. The least values are added here; the
// derivative at both ends is 1 - least_derivative, as published.
struct SplineParameters {
    at::Tensor widths, heights, derivatives;
};

struct Transformed {
    at::Tensor value, log_derivative;  // [...]; log |d value / d argument|
};

// x [...] -> y, and back.
Transformed spline(const at::Tensor& x, const SplineParameters& parameters, const SplineShape& shape = {});
Transformed inverse_spline(const at::Tensor& y, const SplineParameters& parameters,
                           const SplineShape& shape = {});

}  // namespace astroclip::catalogue
