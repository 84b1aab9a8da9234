#include "nn/encoder.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <charconv>

#include "core/error.hpp"

namespace astroclip::nn {

const std::vector<std::string> beside_the_network = {"extra.", "dino_head.", "ibot_head."};

namespace {

void add(Metadata& all, const std::string& prefix, const Metadata& part)
{
    for (const auto& [key, value] : part) {
        if (key != "model") all[prefix + key] = value;
    }
}

int number(const WeightsFile& file, const std::string& key)
{
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end()) throw DataError(file.path(), "its metadata lack '" + key + "'");
    const auto& text = found->second;
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < 0 || value > 1'000'000) {
        throw DataError(file.path(),
                        "metadata '" + key + "' = '" + text + "' is not a number within 0 to 1000000");
    }
    return value;
}

std::string model_of(const WeightsFile& file, const std::string& prefix = "")
{
    const auto found = file.metadata().find(prefix + "model");
    return found == file.metadata().end() ? "" : found->second;
}

void expect_model(const WeightsFile& file, const std::string& expected)
{
    const auto found = model_of(file);
    if (found != expected) {
        throw DataError(file.path(), "holds " +
                                         (found.empty() ? "no named model" : "the model '" + found + "'") +
                                         ", expected '" + expected + "'");
    }
}

SpecFormerConfig specformer_config(const WeightsFile& file, const std::string& prefix)
{
    SpecFormerConfig config;
    config.token_dim = number(file, prefix + "input_dim");
    config.width = number(file, prefix + "embed_dim");
    config.layers = number(file, prefix + "num_layers");
    config.heads = number(file, prefix + "num_heads");
    config.max_tokens = number(file, prefix + "max_len");
    const auto& metadata = file.metadata();  // published models do not say it: they are not causal
    config.causal = metadata.contains(prefix + "causal") && metadata.at(prefix + "causal") == "true";
    return config;
}

ViTConfig vit_config(const WeightsFile& file, const std::string& prefix)
{
    ViTConfig config;
    config.image_size = number(file, prefix + "img_size");
    config.patch_size = std::max(number(file, prefix + "patch_size"), 1);
    config.width = number(file, prefix + "embed_dim");
    config.depth = number(file, prefix + "depth");
    config.heads = number(file, prefix + "num_heads");
    config.block_chunks = number(file, prefix + "block_chunks");
    return config;
}

bool names_resnet(const std::string& model) { return model == "resnet50" || model == "resnet18"; }

ResNetConfig resnet_config(const WeightsFile& file, const std::string& prefix)
{
    ResNetConfig config;
    config.layers = model_of(file, prefix) == "resnet18" ? 18 : 50;
    config.channels = number(file, prefix + "in_channels");
    config.embed_dim = number(file, prefix + "embed_dim");
    if (file.metadata().contains(prefix + "stem_width")) {
        config.stem_width = number(file, prefix + "stem_width");
    }
    return config;
}

ImageConfig image_config(const WeightsFile& file, const std::string& prefix)
{
    if (names_resnet(model_of(file, prefix))) return resnet_config(file, prefix);
    return vit_config(file, prefix);
}

HeadConfig head_config(const WeightsFile& file)
{
    HeadConfig config;
    config.embed_dim = number(file, "embed_dim");
    config.attention_heads = number(file, "n_head");
    config.image_head_residual = number(file, "image_head_residual") != 0;
    return config;
}

AlignedModel aligned_model(const WeightsFile& file)
{
    expect_model(file, "astroclip");
    AlignedModel model(image_config(file, "image."), specformer_config(file, "spectrum."), head_config(file));
    model->eval();
    return model;
}

// Side of the images that an encoder was trained on; a ResNet takes others as well.
int image_size_of(const WeightsFile& file, const std::string& prefix = "")
{
    return number(file, prefix + (names_resnet(model_of(file, prefix)) ? "crop" : "img_size"));
}

at::Tensor on_cpu(const at::Tensor& embedding) { return embedding.to(at::kCPU, at::kFloat).contiguous(); }

class ImageEmbedder : public Embedder {
public:
    ImageEmbedder(VisionTransformer vit, at::Device device) : vit_(std::move(vit)), device_(device)
    {
        vit_->to(device);
    }
    int image_width() const override { return vit_->config().width; }
    int spectrum_width() const override { return 0; }
    int image_size() const override { return vit_->config().image_size; }
    at::Tensor embed_images(const at::Tensor& images) override
    {
        const at::NoGradGuard no_grad;
        return on_cpu(vit_->forward_features(images.to(device_)).cls);
    }
    at::Tensor embed_spectra(const at::Tensor&) override
    {
        throw InternalError("an image encoder was given spectra");
    }

private:
    VisionTransformer vit_;
    at::Device device_;
};

