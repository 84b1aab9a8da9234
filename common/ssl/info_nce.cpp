#include "ssl/info_nce.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <memory>

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

void for_each_part(std::int64_t n, std::int64_t size,
                   const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    for (std::int64_t first = 0; first < n; first += size) {
        visit(first, std::min(size, n - first));
    }
}

UnitRows to_unit(const at::Tensor& x)
{
    const auto values = at_least_float(x).contiguous();
    return {values, at::linalg_vector_norm(values, 2, at::IntArrayRef{-1}, true).clamp_min_(unit_eps)};
}

// Turns the gradient by unit rows into that by the rows themselves, in place: of x/|x| what is along the row
// falls out, of x/eps nothing does.
void back_through_division(at::Tensor& grad, const UnitRows& rows, std::int64_t tile)
{
    for_each_part(grad.size(0), tile, [&](std::int64_t first, std::int64_t count) {
        auto part = grad.narrow(0, first, count);
        const auto unit = rows.part(first, count), divisor = rows.length.narrow(0, first, count);
        const auto along = (part * unit).sum(1, true).mul_(divisor > unit_eps);
        part.addcmul_(unit, along, -1).div_(divisor);
    });
}

}  // namespace

struct GatheredState {
    comm::Communicator& ranks;
    Gather gather;
    at::Tensor spectrum;     // [n, E] of this rank (gather full: of all), with its graph
    UnitRows own, of_all{};  // of all ranks, after all(); own where nothing is gathered
    at::Tensor sent{};
    std::unique_ptr<comm::Work> work{};

    bool spread() const { return gather == Gather::grad && ranks.size() > 1; }
    const UnitRows& all()
    {
        if (work) {
            work->wait();
            work.reset();
            sent.reset();
        }
        return of_all;
    }
};

GatheredSpectra::GatheredSpectra(comm::Communicator& ranks, const at::Tensor& spectrum, Gather gather)
{
    const FullPrecision guard(c10::autocast_dispatch_keyset);
    const auto rows =
        gather == Gather::full ? comm::all_gather_with_grad(ranks, at_least_float(spectrum)) : spectrum;
    const at::NoGradGuard no_grad;
    state_ = std::make_unique<GatheredState>(ranks, gather, rows, to_unit(rows.detach()));
    auto& state = *state_;
    if (state.spread()) {
        state.sent = state.own.part(0, rows.size(0));
        state.work = ranks.all_gather_async(state.sent, state.of_all.values);
    } else {
        state.of_all = state.own;
    }
}

GatheredSpectra::~GatheredSpectra() = default;

