#include "ssl/info_nce.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "core/error.hpp"
#include "ssl/tile_products.hpp"

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

// Cosines bound the logits to ±scale, so that no running maximum is needed: exponentials are taken relative
// to the largest logit there can be. exp(-2·scale) must be a number: up to this scale it is one in float32.
constexpr double largest_float_scale = 40;

void for_each_part(std::int64_t n, std::int64_t size,
                   const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    for (std::int64_t first = 0; first < n; first += size) {
        visit(first, std::min(size, n - first));
    }
}

// Unit rows and what divided them, to go back through the division.
struct UnitRows {
    at::Tensor rows, length;  // [n, E]; [n, 1] max(|x|, eps)

    explicit UnitRows(const at::Tensor& x)
    {
        const auto wide = at_least_float(x);
        length = at::linalg_vector_norm(wide, 2, at::IntArrayRef{-1}, true).clamp_min_(unit_eps);
        rows = (wide / length).contiguous();
    }
};

// Turns the gradient by unit rows into that by the rows themselves, in place: of x/|x| what is along the row
// falls out, of x/eps nothing does.
void back_through_division(at::Tensor& grad, const at::Tensor& rows, const at::Tensor& length,
                           std::int64_t tile)
{
    for_each_part(grad.size(0), tile, [&](std::int64_t first, std::int64_t count) {
        auto part = grad.narrow(0, first, count);
        const auto unit = rows.narrow(0, first, count), divisor = length.narrow(0, first, count);
        const auto along = (part * unit).sum(1, true).mul_(divisor > unit_eps);
        part.addcmul_(unit, along, -1).div_(divisor);
    });
}

}  // namespace

struct GatheredSpectra::State {
    comm::Communicator& ranks;
    Gather gather;
    at::Tensor spectrum;  // [n, E] of this rank (gather full: of all), with its graph
    UnitRows own;
    at::Tensor all_rows{};  // of all ranks, after all(); own.rows where nothing is gathered
    std::unique_ptr<comm::Work> work{};

    bool spread() const { return gather == Gather::grad && ranks.size() > 1; }
    const at::Tensor& all()
    {
        if (work) {
            work->wait();
            work.reset();
        }
        return all_rows;
    }
};

GatheredSpectra::GatheredSpectra(comm::Communicator& ranks, const at::Tensor& spectrum, Gather gather)
{
    const FullPrecision guard(c10::autocast_dispatch_keyset);
    const auto rows =
        gather == Gather::full ? comm::all_gather_with_grad(ranks, at_least_float(spectrum)) : spectrum;
    const at::NoGradGuard no_grad;
    state_ = std::make_unique<State>(ranks, gather, rows, UnitRows(rows));
    state_->all_rows = state_->own.rows;
    if (state_->spread()) {
        state_->work = ranks.all_gather_async(state_->own.rows, state_->all_rows);
    }
}

GatheredSpectra::~GatheredSpectra() = default;

namespace {

void in_parallel(std::int64_t n, const std::function<void(std::int64_t)>& visit)
{
    if (n == 1) {  // here, so that what is called may use all threads
        visit(0);
        return;
    }
    at::parallel_for(0, n, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
            visit(i);
        }
    });
}

// The cosines of the rows of `image` with those of `spectra`, in tiles. In row i the match is column i +
// `offset`.
class Tiles {
public:
    Tiles(const at::Tensor& image, const at::Tensor& spectra, double scale, std::int64_t offset,
          std::int64_t tile, bool gradients)
        : rows_(image.size(0)),
          columns_(spectra.size(0)),
          tile_(std::min(tile, std::max(rows_, columns_))),
          offset_(offset),
          scale_(scale),
          products_(make_tile_products(image, spectra, tile_, gradients)),
          space_(at::empty({tile_ * tile_}, image.options()))
    {
    }

    struct Strip {
        at::Tensor cosines;          // [rows, width] contiguous; may be overwritten
        std::int64_t row, column;    // of `image` and `spectra`, where it begins
        std::int64_t first, number;  // its first row in the tile, its number in the tile
    };

