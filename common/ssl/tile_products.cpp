#include "ssl/tile_products.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <bit>
#include <functional>

namespace astroclip::ssl {
namespace {

class PlainProducts : public TileProducts {
public:
    PlainProducts(at::Tensor image, at::Tensor spectra)
        : image_(std::move(image)), spectra_(std::move(spectra))
    {
    }

    void take_columns(std::int64_t first, std::int64_t width) override
    {
        column_ = first;
        columns_ = spectra_.narrow(0, first, width);
    }
    void take_rows(std::int64_t first, std::int64_t height) override
    {
        row_ = first;
        rows_ = image_.narrow(0, first, height);
    }
    std::int64_t strip() const override { return 0; }
    void cosines(std::int64_t, at::Tensor& tile) override { at::mm_out(tile, rows_, columns_.t()); }
    void add_image_gradient(std::int64_t, const at::Tensor& tile, at::Tensor& image_grad) override
    {
        image_grad.narrow(0, row_, rows_.size(0)).addmm_(tile, columns_);
        grad_ = tile;
    }
    void add_spectra_gradient(at::Tensor& spectra_grad) override
    {
        spectra_grad.narrow(0, column_, columns_.size(0)).addmm_(grad_.t(), rows_);
    }

private:
    at::Tensor image_, spectra_, rows_, columns_, grad_;
    std::int64_t row_ = 0, column_ = 0;
};

// A float32 matrix [k, n] as the sum of two of bfloat16, as factors of a product: by rows, or paired, that is
// with the values of rows 2i and 2i + 1 side by side, the order in which the processor takes the right
// factor.
struct Split {
    at::Tensor high, rest;

    Split() : Split(0, 0) {}
    Split(std::int64_t rows, std::int64_t columns)
        : high(at::empty({rows * columns}, at::kBFloat16)), rest(at::empty({rows * columns}, at::kBFloat16))
    {
    }
    Split block(std::int64_t rows, std::int64_t columns) const
    {
        Split part;
        part.high = high.narrow(0, 0, rows * columns).view({rows, columns});
        part.rest = rest.narrow(0, 0, rows * columns).view({rows, columns});
        return part;
    }
};

std::uint16_t* words(const at::Tensor& tensor)
{
    return static_cast<std::uint16_t*>(tensor.mutable_data_ptr());
}

// A float32's bits rounded to those of a bfloat16, which are the upper half.
inline std::uint32_t rounded(float value)
{
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
}

// One row by rows. (Loops like this one are vectorised at -O3.)
[[gnu::optimize("O3")]] void split_row(const float* from, std::int64_t n, std::uint16_t* high,
                                       std::uint16_t* rest)
{
    for (std::int64_t i = 0; i < n; ++i) {
        const auto upper = rounded(from[i]);
        high[i] = static_cast<std::uint16_t>(upper >> 16);
        rest[i] = static_cast<std::uint16_t>(rounded(from[i] - std::bit_cast<float>(upper)) >> 16);
    }
}

// Two rows, paired.
[[gnu::optimize("O3")]] void split_pair(const float* even, const float* odd, std::int64_t n,
                                        std::uint32_t* high, std::uint32_t* rest)
{
    for (std::int64_t i = 0; i < n; ++i) {
        const auto first = rounded(even[i]), second = rounded(odd[i]);
        high[i] = first >> 16 | second;
        rest[i] = rounded(even[i] - std::bit_cast<float>(first)) >> 16 |
                  rounded(odd[i] - std::bit_cast<float>(second));
    }
}

constexpr std::int64_t strip_rows = 128;  // what one thread computes at once, however many there are

void for_each_strip(std::int64_t rows, const std::function<void(std::int64_t, std::int64_t)>& visit)
{
    at::parallel_for(0, (rows + strip_rows - 1) / strip_rows, 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
            visit(i * strip_rows, std::min(strip_rows, rows - i * strip_rows));
        }
    });
}

// `from` [m, n] contiguous, from row `first` on, into the same rows of `to`.
void split_by_rows(const at::Tensor& from, std::int64_t first, const Split& to)
{
    const auto n = from.size(1);
    for (std::int64_t row = 0; row < from.size(0); ++row) {
        split_row(from.const_data_ptr<float>() + row * n, n, words(to.high) + (first + row) * n,
                  words(to.rest) + (first + row) * n);
    }
}

void split_paired(const at::Tensor& from, std::int64_t first, const Split& to)
{
    const auto n = from.size(1);
    for (std::int64_t row = 0; row < from.size(0); row += 2) {
        const auto* even = from.const_data_ptr<float>() + row * n;
        split_pair(even, even + n, n, reinterpret_cast<std::uint32_t*>(words(to.high) + (first + row) * n),
                   reinterpret_cast<std::uint32_t*>(words(to.rest) + (first + row) * n));
    }
}

