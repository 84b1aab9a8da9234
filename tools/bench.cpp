#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "core/clock.hpp"
#include "core/memory.hpp"
#include "data/image_views.hpp"
#include "data/physical_views.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "ssl/info_nce.hpp"
#include "ssl/masked_spectrum_task.hpp"
#include "ssl/moco_loss.hpp"
#include "store/writer.hpp"
#include "tools/bench_alignment.hpp"
#include "tools/bench_heads.hpp"
#include "tools/bench_search.hpp"
#include "tools/program.hpp"
#include "train/ema.hpp"
#include "train/optimizer.hpp"
#include "train/precision.hpp"
#include "train/step.hpp"

// astroclip-bench STEP: times one step of training or embedding on random input, through the code that the
// stages use, and prints one JSON line. The steps are those that a plain PyTorch program would do, so that
// the two can be compared.
namespace astroclip::bench {
namespace {

constexpr auto step_names =
    "spectrum-train, spectrum-embed, image-train, image-embed, dino-heads, dino-heads-plain, dino-views, "
    "moco-views, moco-train, align, align-cached, loss, search or search-single";

struct Options {
    std::vector<std::string> step;
    std::int64_t batch = 16;
    int steps = 5;
    bool recompute = false;
    std::string dtype = "fp32", size = "tiny";
    SearchOptions search;
};

struct Sizes {
    nn::SpecFormerConfig spectrum;
    nn::ViTConfig image;
    nn::HeadConfig head;
    nn::DinoHeadConfig dino;
};

Sizes sizes(const std::string& name)
{
    Sizes s;  // "paper" is the structs' own defaults
    s.image.drop_path_rate = 0;
    s.head.dropout = 0;
    if (name == "tiny") {
        s.spectrum.width = 192;
        s.spectrum.layers = 4;
        s.spectrum.heads = 4;
        s.image.width = 192;
        s.image.depth = 6;
        s.image.heads = 3;
        s.image.block_chunks = 0;
        s.head.embed_dim = 128;
        s.dino.prototypes = 1024;
    }
    return s;
}

std::vector<train::Parameter> parameters_of(const torch::nn::Module& module, const std::string& prefix = "")
{
    std::vector<train::Parameter> all;
    for (const auto& item : module.named_parameters()) {
        all.push_back({.name = prefix + item.key(), .tensor = item.value()});
    }
    return all;
}

void zero_gradients(const std::vector<train::Parameter>& parameters)
{
    for (const auto& parameter : parameters) {
        parameter.tensor.mutable_grad() = at::Tensor();
    }
}

// A folder that is gone in the end.
struct Scratch {
    Scratch() : path(std::filesystem::temp_directory_path() / fmt::format("astroclip-bench-{}", getpid()))
    {
        std::filesystem::create_directories(path);
    }
    ~Scratch() { std::filesystem::remove_all(path); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    // That of rank 0, for all. Collective.
    std::string shared_path(const comm::World& world) const { return world.broadcast(path); }

    std::string path;
};

void write_random_spectra(const comm::World& world, const std::string& folder, std::int64_t count)
{
    std::vector<double> wavelength(7781);
    std::iota(wavelength.begin(), wavelength.end(), 3600.0);
    const auto schema = store::spectra(wavelength);
    store::Output output(world, folder, {"ingest-spectra", {}, "bench", {}}, false);
    store::Writer writer(output, schema, count, "bench", {});
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            for (auto id = turn.first; id < turn.last; ++id) {
                const auto flux = at::randn({7781}, at::kFloat);
                rows.add("object_id", id);
                rows.add("flux", flux.const_data_ptr<float>(), 1);
                for (const auto& column : schema.columns) {
                    const std::vector<float> ones(column.row_items(), 1.0F);
                    if (column.name != "object_id" && column.name != "flux") {
                        rows.add(column.name, ones.data(), 1);
                    }
                }
            }
            writer.append(rows, {});
        }
        writer.publish_part();
    }
    writer.publish();
}

// The task of pretrain-spectrum on a store, with the trainer's step.
class SpectrumTraining {
public:
    SpectrumTraining(const std::string& store, const ssl::MaskedSpectrumConfig& config,
                     const train::TrainerConfig& trainer, comm::Communicator& ranks)
        : galaxies_({.spectra = store, .trust = true}, {.seed = 1, .test_fraction = 0}),
          task_(config, galaxies_, ranks, 1),
          step_(task_, trainer, ranks)
    {
        task_.seek(0);
    }

    void step(std::int64_t number)
    {
        task_.fetch();
        step_.gradient(task_, number);
        step_.apply({1e-5, 1e-5, 0.1});
    }

private:
    data::Galaxies galaxies_;
    ssl::MaskedSpectrumTask task_;
    train::Step step_;
};

// A benchmark: its input is made when it is built, each call is one step.
using Step = std::function<void()>;

class Bench {
public:
    Bench(const Options& options, const comm::World& world, comm::Communicator& ranks)
        : o_(options), c_(sizes(options.size)), world_(world), ranks_(ranks)
    {
    }

