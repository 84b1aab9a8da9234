#pragma once

#if defined(__x86_64__)

#include <ATen/ATen.h>

#include "nn/packed_product.hpp"

namespace astroclip::nn {

// Products in float32 with the vectors of AVX-512: called only where has_avx512() says so. Left factors
// lie in memory row after row or, turned, column after column; right ones in panels of columns, row after
// row. n is in whole panels, k any.
class FloatProduct {
public:
    static constexpr std::int64_t panel = 32;  // columns of a right factor that lie together
    static constexpr std::int64_t side = 8;    // rows of a left factor that are multiplied at once

    class Left {
    public:
        Left(std::int64_t rows, std::int64_t k);
        void set_row(std::int64_t i, FactorRow row, std::int64_t k);

    protected:
        Left(std::int64_t size, std::int64_t row_step, std::int64_t column_step);
        float* place(std::int64_t i, std::int64_t j) const
        {
            return values_ + i * row_step_ + j * column_step_;
        }

    private:
        friend FloatProduct;
        at::Tensor space_;
        float* values_;
        std::int64_t row_step_, column_step_;  // between values
    };

    class Turned : public Left {
        using Left::set_row;  // by columns alone

    public:
        Turned(std::int64_t rows, std::int64_t k);
        void set_columns(std::int64_t i, const float* values, std::int64_t stride, std::int64_t columns,
                         std::int64_t rows, std::int64_t k);
    };

    class Right {
    public:
        Right(std::int64_t k, std::int64_t n);
        void set_rows(std::int64_t i, FactorRow even, FactorRow odd, std::int64_t k, std::int64_t n);
        void set_column(std::int64_t j, FactorRow row, std::int64_t k);

    private:
        friend FloatProduct;
        at::Tensor space_;
        float* values_;
    };

    // out [rows, n] = a [rows, k] · right [k, n], or added to it; of `a`, as it lies in memory, rows are
    // row_step and columns column_step apart; rows of `out` are `stride` apart.
    static void multiply(const float* a, std::int64_t row_step, std::int64_t column_step, std::int64_t rows,
                         std::int64_t k, const Right& right, std::int64_t n, float* out, std::int64_t stride,
                         bool add);
    static void multiply(const Left& left, std::int64_t first, std::int64_t rows, std::int64_t k,
                         const Right& right, std::int64_t n, float* out, std::int64_t stride, bool add);
};

}  // namespace astroclip::nn

#endif
