#include "catalogue/spline.hpp"

#include <ATen/ATen.h>

namespace astroclip::catalogue {
namespace {

// Edges [..., K + 1] of bins that take these shares of [-bound, bound], and their sizes [..., K].
struct Knots {
    at::Tensor edges, sizes;

    Knots(const at::Tensor& shares, double least, double bound)
    {
        const auto bins = shares.size(-1);
        const auto raised = least + (1 - least * static_cast<double>(bins)) * shares;
        const auto inner = 2 * bound * raised.cumsum(-1).narrow(-1, 0, bins - 1) - bound;
        const auto end =
            at::full_like(shares.narrow(-1, 0, 1), bound);  // exactly, whatever the sum's rounding
        edges = at::cat({-end, inner, end}, -1);
        sizes = edges.narrow(-1, 1, bins) - edges.narrow(-1, 0, bins);
    }
};

at::Tensor at_bin(const at::Tensor& values, const at::Tensor& bin)
{
    return values.gather(-1, bin.unsqueeze(-1)).squeeze(-1);
}

// Each element's own bin, of what is needed there.
struct Bin {
    at::Tensor x, width, y, height, slope, left, right;  // lower edges, sizes, height/width, derivatives

    Bin(const SplineParameters& p, const SplineShape& s, const at::Tensor& argument, bool inverse)
    {
        const Knots across(p.widths, s.least_width, s.bound), up(p.heights, s.least_height, s.bound);
        const auto end = at::full_like(p.derivatives.narrow(-1, 0, 1), 1 - s.least_derivative);
        const auto derivatives = at::cat({end, p.derivatives + s.least_derivative, end}, -1);
        const auto& edges = inverse ? up.edges : across.edges;
        const auto bins = p.widths.size(-1);
        const auto bin = (argument.unsqueeze(-1) >= edges.narrow(-1, 1, bins - 1)).sum(-1);
        x = at_bin(across.edges, bin);
        width = at_bin(across.sizes, bin);
        y = at_bin(up.edges, bin);
        height = at_bin(up.sizes, bin);
        slope = height / width;
        left = at_bin(derivatives, bin);
        right = at_bin(derivatives, bin + 1);
    }

    // log dy/dx at the share `part` of the bin.
    at::Tensor log_derivative(const at::Tensor& part) const
    {
        const auto mixed = part * (1 - part);
        const auto below = slope + (left + right - 2 * slope) * mixed;
        const auto above =
            slope.square() * (right * part.square() + 2 * slope * mixed + left * (1 - part).square());
        return above.log() - 2 * below.log();
    }
};

// Outside of the domain the identity; inside `inner`, computed from arguments that are brought inside, so
// that no gradient is NaN.
Transformed with_tails(const at::Tensor& argument, double bound, const Transformed& inner)
{
    const auto outside = argument.abs() > bound;
    return {at::where(outside, argument, inner.value),
            at::where(outside, at::zeros_like(argument), inner.log_derivative)};
}

}  // namespace

Transformed spline(const at::Tensor& x, const SplineParameters& parameters, const SplineShape& shape)
{
    const auto inside = x.clamp(-shape.bound, shape.bound);
    const Bin bin(parameters, shape, inside, false);
    const auto part = (inside - bin.x) / bin.width;
    const auto mixed = part * (1 - part);
    const auto y = bin.y + bin.height * (bin.slope * part.square() + bin.left * mixed) /
                               (bin.slope + (bin.left + bin.right - 2 * bin.slope) * mixed);
    return with_tails(x, shape.bound, {y, bin.log_derivative(part)});
}

Transformed inverse_spline(const at::Tensor& y, const SplineParameters& parameters, const SplineShape& shape)
{
    const auto inside = y.clamp(-shape.bound, shape.bound);
    const Bin bin(parameters, shape, inside, true);
    const auto rise = inside - bin.y;
    const auto excess = rise * (bin.left + bin.right - 2 * bin.slope);
    const auto a = bin.height * (bin.slope - bin.left) + excess;
    const auto b = bin.height * bin.left - excess;
    const auto c = -bin.slope * rise;
    const auto part = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt());
    return with_tails(y, shape.bound, {bin.x + part * bin.width, -bin.log_derivative(part)});
}

}  // namespace astroclip::catalogue