class ResNetEmbedder : public Embedder {
public:
    ResNetEmbedder(ResNet resnet, int image_size, at::Device device)
        : resnet_(std::move(resnet)), image_size_(image_size), device_(device)
    {
        resnet_->to(device);
        resnet_->eval();
    }
    int image_width() const override { return static_cast<int>(resnet_->width()); }
    int spectrum_width() const override { return 0; }
    int image_size() const override { return image_size_; }
    at::Tensor embed_images(const at::Tensor& images) override
    {
        const at::NoGradGuard no_grad;
        return on_cpu(resnet_->features(images.to(device_)));
    }
    at::Tensor embed_spectra(const at::Tensor&) override
    {
        throw InternalError("an image encoder was given spectra");
    }

private:
    ResNet resnet_;
    int image_size_;
    at::Device device_;
};

class SpectrumEmbedder : public Embedder {
public:
    SpectrumEmbedder(SpecFormer specformer, at::Device device)
        : specformer_(std::move(specformer)), device_(device)
    {
        specformer_->to(device);
    }
    int image_width() const override { return 0; }
    int spectrum_width() const override { return specformer_->config().width; }
    int image_size() const override { return 0; }
    at::Tensor embed_images(const at::Tensor&) override
    {
        throw InternalError("a spectrum encoder was given images");
    }
    at::Tensor embed_spectra(const at::Tensor& tokens) override
    {
        const at::NoGradGuard no_grad;
        return on_cpu(specformer_->forward(tokens.to(device_)).mean(1));
    }

private:
    SpecFormer specformer_;
    at::Device device_;
};

class AlignedEmbedder : public Embedder {
public:
    AlignedEmbedder(AlignedModel model, const WeightsFile& file, at::Device device)
        : model_(std::move(model)),
          width_(number(file, "embed_dim")),
          image_size_(image_size_of(file, "image.")),
          device_(device)
    {
        model_->to(device);
    }
    int image_width() const override { return width_; }
    int spectrum_width() const override { return width_; }
    int image_size() const override { return image_size_; }
    at::Tensor embed_images(const at::Tensor& images) override
    {
        const at::NoGradGuard no_grad;
        return on_cpu(model_->image_encoder->forward(images.to(device_)));
    }
    at::Tensor embed_spectra(const at::Tensor& tokens) override
    {
        const at::NoGradGuard no_grad;
        return on_cpu(model_->spectrum_encoder->forward(tokens.to(device_)));
    }

private:
    AlignedModel model_;
    int width_, image_size_;
    at::Device device_;
};

}  // namespace

ImageEncoderImpl::ImageEncoderImpl(const ImageConfig& backbone, const HeadConfig& config)
{
    if (is_resnet(backbone)) {
        const auto& wanted = std::get<ResNetConfig>(backbone);
        if (wanted.embed_dim != config.embed_dim) {
            throw ConfigError(fmt::format(
                "'embed-dim' = {}, but the image encoder is a ResNet whose projection, which becomes the "
                "head, is {} wide",
                config.embed_dim, wanted.embed_dim));
        }
        resnet = register_module("backbone", ResNet(wanted));
        return;
    }
    const auto& wanted = std::get<ViTConfig>(backbone);
    vit = register_module("backbone", VisionTransformer(wanted));
    head = AlignmentHead(wanted.width, config, config.image_head_residual);
    // The head itself stays unregistered: its parts stand beside the backbone, under their published names.
    register_module("cross_attention", head->cross_attention);
    register_module("mlp", head->mlp);
}

torch::nn::Module& ImageEncoderImpl::backbone()
{
    return vit ? static_cast<torch::nn::Module&>(*vit) : *resnet;
}

at::Tensor ImageEncoderImpl::tokens(const at::Tensor& images) const
{
    return vit ? vit->tokens_without_position(images) : resnet->features(images).unsqueeze(1);
}

at::Tensor ImageEncoderImpl::project(const at::Tensor& tokens, const Dropout* dropout) const
{
    return vit ? head->forward(tokens, dropout) : resnet->project(tokens.squeeze(1));
}

SpectrumEncoderImpl::SpectrumEncoderImpl(const SpecFormerConfig& specformer, const HeadConfig& config)
{
    backbone = register_module("backbone", SpecFormer(specformer));
    head = AlignmentHead(specformer.width, config, true);
    register_module("cross_attention", head->cross_attention);
    register_module("mlp", head->mlp);
}

at::Tensor SpectrumEncoderImpl::forward(const at::Tensor& tokens, const Dropout* dropout) const
{
    return head->forward(backbone->forward(tokens), dropout);
}

AlignedModelImpl::AlignedModelImpl(const ImageConfig& image, const SpecFormerConfig& spectrum,
                                   const HeadConfig& head)
{
    image_encoder = register_module("image_encoder", ImageEncoder(image, head));
    spectrum_encoder = register_module("spectrum_encoder", SpectrumEncoder(spectrum, head));
}

