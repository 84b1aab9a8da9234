#include "nn/packed_product.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <type_traits>

#include "nn/avx512.hpp"
#include "nn/float_product.hpp"
#include "nn/split_product.hpp"

#if defined(__x86_64__)

namespace astroclip::nn {
namespace {

bool has(const SplitProduct*) { return has_avx512() && has_split_product(); }
bool has(const FloatProduct*) { return has_avx512(); }

// For sums of k terms of size 1 and random signs, the largest of 10^4 such sums. Split products leave out
// rest by rest and both rests' rounding, 2^-18 of a term each: five standard deviations, which grow with the
// root of k. A float32 sum is rounded k times by 2^-24 of what it has come to, some root of k.
double tolerance(const SplitProduct*, double k) { return 3e-5 * std::sqrt(k); }
double tolerance(const FloatProduct*, double k) { return 3e-7 * k; }

struct ProductNames {
    template <typename Product>
    static std::string GetName(int)
    {
        return std::is_same_v<Product, SplitProduct> ? "split" : "float32";
    }
};

template <typename Product>
class PackedProduct : public testing::Test {
protected:
    void SetUp() override
    {
        if (!has(static_cast<Product*>(nullptr))) GTEST_SKIP() << "not a product of this processor";
        at::manual_seed(7);
    }

