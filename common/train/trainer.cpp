#include "train/trainer.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "core/clock.hpp"
#include "core/fault_point.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "core/interrupt.hpp"
#include "core/log.hpp"
#include "train/checkpoint.hpp"
#include "train/meters.hpp"
#include "train/precision.hpp"
#include "train/step.hpp"

namespace astroclip::train {
namespace {

std::string hash_of(const std::vector<Parameter>& parameters)
{
    Digest digest;
    for (const auto& parameter : parameters) {
        const auto values = parameter.tensor.detach().cpu().contiguous();
        digest.add(values.const_data_ptr(), values.nbytes());
    }
    return digest.hex();
}

// The first ids of a bad batch, for the message; metrics.jsonl has them all.
std::string some(const std::vector<std::int64_t>& ids)
{
    constexpr std::size_t shown = 16;
    const std::vector<std::int64_t> first(ids.begin(),
                                          ids.begin() + static_cast<long>(std::min(shown, ids.size())));
    const auto more = ids.size() > shown ? fmt::format(", … ({} in all)", ids.size()) : "";
    return fmt::format("{}{}", fmt::join(first, ", "), more);
}

class Training {
public:
    Training(Task& task, const TrainerConfig& config, const Surroundings& around)
        : task_(task),
          config_(config),
          around_(around),
          training_step_(task, config, around.ranks),
          checkpoints_(around.world, around.output.path() + "/checkpoints",
                       around.output.request().configuration_digest, config.keep_checkpoints)
    {
    }

    void run()
    {
        resume();
        check_replicas();
        around_.progress.begin("training", config_.steps, "steps", step_);
        if (!done()) {
            task_.seek(step_);
        }
        last_saved_s_ = last_step_s_ = seconds();
        while (!done()) {
            one_step();
        }
        around_.progress.end();
        publish();
    }

private:
    bool done() const { return step_ >= config_.steps || ended_early_; }

    void one_step()
    {
        alive("training step");
        fault_point("train.step");
        StepReport own;
        const auto start = seconds();
        task_.fetch();
        own.data_wait_s = seconds() - start;
        const auto rates = task_.rates(step_);
        auto gradient = training_step_.gradient(task_, step_);
        own.loss = gradient.loss;
        own.terms = std::move(gradient.terms);
        own.finite = gradient.finite;
        own.stop = stop_signalled();
        own.checkpoint_due = time_to_save();
        own.mem_bytes = resident_bytes();
        own.step_s = seconds() - start;
        const auto report = agree(around_.world, own);

        if (report.finite) {
            training_step_.apply(rates);
            task_.after_step(step_);
            bad_in_row_ = 0;
        } else {
            skip(report);
        }
        ++step_;
        tell(report, rates, gradient.norms);
        at_boundary(report);
    }

    // Nothing changes but the counts; too many in a row end the run.
    void skip(const StepReport& report)
    {
        ++bad_steps_;
        ++bad_in_row_;
        const auto all_ids = bad_ids(report);
        around_.metric(
            {{"step", step_}, {"event", "not finite"}, {"ranks", report.bad_ranks}, {"object_ids", all_ids}});
        const auto text = fmt::format(
            "the loss or its gradient is not finite in step {} (loss {}, on rank {} of {}); objects {}",
            step_, report.loss, fmt::join(report.bad_ranks, ", "), around_.world.size(), some(all_ids));
        around_.world.on_root([&] {
            log::warn("{}: step skipped, {} in a row", text, bad_in_row_);
            if (bad_in_row_ >= std::max(1, config_.max_bad_steps)) {
                throw NumericsError(fmt::format(
                    "{}; {} steps in a row ('max-bad-steps'). The parameters are those of before: "
                    "look at these objects, or lower 'learning-rate'",
                    text, bad_in_row_));
            }
        });
    }

    // Objects of the bad ranks. (Gradients are sums: if they are bad on one rank, they are on all.)
    std::vector<std::int64_t> bad_ids(const StepReport& report) const
    {
        const auto rank = around_.world.rank();
        const bool mine =
            std::find(report.bad_ranks.begin(), report.bad_ranks.end(), rank) != report.bad_ranks.end();
        return around_.world.all_gather(mine ? task_.batch_ids() : std::vector<std::int64_t>());
    }

