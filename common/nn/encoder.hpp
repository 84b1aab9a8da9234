#pragma once

#include <memory>
#include <string>
#include <variant>

#include "nn/cross_attention_head.hpp"
#include "nn/resnet.hpp"
#include "nn/specformer.hpp"
#include "nn/vision_transformer.hpp"
#include "nn/weights.hpp"

// From encoders to embeddings: an encoder with its alignment head, the two of them together (the published
// AstroCLIP model), and what reads a model file and embeds with it, whatever it is.
namespace astroclip::nn {

// The backbone of an image encoder: a ViT (MNRAS), or a ResNet (workshop) whose projection is the head.
using ImageConfig = std::variant<ViTConfig, ResNetConfig>;
inline bool is_resnet(const ImageConfig& config) { return std::holds_alternative<ResNetConfig>(config); }

// ViT + head: parameters backbone.*, cross_attention.*, mlp.*. ResNet: backbone.*, of these backbone.fc.* is
// the head; its output must be E wide (ConfigError).
class ImageEncoderImpl : public torch::nn::Module {
public:
    ImageEncoderImpl(const ImageConfig& backbone, const HeadConfig& head);
    // What the head reads: the ViT's patch tokens without position table, or, as the only token, the pooled
    // features of the ResNet.
    at::Tensor tokens(const at::Tensor& images) const;  // [B, 3, S, S] -> [B, N, D]
    at::Tensor project(const at::Tensor& tokens,
                       const Dropout* dropout = nullptr) const;  // [B, N, D] -> z [B, E]
    at::Tensor forward(const at::Tensor& images, const Dropout* dropout = nullptr) const
    {
        return project(tokens(images), dropout);
    }

    torch::nn::Module& backbone();

    VisionTransformer vit{nullptr};  // one of the two is the backbone
    ResNet resnet{nullptr};
    AlignmentHead head{nullptr};  // of the ViT
};
TORCH_MODULE(ImageEncoder);

// SpecFormer + head: parameters backbone.*, cross_attention.*, mlp.*.
class SpectrumEncoderImpl : public torch::nn::Module {
public:
    SpectrumEncoderImpl(const SpecFormerConfig& backbone, const HeadConfig& head);
    at::Tensor forward(const at::Tensor& tokens,
                       const Dropout* dropout = nullptr) const;  // [B, T, 22] -> z [B, E]

    SpecFormer backbone{nullptr};
    AlignmentHead head{nullptr};  // reads backbone->forward(tokens)
};
TORCH_MODULE(SpectrumEncoder);

// Both: parameters image_encoder.*, spectrum_encoder.*, as in the published checkpoint.
class AlignedModelImpl : public torch::nn::Module {
public:
    AlignedModelImpl(const ImageConfig& image, const SpecFormerConfig& spectrum, const HeadConfig& head);

    ImageEncoder image_encoder{nullptr};
    SpectrumEncoder spectrum_encoder{nullptr};
};
TORCH_MODULE(AlignedModel);

// What a model file says of its network, in its metadata: `model` = specformer | astrodino | astroclip |
// resnet50 | resnet18 and the architecture's numbers under the names of the published configurations
// (astroclip: with the prefixes image. and spectrum. for the encoders; image.model, if there is none, is
// astrodino). The readers throw DataError if a number is missing or not a number.
Metadata describe(const SpecFormerConfig& config);
Metadata describe(const ViTConfig& config);
Metadata describe(const ResNetConfig& config);
Metadata describe(const ImageConfig& image, const SpecFormerConfig& spectrum, const HeadConfig& head);
SpecFormerConfig specformer_config(const WeightsFile& file);
ViTConfig vit_config(const WeightsFile& file);
ResNetConfig resnet_config(const WeightsFile& file);
ImageConfig image_config(const WeightsFile& file);  // of an image encoder, whichever it is

// What may lie beside the weights of a network, as load_strict's `ignore`: the converter's left-overs, and
// the heads of a teacher snapshot.
extern const std::vector<std::string> beside_the_network;

// The encoders of a file that pretraining published, or the converter.
SpecFormer load_specformer(const std::string& path);
VisionTransformer load_vit(const std::string& path);
ResNet load_resnet(const std::string& path);  // the query encoder `encoder_q.*` of a MoCo, in evaluation mode
AlignedModel load_aligned_model(const std::string& path);  // in evaluation mode

// Embeds images, spectra, or both, without gradients. The embeddings are raw: not normalised,
// float32 on the CPU.
class Embedder {
public:
    virtual ~Embedder() = default;

    virtual int image_width() const = 0;     // 0: it does not embed images
    virtual int spectrum_width() const = 0;  // 0: it does not embed spectra
    virtual at::Tensor embed_images(
        const at::Tensor& images) = 0;  // [B, 3, S, S] RGB in [0, 1] -> [B, image_width]
    virtual at::Tensor embed_spectra(
        const at::Tensor& tokens) = 0;   // [B, T, token_dim] -> [B, spectrum_width]
    virtual int image_size() const = 0;  // S; 0: it does not embed images
};

// Batches of this size, cut on global row numbers and padded, give the same bits whatever
// the ranks and threads.
inline constexpr std::int64_t compute_batch = 32;

// Reads a model.safetensors of any of these kinds: an aligned model gives z of its heads, a ViT its cls
// token, a SpecFormer the mean of its tokens, a ResNet its average-pooled features (before the projection).
// Throws DataError if the file holds no known model.
std::unique_ptr<Embedder> load_embedder(const std::string& path, at::Device device);

// The same networks before any training: their shapes from the file's metadata, their parameters
// drawn from the seed.
std::unique_ptr<Embedder> untrained_embedder(const std::string& path, std::uint64_t seed, at::Device device);

}  // namespace astroclip::nn
