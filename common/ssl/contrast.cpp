#include "ssl/contrast.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "ssl/packed_contrast.hpp"

namespace astroclip::ssl {

at::Tensor UnitRows::part(std::int64_t first, std::int64_t count) const
{
    const auto rows = values.narrow(0, first, count);
    return length.defined() ? rows / length.narrow(0, first, count) : rows;
}

namespace {

// Cosines bound the logits to ±scale, so that no running maximum is needed: exponentials are taken relative
// to the largest logit there can be. exp(-2·scale) must be a number: up to this scale it is one in float32.
constexpr double largest_float_scale = 40;

// One tile after the other, by LibTorch's operators.
class Tiles {
public:
    explicit Tiles(const Contrast& of)
        : of_(of),
          image_(of.image.part(0, of.image.values.size(0))),
          spectra_(of.spectra.part(0, of.spectra.values.size(0))),
          tile_(std::min(of.tile, std::max(image_.size(0), spectra_.size(0)))),
          space_(at::empty({tile_ * tile_}, image_.options()))
    {
    }

    struct Tile {
        at::Tensor cosines;         // [rows, columns]; may be overwritten
        at::Tensor image, spectra;  // the unit rows that meet in it
        std::int64_t row, column;   // where it begins
    };

    template <typename Visit>
    void for_each(const Visit& visit) const
    {
        for (std::int64_t column = 0; column < spectra_.size(0); column += tile_) {
            const auto columns = spectra_.narrow(0, column, std::min(tile_, spectra_.size(0) - column));
            for (std::int64_t row = 0; row < image_.size(0); row += tile_) {
                const auto rows = image_.narrow(0, row, std::min(tile_, image_.size(0) - row));
                const auto height = rows.size(0), width = columns.size(0);
                auto cosines = space_.narrow(0, 0, height * width).view({height, width});
                at::mm_out(cosines, rows, columns.t());
                Tile tile{cosines, rows, columns, row, column};
                visit(tile);
            }
        }
    }

    // In place in float32, else as float64.
    at::Tensor exponentials(at::Tensor& cosines) const
    {
        auto e = type() == cosines.scalar_type() ? cosines : cosines.to(type());
        return e.sub_(1).mul_(of_.scale).exp_();
    }
    // The part of a tile that is pairs' own, and the first row of `image` that has one in it.
    at::Tensor matches(const at::Tensor& values, const Tile& tile) const
    {
        return values.diagonal(of_.offset + tile.row - tile.column);
    }
    std::int64_t first_match(const Tile& tile) const { return std::max(tile.row, tile.column - of_.offset); }
    at::ScalarType type() const
    {
        return of_.scale > largest_float_scale ? at::kDouble : space_.scalar_type();
    }

private:
    const Contrast& of_;
    at::Tensor image_, spectra_;
    std::int64_t tile_;
    at::Tensor space_;
};

ContrastSums plain_sums(const Contrast& of)
{
    const Tiles tiles(of);
    const auto exact = of.image.values.options().dtype(at::kDouble);
    const auto rows = of.image.values.size(0);
    ContrastSums sums{at::zeros({rows}, exact), at::zeros({of.spectra.values.size(0)}, exact),
                      at::empty({rows}, exact)};
    tiles.for_each([&](Tiles::Tile& tile) {
        const auto own = tiles.matches(tile.cosines, tile);
        if (own.size(0) > 0) {
            sums.match.narrow(0, tiles.first_match(tile), own.size(0)).copy_(own);
        }
        const auto e = tiles.exponentials(tile.cosines);
        tiles.matches(e, tile).zero_();
        sums.row.narrow(0, tile.row, e.size(0)).add_(e.sum(1));
        sums.column.narrow(0, tile.column, e.size(1)).add_(e.sum(0));
    });
    return sums;
}

void add_plain_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                         at::Tensor& spectra_grad)
{
    const Tiles tiles(of);
    const auto row_weight = weights.row.exp().to(tiles.type()).unsqueeze(1);
    const auto column_weight = weights.column.exp().to(tiles.type());
    tiles.for_each([&](Tiles::Tile& tile) {
        auto& grad = tile.cosines;
        const auto e = tiles.exponentials(grad);
        const auto both =
            row_weight.narrow(0, tile.row, e.size(0)) + column_weight.narrow(0, tile.column, e.size(1));
        if (e.is_same(grad)) {
            grad.mul_(both);
        } else {
            grad.copy_(e * both);
        }
        const auto own = tiles.matches(grad, tile);
        if (own.size(0) > 0) {
            own.copy_(weights.match.narrow(0, tiles.first_match(tile), own.size(0)));
        }
        image_grad.narrow(0, tile.row, e.size(0)).addmm_(grad, tile.spectra);
        spectra_grad.narrow(0, tile.column, e.size(1)).addmm_(grad.t(), tile.image);
    });
}

}  // namespace

ContrastSums contrast_sums(const Contrast& of)
{
    return has_packed_contrast(of) ? packed_sums(of) : plain_sums(of);
}

void add_contrast_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                            at::Tensor& spectra_grad)
{
    has_packed_contrast(of) ? add_packed_gradients(of, weights, image_grad, spectra_grad)
                            : add_plain_gradients(of, weights, image_grad, spectra_grad);
}

}  // namespace astroclip::ssl