// out = left · right, or added to it, of the rows from `first` on. left [m, k] by rows, right [k, n] paired,
// out [rows, n] contiguous.
void multiply(const Split& left, std::int64_t first, const Split& right, at::Tensor out, bool add)
{
    const auto k = left.high.size(1), n = out.size(1);
    const auto product = [&](const at::Tensor& a, const at::Tensor& b, bool onto) {
        at::native::cpublas::brgemm(out.size(0), n, k, k, n, n, onto,
                                    a.const_data_ptr<at::BFloat16>() + first * k,
                                    b.const_data_ptr<at::BFloat16>(), out.mutable_data_ptr<float>());
    };
    product(left.rest, right.high, add);
    product(left.high, right.rest, true);
    product(left.high, right.high, true);
    at::native::cpublas::brgemm_release();
}

class SplitProducts : public TileProducts {
public:
    SplitProducts(at::Tensor image, at::Tensor spectra, std::int64_t tile, bool gradients)
        : image_(std::move(image)),
          spectra_(std::move(spectra)),
          width_(image_.size(1)),
          gradients_(gradients),
          rows_(tile, width_),
          columns_(tile, width_),
          turned_(tile, width_)
    {
        if (gradients) {
            rows_paired_ = Split(tile, width_);
            columns_paired_ = Split(tile, width_);
            grad_ = Split(tile, tile);
            grad_turned_ = Split(tile, tile);
        }
    }

    void take_columns(std::int64_t first, std::int64_t width) override
    {
        column_ = first;
        const auto by_rows = columns_.block(width, width_);
        turned_columns_ = turned_.block(width_ / 2, 2 * width);
        paired_columns_ = columns_paired_.block(gradients_ ? width : 0, width_);
        take(spectra_.narrow(0, first, width), by_rows, paired_columns_);
        // Two neighbours in a row are one pair of the turned matrix: it is turned as a matrix of pairs.
        turned_columns_.high.view(at::kInt).copy_(by_rows.high.view(at::kInt).t());
        turned_columns_.rest.view(at::kInt).copy_(by_rows.rest.view(at::kInt).t());
    }

    void take_rows(std::int64_t first, std::int64_t height) override
    {
        row_ = first;
        by_rows_ = rows_.block(height, width_);
        paired_rows_ = rows_paired_.block(gradients_ ? height : 0, width_);
        take(image_.narrow(0, first, height), by_rows_, paired_rows_);
    }

    std::int64_t strip() const override { return strip_rows; }
    void cosines(std::int64_t first, at::Tensor& strip) override
    {
        multiply(by_rows_, first, turned_columns_, strip, false);
    }

    void add_image_gradient(std::int64_t first, const at::Tensor& strip, at::Tensor& image_grad) override
    {
        const auto rows = strip.size(0), width = strip.size(1), height = by_rows_.high.size(0);
        const auto grad = grad_.block(height, width), turned = grad_turned_.block(width, height);
        split_by_rows(strip, first, grad);
        turned.high.narrow(1, first, rows).copy_(grad.high.narrow(0, first, rows).t());
        turned.rest.narrow(1, first, rows).copy_(grad.rest.narrow(0, first, rows).t());
        multiply(grad, first, paired_columns_, image_grad.narrow(0, row_ + first, rows), true);
    }

    void add_spectra_gradient(at::Tensor& spectra_grad) override
    {
        const auto width = paired_columns_.high.size(0);
        const auto grad = grad_turned_.block(width, by_rows_.high.size(0));
        for_each_strip(width, [&](std::int64_t first, std::int64_t count) {
            multiply(grad, first, paired_rows_, spectra_grad.narrow(0, column_ + first, count), true);
        });
    }

private:
    void take(const at::Tensor& part, const Split& by_rows, const Split& paired) const
    {
        for_each_strip(part.size(0), [&](std::int64_t first, std::int64_t count) {
            split_by_rows(part.narrow(0, first, count), first, by_rows);
            if (gradients_) {
                split_paired(part.narrow(0, first, count), first, paired);
            }
        });
    }

    at::Tensor image_, spectra_;
    std::int64_t width_;  // E
    bool gradients_;
    Split rows_, columns_, turned_, rows_paired_, columns_paired_, grad_, grad_turned_;  // space for a tile
    Split by_rows_, turned_columns_, paired_rows_, paired_columns_;                      // this tile
    std::int64_t row_ = 0, column_ = 0;
};

bool splits(const at::Tensor& image, const at::Tensor& spectra, std::int64_t tile)
{
    constexpr std::int64_t block = 32, least_width = 256;
    return image.is_cpu() && image.scalar_type() == at::kFloat && image.size(1) >= least_width &&
           image.size(1) % block == 0 && image.size(0) % block == 0 && spectra.size(0) % block == 0 &&
           tile % block == 0 && at::native::cpublas::could_pack(at::kBFloat16);
}

}  // namespace

std::unique_ptr<TileProducts> make_tile_products(const at::Tensor& image, const at::Tensor& spectra,
                                                 std::int64_t tile, bool gradients)
{
    if (splits(image, spectra, tile)) {
        return std::make_unique<SplitProducts>(image, spectra, tile, gradients);
    }
    return std::make_unique<PlainProducts>(image, spectra);
}

}  // namespace astroclip::ssl
