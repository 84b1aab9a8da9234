#include "train/checkpoint.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <regex>
#include <vector>

#include "core/error.hpp"
#include "core/fault_point.hpp"
#include "core/log.hpp"
#include "nn/weights.hpp"
#include "store/publication.hpp"

namespace astroclip::train {
namespace {

namespace fs = std::filesystem;

constexpr int format_version = 1;

TensorMap read_tensors(const std::string& path)
{
    const nn::WeightsFile file(path);
    TensorMap tensors;
    for (const auto& name : file.names()) {
        tensors[name] = file.tensor(name);
    }
    return tensors;
}

std::string best_name(std::size_t i) { return fmt::format("best-{}.safetensors", i + 1); }

// Steps of the checkpoint folders, complete or not, the newest first.
std::vector<std::int64_t> steps_in(const std::string& folder)
{
    static const std::regex pattern(R"(step-(\d{8,12}))");
    std::vector<std::int64_t> steps;
    if (!fs::is_directory(folder)) {
        return steps;
    }
    for (const auto& entry : fs::directory_iterator(folder)) {
        std::smatch match;
        const auto name = entry.path().filename().string();
        if (std::regex_match(name, match, pattern)) {
            steps.push_back(std::stoll(match[1]));
        }
    }
    std::sort(steps.rbegin(), steps.rend());
    return steps;
}

void remove_folder(const std::string& path)
{
    // Its commit goes first: a crash on the way leaves something incomplete, not something half-empty.
    std::error_code error;
    fs::remove(path + "/state.json", error);
    fs::remove_all(path, error);
    if (error) {
        throw IoError(path, "cannot be removed: " + error.message());
    }
}

nlohmann::json checked_state(const std::string& folder, const std::string& digest)
{
    auto state = store::read_json(folder + "/state.json");
    if (state.value("format_version", 0) != format_version ||
        state.value("configuration_digest", "") != digest) {
        throw DataError(folder, "was made by another version or with another configuration");
    }
    for (const auto& file : state.at("files")) {
        store::verify_file(folder, file, false);
    }
    return state;
}

}  // namespace

void publish_tensors(const std::string& path, const TensorMap& tensors,
                     const std::map<std::string, std::string>& metadata)
{
    nn::NamedTensors named;
    for (const auto& [name, tensor] : tensors) {
        named.emplace_back(name, tensor.detach().cpu().contiguous());
    }
    store::publish_file(path,
                        [&](const std::string& temporary) { nn::save_weights(temporary, named, metadata); });
}

Checkpoints::Checkpoints(const comm::World& world, std::string folder, std::string digest, int keep)
    : world_(world), folder_(std::move(folder)), digest_(std::move(digest)), keep_(keep)
{
}

std::string Checkpoints::path(std::int64_t step) const { return fmt::format("{}/step-{:08}", folder_, step); }

// Rank 0: the newest whole checkpoint, -1 if there is none.
std::int64_t Checkpoints::newest_step() const
{
    for (const auto step : steps_in(folder_)) {
        if (!fs::exists(path(step) + "/state.json")) {
            remove_folder(path(step));
            continue;
        }
        try {
            checked_state(path(step), digest_);
            return step;
        } catch (const std::exception& problem) {
            log::warn("checkpoint passed over: {}", problem.what());
        }
    }
    return -1;
}

std::optional<Checkpoint> Checkpoints::newest() const
{
    std::int64_t step = -1;
    world_.on_root([&] { step = newest_step(); });
    step = std::stoll(world_.broadcast(std::to_string(step)));
    if (step < 0) {
        return std::nullopt;
    }
    Checkpoint checkpoint;
    checkpoint.step = step;
    world_.together([&] {
        checkpoint.model = read_tensors(path(step) + "/model.safetensors");
        checkpoint.optimizer = read_tensors(path(step) + "/optimizer.safetensors");
        checkpoint.state = store::read_json(path(step) + "/state.json").at("trainer");
        for (std::size_t i = 0; world_.is_root() && fs::exists(path(step) + "/" + best_name(i)); ++i) {
            checkpoint.best.push_back(read_tensors(path(step) + "/" + best_name(i)));
        }
    });
    return checkpoint;
}

void Checkpoints::save(const Checkpoint& checkpoint) const
{
    world_.on_root([&] {
        write(checkpoint);
        remove_old();
    });
}

void Checkpoints::write(const Checkpoint& checkpoint) const
{
    const auto folder = path(checkpoint.step);
    fault_point("checkpoint.before-write");
    if (fs::exists(folder)) {
        remove_folder(folder);  // damaged, or we would have started from it
    }
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) {
        throw IoError(folder, "cannot be made: " + error.message());
    }
    std::vector<std::string> names{"model.safetensors", "optimizer.safetensors"};
    publish_tensors(folder + "/model.safetensors", checkpoint.model);
    publish_tensors(folder + "/optimizer.safetensors", checkpoint.optimizer);
    for (std::size_t i = 0; i < checkpoint.best.size(); ++i) {
        names.push_back(best_name(i));
        publish_tensors(folder + "/" + best_name(i), checkpoint.best[i]);
    }
    nlohmann::json state = {{"format_version", format_version}, {"step", checkpoint.step},
                            {"configuration_digest", digest_},  {"trainer", checkpoint.state},
                            {"run", store::run_facts(world_)},  {"files", nlohmann::json::array()}};
    for (const auto& name : names) {
        state["files"].push_back(store::file_entry(folder, name));
    }
    fault_point("checkpoint.before-manifest");
    store::publish_text(folder + "/state.json", state.dump(1) + "\n");
    fault_point("checkpoint.after-manifest");
}

void Checkpoints::remove_old() const
{
    const auto steps = steps_in(folder_);
    for (std::size_t i = static_cast<std::size_t>(keep_); i < steps.size(); ++i) {
        remove_folder(path(steps[i]));
    }
}

}  // namespace astroclip::train
