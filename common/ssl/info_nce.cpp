#include "ssl/info_nce.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "core/error.hpp"

namespace astroclip::ssl {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Gather gather_from_name(const std::string& name)
{
    if (name == "grad") return Gather::grad;
    if (name == "none") return Gather::none;
    if (name == "full") return Gather::full;
    throw ConfigError(fmt::format("gather = {}: grad, none or full expected", name));
}

void bind(config::Section options, InfoNceConfig& config)
{
    options
        .option("gather", config.gather,
                "where negatives come from: all ranks (grad), the own rank (none), full: a check",
                config::one_of({"grad", "none", "full"}))
        .option("logit-scale", config.logit_scale, "factor of the cosines (its start, if learned)",
                config::between(1e-3, 100))
        .option("learn-scale", config.learn_scale, "make the logit scale a parameter")
        .option("loss-tile", config.tile, "rows and columns of logits in memory at once",
                config::runtime_only(config::at_least(1)));
}

namespace {

// Losses are computed in at least single precision, whatever autocast is on around them.
using FullPrecision = c10::impl::ExcludeDispatchKeyGuard;

at::Tensor at_least_float(const at::Tensor& x)
{
    return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

// Running log-sum-exp along one axis of a matrix that arrives in tiles (online softmax, Milakov and
// Gimelshein 2018).
struct RunningLogSumExp {
    at::Tensor max, sum;  // of exp(logit - max)

    RunningLogSumExp(std::int64_t n, const at::TensorOptions& options)
        : max(at::full({n}, -std::numeric_limits<double>::infinity(), options)), sum(at::zeros({n}, options))
    {
    }

    // `axis`: the axis of the tile that is summed over; the other one holds the elements from `first` on.
    void add(const at::Tensor& logits, std::int64_t axis, std::int64_t first)
    {
        auto part_max = max.narrow(0, first, logits.size(1 - axis));
        auto part_sum = sum.narrow(0, first, logits.size(1 - axis));
        const auto new_max = at::maximum(part_max, logits.amax(axis));
        part_sum.mul_((part_max - new_max).exp_()).add_((logits - new_max.unsqueeze(axis)).exp_().sum(axis));
        part_max.copy_(new_max);
    }
};

void for_each_tile(std::int64_t n, std::int64_t tile,
                   const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    for (std::int64_t first = 0; first < n; first += tile) {
        visit(first, std::min(tile, n - first));
    }
}

// The logits of the pairs themselves that a tile holds, written to their rows of `match`. In row i of the
// tile the match is column i + offset.
void take_matches(const at::Tensor& logits, std::int64_t offset, at::Tensor match)
{
    const auto diagonal = logits.diagonal(offset);
    match.narrow(0, std::clamp<std::int64_t>(-offset, 0, match.size(0)), diagonal.size(0)).copy_(diagonal);
}

// log Σ exp(logit - match) over all ranks' rows of each column: in double precision, which holds the
// exponentials of all differences of logits of a scale <= 100.
at::Tensor column_losses(comm::Communicator* ranks, const RunningLogSumExp& local, const at::Tensor& match)
{
    auto sums = local.sum.to(at::kDouble) * (local.max - match).to(at::kDouble).exp();
    if (ranks) {
        ranks->all_reduce_sum(sums);
    }
    return sums.log().to(match.scalar_type());
}

at::Tensor softmax(const at::Tensor& logits, const at::Tensor& match, const at::Tensor& loss)
{
    return (logits - match).sub_(loss).exp_();
}

// InfoNCE of unit rows. image, spectrum [n, E]; `ranks` null: these are all pairs.
class TiledInfoNce : public torch::autograd::Function<TiledInfoNce> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& image, const at::Tensor& spectrum,
                              const at::Tensor& scale, comm::Communicator* ranks, std::int64_t tile)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        const auto rows = image.size(0);
        const auto spectra = ranks ? ranks->all_gather(spectrum.contiguous()) : spectrum;
        const auto columns = spectra.size(0);
        const auto factor = scale.item<double>();

        RunningLogSumExp per_row(rows, image.options()), per_column(columns, image.options());
        auto match = at::empty({rows}, image.options());
        const auto first = ranks ? ranks->rank() * rows : 0;
        at::Tensor logits;
        for_each_tile(rows, tile, [&](std::int64_t row, std::int64_t height) {
            for_each_tile(columns, tile, [&](std::int64_t column, std::int64_t width) {
                logits = image.narrow(0, row, height).mm(spectra.narrow(0, column, width).t()).mul_(factor);
                per_row.add(logits, 1, row);
                per_column.add(logits, 0, column);
                take_matches(logits, first + row - column, match.narrow(0, row, height));
            });
        });
        // Losses, not log-sum-exps, are kept: where a pair is told apart well, their difference would be lost
        // in rounding.
        const auto row_loss = (per_row.max - match) + per_row.sum.log();
        const auto all_match = ranks ? ranks->all_gather(match) : match;
        const auto column_loss = column_losses(ranks, per_column, all_match);

