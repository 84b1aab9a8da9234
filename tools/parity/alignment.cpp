#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "core/random.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "ssl/info_nce.hpp"
#include "tools/parity/case.hpp"

namespace astroclip::parity {

namespace {

nn::AlignedModel aligned_model(const Case& reference)
{
    nn::HeadConfig head;
    head.embed_dim = int(reference.number("/config/embed_dim"_json_pointer));
    head.attention_heads = int(reference.number("/config/n_head"_json_pointer));
    return nn::AlignedModel(vit_config(reference, "/config/vit"),
                            specformer_config(reference, "/config/specformer"), head);
}

double logit_scale(const Case& reference)
{
    return reference.number("/constants/logit_scale"_json_pointer,
                            reference.number("/config/logit_scale"_json_pointer, 15.5));
}

void freeze(torch::nn::Module& module)
{
    for (auto& parameter : module.parameters()) {
        parameter.set_requires_grad(false);
    }
}

void run_heads_case(const Case& reference, const std::string& name, Report& report, const comm::World& world)
{
    auto model = aligned_model(reference);
    nn::load_strict(*model, reference.file(), name + "/state/");
    auto& images = *model->image_encoder;
    auto& spectra = *model->spectrum_encoder;
    freeze(*images.vit);
    freeze(*spectra.backbone);

    const auto flux = reference.tensor(name + "/in/spectrum");
    const auto image_tokens = images.tokens(reference.tensor(name + "/in/image"));
    const auto spectrum_tokens =
        spectra.backbone->forward(data::spectrum_tokens(flux, token_config(reference, "/config/specformer")));
    const auto attended = [](const nn::AlignmentHead& head, const at::Tensor& tokens) {
        return head->cross_attention->forward(tokens).unsqueeze(1);
    };
    report.compare_if_there(name + "/out/image.backbone_tokens", image_tokens);
    report.compare_if_there(name + "/out/spectrum.backbone_tokens", spectrum_tokens);
    report.compare_if_there(name + "/out/image.cross_attention", attended(images.head, image_tokens));
    report.compare_if_there(name + "/out/spectrum.cross_attention", attended(spectra.head, spectrum_tokens));

    const auto image = images.head->forward(image_tokens), spectrum = spectra.head->forward(spectrum_tokens);
    image.retain_grad();
    spectrum.retain_grad();
    report.compare_if_there(name + "/out/image.embedding", image);
    report.compare_if_there(name + "/out/spectrum.embedding", spectrum);
    const auto ranks = comm::make_mpi_communicator(world);
    const auto loss = ssl::info_nce(*ranks, image, spectrum, logit_scale(reference));
    report.compare_if_there(name + "/out/loss", loss);
    loss.backward();
    report.compare_if_there(name + "/grad/image.embedding", image.grad());
    report.compare_if_there(name + "/grad/spectrum.embedding", spectrum.grad());
    report.compare_gradients(name, *model);
}

// What a tensor of the formula's weights is, by its name: value = constant + factor·v, v uniform in [-1, 1).
std::pair<double, double> formula_of(const std::string& name, const at::Tensor& tensor, double gain)
{
    const auto last = name.substr(name.rfind('.') + 1);
    if (last == "running_mean") return {0, 0.1};
    if (last == "running_var") return {1, 0.5};
    if (last == "num_batches_tracked") return {0, 0};
    if (last == "gamma") return {0.3, 0.1};
    if (name.ends_with("bn3.weight")) return {0.25, 0.05};
    if (tensor.dim() == 1) return last == "weight" ? std::pair{1.0, 0.2} : std::pair{0.0, 0.1};
    if (last == "cls_token" || last == "mask_token" || last == "query" || last == "pos_embed" ||
        name.ends_with("position_embed.weight")) {
        return {0, 0.5};
    }
    const auto fan_in = double(tensor.numel()) / double(tensor.size(0));
    return {0, std::sqrt(gain / fan_in)};
}

std::uint64_t fnv1a(const std::string& text)
{
    std::uint64_t hash = 0xcbf29ce484222325ULL;
    for (const unsigned char c : text) {
        hash = (hash ^ c) * 0x100000001b3ULL;
    }
    return hash;
}

// Every name of the description with its shape, and no other.
bool same_state(const Case& reference, const torch::nn::Module& model)
{
    std::map<std::string, std::vector<std::int64_t>> published, ours;
    for (const auto& item : reference.description()["state"]) {
        published[item.at("name").get<std::string>()] = item.at("shape").get<std::vector<std::int64_t>>();
    }
    for (const auto& [name, tensor] : nn::published_state(model)) {
        ours[name] = tensor.sizes().vec();
    }
    return published == ours;
}

at::Tensor picks(const Case& reference, const char* which, const at::Tensor& tokens)
{
    const auto rows =
        reference.description().at("constants").at("token picks").at(which).get<std::vector<std::int64_t>>();
    return tokens.index_select(1, at::tensor(rows, at::kLong));
}

void run_fullsize_case(const Case& reference, const std::string& name, const nn::AlignedModel& model,
                       Report& report, const comm::World& world)
{
    const auto in = [&](const std::string& tensor) { return name + "/in/" + tensor; };
    const auto out = [&](const std::string& tensor) { return name + "/out/" + tensor; };
    const auto tokens = data::spectrum_tokens(reference.tensor(in("spectrum")),
                                              token_config(reference, "/config/specformer"));
    const auto image = reference.tensor(in("image"));
    const auto& specformer = *model->spectrum_encoder->backbone;
    const auto& vit = *model->image_encoder->vit;

    const auto embedding = specformer.forward(tokens);
    report.compare_if_there(out("specformer.embedding_mean"), embedding.mean(1));
    report.compare_if_there(out("specformer.embedding_tokens"), picks(reference, "spectrum", embedding));
    report.compare_if_there(out("specformer.reconstruction_tokens"),
                            picks(reference, "spectrum", specformer.predict_tokens(embedding)));

    const auto compare_vit = [&](const std::string& kind, const nn::ImageTokens& features) {
        report.compare_if_there(out(kind + ".x_norm_clstoken"), features.cls);
        report.compare_if_there(out(kind + ".x_norm_patchtokens_mean"), features.patches.mean(1));
        if (reference.has(out(kind + ".x_norm_patchtokens_some"))) {
            report.compare(out(kind + ".x_norm_patchtokens_some"),
                           picks(reference, "image", features.patches));
        }
    };
    compare_vit("vit", vit.forward_features(image));
    if (reference.has(in("mask"))) {
        compare_vit("vit_masked", vit.forward_features(image, reference.tensor(in("mask")).to(at::kBool)));
    }
    if (reference.has(in("local_image"))) {
        compare_vit("vit_local", vit.forward_features(reference.tensor(in("local_image"))));
    }

    const auto image_z = model->image_encoder->forward(image);
    const auto spectrum_z = model->spectrum_encoder->head->forward(embedding);
    const auto ranks = comm::make_mpi_communicator(world);
    report.compare_if_there(out("astroclip.image_embedding"), image_z);
    report.compare_if_there(out("astroclip.spectrum_embedding"), spectrum_z);
    report.compare_if_there(out("astroclip.loss"),
                            ssl::info_nce(*ranks, image_z, spectrum_z, logit_scale(reference)));
}

}  // namespace

void fill_by_formula(torch::nn::Module& module, std::uint64_t salt, double gain)
{
    const at::NoGradGuard no_grad;
    for (auto [name, tensor] : nn::published_state(module)) {
        const auto [constant, factor] = formula_of(name, tensor, gain);
        const std::uint64_t seed = fnv1a(name) + salt * 0xD1342543DE82EF95ULL;
        auto values = at::empty(tensor.sizes(), at::kFloat);
        auto* out = values.data_ptr<float>();
        for (std::int64_t i = 0; i < values.numel(); ++i) {
            const double u = double(mix64(seed + std::uint64_t(i) * 0x9E3779B97F4A7C15ULL) >> 40) * 0x1p-24;
            out[i] = static_cast<float>(constant + factor * (2 * u - 1));
        }
        tensor.copy_(values);
    }
}

void run_heads(const Case& reference, Report& report, const comm::World& world)
{
    for (const auto& name : reference.cases_with({"in/image", "in/spectrum"})) {
        run_heads_case(reference, name, report, world);
    }
}

void run_fullsize(const Case& reference, Report& report, const comm::World& world)
{
    const at::NoGradGuard no_grad;
    auto model = aligned_model(reference);
    report.require(same_state(reference, *model), "names and shapes of all parameters");
    fill_by_formula(*model, std::uint64_t(reference.number("/config/salt"_json_pointer)),
                    reference.number("/config/gain"_json_pointer));
    for (const auto& name : reference.cases_with({"in/image", "in/spectrum"})) {
        run_fullsize_case(reference, name, model, report, world);
    }
}

void run_clip_loss(const Case& reference, Report& report, const comm::World& world)
{
    const auto ranks = comm::make_mpi_communicator(world);
    const double scale = logit_scale(reference);
    for (const auto& name : reference.cases_with({"in/image_features", "in/spectrum_features"})) {
        const auto image = reference.tensor(name + "/in/image_features").set_requires_grad(true);
        const auto spectrum = reference.tensor(name + "/in/spectrum_features").set_requires_grad(true);
        report.compare_if_there(name + "/out/logits_per_image",
                                scale * ssl::unit_rows(image).matmul(ssl::unit_rows(spectrum).t()));
        const auto loss = ssl::info_nce(*ranks, image, spectrum, scale);
        report.compare_if_there(name + "/out/loss", loss);
        loss.backward();
        report.compare_if_there(name + "/grad/image_features", image.grad());
        report.compare_if_there(name + "/grad/spectrum_features", spectrum.grad());
        if (!reference.has(name + "/out/local_losses")) continue;
        const auto shards = reference.file().shape(name + "/out/local_losses").at(0);
        std::vector<at::Tensor> losses;
        for (std::int64_t i = 0; i < shards; ++i) {
            const auto rows = image.size(0) / shards;
            losses.push_back(ssl::info_nce(*ranks, image.narrow(0, i * rows, rows),
                                           spectrum.narrow(0, i * rows, rows), scale));
        }
        report.compare(name + "/out/local_losses", at::stack(losses));
    }
}

}  // namespace astroclip::parity
