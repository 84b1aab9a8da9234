#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <span>

#include "catalogue/metrics.hpp"
#include "catalogue/morphology.hpp"
#include "catalogue/neighbours.hpp"
#include "catalogue/regression.hpp"
#include "catalogue/small_network.hpp"
#include "comm/communicator.hpp"
#include "core/error.hpp"
#include "data/image_augmentation.hpp"
#include "ssl/info_nce.hpp"
#include "tools/parity/case.hpp"
#include "train/schedule.hpp"

namespace astroclip::parity {

namespace {

// The paired data set stores images as [width, height, band]; its collator turns them to [band, height,
// width].
at::Tensor collated(const at::Tensor& stored, std::int64_t crop)
{
    return data::centre_crop(data::to_rgb(stored.permute({2, 1, 0}).contiguous()), crop);
}

at::Tensor r2_by_column(const at::Tensor& truth, const at::Tensor& predicted)
{
    std::vector<double> values;
    for (std::int64_t column = 0; column < truth.size(1); ++column) {
        const auto y = truth.select(1, column).to(at::kDouble).contiguous();
        const auto p = predicted.select(1, column).to(at::kDouble).contiguous();
        const auto n = static_cast<std::size_t>(y.numel());
        values.push_back(
            catalogue::r2(std::span(y.data_ptr<double>(), n), std::span(p.data_ptr<double>(), n)));
    }
    return at::tensor(values, at::kDouble);
}

// value(step) for each of the steps [n] -> [n] float64
template <typename Value>
at::Tensor by_step(const at::Tensor& steps, const Value& value)
{
    auto values = at::empty(steps.sizes(), at::kDouble);
    for (std::int64_t i = 0; i < steps.numel(); ++i) {
        values.data_ptr<double>()[i] = value(steps.data_ptr<std::int64_t>()[i]);
    }
    return values;
}

void run_knn(const Case& reference, const std::string& name, Report& report, const comm::World& world)
{
    const auto in = [&](const char* tensor) { return reference.tensor(name + "/in/" + tensor); };
    const auto out = [&](const char* tensor) { return name + "/out/" + tensor; };
    const auto x = in("x_train"), y = in("y_train"), query = in("x_test"), truth = in("y_test");

    const auto features = catalogue::ColumnScale::of(x);
    const auto targets = catalogue::ColumnScale::of(y);
    report.compare_if_there(out("x_train_scaled"), features.standardise(x));
    report.compare_if_there(out("x_test_scaled"), features.standardise(query));
    report.compare_if_there(out("y_mean"), targets.mean);
    report.compare_if_there(out("y_std"), targets.std);

    const auto predicted = catalogue::knn_regression(world, x, y, query).predicted;
    report.compare_if_there(out("prediction"), predicted);
    report.compare_if_there(out("r2"), r2_by_column(truth, predicted));

    catalogue::KnnConfig raw;
    raw.standardise = false;
    const auto single = catalogue::knn_regression(world, x, y.narrow(1, 0, 1), query, raw).predicted;
    report.compare_if_there(out("prediction_unscaled_single"), single.reshape({-1}));
    report.compare_if_there(out("r2_unscaled_single"),
                            r2_by_column(truth.narrow(1, 0, 1), single).squeeze(0));
}

void run_search(const Case& reference, const std::string& name, Report& report, const comm::World& world)
{
    const auto ranks = comm::make_mpi_communicator(world);
    const auto rows = reference.indices(name + "/in/query");
    const auto unit = [&](const std::string& modality) {
        return ssl::unit_rows(reference.tensor(name + "/in/" + modality + "_embeddings"), 1e-12);
    };
    for (const std::string from : {"image", "spectrum"}) {
        for (const std::string to : {"image", "spectrum"}) {
            const auto mode = name + "/out/" + from + "_" + to;
            if (!reference.has(mode + ".index")) continue;
            const auto k = reference.file().shape(mode + ".index").at(1);
            const auto found = catalogue::nearest(*ranks, catalogue::CatalogueShard::of(unit(to)),
                                                  unit(from).index_select(0, rows), k);
            report.compare_ranking(mode + ".index", found.row, found.score,
                                   reference.tensor(mode + ".cosine"));
            report.compare(mode + ".cosine", found.score);
        }
    }
}

// A small network with the weights of a case: linear layers in every third place of a stack, with an
// activation and dropout between them.
class SmallNetwork {
public:
    SmallNetwork(const Case& reference, const std::string& name, const std::string& stack)
        : name_(name), network_(widths(reference, name + "/state/" + stack), 0.0, 0)
    {
        const at::NoGradGuard no_grad;
        const auto parameters = network_.parameters();
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            names_.push_back(fmt::format("{}{}.{}", stack, 3 * (i / 2), i % 2 == 0 ? "weight" : "bias"));
            parameters[i].tensor.copy_(reference.tensor(name + "/state/" + names_.back()));
        }
    }

