#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>

#include "core/clock.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "nn/encoder.hpp"
#include "ssl/clip_task.hpp"
#include "ssl/token_cache.hpp"
#include "stages/compute.hpp"
#include "stages/training.hpp"
#include "store/verify.hpp"
#include "train/precision.hpp"

// align: pairs/ with both stores, two pretrained encoders -> aligned/.
namespace astroclip::stage {
namespace {

struct Options {
    std::string images, spectra, pairs, image_encoder, spectrum_encoder, output;
    std::string token_cache = "auto";
    std::int64_t token_cache_part_rows = 512;
    bool trust = false;
    ssl::ClipTaskConfig task;
    train::TrainerConfig trainer{.steps = 10'000, .clip_norm = 1.0, .keep_best = 2, .patience = 10};
};

void bind(config::Section options, Options& o)
{
    options.option("images", o.images, "store of cutouts", config::runtime_only())
        .option("spectra", o.spectra, "store of spectra", config::runtime_only())
        .option("pairs", o.pairs, "which rows of the two are one galaxy", config::runtime_only())
        .option(
            "image-encoder", o.image_encoder,
            "folder published by pretrain-image: a vision transformer, which gets a cross-attention head, "
            "or a ResNet, whose projection is its head",
            config::runtime_only())
        .option("spectrum-encoder", o.spectrum_encoder, "folder published by pretrain-spectrum",
                config::runtime_only())
        .option("output", o.output, "folder of the aligned model to publish", config::runtime_only())
        .option("token-cache", o.token_cache,
                "where frozen encoders' tokens are kept, computed once: auto (in the output, if the disk has "
                "room), off, or a folder that several runs may share, once it is complete (until then one of "
                "them makes it, and others end with 73)",
                config::runtime_only())
        .option("token-cache-part-rows", o.token_cache_part_rows, "galaxies in a part of the token cache",
                config::runtime_only(config::at_least(1)))
        .option("trust", o.trust, "do not check the hashes of the stores' files", config::runtime_only());
    ssl::bind(options, o.task);
    train::bind(options, o.trainer);
}

// The aligned model at step 0: the encoders as pretrained, the heads at the first values that the seed gives
// (but a ResNet's projection, which is its head, as pretrained).
nn::AlignedModel first_model(const nn::WeightsFile& image, const nn::WeightsFile& spectrum,
                             const nn::HeadConfig& head, std::uint64_t seed)
{
    nn::AlignedModel model(nn::image_config(image), nn::specformer_config(spectrum), head);
    nn::initialise(*model, seed);
    model->eval();
    if (nn::is_resnet(nn::image_config(image))) {
        nn::load_strict(*model->image_encoder->resnet, image, "encoder_q.");
    } else {
        nn::load_strict(*model->image_encoder->vit, image, "", nn::beside_the_network);
    }
    nn::load_strict(*model->spectrum_encoder->backbone, spectrum, "", nn::beside_the_network);
    return model;
}

// Of the disk on which the folder is, or would be made.
double free_bytes(const std::string& folder)
{
    namespace fs = std::filesystem;
    std::error_code error;
    auto there = fs::absolute(folder, error);
    while (!fs::exists(there, error) && there.has_relative_path()) {
        there = there.parent_path();
    }
    const auto space = fs::space(there, error);
    if (error) {
        throw IoError(folder, fmt::format("how much room there is cannot be told: {}", error.message()));
    }
    return static_cast<double>(space.available);
}

// The encoders' tokens, if they are to be cached.
class Tokens {
public:
    // `unchanging`: the encoders give the same in every epoch.
    Tokens(const Options& o, const ssl::ClipTaskConfig& task, bool unchanging, Context& context,
           const data::Galaxies& galaxies, const nn::AlignedModel& model, at::Device device,
           nlohmann::json inputs)
        : o_(o),
          task_(task),
          wanted_(unchanging && o.token_cache != "off"),
          context_(context),
          galaxies_(galaxies),
          inputs_(std::move(inputs))
    {
        encode_ = [&o, &task, model, device](const data::Batch& batch) {
            const at::NoGradGuard no_grad;
            const train::Autocast autocast(o.trainer.precision, device.type());
            return ssl::EncoderTokens{ssl::encode_images(model, batch, task.view, device),
                                      ssl::encode_spectra(model, batch, task.tokens, device)};
        };
        inputs_.update(galaxies.content_ids());
    }

    bool wanted() const { return wanted_; }
    std::int64_t bytes() const { return ssl::token_cache_bytes(galaxies_, encode_); }

    // Collective. Makes the cache, or what is missing of it, and opens it; null where there is to be none.
    std::unique_ptr<ssl::TokenCache> prepare(const std::string& output)
    {
        const auto path = o_.token_cache == "auto" ? output + "/token-cache" : o_.token_cache;
        if (!wanted_ || !has_room(path, output)) {
            return nullptr;
        }
        if (!make(path)) {
            log::info("comparing the hashes of {}", path);
            store::verify_parts(context_.world, path);
        }
        std::unique_ptr<ssl::TokenCache> cache;
        context_.world.together([&] { cache = std::make_unique<ssl::TokenCache>(path, galaxies_); });
        return cache;
    }

private:
    // Told by rank 0. A cache that was begun is gone on with; a run that was begun without one goes on
    // without.
    bool has_room(const std::string& path, const std::string& output) const
    {
        namespace fs = std::filesystem;
        bool room = true;
        context_.world.on_root([&] {
            std::error_code error;
            if (fs::exists(path + "/request.json", error)) {
                return;
            }
            const bool automatic = o_.token_cache == "auto";
            if (automatic && fs::exists(output + "/checkpoints", error)) {
                room = false;
                return;
            }
            const auto needed = static_cast<double>(bytes()), free = free_bytes(path);
            log::info("token cache: {} will take {:.2f} GB of the {:.2f} GB that are free", path,
                      needed / 1e9, free / 1e9);
            if (needed > 0.9 * free) {
                if (!automatic) {
                    throw IoError(path, fmt::format("the token cache needs {:.2f} GB, {:.2f} GB are free; "
                                                    "'token-cache' = off trains without it",
                                                    needed / 1e9, free / 1e9));
                }
                log::warn("token cache: not enough room, the encoders run in every step");
                room = false;
            }
        });
        return !context_.world.any(!room);
    }