namespace {

// log Σ_j exp(scale·(cosine_j - match)) of a row or column, from the sum of e over all but the match: exact
// also where the pair is told apart so well that the loss is next to 0.
at::Tensor loss_of(const at::Tensor& other_sum, const at::Tensor& match, double scale)
{
    return (other_sum * ((1 - match) * scale).exp_()).log1p_();
}

// The logarithm of what turns exp(scale·(cosine - 1)) into the softmax.
at::Tensor log_weight_of(const at::Tensor& loss, const at::Tensor& match, double scale)
{
    return (1 - match) * scale - loss;
}

// InfoNCE of [n, E] image and spectrum embeddings.
class TiledInfoNce : public torch::autograd::Function<TiledInfoNce> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& image, const at::Tensor& spectrum,
                              const at::Tensor& scale, GatheredState* gathered, std::int64_t tile)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        auto* ranks = gathered->spread() ? &gathered->ranks : nullptr;  // null: these are all pairs
        const auto rows = image.size(0);
        const auto first = ranks ? ranks->rank() * rows : 0;
        const auto factor = scale.item<double>();
        const Contrast pairs{to_unit(image.detach()), gathered->all(), factor, first, tile};
        auto sums = contrast_sums(pairs);
        if (ranks) {
            ranks->all_reduce_sum(sums.column);
        }
        const auto all_match = ranks ? ranks->all_gather(sums.match) : sums.match;
        const auto row_loss = loss_of(sums.row, sums.match, factor);
        const auto column_loss = loss_of(sums.column, all_match, factor);

        context->save_for_backward({pairs.image.values, pairs.image.length, pairs.spectra.values,
                                    pairs.spectra.length, gathered->own.values, gathered->own.length, scale,
                                    row_loss, column_loss, all_match});
        context->saved_data["types"] =
            std::vector<std::int64_t>{static_cast<std::int64_t>(image.scalar_type()),
                                      static_cast<std::int64_t>(spectrum.scalar_type())};
        context->saved_data["tile"] = tile;
        context->saved_data["ranks"] = reinterpret_cast<std::int64_t>(ranks);
        return (0.5 * (row_loss + column_loss.narrow(0, first, rows)).mean())
            .to(pairs.image.values.scalar_type());
    }

    // With G the derivative by the logits, the gradients by unit rows are scale·G·spectra and scale·Gᵀ·image.
    // Row i of G needs only row i of the cosines and the losses of its columns; every rank's loss is taken to
    // have the same upstream gradient.
    static variable_list backward(AutogradContext* context, variable_list upstream)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        const auto saved = context->get_saved_variables();
        const UnitRows image{saved[0], saved[1]}, spectra{saved[2], saved[3]}, own{saved[4], saved[5]};
        const auto &scale = saved[6], &row_loss = saved[7], &column_loss = saved[8], &match = saved[9];
        const auto tile = context->saved_data["tile"].toInt();
        const auto types = context->saved_data["types"].toIntVector();
        auto* ranks = reinterpret_cast<comm::Communicator*>(context->saved_data["ranks"].toInt());
        const auto rows = image.values.size(0);
        const auto first = ranks ? ranks->rank() * rows : 0;
        const auto factor = scale.item<double>();

        auto image_grad = at::zeros_like(image.values), spectra_grad = at::zeros_like(spectra.values);
        // Of the matches: softmax - 1, both ways.
        const ContrastWeights weights{log_weight_of(row_loss, match.narrow(0, first, rows), factor),
                                      log_weight_of(column_loss, match, factor),
                                      at::expm1(-row_loss) + at::expm1(-column_loss.narrow(0, first, rows))};
        add_contrast_gradients({image, spectra, factor, first, tile}, weights, image_grad, spectra_grad);
        const auto mean = upstream[0].item<double>() / (2.0 * static_cast<double>(rows));
        // S is linear in the scale as in the rows of `image`, so their gradients tell that of the scale.
        const auto scale_grad =
            context->needs_input_grad(2) ? mean * dot(image, image_grad, tile) : at::Tensor();
        if (ranks) {
            spectra_grad = ranks->reduce_scatter_sum(spectra_grad);
        }
        back_through_division(image_grad.mul_(mean * factor), image, tile);
        back_through_division(spectra_grad.mul_(mean * factor), own, tile);
        return {image_grad.to(static_cast<at::ScalarType>(types[0])),
                spectra_grad.to(static_cast<at::ScalarType>(types[1])),
                scale_grad.defined() ? scale_grad.to(scale.scalar_type()) : at::Tensor(), at::Tensor(),
                at::Tensor()};
    }

private:
    static at::Tensor dot(const UnitRows& rows, const at::Tensor& grad, std::int64_t tile)
    {
        auto sum = at::zeros({}, grad.options().dtype(at::kDouble));
        for_each_part(grad.size(0), tile, [&](std::int64_t first, std::int64_t count) {
            sum.add_((rows.part(first, count) * grad.narrow(0, first, count)).sum());
        });
        return sum;
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
    return info_nce(image, GatheredSpectra(ranks, spectrum, gather), scale, tile);
}

at::Tensor info_nce(const at::Tensor& image, const GatheredSpectra& spectra, const at::Tensor& scale,
                    std::int64_t tile)
{
    auto& state = *spectra.state_;
    const auto images =
        state.gather == Gather::full ? comm::all_gather_with_grad(state.ranks, at_least_float(image)) : image;
    return TiledInfoNce::apply(images, state.spectrum, scale, &state, tile);
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