    at::Tensor operator()(const at::Tensor& x) const { return network_(x); }

    // Of the loss after its backward pass.
    void compare_gradients(Report& report) const
    {
        const auto parameters = network_.parameters();
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            report.compare(name_ + "/grad/" + names_[i], parameters[i].tensor.grad());
        }
    }

private:
    static std::vector<std::int64_t> widths(const Case& reference, const std::string& stack)
    {
        std::vector<std::int64_t> all;
        for (int layer = 0; reference.has(fmt::format("{}{}.weight", stack, layer)); layer += 3) {
            const auto shape = reference.file().shape(fmt::format("{}{}.weight", stack, layer));
            if (all.empty()) all.push_back(shape.at(1));
            all.push_back(shape.at(0));
        }
        return all;
    }

    std::string name_;
    catalogue::SmallNetwork network_;
    std::vector<std::string> names_;
};

void run_few_shot(const Case& reference, const std::string& name, Report& report)
{
    const SmallNetwork network(reference, name, "");
    const auto predicted = network(reference.tensor(name + "/in/x"));
    report.compare(name + "/out/prediction", predicted);
    const auto loss = at::mse_loss(predicted, reference.tensor(name + "/in/y"));
    report.compare(name + "/out/loss", loss);
    loss.backward();
    network.compare_gradients(report);
}

void run_morphology(const Case& reference, const std::string& name, Report& report)
{
    const SmallNetwork network(reference, name, "layers.");
    const auto shares = reference.tensor(name + "/in/vote_fractions");
    const auto logits = network(reference.tensor(name + "/in/x"));
    report.compare(name + "/out/probabilities", logits.softmax(1));
    const auto loss = catalogue::share_loss(logits, shares, true);
    report.compare(name + "/out/loss", loss);
    loss.backward();
    network.compare_gradients(report);
    const auto scores = catalogue::morphology_scores(shares, logits.detach().softmax(1));
    report.compare(name + "/out/accuracy", at::scalar_tensor(scores.accuracy, at::kDouble));
    report.compare(name + "/out/f1_weighted", at::scalar_tensor(scores.f1, at::kDouble));
}

}  // namespace

void run_image_rgb(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"in/image_chw"})) {
        const auto flux = reference.tensor(name + "/in/image_chw");
        const auto channels_last = [](const at::Tensor& image) { return image.permute({1, 2, 0}); };
        report.compare_if_there(name + "/out/rgb_hwc", channels_last(data::to_rgb(flux)));
        report.compare_if_there(name + "/out/dr2_rgb", channels_last(data::to_rgb(flux)));
        report.compare_if_there(name + "/out/augmentation_torgb",
                                data::to_rgb(flux, data::Rgb::stein).permute({2, 1, 0}));
        // The collator's case has no input of its own: it is the transpose of this image.
        if (!reference.has(name + "/out/rgb_hwc")) continue;
        for (const auto& other : reference.cases_with({"out/image"})) {
            if (reference.has(other + "/in/image_hwc")) continue;
            const auto crop = reference.file().shape(other + "/out/image").at(2);
            report.compare(other + "/out/image", collated(flux.permute({2, 1, 0}), crop));
        }
    }
    for (const auto& name : reference.cases_with({"in/image_hwc", "out/image"})) {
        const auto crop = reference.file().shape(name + "/out/image").at(2);
        report.compare(name + "/out/image", collated(reference.tensor(name + "/in/image_hwc"), crop));
    }
}