    Step step(const std::string& name)
    {
        const std::map<std::string, std::function<Step()>> steps = {
            {"spectrum-train", [this] { return spectrum_train(); }},
            {"spectrum-embed", [this] { return spectrum_embed(); }},
            {"image-train", [this] { return image_train(); }},
            {"image-embed", [this] { return image_embed(); }},
            {"dino-heads", [this] { return heads_alone(false); }},
            {"dino-heads-plain", [this] { return heads_alone(true); }},
            {"dino-views", [this] { return dino_views(); }},
            {"moco-views", [this] { return moco_views(); }},
            {"moco-train", [this] { return moco_train(); }},
            {"align", [this] { return align(false); }},
            {"align-cached", [this] { return align(true); }},
            {"loss", [this] { return loss(); }},
            {"search", [this] { return search(o_.search, false, world_, ranks_); }},
            {"search-single", [this] { return search(o_.search, true, world_, ranks_); }}};
        if (!steps.contains(name)) {
            throw ConfigError(fmt::format("unknown step '{}': {}", name, step_names));
        }
        return steps.at(name)();
    }

private:
    at::Tensor random(at::IntArrayRef shape) const { return at::randn(shape, at::kFloat); }
    at::Tensor fluxes() const { return random({o_.batch, 7781}); }

    template <typename Module, typename... Config>
    Module network(const Config&... config) const
    {
        Module module(config...);
        nn::initialise(*module, 1);
        return module;
    }

    // As astroclip-pretrain-spectrum does it, its store included.
    Step spectrum_train()
    {
        const auto folder = scratch_.shared_path(world_) + "/spectra";
        write_random_spectra(world_, folder, o_.batch);
        ssl::MaskedSpectrumConfig config;
        config.model = c_.spectrum;
        config.model.recompute = o_.recompute;
        config.batch_size = o_.batch;
        const train::TrainerConfig trainer{.precision = o_.dtype, .beta2 = 0.95, .clip_norm = 1.0};
        const auto training = std::make_shared<SpectrumTraining>(folder, config, trainer, ranks_);
        return [training, number = std::int64_t{0}]() mutable { training->step(number++); };
    }

    // As astroclip-embed does it: a model from its file, in batches of its own size.
    Step spectrum_embed()
    {
        const auto path = scratch_.path + "/model.safetensors";
        nn::save_weights(path, nn::published_state(*network<nn::SpecFormer>(c_.spectrum)),
                         nn::describe(c_.spectrum));
        const std::shared_ptr<nn::Embedder> model = nn::load_embedder(path, at::kCPU);
        return [=, this, flux = fluxes()]() mutable {
            const train::Autocast autocast(o_.dtype, at::kCPU);
            for (const auto& part : flux.split(nn::compute_batch)) {
                model->embed_spectra(data::spectrum_tokens(part));
            }
        };
    }

    Step image_embed()
    {
        auto model = network<nn::VisionTransformer>(c_.image);
        return [=, this, images = random({o_.batch, 3, 144, 144})]() mutable {
            const at::NoGradGuard no_grad;
            const train::Autocast autocast(o_.dtype, at::kCPU);
            model->forward_features(images);
        };
    }

    Step image_train()
    {
        auto student = network<nn::VisionTransformer>(c_.image),
             teacher = network<nn::VisionTransformer>(c_.image);
        auto heads = std::make_shared<DinoHeads>(c_.image.width, c_.dino);
        auto parameters = parameters_of(*student, "backbone.");
        for (auto& parameter : parameters_of(*heads->student(), "dino_head.")) {
            parameters.push_back(parameter);
        }
        auto optimizer = std::make_shared<train::AdamW>(parameters, train::AdamW::Betas{});
        return [=, this, global = random({2 * o_.batch, 3, 144, 144}),
                local = random({8 * o_.batch, 3, 60, 60})]() mutable {
            zero_gradients(parameters);
            at::Tensor loss;
            {
                const train::Autocast autocast(o_.dtype, at::kCPU);
                at::Tensor taught;
                {
                    const at::NoGradGuard no_grad;
                    taught = teacher->forward_features(global).cls;
                }
                loss = heads->loss(
                    {student->forward_features(global).cls, student->forward_features(local).cls, taught});
            }
            loss.backward();
            train::clip_gradients(parameters, 3.0);
            optimizer->step({1e-5, 1e-5, 0.01});
            heads->after_step(ranks_);
            train::ema(teacher->parameters(), student->parameters(), 0.99);
        };
    }

    Step heads_alone(bool plain)
    {
        return dino_heads(c_.image.width, c_.dino, o_.batch, o_.dtype, plain, ranks_);
    }

    std::vector<std::int64_t> ids() const
    {
        std::vector<std::int64_t> all(static_cast<std::size_t>(o_.batch));
        std::iota(all.begin(), all.end(), 0);
        return all;
    }

