#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "data/image_views.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"

namespace astroclip::stage {

// A published model that embeds, with how it was trained to see images and spectra.
struct EmbeddingModel {
    std::string weights;     // path of model.safetensors
    std::string kind;        // "model" of its metadata
    std::string content_id;  // of the folder
    std::unique_ptr<nn::Embedder> network;
    data::CentreViewConfig view;
    data::SpectrumTokensConfig tokens;

    // Throws ConfigError without a folder; MissingInput, DataError if it is not a model, or not as its
    // manifest says (hashes are compared unless `trust`).
    EmbeddingModel(const std::string& folder, bool trust, at::Device device);

    int width() const;

    // At most nn::compute_batch galaxies, padded to it, so that their bits depend on nothing else; raw, on
    // the CPU.
    at::Tensor embed_images(const at::Tensor& flux) const;  // [b, 3, H, W] nanomaggy -> [compute_batch, E]
    // [b, L] each -> [compute_batch, E]; ivar may be undefined unless the tokens leave out bins without it
    at::Tensor embed_spectra(const at::Tensor& flux, const at::Tensor& ivar) const;
};

}  // namespace astroclip::stage
