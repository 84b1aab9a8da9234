#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "stages/evaluate_inputs.hpp"
#include "stages/stage.hpp"

namespace astroclip::evaluate {

// What is computed from pixels and fluxes, one row a galaxy of the sample, on every rank.
struct Measured {
    at::Tensor untrained;      // [n, width]; undefined without a model
    at::Tensor pixels;         // [n, components]
    at::Tensor magnitudes;     // [n, 3] of the images' catalogue, g, r, z; undefined if it has no fluxes
    at::Tensor spectrum_mags;  // [n, 3] synthetic
};
Measured measure(const Inputs& inputs, const Options& o, stage::Context& context);  // collective

// A description of the galaxies that properties are predicted from.
struct Features {
    std::string name;
    at::Tensor values;       // [n, d]
    std::string source;      // of the published table: image, spectrum or photometry
    bool embedding = false;  // of a trained model
    bool standardise = true;
};
// What the model gave for some rows of the catalogue, [rows, E]: not the unit vectors that it holds.
at::Tensor raw_embedding(const store::Reader& embeddings, const std::vector<std::int64_t>& rows,
                         const std::string& modality);
std::vector<Features> all_features(const Inputs& inputs, const Measured& measured);

}  // namespace astroclip::evaluate
