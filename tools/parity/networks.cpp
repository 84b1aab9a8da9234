#include <ATen/ATen.h>

#include <algorithm>

#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "data/spectrum_masks.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/dino_head.hpp"
#include "nn/specformer.hpp"
#include "nn/vision_transformer.hpp"
#include "ssl/masked_spectrum_loss.hpp"
#include "tools/parity/case.hpp"

namespace astroclip::parity {

namespace {

using Pointer = nlohmann::json::json_pointer;

// The case whose state a case uses: its own, or the one that state_of names, or the only one there is.
std::string state_of(const Case& reference, const std::string& name, const std::string& parameter)
{
    if (reference.has(name + "/state/" + parameter)) return name;
    const Pointer where("/state_of/" + name);
    if (reference.description().contains(where)) {
        const auto other = reference.description()[where].get<std::string>();
        if (reference.has(other + "/state/" + parameter)) return other;
    }
    const auto with_state = reference.cases_with({"state/" + parameter});
    if (with_state.size() == 1) return with_state.front();
    throw DataError(reference.file().path(), "case '" + name + "' has no state");
}

void run_specformer_case(const Case& reference, const std::string& name, Report& report,
                         const comm::World& world)
{
    nn::SpecFormer model(specformer_config(reference, "/config/model"));
    nn::load_strict(*model, reference.file(), state_of(reference, name, "data_embed.weight") + "/state/");

    const auto flux = reference.tensor(name + "/in/spectrum");
    const auto tokens = data::spectrum_tokens(flux, token_config(reference, "/config/model"));
    report.compare_if_there(name + "/out/preprocessed", tokens);
    report.compare_if_there(name + "/out/embedding", model->forward(tokens));
    report.compare_if_there(name + "/out/reconstructions", model->reconstruct(tokens));
    if (!reference.has(name + "/in/mask_starts")) return;

    const int width = int(reference.number("/config/model/mask_chunk_width"_json_pointer));
    const auto masked = data::mask_tokens(tokens, reference.indices(name + "/in/mask_starts"), width);
    const auto prediction = model->reconstruct(masked);
    const auto sums = ssl::masked_sums(prediction, tokens, masked);
    const auto ranks = comm::make_mpi_communicator(world);
    const auto loss = ssl::masked_spectrum_loss(*ranks, sums);
    report.compare_if_there(name + "/out/masked_input", masked);
    report.compare_if_there(name + "/out/reconstructions_masked", prediction);
    report.compare_if_there(name + "/out/mask_fraction", sums.count / double(tokens.numel()));
    report.compare_if_there(name + "/out/loss", loss.share);
    loss.share.backward();
    report.compare_gradients(name, *model);
}

// The subsets that DINOv2 takes from a permutation: the first max(int(b·(1 - rate)), 1) rows.
nn::StochasticDepth subsets(const at::Tensor& permutations, double rate)
{
    const auto batch = permutations.size(1);
    const auto kept = std::max<std::int64_t>(std::int64_t(double(batch) * (1 - rate)), 1);
    nn::StochasticDepth depth;
    for (const auto& order : permutations.unbind(0)) {
        depth.push_back({order.narrow(0, 0, kept).contiguous(), double(batch) / double(kept)});
    }
    return depth;
}

void run_vit_case(const Case& reference, const std::string& name, Report& report)
{
    nn::VisionTransformer model(vit_config(reference, "/config/model"));
    nn::load_strict(*model, reference.file(), name + "/state/");
    const auto in = [&](const std::string& tensor) { return name + "/in/" + tensor; };
    for (const auto& crops : reference.names_after(name + "/in/")) {
        if (!crops.ends_with("_crops")) continue;
        const auto kind = crops.substr(0, crops.size() - 6);
        const auto images = reference.tensor(in(crops));
        const auto compare = [&](const std::string& output, const nn::ImageTokens& tokens) {
            report.compare_if_there(name + "/out/" + output + ".x_norm_clstoken", tokens.cls);
            report.compare_if_there(name + "/out/" + output + ".x_norm_patchtokens", tokens.patches);
        };
        nn::StochasticDepth depth;
        if (reference.has(in(kind + "_perms"))) {
            depth = subsets(reference.indices(in(kind + "_perms")),
                            reference.number("/config/drop_path_rate"_json_pointer));
        }
        compare(kind, model->forward_features(images, {}, depth));
        if (reference.has(in(kind + "_masks"))) {
            compare(kind + "_masked",
                    model->forward_features(images, reference.tensor(in(kind + "_masks")).to(at::kBool)));
        }
        const auto patch = model->config().patch_size;
        report.compare_if_there(name + "/out/" + kind + ".tokens_in", model->input_tokens(images));
        report.compare_if_there(name + "/out/pos_embed_" + kind,
                                model->position_table(images.size(2) / patch, images.size(3) / patch));
    }
}

}  // namespace

nn::SpecFormerConfig specformer_config(const Case& reference, const std::string& key)
{
    nn::SpecFormerConfig config;
    config.token_dim = int(reference.number(Pointer(key + "/input_dim")));
    config.width = int(reference.number(Pointer(key + "/embed_dim")));
    config.layers = int(reference.number(Pointer(key + "/num_layers")));
    config.heads = int(reference.number(Pointer(key + "/num_heads")));
    config.max_tokens = int(reference.number(Pointer(key + "/max_len")));
    return config;
}

data::SpectrumTokensConfig token_config(const Case& reference, const std::string& key)
{
    data::SpectrumTokensConfig config;
    config.section_length = int(reference.number(Pointer(key + "/slice_section_length")));
    config.overlap = int(reference.number(Pointer(key + "/slice_overlap")));
    return config;
}

nn::ViTConfig vit_config(const Case& reference, const std::string& key)
{
    nn::ViTConfig config;
    config.image_size = int(reference.number(Pointer(key + "/img_size")));
    config.patch_size = int(reference.number(Pointer(key + "/patch_size")));
    config.width = int(reference.number(Pointer(key + "/embed_dim")));
    config.depth = int(reference.number(Pointer(key + "/depth")));
    config.heads = int(reference.number(Pointer(key + "/num_heads")));
    config.block_chunks = int(reference.number(Pointer(key + "/block_chunks"), 0));
    return config;
}

void run_specformer(const Case& reference, Report& report, const comm::World& world)
{
    for (const auto& name : reference.cases_with({"in/spectrum"})) {
        run_specformer_case(reference, name, report, world);
    }
}

void run_vit(const Case& reference, Report& report, const comm::World&)
{
    const at::NoGradGuard no_grad;
    for (const auto& name : reference.cases_with({"state/patch_embed.proj.weight"})) {
        run_vit_case(reference, name, report);
    }
}

void run_dino_head(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"state/last_layer.weight_v", "in/x"})) {
        const auto x = reference.tensor(name + "/in/x").set_requires_grad(true);
        const auto prototypes = reference.file().shape(name + "/state/last_layer.weight_v");
        const auto layers = reference.names_after(name + "/state/mlp.");
        nn::DinoHeadConfig config;
        config.prototypes = int(prototypes.at(0));
        config.bottleneck = int(prototypes.at(1));
        config.layers = int(
            std::count_if(layers.begin(), layers.end(), [](const auto& l) { return l.ends_with("weight"); }));
        if (config.layers > 1)
            config.hidden = int(reference.file().shape(name + "/state/mlp.0.weight").at(0));
        nn::DinoHead model(x.size(-1), config);
        nn::load_strict(*model, reference.file(), name + "/state/");

        const auto logits = model->forward(x);
        report.compare_if_there(name + "/out/logits", logits);
        if (!reference.has(name + "/in/weight")) continue;
        const auto scalar = (logits * reference.tensor(name + "/in/weight")).sum();
        report.compare_if_there(name + "/out/scalar", scalar);
        scalar.backward();
        report.compare_if_there(name + "/grad/x", x.grad());
        report.compare_gradients(name, *model);
    }
}

}  // namespace astroclip::parity
