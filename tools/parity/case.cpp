#include "tools/parity/case.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "core/error.hpp"

namespace astroclip::parity {

namespace {

bool any_name(const Case& reference, const std::string& part)
{
    const auto& names = reference.file().names();
    return std::any_of(names.begin(), names.end(),
                       [&](const auto& name) { return name.find(part) != name.npos; });
}

nlohmann::json read_description(const std::string& path)
{
    std::ifstream file(path);
    if (!file) throw MissingInput(path, "no such file (the description of the tensors)");
    const auto description = nlohmann::json::parse(file, nullptr, false);
    if (!description.is_object()) throw DataError(path, "is not a JSON object");
    return description;
}

}  // namespace

Case::Case(const std::string& path)
    : file_(path),
      json_path_(std::filesystem::path(path).replace_extension(".json").string()),
      description_(read_description(json_path_))
{
}

at::Tensor Case::indices(const std::string& name) const { return tensor(name).to(at::kLong); }

std::vector<std::string> Case::cases_with(const std::vector<std::string>& tensors) const
{
    std::set<std::string> cases;
    for (const auto& name : file_.names()) {
        const auto start = name.substr(0, name.find('/'));
        if (std::all_of(tensors.begin(), tensors.end(),
                        [&](const auto& t) { return has(start + "/" + t); })) {
            cases.insert(start);
        }
    }
    return {cases.begin(), cases.end()};
}

std::vector<std::string> Case::names_after(const std::string& start) const
{
    std::vector<std::string> rest;
    for (const auto& name : file_.names()) {
        if (name.starts_with(start)) rest.push_back(name.substr(start.size()));
    }
    return rest;
}

double Case::number(const nlohmann::json::json_pointer& where) const
{
    if (!description_.contains(where) || !description_[where].is_number()) {
        throw DataError(json_path_, "has no number " + where.to_string());
    }
    return description_[where].get<double>();
}

double Case::number(const nlohmann::json::json_pointer& where, double otherwise) const
{
    return description_.contains(where) ? number(where) : otherwise;
}

void Report::line(const std::string& name, double absolute, double relative, bool good)
{
    fmt::print("  {:6} {:<72} abs {:.2e}  rel {:.2e}\n", good ? "ok" : "DIFFER", name, absolute, relative);
    failures_ += good ? 0 : 1;
}

void Report::compare(const std::string& name, const at::Tensor& ours)
{
    compared_.push_back(name);
    const auto b = case_.tensor(name).to(at::kDouble);
    if (ours.sizes() != b.sizes()) {
        fmt::print("  DIFFER {:<72} shape [{}], reference [{}]\n", name, fmt::join(ours.sizes(), ", "),
                   fmt::join(b.sizes(), ", "));
        ++failures_;
        return;
    }
    if (b.numel() == 0) return line(name, 0, 0, true);
    const auto difference = (ours.detach().to(at::kDouble) - b).abs();
    const double absolute = difference.max().item<double>(), largest = b.abs().max().item<double>();
    switch (tolerance_.rule) {
        case Tolerance::Rule::per_tensor:
            return line(name, absolute, absolute / std::max(largest, 1e-30),
                        absolute <= std::max(tolerance_.limit * largest, 1e-9));
        case Tolerance::Rule::elementwise: {
            const double relative = (difference / b.abs().clamp_min(1e-10)).max().item<double>();
            return line(name, absolute, relative, relative <= tolerance_.limit);
        }
        case Tolerance::Rule::absolute:
            return line(name, absolute, absolute / std::max(largest, 1e-30), absolute <= tolerance_.limit);
    }
}

void Report::compare_l2(const std::string& name, const at::Tensor& ours, double limit)
{
    compared_.push_back(name);
    const auto reference = case_.tensor(name).to(at::kDouble);
    const auto absolute = (ours.detach().to(at::kDouble) - reference).norm().item<double>();
    const auto length = reference.norm().item<double>();
    line(name, absolute, absolute / std::max(length, 1e-30), absolute <= limit * length);
}

void Report::compare_within(const std::string& name, const at::Tensor& ours, const at::Tensor& allowed)
{
    compared_.push_back(name);
    const auto difference = (ours - case_.tensor(name).to(at::kDouble)).abs();
    const auto share = (difference / allowed).max().item<double>();
    line(name, difference.max().item<double>(), share, share <= 1);
}

void Report::compare_if_there(const std::string& name, const at::Tensor& ours)
{
    if (case_.has(name)) compare(name, ours);
}

void Report::compare_gradients(const std::string& name, const torch::nn::Module& module,
                               const std::string& prefix)
{
    const auto parameters = module.named_parameters();
    for (const auto& item : parameters) {
        const auto full = name + "/grad/" + prefix + item.key();
        if (!case_.has(full)) continue;
        const auto& gradient = item.value().grad();
        compare(full, gradient.defined() ? gradient : at::zeros_like(item.value()));
    }
}

void Report::compare_ranking(const std::string& name, const at::Tensor& ours, const at::Tensor& our_scores,
                             const at::Tensor& scores)
{
    compared_.push_back(name);
    const auto other = ours.ne(case_.indices(name));
    const auto tied = (our_scores - scores).abs().le(1e-6);
    const auto wrong = other.logical_and(tied.logical_not()).sum().item<double>();
    line(name, wrong, wrong / double(ours.numel()), wrong == 0);
}

void Report::require(bool holds, const std::string& statement)
{
    fmt::print("  {:6} {}\n", holds ? "ok" : "DIFFER", statement);
    failures_ += holds ? 0 : 1;
}

bool Report::finish() const
{
    const std::set<std::string> done(compared_.begin(), compared_.end());
    std::vector<std::string> left;
    for (const auto& name : case_.file().names()) {
        const bool result = name.find("/out/") != name.npos || name.find("/grad/") != name.npos;
        if (result && done.count(name) == 0) left.push_back(name);
    }
    if (!left.empty())
        fmt::print("  not compared, no module of ours makes them: {}\n", fmt::join(left, ", "));
    fmt::print("  {} tensors compared, {} differ, {} not compared\n", done.size(), failures_, left.size());
    return failures_ == 0 && !done.empty();
}

const Kind* kind_of(const Case& reference)
{
    // Recognised by what is in a file, not by its name; the first that fits counts.
    using C = const Case&;
    static const Kind kinds[] = {
        {"fullsize", [](C c) { return c.description().contains("state") && any_name(c, "/in/spectrum"); },
         run_fullsize},
        {"astroclip_heads", [](C c) { return any_name(c, "/state/spectrum_encoder."); }, run_heads},
        {"specformer", [](C c) { return any_name(c, "/state/data_embed.weight"); }, run_specformer},
        {"dino_step", [](C c) { return any_name(c, "/in/global_crops") && any_name(c, "loss"); },
         run_dino_step},
        {"vit", [](C c) { return any_name(c, "/state/patch_embed.proj.weight"); }, run_vit},
        {"dino_head", [](C c) { return any_name(c, "/state/last_layer.weight_v"); }, run_dino_head},
        {"clip_loss", [](C c) { return any_name(c, "/in/image_features"); }, run_clip_loss},
        {"image_augment",
         [](C c) { return any_name(c, "/in/sigma_true") || any_name(c, "/in/flips"); },
         run_image_augment,
         {Tolerance::Rule::per_tensor, 2e-5}},
        {"image_rgb",
         [](C c) {
             return any_name(c, "/out/rgb_hwc") || any_name(c, "/out/dr2_rgb") ||
                    !c.cases_with({"in/image_hwc", "out/image"}).empty();
         },
         run_image_rgb,
         {Tolerance::Rule::absolute, 1e-5}},
        {"astroclip_scheduler",
         [](C c) { return c.description().contains("/config/cases"_json_pointer) && any_name(c, "/out/lr"); },
         run_scheduler,
         {Tolerance::Rule::elementwise, 1e-5}},
        {"dino_schedules",
         [](C c) { return any_name(c, "/out/teacher_temp") && any_name(c, "/in/iteration"); },
         run_dino_schedules,
         {Tolerance::Rule::elementwise, 1e-5}},
        {"downstream", [](C c) { return any_name(c, "/in/x_train") || any_name(c, "/in/image_embeddings"); },
         run_downstream},
        {"dino_losses", [](C c) { return any_name(c, "/out/sinkhorn"); }, run_dino_losses},
        {"moco", [](C c) { return any_name(c, "/state/queue"); }, run_moco},
        {"resnet", [](C c) { return any_name(c, "/out/eval.projection"); }, run_resnet},
        {"mask_statistics", [](C c) { return any_name(c, "/out/count_histogram"); }, run_mask_statistics},
    };
    for (const auto& kind : kinds) {
        if (kind.recognises(reference)) return &kind;
    }
    return nullptr;
}

}  // namespace astroclip::parity