    // The two global and eight local crops of a batch, and the two views of MoCo.
    Step dino_views()
    {
        return [flux = random({o_.batch, 3, 152, 152}), numbers = ids()] {
            data::multi_crop(flux, numbers, 1, 0);
        };
    }
    Step moco_views()
    {
        const data::PhysicalViewConfig config;
        return [flux = random({o_.batch, 3, 152, 152}), numbers = ids(), config] {
            for (const auto view : {0, 1}) {
                data::physical_view(flux, numbers, 1, 0, view, config.augmentations, config);
            }
        };
    }

    Step moco_train()
    {
        const nn::ResNetConfig config{.layers = o_.size == "tiny" ? 18 : 50};
        auto query = network<nn::ResNet>(config), key = network<nn::ResNet>(config);
        auto parameters = parameters_of(*query);
        auto optimizer = std::make_shared<train::Sgd>(parameters, 0.9);
        auto queue = std::make_shared<ssl::MocoQueue>(128, 64 * o_.batch, 1);
        return [=, this, first = random({o_.batch, 3, 96, 96}),
                second = random({o_.batch, 3, 96, 96})]() mutable {
            zero_gradients(parameters);
            at::Tensor keys, loss;
            {
                const train::Autocast autocast(o_.dtype, at::kCPU);
                {
                    const at::NoGradGuard no_grad;
                    keys = ssl::unit_rows(key->forward(second).to(at::kFloat), 1e-12);
                }
                loss = ssl::moco_loss(query->forward(first).to(at::kFloat), keys, queue->keys(), 0.2);
            }
            loss.backward();
            optimizer->step({1e-3, 1e-3, 1e-4});
            queue->push(ranks_, keys);
            train::ema(key->parameters(), query->parameters(), 0.99);
        };
    }

    Step align(bool cached)
    {
        return alignment(scratch_.shared_path(world_), cached, {c_.image, c_.spectrum, c_.head}, o_.batch,
                         o_.dtype, world_, ranks_);
    }

    Step loss()
    {
        const auto own = o_.batch / ranks_.size();
        auto image = random({own, 1024}).requires_grad_(true),
             spectrum = random({own, 1024}).requires_grad_(true);
        return [=, this]() mutable {
            image.mutable_grad() = spectrum.mutable_grad() = at::Tensor();
            ssl::info_nce(ranks_, image, spectrum).backward();
        };
    }

    Options o_;
    Sizes c_;
    const comm::World& world_;
    comm::Communicator& ranks_;
    Scratch scratch_;
};

double resident_gib()
{
    struct rusage usage {};
    getrusage(RUSAGE_SELF, &usage);
    return static_cast<double>(usage.ru_maxrss) / (1024.0 * 1024.0);
}

void time_steps(const Options& o, int threads)
{
    // As stages do, but where the question is what the loss holds at once, which a heap with holes hides.
    if (o.step.front() != "loss") keep_freed_memory();
    at::set_num_threads(threads);
    const comm::World world(MPI_COMM_WORLD);
    const auto ranks = comm::make_mpi_communicator(world);
    Bench bench(o, world, *ranks);
    const auto step = bench.step(o.step.front());
    const auto start_rss = resident_gib();
    step();
    std::vector<double> times;
    for (int i = 0; i < o.steps; ++i) {
        const auto begun = seconds();
        step();
        times.push_back(seconds() - begun);
    }
    std::sort(times.begin(), times.end());
    const auto median = times[times.size() / 2];
    if (!world.is_root()) return;
    std::cout << nlohmann::json{{"step", o.step.front()},
                                {"ranks", world.size()},
                                {"batch", o.batch},
                                {"threads", threads},
                                {"dtype", o.dtype},
                                {"size", o.size},
                                {"median_s", median},
                                {"samples_per_s", static_cast<double>(o.batch) / median},
                                {"start_rss_gib", start_rss},
                                {"max_rss_gib", resident_gib()}}
              << std::endl;
}

void add_options(config::Options& options, Options& o)
{
    options.positional("STEP", o.step, step_names);
    options.section()
        .option("batch", o.batch, "samples a step; of spectrum-train, align and loss: over all ranks",
                config::at_least(1))
        .option("recompute-activations", o.recompute, "of spectrum-train")
        .option("steps", o.steps, "timed steps, after one to warm up", config::at_least(1))
        .option("dtype", o.dtype, "fp32 or bf16", config::one_of({"fp32", "bf16"}))
        .option("size", o.size, "of the networks: tiny or paper", config::one_of({"tiny", "paper"}));
    bind(options.section(), o.search);
}

}  // namespace
}  // namespace astroclip::bench

int main(int argc, char** argv)
{
    using namespace astroclip;
    const program::Description description{"bench", "time one step of training or embedding"};
    config::Options options(description.name);
    bench::Options o;
    bench::add_options(options, o);
    return program::run_ranks(argc, argv, description, options,
                              [&] { bench::time_steps(o, options.run().threads); });
}
