#pragma once

#if defined(__x86_64__)

#include <ATen/native/CPUBlas.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <array>

#include "nn/avx512.hpp"

namespace astroclip::nn {

// Does at::native::cpublas::brgemm multiply bfloat16 whose right factor has its rows in pairs? Where it has
// no kernel of its own it refuses, or in older LibTorch takes them as they are: (1, 2)·(3, 5)ᵀ tells.
inline bool brgemm_takes_pairs()
{
    std::array<at::BFloat16, 2> left{1.0F, 2.0F};
    std::array<at::BFloat16, 2 * lanes> right{};
    std::array<float, lanes> product{};
    for (std::size_t i = 0; i < right.size(); i += 2) {
        right[i] = 3.0F;
        right[i + 1] = 5.0F;
    }
    try {
        at::native::cpublas::brgemm(1, lanes, 2, 2, lanes, lanes, false, left.data(), right.data(),
                                    product.data());
    } catch (const c10::Error&) {
        return false;
    }
    at::native::cpublas::brgemm_release();
    return std::all_of(product.begin(), product.end(), [](float x) { return x == 13.0F; });
}

// has_avx512(), and products of bfloat16 by brgemm; with AMX or without.
inline bool has_brgemm()
{
    static const bool known = has_avx512() && brgemm_takes_pairs();
    return known;
}

}  // namespace astroclip::nn

#endif