Metadata describe(const SpecFormerConfig& config)
{
    return {{"model", "specformer"},
            {"input_dim", std::to_string(config.token_dim)},
            {"embed_dim", std::to_string(config.width)},
            {"num_layers", std::to_string(config.layers)},
            {"num_heads", std::to_string(config.heads)},
            {"max_len", std::to_string(config.max_tokens)},
            {"causal", config.causal ? "true" : "false"}};
}

Metadata describe(const ViTConfig& config)
{
    return {{"model", "astrodino"},
            {"img_size", std::to_string(config.image_size)},
            {"patch_size", std::to_string(config.patch_size)},
            {"embed_dim", std::to_string(config.width)},
            {"depth", std::to_string(config.depth)},
            {"num_heads", std::to_string(config.heads)},
            {"block_chunks", std::to_string(config.block_chunks)}};
}

Metadata describe(const ResNetConfig& config)
{
    return {{"model", "resnet" + std::to_string(config.layers)},
            {"in_channels", std::to_string(config.channels)},
            {"stem_width", std::to_string(config.stem_width)},
            {"embed_dim", std::to_string(config.embed_dim)}};
}

Metadata describe(const ImageConfig& image, const SpecFormerConfig& spectrum, const HeadConfig& head)
{
    const auto of_image = std::visit([](const auto& config) { return describe(config); }, image);
    Metadata all{{"model", "astroclip"},
                 {"embed_dim", std::to_string(head.embed_dim)},
                 {"n_head", std::to_string(head.attention_heads)},
                 {"image_head_residual", head.image_head_residual ? "1" : "0"}};
    add(all, "image.", of_image);
    all["image.model"] = of_image.at("model");
    add(all, "spectrum.", describe(spectrum));
    return all;
}

SpecFormerConfig specformer_config(const WeightsFile& file)
{
    expect_model(file, "specformer");
    return specformer_config(file, "");
}

ViTConfig vit_config(const WeightsFile& file)
{
    expect_model(file, "astrodino");
    return vit_config(file, "");
}

ResNetConfig resnet_config(const WeightsFile& file)
{
    if (!names_resnet(model_of(file))) expect_model(file, "resnet50");
    return resnet_config(file, "");
}

ImageConfig image_config(const WeightsFile& file)
{
    if (names_resnet(model_of(file))) return resnet_config(file);
    return vit_config(file);
}

SpecFormer load_specformer(const std::string& path)
{
    const WeightsFile file(path);
    SpecFormer model(specformer_config(file));
    load_strict(*model, file, "", beside_the_network);
    return model;
}

VisionTransformer load_vit(const std::string& path)
{
    const WeightsFile file(path);
    VisionTransformer model(vit_config(file));
    load_strict(*model, file, "", beside_the_network);
    return model;
}

ResNet load_resnet(const std::string& path)
{
    const WeightsFile file(path);
    ResNet model(resnet_config(file));
    load_strict(*model, file, "encoder_q.");  // key encoder and queue, which training needs, lie beside it
    model->eval();
    return model;
}

AlignedModel load_aligned_model(const std::string& path)
{
    const WeightsFile file(path);
    auto model = aligned_model(file);
    load_strict(*model, file, "", beside_the_network);
    return model;
}

std::unique_ptr<Embedder> load_embedder(const std::string& path, at::Device device)
{
    const WeightsFile file(path);
    const auto model = model_of(file);
    if (model == "specformer") return std::make_unique<SpectrumEmbedder>(load_specformer(path), device);
    if (model == "astrodino") return std::make_unique<ImageEmbedder>(load_vit(path), device);
    if (names_resnet(model)) {
        return std::make_unique<ResNetEmbedder>(load_resnet(path), image_size_of(file), device);
    }
    if (model == "astroclip") {
        return std::make_unique<AlignedEmbedder>(load_aligned_model(path), file, device);
    }
    throw DataError(path, "its metadata name the model '" + model +
                              "', known are specformer, astrodino, astroclip, resnet50, resnet18");
}

std::unique_ptr<Embedder> untrained_embedder(const std::string& path, std::uint64_t seed, at::Device device)
{
    const WeightsFile file(path);
    const auto model = model_of(file);
    if (model == "specformer") {
        SpecFormer specformer(specformer_config(file));
        initialise(*specformer, seed);
        return std::make_unique<SpectrumEmbedder>(specformer, device);
    }
    if (model == "astrodino") {
        VisionTransformer vit(vit_config(file));
        initialise(*vit, seed);
        return std::make_unique<ImageEmbedder>(vit, device);
    }
    if (names_resnet(model)) {
        ResNet resnet(resnet_config(file));
        initialise(*resnet, seed);
        return std::make_unique<ResNetEmbedder>(resnet, image_size_of(file), device);
    }
    auto aligned = aligned_model(file);
    initialise(*aligned, seed);
    return std::make_unique<AlignedEmbedder>(aligned, file, device);
}

}  // namespace astroclip::nn
