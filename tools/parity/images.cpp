#include <ATen/ATen.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "core/random.hpp"
#include "data/block_masks.hpp"
#include "data/image_augmentation.hpp"
#include "nn/resnet.hpp"
#include "ssl/info_nce.hpp"
#include "tools/parity/case.hpp"

namespace astroclip::parity {

namespace {

// A pass in one mode ("eval" or "train"): its outputs, the statistics of its stages, its gradients.
void run_resnet_pass(const Case& reference, const std::string& name, const std::string& mode,
                     nn::ResNet model, Report& report)
{
    const auto out = [&](const std::string& tensor) { return name + "/out/" + mode + "." + tensor; };
    const auto compare_stage = [&](const std::string& stage, const at::Tensor& x) {
        const std::vector<std::int64_t> pixels{2, 3};
        report.compare_if_there(out(stage + ".channel_mean"), x.mean(pixels));
        report.compare_if_there(out(stage + ".channel_mean_square"), x.square().mean(pixels));
    };
    auto x = model->stem(reference.tensor("resnet/in/image"));
    compare_stage("maxpool", x);
    for (int number = 0; number < nn::ResNetImpl::stages; ++number) {
        x = model->stage(number, x);
        compare_stage("layer" + std::to_string(number + 1), x);
    }
    const auto features = x.mean(at::IntArrayRef({2, 3}));
    const auto projection = model->project(features);
    report.compare_if_there(out("representation"), features);
    report.compare_if_there(out("projection"), projection);
    const auto scalar = (ssl::unit_rows(projection, 1e-12) * reference.tensor("resnet/in/weight")).sum();
    report.compare_if_there(out("scalar"), scalar);

    model->zero_grad();
    scalar.backward();
    // Early gradients pass many kinks of ReLU, at which rounding makes them jump.
    const auto loose = reference.number("/suggested_tolerance/tol_early_gradients"_json_pointer);
    double square = 0;
    for (const auto& item : model->named_parameters()) {
        const auto& gradient = item.value().grad();
        const auto norm = gradient.norm();
        square += norm.square().item<double>();
        const auto full = name + "/grad/" + mode + "." + item.key();
        const bool early = item.key().starts_with("conv1.") || item.key().starts_with("bn1.") ||
                           item.key().starts_with("layer3.0.bn1.");
        if (reference.has(full) && early) {
            report.compare_l2(full, gradient, loose);
        } else {
            report.compare_if_there(full, gradient);
        }
        const auto its_norm = out("grad_norm." + item.key());
        if (reference.has(its_norm)) report.compare_l2(its_norm, norm, loose);
    }
    if (reference.has(out("grad_norm_all"))) {
        report.compare_l2(out("grad_norm_all"), at::scalar_tensor(std::sqrt(square), at::kDouble), loose);
    }
}

// What is allowed between two measurements of a frequency among n: 5 standard errors of their difference.
at::Tensor frequency_error(const at::Tensor& frequency, double n)
{
    return 5 * std::sqrt(2.0) * (frequency * (1 - frequency)).clamp_min(1 / n).div(n).sqrt();
}

void compare_group_masks(const Case& reference, const std::string& name, Report& report)
{
    const auto number = [&](const char* key) {
        return std::int64_t(reference.number(nlohmann::json::json_pointer("/config") / key));
    };
    const auto grid = number("grid"), images = number("batch"), batches = number("batches");
    std::vector<std::int64_t> ids(std::size_t(images * batches));
    std::iota(ids.begin(), ids.end(), 0);
    const auto masks = data::block_masks(ids, images, 2, grid, std::uint64_t(number("seed")), 0);
    const auto counts = masks.sum(1);
    const auto masked = counts.nonzero().squeeze(1);
    const auto n = masked.size(0);
    report.require(n == batches * images, "masked crops: half of all");

    const auto patches = grid * grid;
    const auto histogram =
        counts.index_select(0, masked).bincount({}, patches + 1).to(at::kDouble) / double(n);
    const auto position = masks.sum(0).to(at::kDouble) / double(n);
    report.compare_within(name + "/out/count_histogram", histogram, frequency_error(histogram, double(n)));
    report.compare_within(name + "/out/position_probability", position, frequency_error(position, double(n)));
}

// Means and standard deviations of the counts that single masks reach, each with its standard error.
void compare_reached_targets(const Case& reference, const std::string& name, Report& report)
{
    const auto targets = reference.description().at("config").at("targets").get<std::vector<std::int64_t>>();
    const auto draws = std::int64_t(reference.number("/config/per_target"_json_pointer));
    const auto grid = std::int64_t(reference.number("/config/grid"_json_pointer));
    std::vector<at::Tensor> reached, errors;
    for (const auto target : targets) {
        const auto counts = at::empty({draws}, at::kDouble);
        for (std::int64_t draw = 0; draw < draws; ++draw) {
            Random random(1, "parity", std::uint32_t(target), std::uint64_t(draw));
            counts[draw] = data::block_mask(random, grid, target).sum().item<double>();
        }
        const auto mean = counts.mean(), variance = (counts - mean).square().mean();
        const auto fourth = (counts - mean).square().square().mean();
        reached.push_back(at::stack({mean, variance.sqrt()}));
        const auto of_mean = variance / draws;
        const auto of_deviation = (fourth - variance.square()) / (4 * variance * draws);
        errors.push_back(5 * at::stack({of_mean, of_deviation}).mul(2).sqrt());
    }
    report.compare_within(name + "/out/per_target_mean_std", at::stack(reached), at::stack(errors));
}

// One crop of the multi-crop transform from the draws that the case stores.
at::Tensor dino_crop(const Case& reference, const std::string& name, std::int64_t crop, std::int64_t size)
{
    const auto geometry = reference.indices(name + "/in/geometry")[crop];
    const auto draw = [&](std::int64_t column) { return geometry[column].view({1}); };
    const auto sigmas = reference.tensor(name + "/in/sigmas")[crop].unsqueeze(1);  // [4, 1, 3]
    const data::CropDraws draws{
        .top = draw(0), .left = draw(1), .flip_rows = draw(3), .flip_columns = draw(2)};
    auto image = data::crop_and_flip(reference.tensor(name + "/in/image_chw").unsqueeze(0), draws, size);
    if (draw(4).item<bool>()) image = data::gaussian_blur(image, data::added_sigma(sigmas[0], sigmas[1]));
    if (draw(5).item<bool>()) {
        const auto normals = reference.tensor(name + "/in/unit_normals_" + std::to_string(crop));
        image = data::add_noise(image, data::added_sigma(sigmas[2], sigmas[3]), normals.unsqueeze(0));
    }
    return data::to_rgb(image);
}

at::Tensor channels_first(const at::Tensor& image)
{
    return image.permute({2, 0, 1}).unsqueeze(0).contiguous();
}
at::Tensor channels_last(const at::Tensor& image) { return image.squeeze(0).permute({1, 2, 0}); }

void run_extinction(const Case& reference, const std::string& name, Report& report)
{
    const auto image = channels_first(reference.tensor(name + "/in/image_hwc"));
    const auto before = reference.tensor(name + "/in/ebv_old").view({1});
    const auto after = reference.tensor(name + "/in/ebv_new").view({1});
    report.compare_if_there(name + "/out/transmission", data::transmission(at::cat({before, after}), 5));
    report.compare_if_there(name + "/out/image_rereddened",
                            channels_last(data::redden(image, before, after)));
    report.compare_if_there(name + "/out/image_dereddened",
                            channels_last(data::redden(image, before, at::zeros({1}))));
}

void run_rotation(const Case& reference, const std::string& name, Report& report)
{
    const auto image = channels_first(reference.tensor(name + "/in/image_hwc"));
    const auto flips = reference.indices(name + "/in/flips");
    const auto corner = at::zeros({1}, at::kLong);
    const data::CropDraws draws{.top = corner,
                                .left = corner,
                                .flip_rows = flips.narrow(0, 0, 1),
                                .flip_columns = flips.narrow(0, 1, 1)};
    const auto flipped = data::crop_and_flip(image, draws, image.size(2));
    const auto rotated = data::rotate(flipped, reference.tensor(name + "/in/turn").view({1}));
    report.compare_l2(name + "/out/image", channels_last(rotated),
                      reference.number("/suggested_tolerance/tol_resample"_json_pointer));
}

void run_jitter_crop(const Case& reference, const std::string& name, Report& report)
{
    const auto image = channels_first(reference.tensor(name + "/in/image_hwc"));
    const auto shift = reference.indices(name + "/in/shift");
    const auto size = reference.file().shape(name + "/out/image")[0];
    const auto corner = (image.size(2) - size) / 2 + shift, unflipped = at::zeros({1}, at::kLong);
    const data::CropDraws draws{.top = corner.narrow(0, 0, 1),
                                .left = corner.narrow(0, 1, 1),
                                .flip_rows = unflipped,
                                .flip_columns = unflipped};
    report.compare(name + "/out/image", channels_last(data::crop_and_flip(image, draws, size)));
}

void run_size_scale(const Case& reference, const std::string& name, Report& report)
{
    const auto image = channels_first(reference.tensor(name + "/in/image_hwc"));
    const auto scales = reference.tensor(name + "/in/scales");
    const auto tolerance = reference.number("/suggested_tolerance/tol_resample"_json_pointer);
    for (std::int64_t i = 0; i < scales.size(0); ++i) {
        const auto both = scales.narrow(0, i, 1), rows_alone = at::ones({1});
        const auto compare = [&](const std::string& kind, const at::Tensor& columns) {
            const auto output = name + "/out/" + kind + "_" + std::to_string(i);
            const auto shape = reference.file().shape(output);
            const auto ours = data::rescale(image, at::stack({both, columns}, 1), {shape[0], shape[1]});
            report.compare_l2(output, channels_last(ours), tolerance);
        };
        compare("isotropic", both);
        compare("published", rows_alone);
    }
}

void run_multi_crop(const Case& reference, const std::string& name, Report& report)
{
    const auto compare = [&](const std::string& output, std::int64_t first) {
        const auto shape = reference.file().shape(name + "/out/" + output);
        std::vector<at::Tensor> crops;
        for (std::int64_t i = 0; i < shape[0]; ++i) {
            crops.push_back(dino_crop(reference, name, first + i, shape[2]));
        }
        report.compare(name + "/out/" + output, at::cat(crops));
    };
    compare("global_crops", 0);
    compare("local_crops", reference.file().shape(name + "/out/global_crops")[0]);
}

}  // namespace

void run_resnet(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"out/eval.projection"})) {
        nn::ResNet model(nn::ResNetConfig{.layers = name == "resnet18" ? 18 : 50});
        fill_by_formula(*model, std::uint64_t(reference.number("/config/salt"_json_pointer)),
                        reference.number("/config/gain"_json_pointer));
        model->eval();
        run_resnet_pass(reference, name, "eval", model, report);
        model->train();
        run_resnet_pass(reference, name, "train", model, report);
        for (const auto& [key, tensor] : nn::published_state(*model)) {
            report.compare_if_there(name + "/out/train.after." + key, tensor);
        }
    }
}

