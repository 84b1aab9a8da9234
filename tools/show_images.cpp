// astroclip-show-images: what image pretraining sees and what an encoder makes of it, as tensors for
// tools/show_images.py to draw.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "config/options.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "data/batches.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_views.hpp"
#include "data/physical_views.hpp"
#include "nn/encoder.hpp"
#include "tools/program.hpp"

namespace astroclip::show {
namespace {

struct Options {
    std::string images, model, output;
    std::int64_t first = 0, count = 6;
    std::uint64_t seed = 42;
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts")
        .option("model", o.model, "folder of an image encoder, for the patch tokens of a vision transformer")
        .option("output", o.output, "safetensors file to write")
        .option("first", o.first, "row of the first galaxy", config::at_least(0))
        .option("count", o.count, "galaxies", config::at_least(1));
}

// Fluxes in the colours in which people look at galaxies; display images as they are.
at::Tensor displayed(const at::Tensor& images, bool display)
{
    return display ? images.clamp(0, 1) : data::to_rgb(images);
}

// Each augmentation of MoCo by itself, and both methods' whole views.
nn::NamedTensors augmented(const data::Batch& batch, bool display, std::uint64_t seed)
{
    const auto& images = batch.images;
    const auto side = std::min(images.size(2), images.size(3));
    data::PhysicalViewConfig config{.crop = int(side)};
    nn::NamedTensors all{{"original", displayed(images, display)}};
    const auto codes = display ? std::vector<std::string>{"rr", "ss", "gb"}
                               : std::vector<std::string>{"gr", "rr", "ss", "gb", "gn"};
    for (const auto& code : codes) {
        const auto view = data::physical_view(images, batch.object_ids, seed, 0, 0, code + "cc", config);
        all.emplace_back(code, displayed(view, display));
    }
    config.crop = int(side - 2 * config.jitter);
    config.rgb = "asinh";
    const auto order = display ? data::without_flux_steps(config.augmentations) : config.augmentations;
    for (const auto number : {0, 1}) {
        all.emplace_back(fmt::format("moco-{}", number),
                         data::physical_view(images, batch.object_ids, seed, 0, number, order, config));
    }
    const data::MultiCropConfig crops{.global_size = int(side * 144 / 152),
                                      .local_size = int(side * 60 / 152),
                                      .local_crops = 2,
                                      .fluxes = !display};
    const auto views = data::multi_crop(images, batch.object_ids, seed, 0, crops);
    const auto count = batch.size();
    for (const auto number : {0, 1}) {
        all.emplace_back(fmt::format("dino-global-{}", number),
                         views.global.narrow(0, number * count, count));
        all.emplace_back(fmt::format("dino-local-{}", number), views.local.narrow(0, number * count, count));
    }
    return all;
}

// What the encoder reads of each galaxy, the tokens of its patches, [n, N, width], and how much the cls token
// looks at them, mean over the heads, [n, N].
void add_patch_tokens(nn::NamedTensors& all, const std::string& model, const at::Tensor& images)
{
    const at::NoGradGuard no_grad;
    const auto path = model + "/model.safetensors";
    const nn::WeightsFile file(path);
    if (const auto kind = file.metadata().find("model");
        kind != file.metadata().end() && kind->second != "astrodino") {
        log::info("{} is a {}: no tokens of patches", model, kind->second);
        return;
    }
    const auto vit = nn::load_vit(path);
    const auto view = data::centre_view(
        images, data::centre_view_config(file.metadata(), "", {.crop = vit->config().image_size}));
    all.emplace_back("read", view);
    all.emplace_back("patches", vit->forward_features(view).patches.contiguous());
    all.emplace_back("attention", vit->cls_attention(view).mean(1));
}

void run(const Options& o)
{
    const data::Galaxies galaxies({.images = o.images});
    if (o.first + o.count > galaxies.size()) {
        throw ConfigError(fmt::format("'first' + 'count' = {}, but {} has {} galaxies", o.first + o.count,
                                      o.images, galaxies.size()));
    }
    const auto batch = galaxies.read(data::Range{o.first, o.first + o.count});
    auto all = augmented(batch, galaxies.display_images(), o.seed);
    if (!o.model.empty()) add_patch_tokens(all, o.model, batch.images);
    for (auto& [name, tensor] : all) {
        tensor = tensor.contiguous();
    }
    nn::save_weights(o.output, all, {});
}

}  // namespace
}  // namespace astroclip::show

int main(int argc, char** argv)
{
    using namespace astroclip;
    const program::Description description{"show-images",
                                           "augmentations of galaxies and an encoder's patch tokens"};
    config::Options options(description.name);
    show::Options o;
    show::bind(options.section(), o);
    return program::run(argc, argv, description, options, [&] {
        o.seed = options.run().seed;
        if (o.images.empty() || o.output.empty()) {
            throw ConfigError("'images' and 'output' must be set");
        }
        show::run(o);
    });
}