    // before(column, width, strips) of each tile, visit(strip) of its strips, by several threads, and
    // after(column, width).
    template <typename Before, typename Visit, typename After>
    void for_each(const Before& before, const Visit& visit, const After& after)
    {
        for_each_part(columns_, tile_, [&](std::int64_t column, std::int64_t width) {
            products_->take_columns(column, width);
            for_each_part(rows_, tile_, [&](std::int64_t row, std::int64_t height) {
                products_->take_rows(row, height);
                const auto rows = products_->strip() > 0 ? products_->strip() : height;
                const auto strips = (height + rows - 1) / rows;
                before(width, strips);
                in_parallel(strips, [&](std::int64_t number) {
                    const auto first = number * rows, count = std::min(rows, height - first);
                    Strip strip{space_.narrow(0, first * width, count * width).view({count, width}),
                                row + first, column, first, number};
                    products_->cosines(first, strip.cosines);
                    visit(strip);
                });
                after(column, width);
            });
        });
    }

    // In place in float32, else as float64.
    at::Tensor exponentials(at::Tensor& cosines) const
    {
        auto e = scale_ > largest_float_scale ? cosines.to(at::kDouble) : cosines;
        return e.sub_(1).mul_(scale_).exp_();
    }
    // The part of a strip that is pairs' own, and the first row of `image` that has one in it.
    at::Tensor matches(const at::Tensor& values, const Strip& strip) const
    {
        return values.diagonal(offset_ + strip.row - strip.column);
    }
    std::int64_t first_match(const Strip& strip) const { return std::max(strip.row, strip.column - offset_); }
    TileProducts& products() { return *products_; }
    at::ScalarType type() const { return scale_ > largest_float_scale ? at::kDouble : space_.scalar_type(); }

private:
    std::int64_t rows_, columns_, tile_, offset_;
    double scale_;
    std::unique_ptr<TileProducts> products_;
    at::Tensor space_;
};

// log Σ_j exp(scale·(cosine_j - match)) of a row or column, from the sum of e over all but the match: exact
// also where the pair is told apart so well that the loss is next to 0.
at::Tensor loss_of(const at::Tensor& other_sum, const at::Tensor& match, double scale)
{
    return (other_sum * ((1 - match) * scale).exp_()).log1p_();
}

// What turns e into the softmax: exp(scale·(1 - match) - loss).
at::Tensor weight_of(const at::Tensor& loss, const at::Tensor& match, double scale)
{
    return ((1 - match) * scale - loss).exp_();
}

// InfoNCE of [n, E] image and spectrum embeddings.
class TiledInfoNce : public torch::autograd::Function<TiledInfoNce> {
public:
    static at::Tensor forward(AutogradContext* context, const at::Tensor& image, const at::Tensor& spectrum,
                              const at::Tensor& scale, GatheredSpectra::State* gathered, std::int64_t tile)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        const UnitRows images(image);
        const auto& own_spectra = gathered->own;
        auto* ranks = gathered->spread() ? &gathered->ranks : nullptr;  // null: these are all pairs
        const auto rows = image.size(0);
        const auto& spectra = gathered->all();
        const auto first = ranks ? ranks->rank() * rows : 0;
        const auto factor = scale.item<double>();

        const auto exact = images.rows.options().dtype(at::kDouble);
        auto row_sum = at::zeros({rows}, exact), column_sum = at::zeros({spectra.size(0)}, exact);
        auto match = at::empty({rows}, exact);
        Tiles tiles(images.rows, spectra, factor, first, tile, false);
        at::Tensor strip_sums;  // of the columns, added up in the order of the strips
        tiles.for_each(
            [&](std::int64_t width, std::int64_t strips) {
                strip_sums = at::empty({strips, width}, exact);
            },
            [&](Tiles::Strip& strip) {
                const auto own = tiles.matches(strip.cosines, strip);
                if (own.size(0) > 0) {
                    match.narrow(0, tiles.first_match(strip), own.size(0)).copy_(own);
                }
                const auto e = tiles.exponentials(strip.cosines);
                tiles.matches(e, strip).zero_();
                row_sum.narrow(0, strip.row, e.size(0)).add_(e.sum(1));
                strip_sums[strip.number].copy_(e.sum(0));
            },
            [&](std::int64_t column, std::int64_t width) {
                column_sum.narrow(0, column, width).add_(strip_sums.sum(0));
            });
        if (ranks) {
            ranks->all_reduce_sum(column_sum);
        }
        const auto all_match = ranks ? ranks->all_gather(match) : match;
        const auto row_loss = loss_of(row_sum, match, factor);
        const auto column_loss = loss_of(column_sum, all_match, factor);

