#include "stages/embedding.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "data/batches.hpp"
#include "store/publication.hpp"

namespace astroclip::stage {
namespace {

// The folder's weights, after they were compared with its manifest.
std::string checked_weights(const std::string& folder, bool trust)
{
    if (folder.empty()) {
        throw ConfigError("'model' is not set: the folder that align published");
    }
    const auto manifest = store::read_manifest(folder);
    for (const auto& entry : manifest.at("files")) {
        if (entry.at("name") == "model.safetensors") {
            store::verify_file(folder, entry, trust);
            return folder + "/model.safetensors";
        }
    }
    throw DataError(folder, "lists no model.safetensors: it is not a model");
}

}  // namespace

EmbeddingModel::EmbeddingModel(const std::string& folder, bool trust, at::Device device)
    : weights(checked_weights(folder, trust)),
      content_id(store::content_id(folder)),
      network(nn::load_embedder(weights, device))
{
    const auto metadata = nn::WeightsFile(weights).metadata();
    kind = metadata.at("model");
    const bool aligned = kind == "astroclip";
    view = data::centre_view_config(metadata, aligned ? "image." : "", {.crop = network->image_size()});
    tokens = data::spectrum_tokens_config(metadata, aligned ? "spectrum." : "");
}

int EmbeddingModel::width() const { return std::max(network->image_width(), network->spectrum_width()); }

at::Tensor EmbeddingModel::embed_images(const at::Tensor& flux) const
{
    return network->embed_images(data::padded(data::centre_view(flux, view), nn::compute_batch));
}

at::Tensor EmbeddingModel::embed_spectra(const at::Tensor& flux, const at::Tensor& ivar) const
{
    return network->embed_spectra(data::padded(data::spectrum_tokens(flux, tokens, ivar), nn::compute_batch));
}

}  // namespace astroclip::stage