void run_scheduler(const Case& reference, Report& report, const comm::World&)
{
    for (const auto& name : reference.cases_with({"in/step", "out/lr"})) {
        const auto number = [&](const char* key) {
            return reference.number(nlohmann::json::json_pointer("/config/cases/" + name + "/" + key));
        };
        train::WarmupCosine schedule;
        schedule.learning_rate = number("lr");
        schedule.warmup_steps = std::int64_t(number("T_warmup"));
        schedule.total_steps = std::int64_t(number("T_max"));
        schedule.eta_min = number("eta_min");
        const auto value = [&](std::int64_t step) { return schedule.at(step); };
        report.compare(name + "/out/lr", by_step(reference.indices(name + "/in/step"), value));
    }
}

void run_dino_schedules(const Case& reference, Report& report, const comm::World&)
{
    const auto number = [&](const std::string& key) {
        return reference.number(nlohmann::json::json_pointer("/constants/" + key));
    };
    train::DinoSchedule schedule;
    schedule.base_learning_rate = number("base_lr");
    schedule.global_batch =
        std::int64_t(number("batch_size_per_gpu") * reference.number("/config/world_size"_json_pointer));
    schedule.total_steps = std::int64_t(number("total_iterations"));
    schedule.warmup_steps = std::int64_t(number("warmup_iterations"));
    schedule.min_learning_rate = number("min_lr");
    schedule.weight_decay = number("weight_decay/0");
    schedule.final_weight_decay = number("weight_decay/1");
    schedule.momentum = number("teacher_momentum/0");
    schedule.final_momentum = number("teacher_momentum/1");
    schedule.warmup_teacher_temperature = number("teacher_temp/0");
    schedule.teacher_temperature = number("teacher_temp/1");
    schedule.teacher_temperature_steps = std::int64_t(number("teacher_temp_warmup_iterations"));
    schedule.frozen_last_layer_steps = std::int64_t(number("last_layer_frozen_iterations"));

    using Rate = double (train::DinoSchedule::*)(std::int64_t) const;
    const std::pair<const char*, Rate> rates[] = {
        {"lr", &train::DinoSchedule::learning_rate_at},
        {"wd", &train::DinoSchedule::weight_decay_at},
        {"teacher_momentum", &train::DinoSchedule::momentum_at},
        {"teacher_temp", &train::DinoSchedule::teacher_temperature_at},
        {"last_layer_lr", &train::DinoSchedule::last_layer_learning_rate_at},
    };
    for (const auto& name : reference.cases_with({"in/iteration", "out/teacher_temp"})) {
        for (const auto& [output, rate] : rates) {
            const auto value = [&](std::int64_t step) { return (schedule.*rate)(step); };
            report.compare_if_there(name + "/out/" + output,
                                    by_step(reference.indices(name + "/in/iteration"), value));
        }
    }

    const int depth = int(reference.number("/config/backbone/depth"_json_pointer));
    std::vector<double> rate, decay, last;
    for (const auto& item : reference.description().at("parameters")) {
        const auto scale =
            train::dino_parameter_scale(item.at("name").get<std::string>(), depth,
                                        reference.number("/config/layerwise_decay"_json_pointer),
                                        reference.number("/config/patch_embed_lr_mult"_json_pointer));
        rate.push_back(scale.learning_rate);
        decay.push_back(scale.weight_decay);
        last.push_back(scale.last_layer ? 1 : 0);
    }
    for (const auto& name : reference.cases_with({"out/lr_multiplier"})) {
        report.compare_if_there(name + "/out/lr_multiplier", at::tensor(rate, at::kDouble));
        report.compare_if_there(name + "/out/wd_multiplier", at::tensor(decay, at::kDouble));
        report.compare_if_there(name + "/out/is_last_layer", at::tensor(last, at::kDouble));
    }
}

void run_downstream(const Case& reference, Report& report, const comm::World& world)
{
    for (const auto& name : reference.cases_with({"in/x_train", "in/y_train", "in/x_test", "in/y_test"})) {
        run_knn(reference, name, report, world);
    }
    for (const auto& name :
         reference.cases_with({"in/image_embeddings", "in/spectrum_embeddings", "in/query"})) {
        run_search(reference, name, report, world);
    }
    for (const auto& name : reference.cases_with({"in/x", "in/y", "state/0.weight"})) {
        run_few_shot(reference, name, report);
    }
    for (const auto& name : reference.cases_with({"in/x", "in/vote_fractions", "state/layers.0.weight"})) {
        run_morphology(reference, name, report);
    }
}

}  // namespace astroclip::parity
