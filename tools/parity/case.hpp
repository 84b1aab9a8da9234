#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "data/spectrum_tokens.hpp"
#include "nn/encoder.hpp"
#include "nn/weights.hpp"

namespace astroclip::parity {

// A reference file: tensors CASE/KIND/NAME (kind: in, state, out or grad) that the published code took and
// gave, and a JSON of the same name beside it that describes them.
class Case {
public:
    explicit Case(const std::string& path);

    const nn::WeightsFile& file() const { return file_; }
    const nlohmann::json& description() const { return description_; }
    bool has(const std::string& name) const { return file_.has(name); }
    at::Tensor tensor(const std::string& name) const { return file_.tensor(name); }
    at::Tensor indices(const std::string& name) const;  // int64

    // The cases that have all of these tensors, as "CASE": cases_with({"in/spectrum"}).
    std::vector<std::string> cases_with(const std::vector<std::string>& tensors) const;
    // Names after `start`: names_after("main/grad/").
    std::vector<std::string> names_after(const std::string& start) const;
    // A number of the description; DataError naming the JSON if it is not there.
    double number(const nlohmann::json::json_pointer& where) const;
    double number(const nlohmann::json::json_pointer& where, double otherwise) const;

private:
    nn::WeightsFile file_;
    std::string json_path_;
    nlohmann::json description_;
};

// How close a tensor must come: |a - b| <= limit·max|b| (per_tensor), limit·|b|
// (elementwise) or limit (absolute).
struct Tolerance {
    enum class Rule { per_tensor, elementwise, absolute };
    Rule rule = Rule::per_tensor;
    double limit = 1e-4;
};

// Compares ours with the reference and prints one line a tensor: largest absolute and relative difference.
class Report {
public:
    Report(const Case& reference, Tolerance tolerance) : case_(reference), tolerance_(tolerance) {}

    void compare(const std::string& name, const at::Tensor& ours);
    // By the L2 norm of the difference: at most limit·|reference|.
    void compare_l2(const std::string& name, const at::Tensor& ours, double limit);
    // Measured frequencies and moments: no element may differ by more than its own allowance.
    void compare_within(const std::string& name, const at::Tensor& ours, const at::Tensor& allowed);
    // Compares only if the file has that tensor.
    void compare_if_there(const std::string& name, const at::Tensor& ours);
    // The gradients CASE/grad/NAME of a module's parameters, with `prefix` before the module's own names.
    void compare_gradients(const std::string& name, const torch::nn::Module& module,
                           const std::string& prefix = "");
    // Rows of a ranking: they may differ where the scores say that two rows are equal.
    void compare_ranking(const std::string& name, const at::Tensor& ours, const at::Tensor& our_scores,
                         const at::Tensor& scores);
    // A statement about the file as a whole (the names of all parameters, say).
    void require(bool holds, const std::string& statement);
    // Lists what was not compared; returns whether all that was compared agreed.
    bool finish() const;

private:
    void line(const std::string& name, double absolute, double relative, bool good);

    const Case& case_;
    Tolerance tolerance_;
    std::vector<std::string> compared_;
    int failures_ = 0;
};

// What a file is about. `run` compares all that our modules cover; kinds whose modules are
// not written have none.
struct Kind {
    const char* name;
    bool (*recognises)(const Case&);
    void (*run)(const Case&, Report&, const comm::World&);
    Tolerance tolerance{};
};
const Kind* kind_of(const Case& reference);

// networks.cpp
void run_specformer(const Case& reference, Report& report, const comm::World& world);
void run_vit(const Case& reference, Report& report, const comm::World& world);
void run_dino_head(const Case& reference, Report& report, const comm::World& world);
nn::SpecFormerConfig specformer_config(const Case& reference, const std::string& json_key);
data::SpectrumTokensConfig token_config(const Case& reference, const std::string& json_key);
nn::ViTConfig vit_config(const Case& reference, const std::string& json_key);

// alignment.cpp
void run_heads(const Case& reference, Report& report, const comm::World& world);
void run_fullsize(const Case& reference, Report& report, const comm::World& world);
void run_clip_loss(const Case& reference, Report& report, const comm::World& world);
// Gives every tensor of a module the values of the formula that a description spells out (constants.weights).
void fill_by_formula(torch::nn::Module& module, std::uint64_t salt, double gain);

// pipeline.cpp
void run_image_rgb(const Case& reference, Report& report, const comm::World& world);
void run_scheduler(const Case& reference, Report& report, const comm::World& world);
void run_dino_schedules(const Case& reference, Report& report, const comm::World& world);
void run_downstream(const Case& reference, Report& report, const comm::World& world);

// pretraining.cpp
void run_dino_losses(const Case& reference, Report& report, const comm::World& world);
void run_dino_step(const Case& reference, Report& report, const comm::World& world);
void run_moco(const Case& reference, Report& report, const comm::World& world);

// images.cpp
void run_resnet(const Case& reference, Report& report, const comm::World& world);
void run_mask_statistics(const Case& reference, Report& report, const comm::World& world);
void run_image_augment(const Case& reference, Report& report, const comm::World& world);

}  // namespace astroclip::parity
