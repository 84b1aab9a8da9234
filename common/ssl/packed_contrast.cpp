#include "ssl/packed_contrast.hpp"

#include "core/error.hpp"

#if defined(__x86_64__)

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "nn/avx512.hpp"
#include "nn/float_product.hpp"
#include "nn/split_product.hpp"

namespace astroclip::ssl {
namespace {

using nn::lanes;

constexpr std::int64_t strip_rows = 128;           // what one thread computes at once, however many there are
constexpr std::int64_t panel = nn::product_block;  // columns that are turned together

// visit(first, count) of parts of 0 … n - 1.
void in_parts(std::int64_t n, std::int64_t size, const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    for (std::int64_t first = 0; first < n; first += size) {
        visit(first, std::min(size, n - first));
    }
}
void in_parallel_parts(std::int64_t n, std::int64_t size,
                       const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    at::parallel_for(0, (n + size - 1) / size, 1, [&](std::int64_t begin, std::int64_t end) {
        in_parts(std::min(end * size, n) - begin * size, size,
                 [&](std::int64_t first, std::int64_t count) { visit(begin * size + first, count); });
    });
}

// Rows of unit length for the factors of products.
class Rows {
public:
    explicit Rows(const UnitRows& rows)
        : values_(rows.values.const_data_ptr<float>()),
          length_(rows.length.defined() ? rows.length.const_data_ptr<float>() : nullptr),
          width_(rows.values.size(1))
    {
    }

    std::int64_t width() const { return width_; }  // E

    // Rows first … as a left factor [count, E].
    template <typename Left>
    void set_left(Left& to, std::int64_t first, std::int64_t count) const
    {
        for (std::int64_t i = 0; i < count; ++i) {
            to.set_row(i, row(first + i), width_);
        }
    }

    // The same as rows `at` … of a right factor [k, E], filled up with zeros to whole blocks of 64.
    template <typename Right>
    void set_right(Right& to, std::int64_t first, std::int64_t count, std::int64_t at, std::int64_t k) const
    {
        for (std::int64_t i = 0; i < nn::padded(count); i += 2) {
            to.set_rows(at + i, i < count ? row(first + i) : zeros,
                        i + 1 < count ? row(first + i + 1) : zeros, k, width_);
        }
    }

    // The same as columns `at` … of a right factor [E, n], filled up with zeros to whole blocks of 64.
    template <typename Right>
    void set_turned(Right& to, std::int64_t first, std::int64_t count, std::int64_t at) const
    {
        for (std::int64_t i = 0; i < nn::padded(count); ++i) {
            to.set_column(at + i, i < count ? row(first + i) : zeros, width_);
        }
    }

private:
    static constexpr nn::FactorRow zeros{nullptr};

    nn::FactorRow row(std::int64_t i) const
    {
        return {values_ + i * width_, length_ != nullptr ? length_[i] : 1.0F};
    }

    const float *values_, *length_;
    std::int64_t width_;
};

// Logits or what becomes of them, of one strip of a tile.
struct Strip {
    float* values;  // [rows, columns], filled up to nn::padded(columns); rows `stride` apart
    std::int64_t stride, row, rows, column, columns;  // row, column: of `image` and `spectra`