        context->save_for_backward({images.rows, images.length, spectra, own_spectra.length, scale, row_loss,
                                    column_loss, all_match});
        context->saved_data["types"] =
            std::vector<std::int64_t>{static_cast<std::int64_t>(image.scalar_type()),
                                      static_cast<std::int64_t>(spectrum.scalar_type())};
        context->saved_data["tile"] = tile;
        context->saved_data["ranks"] = reinterpret_cast<std::int64_t>(ranks);
        return (0.5 * (row_loss + column_loss.narrow(0, first, rows)).mean()).to(images.rows.scalar_type());
    }

    // With G the derivative by the logits, the gradients by unit rows are scale·G·spectra and scale·Gᵀ·image.
    // Row i of G needs only row i of the cosines and the losses of its columns; every rank's loss is taken to
    // have the same upstream gradient.
    static variable_list backward(AutogradContext* context, variable_list upstream)
    {
        const FullPrecision guard(c10::autocast_dispatch_keyset);
        const auto saved = context->get_saved_variables();
        const auto &image = saved[0], &spectra = saved[2], &scale = saved[4];
        const auto tile = context->saved_data["tile"].toInt();
        const auto types = context->saved_data["types"].toIntVector();
        auto* ranks = reinterpret_cast<comm::Communicator*>(context->saved_data["ranks"].toInt());
        const auto rows = image.size(0);
        const auto first = ranks ? ranks->rank() * rows : 0;
        const auto factor = scale.item<double>();

        auto image_grad = at::zeros_like(image), spectra_grad = at::zeros_like(spectra);
        add_gradients(Losses{saved[5], saved[6], saved[7], factor, first, tile}, image, spectra, image_grad,
                      spectra_grad);
        const auto mean = upstream[0].item<double>() / (2.0 * static_cast<double>(rows));
        // S is linear in the scale as in the rows of `image`, so their gradients tell that of the scale.
        const auto scale_grad =
            context->needs_input_grad(2) ? mean * dot(image, image_grad, tile) : at::Tensor();
        if (ranks) {
            spectra_grad = ranks->reduce_scatter_sum(spectra_grad);
        }
        back_through_division(image_grad.mul_(mean * factor), image, saved[1], tile);
        back_through_division(spectra_grad.mul_(mean * factor), spectra.narrow(0, first, rows), saved[3],
                              tile);
        return {image_grad.to(static_cast<at::ScalarType>(types[0])),
                spectra_grad.to(static_cast<at::ScalarType>(types[1])),
                scale_grad.defined() ? scale_grad.to(scale.scalar_type()) : at::Tensor(), at::Tensor(),
                at::Tensor()};
    }

private:
    struct Losses {
        at::Tensor row, column, match;  // match: cosines of all pairs
        double scale;
        std::int64_t first, tile;
    };

    static void add_gradients(const Losses& of, const at::Tensor& image, const at::Tensor& spectra,
                              at::Tensor& image_grad, at::Tensor& spectra_grad)
    {
        Tiles tiles(image, spectra, of.scale, of.first, of.tile, true);
        const auto own_match = of.match.narrow(0, of.first, image.size(0));
        const auto row_weight = weight_of(of.row, own_match, of.scale).to(tiles.type()).unsqueeze(1);
        const auto column_weight = weight_of(of.column, of.match, of.scale).to(tiles.type());
        // 1 - softmax of the pairs themselves, both ways.
        const auto pairs = at::expm1(-of.row) + at::expm1(-of.column.narrow(0, of.first, image.size(0)));
        tiles.for_each(
            [](std::int64_t, std::int64_t) {},
            [&](Tiles::Strip& strip) {
                auto& grad = strip.cosines;
                const auto e = tiles.exponentials(grad);
                const auto weights = row_weight.narrow(0, strip.row, e.size(0)) +
                                     column_weight.narrow(0, strip.column, e.size(1));
                if (e.is_same(grad)) {
                    grad.mul_(weights);
                } else {
                    grad.copy_(e * weights);
                }
                const auto own = tiles.matches(grad, strip);
                if (own.size(0) > 0) {
                    own.copy_(pairs.narrow(0, tiles.first_match(strip), own.size(0)));
                }
                tiles.products().add_image_gradient(strip.first, grad, image_grad);
            },
            [&](std::int64_t, std::int64_t) { tiles.products().add_spectra_gradient(spectra_grad); });
    }

    static at::Tensor dot(const at::Tensor& a, const at::Tensor& b, std::int64_t tile)
    {
        auto sum = at::zeros({}, a.options().dtype(at::kDouble));
        for_each_part(a.size(0), tile, [&](std::int64_t first, std::int64_t count) {
            sum.add_((a.narrow(0, first, count) * b.narrow(0, first, count)).sum());
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
    auto& state = spectra.state();
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