void run_mask_statistics(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"out/count_histogram", "out/per_target_mean_std"})) {
        compare_group_masks(reference, name, report);
        compare_reached_targets(reference, name, report);
    }
}

void run_image_augment(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"in/image_chw", "in/sigma_true", "in/sigma_final"})) {
        const auto image = reference.tensor(name + "/in/image_chw").unsqueeze(0);
        const auto sigma = data::added_sigma(reference.tensor(name + "/in/sigma_true"),
                                             reference.tensor(name + "/in/sigma_final"));
        report.compare_if_there(name + "/out/sigma_augment", sigma);
        const auto normals = name + "/in/unit_normals";
        const auto ours = reference.has(normals)
                              ? data::add_noise(image, sigma.unsqueeze(0), reference.tensor(normals))
                              : data::gaussian_blur(image, sigma.unsqueeze(0));
        report.compare_if_there(name + "/out/image", ours.squeeze(0));
    }
    for (const auto& name : reference.cases_with({"in/image_hwc", "in/ebv_old", "in/ebv_new"})) {
        run_extinction(reference, name, report);
    }
    for (const auto& name : reference.cases_with({"in/image_hwc", "in/flips", "in/turn"})) {
        run_rotation(reference, name, report);
    }
    for (const auto& name : reference.cases_with({"in/image_hwc", "in/shift", "out/image"})) {
        run_jitter_crop(reference, name, report);
    }
    for (const auto& name : reference.cases_with({"in/image_hwc", "in/scales"})) {
        run_size_scale(reference, name, report);
    }
    for (const auto& name : reference.cases_with({"in/geometry", "in/sigmas", "out/global_crops"})) {
        run_multi_crop(reference, name, report);
    }
}

}  // namespace astroclip::parity
