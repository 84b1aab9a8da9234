#pragma once

#if defined(__x86_64__)

#include <ATen/ATen.h>

#include "nn/packed_product.hpp"

namespace astroclip::nn {

// Tiles of bfloat16 (AMX), and leave of the system to use them.
bool has_split_product();

struct Split {
    at::BFloat16 *high, *rest;

    Split operator+(std::int64_t offset) const { return {high + offset, rest + offset}; }
};

// Products of float32 matrices on processors that multiply tiles of bfloat16 (AMX): each factor is the sum
// of a bfloat16 and the bfloat16 rest, the product that of three pairs (rest by rest is left out), with
// float32 sums. Factors lie in memory as the processor takes them, in tiles of 1 KB: a left factor as tiles
// of 16 rows by 32 columns, a right one as tiles of 32 rows by 16 columns with rows 2i and 2i + 1 side by
// side. What is one after the other along k, the dimension that is summed over, is so in memory too.
// Called only where has_split_product() and has_avx512() say so.
class SplitProduct {
public:
    class Factor {
    protected:
        explicit Factor(std::int64_t size)
            : space_(at::empty({2, size}, at::kBFloat16)),
              split_{space_.mutable_data_ptr<at::BFloat16>(), space_.mutable_data_ptr<at::BFloat16>() + size}
        {
        }

    private:
        at::Tensor space_;

    protected:
        Split split_;
    };

    class Left : public Factor {
    public:
        Left(std::int64_t rows, std::int64_t k);
        void set_row(std::int64_t i, FactorRow row, std::int64_t k);

    private:
        friend SplitProduct;
    };

    class Turned : public Left {
        using Left::set_row;  // by columns alone

    public:
        using Left::Left;
        void set_columns(std::int64_t i, const float* values, std::int64_t stride, std::int64_t columns,
                         std::int64_t rows, std::int64_t k);
    };

    class Right : public Factor {
    public:
        Right(std::int64_t k, std::int64_t n) : Factor(k * n) {}
        void set_rows(std::int64_t i, FactorRow even, FactorRow odd, std::int64_t k, std::int64_t n);
        void set_column(std::int64_t j, FactorRow row, std::int64_t k);

    private:
        friend SplitProduct;
    };

    static void multiply(const Left& left, std::int64_t first, std::int64_t rows, std::int64_t k,
                         const Right& right, std::int64_t n, float* out, std::int64_t stride, bool add);
};

}  // namespace astroclip::nn

#endif