    // visit(row of `image`, value) of the matches.
    template <typename Visit>
    void matches(std::int64_t offset, const Visit& visit) const
    {
        const auto first = std::max(row, column - offset),
                   after = std::min(row + rows, column + columns - offset);
        for (auto i = first; i < after; ++i) {
            visit(i, values[(i - row) * stride + i + offset - column]);
        }
    }
};

ASTROCLIP_AVX512 inline void add(double* sum, __m512d x)
{
    _mm512_storeu_pd(sum, _mm512_add_pd(_mm512_loadu_pd(sum), x));
}

// Adds exp(scale · (cosine - 1)) up, in float64: to row_sum [rows] and column_sum [nn::padded(columns)].
ASTROCLIP_AVX512 void add_exponentials(const Strip& strip, float scale, double* row_sum, double* column_sum)
{
    const auto factor = _mm512_set1_ps(scale), shift = _mm512_set1_ps(-scale);
    for (std::int64_t i = 0; i < strip.rows; ++i) {
        auto sum = _mm512_setzero_pd();
        for (std::int64_t j = 0; j < strip.columns; j += lanes) {
            const auto part = nn::first_lanes(strip.columns - j);
            const auto cosine = _mm512_loadu_ps(strip.values + i * strip.stride + j);
            const auto e = nn::power_of_e(_mm512_fmadd_ps(cosine, factor, shift));
            const auto y = _mm512_maskz_mov_ps(part, e.factor);
            const auto first = _mm512_scalef_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(y)),
                                                _mm512_cvtps_pd(_mm512_castps512_ps256(e.exponent)));
            const auto second = _mm512_scalef_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(y, 1)),
                                                 _mm512_cvtps_pd(_mm512_extractf32x8_ps(e.exponent, 1)));
            sum = _mm512_add_pd(sum, _mm512_add_pd(first, second));
            add(column_sum + j, first);
            add(column_sum + j + lanes / 2, second);
        }
        row_sum[i] += _mm512_reduce_add_pd(sum);
    }
}

// Numbers of float64 as sums of two of float32, so that adding both to a float32 loses nothing.
struct Exponents {
    explicit Exponents(const at::Tensor& exact)
        : high(exact.to(at::kFloat)), low((exact - high).to(at::kFloat))
    {
    }
    const float* upper() const { return high.const_data_ptr<float>(); }
    const float* lower() const { return low.const_data_ptr<float>(); }
    at::Tensor high, low;
};

// ContrastWeights without the matches, the shift of the cosines by 1 in the exponents.
struct Softmax {
    Softmax(const ContrastWeights& weights, double scale)
        : row(weights.row - scale), column(weights.column - scale), factor(static_cast<float>(scale))
    {
    }
    Exponents row, column;
    float factor;
};

// Turns cosines into the derivative by the logits, and fills it up with zeros.
ASTROCLIP_AVX512 void to_gradient(const Strip& strip, const Softmax& of)
{
    const auto scale = _mm512_set1_ps(of.factor);
    const auto *upper = of.column.upper() + strip.column, *lower = of.column.lower() + strip.column;
    for (std::int64_t i = 0; i < strip.rows; ++i) {
        const auto row_upper = _mm512_set1_ps(of.row.upper()[strip.row + i]);
        const auto row_lower = _mm512_set1_ps(of.row.lower()[strip.row + i]);
        for (std::int64_t j = 0; j < nn::padded(strip.columns); j += lanes) {
            const auto part = nn::first_lanes(std::max<std::int64_t>(strip.columns - j, 0));
            auto* value = strip.values + i * strip.stride + j;
            const auto cosine = _mm512_loadu_ps(value);
            const auto by_row = _mm512_add_ps(_mm512_fmadd_ps(cosine, scale, row_upper), row_lower);
            const auto by_column =
                _mm512_add_ps(_mm512_fmadd_ps(cosine, scale, _mm512_maskz_loadu_ps(part, upper + j)),
                              _mm512_maskz_loadu_ps(part, lower + j));
            _mm512_storeu_ps(value, _mm512_maskz_add_ps(part, nn::exp_of(by_row), nn::exp_of(by_column)));
        }
    }
}

struct Tile {
    std::int64_t row, rows, column, columns;  // of `image` and `spectra`
};

// The tiles of a contrast, one after the other, and their strips, which threads share.
template <typename Product>
class Tiles {
public:
    Tiles(const Contrast& of, bool gradients)
        : image_(of.image),
          spectra_(of.spectra),
          rows_(of.image.values.size(0)),
          columns_(of.spectra.values.size(0)),
          tile_(std::min(of.tile, nn::padded(std::max(rows_, columns_)))),
          gradients_(gradients),
          turned_(width(), tile_),
          spectra_rows_(gradients ? tile_ : 0, width())
    {
        for (int i = 0; i < std::min<std::int64_t>(at::get_num_threads(), tile_ / strip_rows + 1); ++i) {
            scratch_.emplace_back(width(), tile_);
        }
    }