        const bool one_tile = rows <= tile && columns <= tile;
        context->save_for_backward(
            {image, spectra, scale, row_loss, column_loss, all_match, one_tile ? logits : at::Tensor()});
        context->saved_data["tile"] = tile;
        context->saved_data["ranks"] = reinterpret_cast<std::int64_t>(ranks);
        return 0.5 * (row_loss + column_loss.narrow(0, first, rows)).mean();
    }

    // With G the derivative by the logits, the gradients are scale·G·spectra and scale·Gᵀ·image. Row i of G
    // needs only row i of S and the losses of its columns; every rank's loss is taken to have the same
    // upstream gradient.
    static variable_list backward(AutogradContext* context, variable_list upstream)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        const auto saved = context->get_saved_variables();
        const auto &image = saved[0], &spectra = saved[1], &scale = saved[2];
        const auto &row_loss = saved[3], &column_loss = saved[4], &match = saved[5], &kept_logits = saved[6];
        const auto tile = context->saved_data["tile"].toInt();
        auto* ranks = reinterpret_cast<comm::Communicator*>(context->saved_data["ranks"].toInt());
        const auto rows = image.size(0);
        const auto first = ranks ? ranks->rank() * rows : 0;
        const auto row_match = match.narrow(0, first, rows);
        const auto factor = scale.item<double>();
        const bool learn_scale = context->needs_input_grad(2);

        auto image_grad = at::zeros_like(image);
        auto spectra_grad = at::zeros_like(spectra);
        auto scale_grad = at::zeros({}, image.options());
        for_each_tile(rows, tile, [&](std::int64_t row, std::int64_t height) {
            const auto images = image.narrow(0, row, height);
            for_each_tile(spectra.size(0), tile, [&](std::int64_t column, std::int64_t width) {
                const auto some_spectra = spectra.narrow(0, column, width);
                const auto logits =
                    kept_logits.defined() ? kept_logits : images.mm(some_spectra.t()).mul_(factor);
                auto grad = softmax(logits, row_match.narrow(0, row, height).unsqueeze(1),
                                    row_loss.narrow(0, row, height).unsqueeze(1));
                grad.add_(
                    softmax(logits, match.narrow(0, column, width), column_loss.narrow(0, column, width)));
                grad.diagonal(first + row - column).sub_(2.0);
                image_grad.narrow(0, row, height).addmm_(grad, some_spectra);
                spectra_grad.narrow(0, column, width).addmm_(grad.t(), images);
                if (learn_scale) {
                    scale_grad.add_((grad * logits).sum());
                }
            });
        });
        const auto mean = upstream[0] / (2.0 * static_cast<double>(rows));
        spectra_grad.mul_(mean * factor);
        return {image_grad.mul_(mean * factor),
                ranks ? ranks->reduce_scatter_sum(spectra_grad) : spectra_grad,
                learn_scale ? (scale_grad * mean / factor).to(scale.scalar_type()) : at::Tensor(),
                at::Tensor(), at::Tensor()};
    }
};

}  // namespace

at::Tensor unit_rows(const at::Tensor& x, double eps)
{
    const auto rows = at_least_float(x);
    return rows / at::linalg_vector_norm(rows, 2, at::IntArrayRef{-1}, true).clamp_min(eps);
}

at::Tensor info_nce(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                    const at::Tensor& scale, Gather gather, std::int64_t tile)
{
    const FullPrecision guard(c10::autocast_dispatch_keyset);
    auto images = unit_rows(image);
    auto spectra = unit_rows(spectrum);
    if (gather == Gather::full) {
        images = comm::all_gather_with_grad(ranks, images);
        spectra = comm::all_gather_with_grad(ranks, spectra);
    }
    const bool spread = gather == Gather::grad && ranks.size() > 1;
    return TiledInfoNce::apply(images, spectra, scale, spread ? &ranks : nullptr, tile);
}

at::Tensor info_nce(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                    double scale, Gather gather, std::int64_t tile)
{
    return info_nce(ranks, image, spectrum,
                    at::scalar_tensor(scale, at_least_float(image).options().requires_grad(false)), gather,
                    tile);
}

at::Tensor info_nce_plain(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                          const at::Tensor& scale, Gather gather)
{
    const FullPrecision guard(c10::autocast_dispatch_keyset);
    auto images = unit_rows(image);
    auto spectra = unit_rows(spectrum);
    const bool alone = gather == Gather::none;
    const auto all_images = alone ? images : comm::all_gather_with_grad(ranks, images);
    const auto all_spectra = alone ? spectra : comm::all_gather_with_grad(ranks, spectra);
    if (gather == Gather::full) {
        images = all_images;
        spectra = all_spectra;
    }
    const auto per_image = scale * images.matmul(all_spectra.t());
    const auto per_spectrum = scale * spectra.matmul(all_images.t());

    // Row i's match is column i of this rank's block.
    const auto rows = images.size(0);
    const auto first = gather == Gather::grad ? ranks.rank() * rows : 0;
    const auto match = at::arange(rows, per_image.options().dtype(at::kLong)) + first;
    return 0.5 * (at::cross_entropy_loss(per_image, match) + at::cross_entropy_loss(per_spectrum, match));
}

}  // namespace astroclip::ssl
