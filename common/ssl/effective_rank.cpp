#include "ssl/effective_rank.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"

namespace astroclip::ssl {

double effective_rank(const at::Tensor& x, std::int64_t group_rows)
{
    if (group_rows < 1 || x.size(0) < 1 || x.size(0) % group_rows != 0) {
        throw InternalError(
            fmt::format("effective rank: {} rows are not groups of {}", x.size(0), group_rows));
    }
    const at::NoGradGuard no_grad;
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto groups = x.detach().to(at::kCPU, at::kDouble).view({-1, group_rows, x.size(1)});
    // The squares of the singular values, of the smaller of the two products.
    const auto across = groups.transpose(1, 2);
    const auto gram = group_rows <= x.size(1) ? groups.bmm(across) : across.bmm(groups);
    const auto values = at::linalg_eigvalsh(gram).clamp_min(0).sqrt();
    const auto shares = values / values.sum(1, true).clamp_min(1e-300);
    const auto entropy = -at::xlogy(shares, shares).sum(1);
    return entropy.exp().mean().item<double>();
}

bool CollapseWatch::fell(double rank, std::int64_t step)
{
    if (step < first_step) {
        return false;
    }
    best_ = std::max(best_, rank);
    if (rank >= 0.5 * best_) {
        told_ = false;
        return false;
    }
    const bool first = !told_;
    told_ = true;
    return first;
}

}  // namespace astroclip::ssl
