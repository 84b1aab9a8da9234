#include "stages/training.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "core/log.hpp"
#include "store/verify.hpp"

namespace astroclip::stage {
namespace {

constexpr double gib = 1024.0 * 1024.0 * 1024.0;

std::unique_ptr<train::Task> build(const Context& context,
                                   const std::function<std::unique_ptr<train::Task>()>& make_task)
{
    std::unique_ptr<train::Task> task;
    context.world.together([&] { task = make_task(); });
    return task;
}

void print_plan(const Context& context, const train::Task& task, const train::TrainerConfig& trainer,
                const data::Galaxies& galaxies)
{
    std::int64_t trained = 0;
    for (const auto& parameter : task.parameters()) {
        trained += parameter.tensor.numel();
    }
    std::int64_t held = 0;
    for (const auto& [name, tensor] : task.state()) {
        held += static_cast<std::int64_t>(tensor.nbytes());
    }
    // Weights and state once, gradients and AdamW's two moments for what is trained; activations come on top.
    const auto resident = static_cast<double>(held) + 12.0 * static_cast<double>(trained);
    // The state, the best models and the moments.
    const auto checkpoint =
        static_cast<double>(held) * (1 + trainer.keep_best) + 8.0 * static_cast<double>(trained);
    context.print(fmt::format(
        "galaxies {} ({} for training), global batch {}, {} steps an epoch, {} steps = {:.1f} epochs on {} "
        "ranks\n"
        "trained parameters {}; a rank holds {:.2f} GiB of weights, gradients and moments (activations come "
        "on top) and reads "
        "{:.3f} GiB a step\na checkpoint takes {:.2f} GiB on disk, {} are kept",
        galaxies.size(), galaxies.members(false).size(), task.global_batch(), task.steps_per_epoch(),
        trainer.steps, static_cast<double>(trainer.steps) / static_cast<double>(task.steps_per_epoch()),
        context.world.size(), trained, resident / gib,
        static_cast<double>(galaxies.row_bytes() * task.global_batch()) / context.world.size() / gib,
        checkpoint / gib, trainer.keep_checkpoints));
}

}  // namespace

const std::string& required(const std::string& option, const std::string& path)
{
    if (path.empty()) {
        throw ConfigError(fmt::format("'{}' is not set", option));
    }
    return path;
}

std::unique_ptr<data::Galaxies> open_galaxies(const Context& context, const data::Stores& stores)
{
    auto checked = stores;
    for (const auto* path : {&stores.images, &stores.spectra, &stores.pairs}) {
        if (!stores.trust && !path->empty()) {
            log::info("comparing the hashes of {}", *path);
            store::verify_parts(context.world, *path);
        }
    }
    checked.trust = true;  // a step must not wait for the hashes of the parts that it happens to touch
    std::unique_ptr<data::Galaxies> galaxies;
    // Without pairs the split is what match makes by default.
    const data::SplitRule split{.seed = context.run.seed};
    context.world.together([&] { galaxies = std::make_unique<data::Galaxies>(checked, split); });
    return galaxies;
}

std::unique_ptr<nn::WeightsFile> open_model(const Context& context, const std::string& option,
                                            const std::string& folder, nlohmann::json& inputs)
{
    std::unique_ptr<nn::WeightsFile> file;
    context.world.together([&] {
        const auto manifest = store::read_manifest(required(option, folder));
        if (context.world.is_root()) {  // one reader for all: the file may be large
            for (const auto& entry : manifest.at("files")) {
                store::verify_file(folder, entry, false);
            }
        }
        inputs[option] = store::content_id(folder);
        file = std::make_unique<nn::WeightsFile>(folder + "/model.safetensors");
    });
    return file;
}

void train_and_publish(Context& context, const Compute& compute, const std::string& output,
                       const data::Galaxies& galaxies, const train::TrainerConfig& trainer,
                       const std::function<std::unique_ptr<train::Task>()>& make_task, nlohmann::json inputs,
                       const std::function<void(const std::string&)>& prepare)
{
    inputs.update(galaxies.content_ids());
    if (context.dry_run()) {
        print_plan(context, *build(context, make_task), trainer, galaxies);
        return;
    }
    auto& published = context.open_output(output, inputs);
    if (prepare) {
        prepare(output);
    }
    const auto task = build(context, make_task);
    train::train(*task, trainer,
                 {.world = context.world,
                  .ranks = *compute.ranks,
                  .output = published,
                  .progress = context.progress,
                  .metric = [&](nlohmann::json values) { context.metric(std::move(values)); },
                  .stop_if_requested = [&](const std::string& what) { context.stop_if_requested(what); }});
    context.print(output + "/model.safetensors");
}

}  // namespace astroclip::stage
