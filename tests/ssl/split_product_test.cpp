#include "ssl/split_product.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#if defined(__x86_64__)

namespace astroclip::ssl {
namespace {

// Of the values of `x` [rows, columns] where `place` says; beside them what must not matter.
template <typename Place>
SplitSpace split(const at::Tensor& x, std::int64_t size, Place place)
{
    SplitSpace space(size);
    space.space.fill_(std::numeric_limits<float>::quiet_NaN());
    const auto values = x.accessor<float, 2>();
    for (std::int64_t i = 0; i < x.size(0); ++i) {
        for (std::int64_t j = 0; j < x.size(1); ++j) {
            const at::BFloat16 high(values[i][j]);
            space.split.high[place(i, j)] = high;
            space.split.rest[place(i, j)] = at::BFloat16(values[i][j] - static_cast<float>(high));
        }
    }
    return space;
}

// Less than a strip of 32 rows, one and a part; k of less than a block of 512, one, and one and a part.
TEST(SplitProduct, IsTheProductAtEveryEdge)
{
    if (!has_split_product()) GTEST_SKIP() << "this processor multiplies no tiles of bfloat16";
    at::manual_seed(7);
    for (const std::int64_t rows : {1, 31, 32, 45}) {
        for (const std::int64_t k : {64, 512, 576}) {
            for (const std::int64_t n : {64, 192}) {
                SCOPED_TRACE(testing::Message() << rows << " x " << k << " x " << n);
                const auto a = at::randn({rows, k}), b = at::randn({k, n});
                const auto left =
                    split(a, padded(rows) * k, [&](auto i, auto j) { return left_place(i, j, k); });
                const auto right = split(b, k * n, [&](auto i, auto j) { return right_place(i, j, k); });
                const auto stride = n + 5;
                const auto before = at::randn({rows, stride});
                const auto exact = at::matmul(a.to(at::kDouble), b.to(at::kDouble));
                // rest by rest, 2^-18 of each of k terms of size 1 with random signs, and float32 sums
                const auto tolerance = 1e-5 * std::sqrt(static_cast<double>(k));
                for (const bool add : {false, true}) {
                    auto out = before.clone();
                    multiply(left.split, rows, k, right.split, n, out.data_ptr<float>(), stride, add);
                    auto expected = before.to(at::kDouble);
                    expected.narrow(1, 0, n).mul_(add ? 1 : 0).add_(exact);
                    EXPECT_LT((out - expected).abs().max().item<double>(), tolerance);
                    EXPECT_TRUE(at::equal(out.narrow(1, n, 5), before.narrow(1, n, 5)));  // not ours
                }
            }
        }
    }
}

}  // namespace
}  // namespace astroclip::ssl

#endif