    // visit(tile, strip, space for it as a left factor) of the strips of each tile, by several threads, then
    // after(tile).
    template <typename Visit, typename After>
    void for_each(const Visit& visit, const After& after)
    {
        in_parts(columns_, tile_, [&](std::int64_t column, std::int64_t columns) {
            take_columns(column, columns);
            in_parts(rows_, tile_, [&](std::int64_t row, std::int64_t rows) {
                const Tile tile{row, rows, column, columns};
                in_parallel_parts(rows, strip_rows, [&](std::int64_t first, std::int64_t count) {
                    auto& own = scratch_[static_cast<std::size_t>(at::get_thread_num())];
                    const Strip strip{own.values.template mutable_data_ptr<float>(),
                                      own.values.size(1),
                                      row + first,
                                      count,
                                      column,
                                      columns};
                    image_.set_left(own.rows, strip.row, count);
                    Product::multiply(own.rows, 0, count, width(), turned_, nn::padded(columns), strip.values,
                                      strip.stride, false);
                    visit(tile, strip, own.grad);
                });
                after(tile);
            });
        });
    }

    std::int64_t width() const { return image_.width(); }
    std::int64_t size() const { return tile_; }
    const Rows& image() const { return image_; }
    const typename Product::Right& spectra() const { return spectra_rows_; }  // of this tile, [columns, E]

private:
    // What a thread needs for a strip. Its rows are not a power of two apart, which caches take badly.
    struct Scratch {
        Scratch(std::int64_t width, std::int64_t tile)
            : rows(strip_rows, width),
              grad(strip_rows, tile),
              values(at::empty({strip_rows, tile + lanes}, at::kFloat))
        {
        }
        typename Product::Left rows, grad;
        at::Tensor values;
    };

    void take_columns(std::int64_t column, std::int64_t columns)
    {
        in_parallel_parts(columns, panel, [&](std::int64_t first, std::int64_t count) {
            spectra_.set_turned(turned_, column + first, count, first);
            if (gradients_) {
                spectra_.set_right(spectra_rows_, column + first, count, first, nn::padded(columns));
            }
        });
    }

    Rows image_, spectra_;
    std::int64_t rows_, columns_, tile_;
    bool gradients_;
    typename Product::Right turned_, spectra_rows_;
    std::vector<Scratch> scratch_;
};

// In float32 and float64, by themselves: products of almost equal rows are what splitting (split_product.hpp)
// rounds most, as all that is left out has one sign.
at::Tensor cosines_of_matches(const Contrast& of)
{
    const auto rows = of.image.values.size(0);
    auto match = at::empty({rows}, of.image.values.options().dtype(at::kDouble));
    in_parts(rows, strip_rows, [&](std::int64_t first, std::int64_t count) {
        const auto products = of.image.part(first, count) * of.spectra.part(first + of.offset, count);
        match.narrow(0, first, count).copy_(products.sum(at::IntArrayRef{1}, false, at::kDouble));
    });
    return match;
}

// The matches' part of the gradients, often the most of them, in float32 by itself.
void add_matches(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                 at::Tensor& spectra_grad)
{
    const auto match = weights.match.to(at::kFloat).unsqueeze(1);
    in_parts(match.size(0), strip_rows, [&](std::int64_t first, std::int64_t count) {
        const auto weight = match.narrow(0, first, count);
        image_grad.narrow(0, first, count).addcmul_(of.spectra.part(first + of.offset, count), weight);
        spectra_grad.narrow(0, first + of.offset, count).addcmul_(of.image.part(first, count), weight);
    });
}

