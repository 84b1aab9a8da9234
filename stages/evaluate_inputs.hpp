#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/options.hpp"
#include "data/batches.hpp"
#include "data/image_views.hpp"
#include "nn/encoder.hpp"
#include "nn/regressor.hpp"
#include "stages/labels.hpp"
#include "store/reader.hpp"

namespace astroclip::evaluate {

struct Options {
    std::string embeddings, images, spectra, pairs, model, labels, morphology, compare, supervised, output;
    std::string label_columns = "LOG_MSTAR,Z_MW,TAGE_MW,LOG_SSFR";
    std::string label_fractions = "0.01,0.03,0.1,0.3";
    double match_radius_arcsec = 0.5;
    stage::LabelRules label_rules;
    int neighbours = 64;
    int few_shot_epochs = 10;
    int photometry_epochs = 50, photometry_patience = 0;
    int flows = 10;
    int morphology_epochs = 25;
    bool double_softmax = false;
    bool predict = true;
    int bootstraps = 1000;
    int pixel_crop = 48;
    int pixel_components = 32;
    bool trust = false;
};
void bind(config::Section options, Options& o);

// The paired galaxies that the catalogue has in every modality that it embeds at all: first those trained on,
// then those held out.
struct Sample {
    std::vector<std::string> modalities;      // that the catalogue embeds: image, spectrum or both
    std::vector<std::int64_t> number;         // in Galaxies
    std::vector<std::int64_t> embedding_row;  // in the catalogue
    std::vector<std::int64_t> object_id, image_row, spectrum_row;
    std::vector<double> ra, dec;  // degrees ICRS
    std::int64_t train = 0;

    std::int64_t size() const { return static_cast<std::int64_t>(number.size()); }
    std::int64_t test() const { return size() - train; }
    bool both_modalities() const { return modalities.size() == 2; }
    bool has(const std::string& modality) const;

    survey::Sources sources() const { return {object_id, ra, dec}; }

    // Throws DataError if the catalogue is empty or either side is.
    Sample(const data::Galaxies& galaxies, const store::Reader& embeddings);

private:
    void add(std::int64_t each, const data::Galaxy& galaxy,
             const std::vector<std::pair<std::int64_t, std::int64_t>>& rows);
};

// The truth of one number for the sample; NaN where it is not known.
struct Target {
    std::string name;
    std::vector<double> truth;
};

// Embeddings of other models, of the same galaxies (a row each of the same sample).
struct Comparison {
    std::string name;
    store::Reader embeddings;
    std::vector<std::int64_t> row;
};

// A network that astroclip-train-supervised trained on labels.
struct Supervised {
    std::string name, content_id;
    nn::Regressor model;
    data::CentreViewConfig view;  // how it sees images
    nlohmann::json epochs;        // "trained", and the "best" by its validation loss, which this is
};

struct Inputs {
    data::Galaxies galaxies;
    store::Reader embeddings, images, spectra;
    std::unique_ptr<nn::Embedder> untrained;  // null: no model was given
    Sample sample;
    std::vector<Target> properties;
    nlohmann::json label_facts;
    std::unique_ptr<stage::Labels> votes;  // null: no morphology was given
    std::vector<Comparison> comparisons;
    std::vector<Supervised> supervised;
    std::vector<double> label_shares;  // of the training labels, for curves

    Inputs(const Options& o, at::Device device, std::uint64_t seed);

    nlohmann::json ids(const Options& o) const;
    Target redshift() const;  // NaN where the fit warns
    void warn_of_labels() const;

private:
    void require_source_of_embeddings() const;
    void read_labels(const Options& o);
    void open_comparisons(const Options& o);
    void open_supervised(const Options& o, at::Device device);
};

}  // namespace astroclip::evaluate