    void tell(const StepReport& report, const Rates& rates, const std::map<std::string, double>& norms)
    {
        const auto now = seconds();
        if (step_ % config_.log_steps == 0 || step_ == config_.steps) {
            auto line = step_metrics(report, rates, norms);
            line["step"] = step_;
            line["epoch"] = (step_ - 1) / task_.steps_per_epoch();
            line["samples"] = step_ * task_.global_batch();
            line["samples_per_s"] =
                static_cast<double>(task_.global_batch()) / std::max(now - last_step_s_, 1e-9);
            line["bad_steps"] = bad_steps_;
            around_.metric(std::move(line));
        }
        last_step_s_ = now;
        around_.progress.update(step_, fmt::format("loss {:.4g}", report.loss));
    }

    // Has the learning rate been 0 for a whole epoch, as it is after the end of a schedule?
    bool rate_is_spent() const
    {
        const auto epoch_ago = step_ - task_.steps_per_epoch();
        return epoch_ago > 0 && task_.rates(step_ - 1).learning_rate == 0 &&
               task_.rates(epoch_ago).learning_rate == 0;
    }

    // Between two steps: validate, compare replicas, save, stop.
    void at_boundary(const StepReport& report)
    {
        if (!done() && rate_is_spent()) {
            ended_early_ = true;
            around_.world.on_root([&] {
                log::warn(
                    "the learning rate has been 0 for an epoch: ended after {} of {} steps ('schedule-steps' "
                    "or 'schedule-epochs' says when it becomes 'eta-min')",
                    step_, config_.steps);
            });
        }
        const auto interval = config_.validate_steps > 0 ? config_.validate_steps : task_.steps_per_epoch();
        if (step_ % interval == 0 || step_ == config_.steps) {
            validate();
        }
        const bool by_steps = config_.checkpoint_steps > 0 && step_ % config_.checkpoint_steps == 0;
        const bool save_now = done() || report.stop || report.checkpoint_due || by_steps;
        if (save_now || (config_.replica_check_steps > 0 && step_ % config_.replica_check_steps == 0)) {
            check_replicas();
        }
        if (save_now) {
            save();
        }
        if (report.stop && !done()) {
            around_.stop_if_requested(
                fmt::format("stopped after a checkpoint at step {}; the same command goes on", step_));
        }
    }

    void validate()
    {
        alive("validation");
        std::map<std::string, double> figures;
        {
            const at::NoGradGuard no_grad;
            const Autocast autocast(config_.precision, around_.ranks.device().type());
            figures = task_.validate();
        }
        if (figures.empty()) {
            return;
        }
        figures = of_root(figures);
        nlohmann::json line = {{"step", step_}, {"epoch", (step_ - 1) / task_.steps_per_epoch()}};
        for (const auto& [name, value] : figures) {
            line["val_" + name] = value;
        }
        around_.metric(line);
        const auto loss = figures.find("loss");
        if (loss == figures.end()) {
            return;
        }
        keep_if_good(loss->second);
        if (loss->second < best_loss_) {
            best_loss_ = loss->second;
            best_step_ = step_;
            without_gain_ = 0;
        } else {
            ++without_gain_;
            ended_early_ = ended_early_ || (config_.patience > 0 && without_gain_ >= config_.patience);
        }
    }

    // Each rank computes the figures, but decides by those of rank 0: where they differ in a last bit, one
    // would stop and the others wait for it.
    std::map<std::string, double> of_root(std::map<std::string, double> figures) const
    {
        std::vector<double> own;
        for (const auto& [name, value] : figures) {
            own.push_back(value);
        }
        const auto all = around_.world.all_gather(own);  // rank 0's are the first
        auto next = all.begin();
        for (auto& [name, value] : figures) {
            value = *next++;
        }
        return figures;
    }