    // left · right + what is in `out`, or instead of it, by rows first … of the left factor.
    static void expect_product(const at::Tensor& a, const typename Product::Left& left, std::int64_t first,
                               const at::Tensor& b, const typename Product::Right& right)
    {
        const auto rows = a.size(0), k = a.size(1), n = b.size(1), stride = n + 5;
        const auto before = at::randn({rows, stride});
        const auto exact = at::matmul(a.to(at::kDouble), b.to(at::kDouble));
        const auto allowed = tolerance(static_cast<Product*>(nullptr), static_cast<double>(k));
        for (const bool add : {false, true}) {
            auto out = before.clone();
            Product::multiply(left, first, rows, k, right, n, out.data_ptr<float>(), stride, add);
            auto expected = before.to(at::kDouble);
            expected.narrow(1, 0, n).mul_(add ? 1 : 0).add_(exact);
            EXPECT_LT((out - expected).abs().max().template item<double>(), allowed);
            EXPECT_TRUE(at::equal(out.narrow(1, n, 5), before.narrow(1, n, 5)));  // not ours
        }
    }
};

using Products = testing::Types<SplitProduct, FloatProduct>;
TYPED_TEST_SUITE(PackedProduct, Products, ProductNames);

const float* row(const at::Tensor& x, std::int64_t i) { return x.const_data_ptr<float>() + i * x.stride(0); }

// Less than a block of 32 rows, one and a part; k of less than a block of 512, one, and one and a part; with
// space for more of k and n than there is.
TYPED_TEST(PackedProduct, IsTheProductAtEveryEdge)
{
    for (const std::int64_t rows : {1, 31, 32, 45}) {
        for (const std::int64_t k : {64, 512, 576}) {
            for (const std::int64_t n : {64, 192}) {
                SCOPED_TRACE(testing::Message() << rows << " x " << k << " x " << n);
                const auto a = at::randn({rows, k}), b = at::randn({k, n});
                const auto none = at::full({1, k + 64}, NAN);  // what must be overwritten, or must not matter
                typename TypeParam::Left left(rows, k + 64);
                for (std::int64_t i = 0; i < rows; ++i) {
                    left.set_row(i, {row(none, 0)}, k + 64);
                }
                for (std::int64_t i = 0; i < rows; ++i) {
                    left.set_row(i, {row(a, i)}, k);
                }
                typename TypeParam::Right right(k + 64, n);
                for (std::int64_t j = 0; j < n; ++j) {
                    right.set_column(j, {row(none, 0)}, k + 64);
                }
                for (std::int64_t i = 0; i < k; i += 2) {
                    right.set_rows(i, {row(b, i)}, {row(b, i + 1)}, k, n);
                }
                this->expect_product(a, left, 0, b, right);
            }
        }
    }
}

TYPED_TEST(PackedProduct, TurnsItsFactors)
{
    const std::int64_t rows = 128, k = 192, columns = 70, n = 64;  // 64 columns at once, then 70
    const auto a = at::randn({k - 128 + columns, rows}), b = at::randn({n, k});
    typename TypeParam::Turned left(rows, k);
    const auto none = at::full({k, rows}, NAN);
    left.set_columns(0, row(none, 0), rows, k, rows, k);
    left.set_columns(0, row(a, 0), rows, 64, rows, k);
    left.set_columns(64, row(a, 64), rows, columns, rows, k);
    typename TypeParam::Right right(k, n);
    for (std::int64_t j = 0; j < n; ++j) {
        right.set_column(j, {row(b, j)}, k);
    }
    const auto turned = at::constant_pad_nd(a, {0, 0, 0, k - a.size(0)}).t();
    for (const std::int64_t first : {0, 64}) {
        this->expect_product(turned.narrow(0, first, 60), left, first, b.t(), right);
    }
}

TYPED_TEST(PackedProduct, DividesRowsAndFillsUpWithZeros)
{
    const auto a = at::randn({2, 64}), b = at::randn({64, 64});
    typename TypeParam::Left left(2, 64);
    left.set_row(0, {row(a, 0), 4}, 64);
    left.set_row(1, {row(a, 1), 3}, 64);
    typename TypeParam::Right by_rows(64, 64), by_columns(64, 64);
    const auto none = at::full({1, 64}, NAN);
    for (std::int64_t i = 0; i < 64; ++i) {
        by_rows.set_column(i, {row(none, 0)}, 64);
        by_columns.set_column(i, {row(none, 0)}, 64);
    }
    for (std::int64_t i = 0; i < 64; i += 2) {
        by_rows.set_rows(i, {row(b, i), 2}, {nullptr}, 64, 64);
        by_columns.set_column(i, {row(b, i), 2}, 64);
        by_columns.set_column(i + 1, {nullptr}, 64);
    }
    const auto divided = a / at::tensor({4.0F, 3.0F}).unsqueeze(1);
    auto half = b / 2;
    half.slice(0, 1, 64, 2).zero_();
    this->expect_product(divided, left, 0, half, by_rows);
    this->expect_product(divided, left, 0, half.t(), by_columns);
}

// As search multiplies: a left factor where it lies, any k, panels of 32 columns, each number of rows up to a
// block.
TEST(FloatProductInPlace, IsTheProductOfAnyDepth)
{
    if (!has_avx512()) GTEST_SKIP() << "not a product of this processor";
    at::manual_seed(7);
    for (const std::int64_t k : {1, 6, 37}) {
        for (const std::int64_t n : {32, 96}) {
            const auto wide = at::randn({20, k + 3}), b = at::randn({n, k});
            FloatProduct::Right right(k, n);
            for (std::int64_t j = 0; j < n; ++j) {
                right.set_column(j, {row(b, j)}, k);
            }
            const auto exact = wide.narrow(1, 0, k).to(at::kDouble).mm(b.t().to(at::kDouble));
            for (std::int64_t rows = 1; rows <= 17; ++rows) {
                const auto out = at::full({20, n + 1}, 7.0F);
                FloatProduct::multiply(row(wide, 1), wide.stride(0), 1, rows, k, right, n,
                                       out.data_ptr<float>() + (n + 1), n + 1, false);
                auto expected = at::full({20, n + 1}, 7.0, at::kDouble);  // what is not the product's is left
                expected.narrow(0, 1, rows).narrow(1, 0, n).copy_(exact.narrow(0, 1, rows));
                EXPECT_LT((out - expected).abs().max().item<double>(), 1e-5)
                    << rows << " x " << k << " x " << n;
            }
        }
    }
}

}  // namespace
}  // namespace astroclip::nn

#endif
