#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace astroclip::ssl {

// The matrix products behind one tile of a contrastive loss, of some rows U of `image` and V of `spectra`:
//   cosines U Vᵀ, and the gradients G V for U and Gᵀ U for V, added to what is there.
// Tiles come one after the other: columns, then rows, then the strips of the tile, which threads share.
class TileProducts {
public:
    virtual ~TileProducts() = default;

    virtual void take_columns(std::int64_t first, std::int64_t width) = 0;  // of `spectra`
    virtual void take_rows(std::int64_t first, std::int64_t height) = 0;    // of `image`

    // Rows of a strip; 0: the tile is one strip, whose products use all threads themselves.
    virtual std::int64_t strip() const = 0;
    // Of the tile's rows from `first` on. `strip` [rows, width] contiguous; in the second it is the gradient
    // by the cosines.
    virtual void cosines(std::int64_t first, at::Tensor& strip) = 0;
    virtual void add_image_gradient(std::int64_t first, const at::Tensor& strip, at::Tensor& image_grad) = 0;
    // After add_image_gradient of all strips.
    virtual void add_spectra_gradient(at::Tensor& spectra_grad) = 0;
};

// For contiguous image [n, E] and spectra [m, E] with rows of length <= 1, and tiles of up to tile x tile.
// `gradients`: add_gradients will be called.
//
// Where the processor multiplies bfloat16 matrices (AMX), float32 products are made of three of these: each
// factor is split into a bfloat16 and the bfloat16 rest, and rest by rest is left out; sums are float32. A
// cosine of E = 1024 terms is then off by some 1e-7, as it is in float32 arithmetic (2^-16 of each term, of
// random signs), at a third of the time. So it is done for E >= 256 and whole blocks of 32 rows only, never
// for float64.
std::unique_ptr<TileProducts> make_tile_products(const at::Tensor& image, const at::Tensor& spectra,
                                                 std::int64_t tile, bool gradients);

}  // namespace astroclip::ssl
