#pragma once

#include <array>
#include <cstdint>
#include <utility>

#include "nn/layers.hpp"

namespace astroclip::nn {

// Convolution along a spectrum with bias, padding kernel/2. x [B, in, L] -> [B, out, L + (kernel even)]
class SpectrumConvolutionImpl : public Layer {
public:
    SpectrumConvolutionImpl(std::int64_t in, std::int64_t out, std::int64_t kernel);
    at::Tensor forward(const at::Tensor& x) const;

private:
    at::Tensor weight_, bias_;  // [out, in, kernel], [out]
    std::int64_t padding_;
};
TORCH_MODULE(SpectrumConvolution);

// x where it is positive, else x times a trained slope of its channel (dimension 1), at first 1/4.
class PReluImpl : public Layer {
public:
    explicit PReluImpl(std::int64_t channels);
    at::Tensor forward(const at::Tensor& x) const;

private:
    at::Tensor weight_;  // [channels]
};
TORCH_MODULE(PRelu);

// Numbers from a spectrum by convolutions and attention (Serrà et al. 2018; Melchior et al. 2023, "Spender"),
// as AstroCLIP's supervised baseline has it: four convolutions, each normalised over the wavelengths of its
// spectrum and channel, with max-pooling after the first three; half of the 32 channels say, by a softmax
// over the places, where the other half is read; then a network of two hidden layers of 32.
//
// The first normalisation takes the level and the scale of a spectrum away: what depends on them alone, its
// brightness, it cannot tell.
//
//   flux    [B, L], any unit; 7781 samples leave 9 places
//   return  [B, outputs]
//
// Parameters: conv1.0.*, conv1.2.weight, … conv4.2.weight, mlp.0.* to mlp.6.*, as published.
class ConvolutionAttentionImpl : public torch::nn::Module {
public:
    explicit ConvolutionAttentionImpl(std::int64_t outputs);
    at::Tensor forward(const at::Tensor& flux) const;  // DataError if it is not [B, L]

private:
    static constexpr int convolutions = 4;
    static constexpr std::array<std::int64_t, convolutions> channels{8, 16, 16, 32}, kernels{5, 10, 20, 40};

    std::array<std::pair<SpectrumConvolution, PRelu>, convolutions> steps_{
        {{nullptr, nullptr}, {nullptr, nullptr}, {nullptr, nullptr}, {nullptr, nullptr}}};
    std::array<std::pair<Linear, PRelu>, 2> hidden_{{{nullptr, nullptr}, {nullptr, nullptr}}};
    Linear output_{nullptr};
};
TORCH_MODULE(ConvolutionAttention);

}  // namespace astroclip::nn