template <typename Product>
ContrastSums sums_by(const Contrast& of)
{
    using Left = typename Product::Left;
    Tiles<Product> tiles(of, false);
    const auto exact = of.image.values.options().dtype(at::kDouble);
    ContrastSums sums{at::zeros({of.image.values.size(0)}, exact),
                      at::zeros({of.spectra.values.size(0)}, exact), cosines_of_matches(of)};
    auto* row_sum = sums.row.mutable_data_ptr<double>();
    // Of the columns, added up in the order of the strips.
    const auto strip_sums = at::zeros({tiles.size() / strip_rows + 1, tiles.size()}, exact);
    auto* column_sum = strip_sums.template mutable_data_ptr<double>();
    tiles.for_each(
        [&](const Tile& tile, const Strip& strip, Left&) {
            strip.matches(of.offset, [](std::int64_t, float& cosine) { cosine = -INFINITY; });
            add_exponentials(strip, static_cast<float>(of.scale), row_sum + strip.row,
                             column_sum + (strip.row - tile.row) / strip_rows * tiles.size());
        },
        [&](const Tile& tile) {
            sums.column.narrow(0, tile.column, tile.columns)
                .add_(strip_sums.sum(0).narrow(0, 0, tile.columns));
            strip_sums.zero_();
        });
    return sums;
}

template <typename Product>
void add_gradients_by(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                      at::Tensor& spectra_grad)
{
    using Left = typename Product::Left;
    Tiles<Product> tiles(of, true);
    const auto width = tiles.width(), size = tiles.size();
    const Softmax softmax(weights, of.scale);
    auto *by_image = image_grad.mutable_data_ptr<float>(),
         *by_spectra = spectra_grad.mutable_data_ptr<float>();
    typename Product::Right image_rows(size, width);
    typename Product::Turned turned(size, size);
    tiles.for_each(
        [&](const Tile& tile, const Strip& strip, Left& grad) {
            to_gradient(strip, softmax);
            strip.matches(of.offset, [](std::int64_t, float& value) { value = 0; });
            const auto columns = nn::padded(strip.columns), first = strip.row - tile.row;
            for (std::int64_t i = 0; i < strip.rows; ++i) {
                grad.set_row(i, {strip.values + i * strip.stride}, columns);
            }
            Product::multiply(grad, 0, strip.rows, columns, tiles.spectra(), width,
                              by_image + strip.row * width, width, true);
            tiles.image().set_right(image_rows, strip.row, strip.rows, first, nn::padded(tile.rows));
            turned.set_columns(first, strip.values, strip.stride, strip.rows, strip.columns,
                               nn::padded(tile.rows));
        },
        [&](const Tile& tile) {
            const auto rows = nn::padded(tile.rows);
            in_parallel_parts(tile.columns, strip_rows, [&](std::int64_t first, std::int64_t count) {
                Product::multiply(turned, first, count, rows, image_rows, width,
                                  by_spectra + (tile.column + first) * width, width, true);
            });
        });
    add_matches(of, weights, image_grad, spectra_grad);
}

}  // namespace

bool has_packed_contrast(const Contrast& of)
{
    constexpr std::int64_t least_width = 256;
    const auto& image = of.image.values;
    return image.is_cpu() && image.scalar_type() == at::kFloat && image.size(1) >= least_width &&
           image.size(1) % panel == 0 && of.tile % panel == 0 && nn::has_avx512();
}

ContrastSums packed_sums(const Contrast& of)
{
    return nn::has_split_product() ? sums_by<nn::SplitProduct>(of) : sums_by<nn::FloatProduct>(of);
}

void add_packed_gradients(const Contrast& of, const ContrastWeights& weights, at::Tensor& image_grad,
                          at::Tensor& spectra_grad)
{
    nn::has_split_product() ? add_gradients_by<nn::SplitProduct>(of, weights, image_grad, spectra_grad)
                            : add_gradients_by<nn::FloatProduct>(of, weights, image_grad, spectra_grad);
}

}  // namespace astroclip::ssl

#else

namespace astroclip::ssl {

bool has_packed_contrast(const Contrast&) { return false; }

ContrastSums packed_sums(const Contrast&) { throw InternalError("packed products on another processor"); }

void add_packed_gradients(const Contrast&, const ContrastWeights&, at::Tensor&, at::Tensor&)
{
    throw InternalError("packed products on another processor");
}

}  // namespace astroclip::ssl

#endif