    // Of equal losses the earlier is the better.
    void keep_if_good(double loss)
    {
        const auto place =
            std::find_if(best_.begin(), best_.end(), [&](const Best& one) { return loss < one.loss; });
        if (!std::isfinite(loss) || place - best_.begin() >= config_.keep_best) {
            return;
        }
        Best one{loss, step_, {}};
        if (around_.world.is_root()) {
            one.model = task_.model();
            for (auto& [name, tensor] : one.model) {
                tensor = tensor.detach().cpu().clone();
            }
        }
        best_.insert(place, std::move(one));
        best_.resize(std::min(best_.size(), static_cast<std::size_t>(config_.keep_best)));
    }

    // Collective. The parameters of all ranks have the same bits, or the run ends here.
    void check_replicas()
    {
        const auto hashes = around_.world.all_gather(hash_of(training_step_.parameters()));
        const auto differs =
            std::find_if(hashes.begin(), hashes.end(), [&](const auto& hash) { return hash != hashes[0]; });
        around_.world.on_root([&] {
            if (differs != hashes.end()) {
                throw NumericsError(
                    fmt::format("the parameters of rank {} are not those of rank 0 after step {}: a fault of "
                                "memory or device; the last checkpoint is good, do not use that host",
                                differs - hashes.begin(), step_));
            }
        });
    }

    bool time_to_save() const
    {
        return config_.checkpoint_steps == 0 && seconds() - last_saved_s_ >= 60 * config_.checkpoint_minutes;
    }

    void save()
    {
        alive("checkpoint");
        const nlohmann::json best_loss =
            std::isfinite(best_loss_) ? nlohmann::json(best_loss_) : nlohmann::json();
        std::vector<TensorMap> best_models;
        auto best = nlohmann::json::array();
        for (const auto& one : best_) {
            best_models.push_back(one.model);
            best.push_back({{"loss", one.loss}, {"step", one.step}});
        }
        checkpoints_.save({step_,
                           task_.state(),
                           training_step_.optimizer().state(),
                           best_models,
                           {{"bad_steps", bad_steps_},
                            {"bad_in_row", bad_in_row_},
                            {"best", best},
                            {"best_loss", best_loss},
                            {"best_step", best_step_},
                            {"without_gain", without_gain_},
                            {"ended_early", ended_early_}}});
        last_saved_s_ = seconds();
    }

    void resume()
    {
        auto checkpoint = checkpoints_.newest();
        if (!checkpoint) {
            return;
        }
        task_.load_state(checkpoint->model);
        training_step_.optimizer().load_state(checkpoint->optimizer);
        step_ = checkpoint->step;
        const auto& state = checkpoint->state;
        for (const auto& one : state.at("best")) {
            best_.push_back({one.at("loss"), one.at("step"), {}});
        }
        for (std::size_t i = 0; i < checkpoint->best.size(); ++i) {  // on rank 0
            best_.at(i).model = std::move(checkpoint->best[i]);
        }
        bad_steps_ = state.at("bad_steps");
        bad_in_row_ = state.at("bad_in_row");
        best_loss_ = state.at("best_loss").is_null() ? best_loss_ : state.at("best_loss").get<double>();
        best_step_ = state.at("best_step");
        without_gain_ = state.at("without_gain");
        ended_early_ = state.at("ended_early");
        if (around_.world.is_root()) {
            log::info("training goes on from the checkpoint at step {}", step_);
        }
    }

    // The best model by validation loss, after the next best; the last one if none is kept.
    void publish()
    {
        fault_point("train.before-publish");
        for (std::size_t i = 1; i < best_.size(); ++i) {
            store::Output runner_up(around_.world, fmt::format("{}/best-{}", around_.output.path(), i + 1),
                                    around_.output.request(), true);
            publish_model(runner_up, best_[i].model,
                          {{"validation", {{"loss", best_[i].loss}, {"step", best_[i].step}}}});
        }
        nlohmann::json content = {
            {"steps", step_}, {"samples", step_ * task_.global_batch()}, {"bad_steps", bad_steps_}};
        if (best_step_ > 0) {
            content["validation"] = {
                {"loss", best_loss_}, {"step", best_step_}, {"ended_early", ended_early_}};
        }
        publish_model(around_.output, best_.empty() ? task_.model() : best_.front().model, content);
    }