    // Was it made by this run?
    bool make(const std::string& path)
    {
        nlohmann::json shape = {{"precision", o_.trainer.precision}, {"format", "float16"}};
        shape.update(data::describe(task_.view));
        shape.update(data::describe(task_.tokens));
        store::Output cache(context_.world, path, {"token-cache", shape, digest_of(shape.dump()), inputs_},
                            false, {.break_lock = context_.break_lock(), .remedy = "removing the folder"});
        if (cache.up_to_date()) {
            return false;
        }
        bool begun = false;
        const auto start = seconds();
        ssl::make_token_cache(cache, galaxies_, encode_, o_.token_cache_part_rows,
                              [&](std::int64_t done, std::int64_t total) {
                                  if (!begun) {
                                      context_.progress.begin("token cache", total, "galaxies");
                                      begun = true;
                                  }
                                  context_.progress.update(done);
                              });
        if (begun) {
            context_.progress.end();
        }
        context_.metric(
            {{"event", "token cache"}, {"path", path}, {"bytes", bytes()}, {"seconds", seconds() - start}});
        return true;
    }

    const Options& o_;
    const ssl::ClipTaskConfig& task_;
    bool wanted_;
    Context& context_;
    const data::Galaxies& galaxies_;
    nlohmann::json inputs_;
    ssl::Encode encode_;
};

void check(const Options& o, const ssl::ClipTaskConfig& task, bool unchanging, const data::Galaxies& galaxies)
{
    if (!unchanging && o.token_cache != "off" && o.token_cache != "auto") {
        throw ConfigError(
            "'token-cache' needs frozen encoders that give the same in every epoch: image-encoder-rate, "
            "spectrum-encoder-rate, shift, spectrum-noise, brightness and colour 0, flips none, and bn-mode "
            "eval for a ResNet");
    }
    if (task.augmentation.changes_flux() && galaxies.display_images()) {
        throw ConfigError(
            "'brightness' and 'colour' change fluxes in g, r and z; these images are display images");
    }
}

void align(const Options& o, Context& context)
{
    data::Stores stores;
    context.world.together([&] {
        stores = {required("images", o.images), required("spectra", o.spectra), required("pairs", o.pairs),
                  o.trust};
    });
    const auto galaxies = open_galaxies(context, stores);
    auto inputs = nlohmann::json::object();
    const auto image = open_model(context, "image-encoder", o.image_encoder, inputs);
    const auto spectrum = open_model(context, "spectrum-encoder", o.spectrum_encoder, inputs);
    auto task = o.task;
    nn::ImageConfig image_config;
    context.world.together([&] {
        task.tokens = data::spectrum_tokens_config(spectrum->metadata(), "");
        image_config = nn::image_config(*image);
    });
    const bool unchanging = task.same_tokens_every_epoch(image_config);
    context.world.together([&] { check(o, task, unchanging, *galaxies); });
    if (task.tokens.leaves_out_bad_bins() || task.augmentation.spectrum_noise > 0) {
        galaxies->read_ivar();
    }
    const auto compute = start_compute(context);
    nn::AlignedModel model{nullptr};
    context.world.together([&] {
        model = first_model(*image, *spectrum, task.head, context.run.seed);
        model->to(compute.device);
    });
    Tokens tokens(o, task, unchanging, context, *galaxies, model, compute.device, inputs);
    if (context.dry_run() && tokens.wanted()) {
        context.world.on_root([&] {
            context.print(fmt::format("token cache ('token-cache' = {}): {:.1f} MB", o.token_cache,
                                      static_cast<double>(tokens.bytes()) / 1e6));
        });
    }
    std::unique_ptr<ssl::TokenCache> cache;
    train_and_publish(
        context, compute, o.output, *galaxies, o.trainer,
        [&] {
            return std::make_unique<ssl::ClipTask>(task, model, image_config,
                                                   nn::specformer_config(*spectrum), *galaxies,
                                                   *compute.ranks, context.run.seed, cache.get());
        },
        inputs, [&](const std::string& output) { cache = tokens.prepare(output); });
}

}  // namespace
}  // namespace astroclip::stage

int main(int argc, char** argv)
{
    using namespace astroclip::stage;
    return run<Options>(
        argc, argv,
        {.name = "align",
         .purpose = "align image and spectrum of the same galaxy in one embedding space",
         .examples = "  mpirun -n 2 astroclip-align --config run.cfg --images run/images --spectra "
                     "run/spectra --pairs run/pairs "
                     "\\\n      --image-encoder run/image-encoder --spectrum-encoder run/spectrum-encoder "
                     "--output run/aligned\n"
                     "  astroclip-align --config run.cfg --gather none --steps 100 --output aligned-local",
         .seeded = true},
        bind, align);
}