    // `model`: on rank 0.
    void publish_model(store::Output& output, const TensorMap& model, nlohmann::json content) const
    {
        const auto metadata = task_.model_metadata();
        around_.world.on_root(
            [&] { publish_tensors(output.path() + "/model.safetensors", model, metadata); });
        content.update({{"kind", "model"}, {"metadata", metadata}});
        output.publish(content, {"model.safetensors"});
    }

    struct Best {
        double loss;
        std::int64_t step;
        TensorMap model;  // on rank 0
    };

    Task& task_;
    const TrainerConfig& config_;
    const Surroundings& around_;
    Step training_step_;
    Checkpoints checkpoints_;

    std::int64_t step_ = 0;  // steps done
    std::int64_t bad_steps_ = 0;
    int bad_in_row_ = 0;
    double best_loss_ = std::numeric_limits<double>::infinity();
    std::int64_t best_step_ = 0;
    std::int64_t without_gain_ = 0;
    bool ended_early_ = false;
    std::vector<Best> best_;  // the better before the worse
    double last_saved_s_ = 0, last_step_s_ = 0;
};

}  // namespace

void bind(config::Section options, TrainerConfig& config)
{
    using config::at_least;
    using config::between;
    using config::runtime_only;
    // A stage whose methods differ in these starts from values that are out of range otherwise.
    const std::string of_method = "; this default: as the method was published";
    options
        .option("steps", config.steps, "optimiser steps" + (config.steps == 0 ? of_method : ""),
                at_least(config.steps == 0 ? 0 : 1))
        .option("precision", config.precision, "of matrix products; weights, losses and norms are float32",
                config::one_of({"fp32", "bf16"}))
        .option("beta1", config.beta1, "AdamW: decay of the gradient's mean", between(0, 1))
        .option("beta2", config.beta2, "AdamW: decay of the squared gradient's mean", between(0, 1))
        .option("eps", config.eps, "AdamW: added to the root of the squared gradient's mean", at_least(0))
        .option("clip-norm", config.clip_norm,
                "largest L2 norm of the gradient; 0: not clipped" + (config.clip_norm < 0 ? of_method : ""),
                at_least(config.clip_norm < 0 ? -1 : 0))
        .option("validate-steps", config.validate_steps, "steps between validations; 0: once an epoch",
                at_least(0))
        .option(
            "keep-best", config.keep_best,
            "models of the lowest validation loss that are kept: the best is published, the others beside it "
            "as best-2 and so on; 0: the last model is published",
            at_least(0))
        .option("patience", config.patience, "validations without a better loss before it stops; 0: never",
                at_least(0))
        .option("bucket-bytes", config.bucket_bytes,
                "gradients are summed over ranks in buckets of this size, bytes", runtime_only(at_least(1)))
        .option("checkpoint-steps", config.checkpoint_steps, "steps between checkpoints; 0: by time",
                runtime_only(at_least(0)))
        .option("checkpoint-minutes", config.checkpoint_minutes, "minutes between checkpoints",
                runtime_only(at_least(0)))
        .option("keep-checkpoints", config.keep_checkpoints, "checkpoints that stay on disk",
                runtime_only(at_least(1)))
        .option("max-bad-steps", config.max_bad_steps,
                "steps in a row with a loss or gradient that is not finite, then 76",
                runtime_only(at_least(0)))
        .option("replica-check-steps", config.replica_check_steps,
                "steps between comparisons of the ranks' parameters; 0: at checkpoints only",
                runtime_only(at_least(0)))
        .option("log-steps", config.log_steps, "steps between lines of metrics.jsonl",
                runtime_only(at_least(1)));
}

void train(Task& task, const TrainerConfig& config, const Surroundings& surroundings)
{
    Training(task, config, surroundings).run();
}

}  // namespace astroclip::train
