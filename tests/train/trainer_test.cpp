#include "train/trainer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>

#include "core/interrupt.hpp"
#include "nn/weights.hpp"
#include "support/deterministic_fill.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/optimizer.hpp"

namespace astroclip::train {
namespace {

namespace fs = std::filesystem;

// Least squares on samples that are functions of the step; what may go wrong is switched on by the tests.
class Regression : public Task {
public:
    explicit Regression(comm::Communicator& ranks) : ranks_(ranks)
    {
        weight_ = test::fill_tensor(0, {6, 4}).requires_grad_(true);
        bias_ = at::zeros({4}).requires_grad_(true);
        unused_ = at::ones({3}).requires_grad_(true);
    }

    std::vector<Parameter> parameters() const override
    {
        return {{.name = "weight", .tensor = weight_},
                {.name = "bias", .tensor = bias_},
                {.name = "unused", .tensor = unused_}};
    }
    std::int64_t steps_per_epoch() const override { return 5; }
    std::int64_t global_batch() const override { return 8; }
    void seek(std::int64_t step) override { next_ = step; }
    void fetch() override { fetched_ = next_++; }

    Loss forward(std::int64_t step) override
    {
        EXPECT_EQ(step, fetched_);
        if (step == fail_at) {
            throw std::runtime_error("killed");
        }
        if (step == signal_at && ranks_.rank() == 0) {
            std::raise(SIGUSR2);
        }
        const auto own = 8 / ranks_.size();
        const auto x = test::fill_tensor(100 + static_cast<std::uint64_t>(step), {8, 6})
                           .narrow(0, ranks_.rank() * own, own);
        const auto product = x.matmul(weight_);
        product_type = product.scalar_type();
        auto loss = (product.to(at::kFloat) + bias_ - at::sin(3 * x.narrow(1, 0, 4))).square().mean();
        if (step >= bad_from && step < bad_to && ranks_.rank() == ranks_.size() - 1) {
            loss = loss * std::numeric_limits<double>::quiet_NaN();
        }
        return {loss, {{"error", loss.item<double>()}}};
    }
    Rates rates(std::int64_t step) const override
    {
        return {step >= rate_ends_at ? 0 : 1e-2 / (1.0 + 0.1 * static_cast<double>(step)), 0, 0.1};
    }
    void after_step(std::int64_t step) override
    {
        if (step == flip_at && ranks_.rank() == ranks_.size() - 1) {
            weight_.view(at::kInt).data_ptr<std::int32_t>()[3] ^= 1;  // the last mantissa bit
        }
    }
    std::map<std::string, double> validate() override
    {
        ++validations;
        return validation_losses.empty()
                   ? std::map<std::string, double>()
                   : std::map<std::string, double>{{"loss", validation_losses.at(validations - 1)}};
    }
    std::vector<std::int64_t> batch_ids() const override { return {900 + fetched_}; }
    std::map<std::string, at::Tensor> state() const override
    {
        return {{"weight", weight_.detach()}, {"bias", bias_.detach()}, {"unused", unused_.detach()}};
    }
    void load_state(const std::map<std::string, at::Tensor>& state) override
    {
        copy_state(state, this->state(), "test");
    }
    std::map<std::string, at::Tensor> model() const override { return state(); }
    std::map<std::string, std::string> model_metadata() const override { return {{"model", "regression"}}; }

    std::int64_t fail_at = -1, signal_at = -1, bad_from = -1, bad_to = -1, flip_at = -1;
    std::int64_t rate_ends_at = 1000;
    std::vector<double> validation_losses;
    std::size_t validations = 0;
    at::ScalarType product_type = at::kFloat;

private:
    comm::Communicator& ranks_;
    at::Tensor weight_, bias_, unused_;
    std::int64_t next_ = 0, fetched_ = -1;
};

class Trainer : public testing::Test {
protected:
    Trainer() : folder_(test::scratch_folder(ranks_.world, "trainer")) { config_.steps = 20; }
    ~Trainer() override { test::remove_scratch(ranks_.world, folder_); }

    std::string path(const std::string& name) const { return folder_ + "/" + name; }

    // Losses by step (the validation's by step + 0.5).
    std::map<double, double> train_in(const std::string& name, Task& task)
    {
        return train_in(name, task, ranks_);
    }
    std::map<double, double> train_in(const std::string& name, Task& task, test::Ranks& ranks)
    {
        std::map<double, double> losses;
        store::Output output(ranks.world, path(name), {"test", {{"steps", 20}}, "digest", {}}, false);
        Progress progress(false);
        train(task, config_,
              {ranks.world, *ranks.tensors, output, progress,
               [&](const nlohmann::json& line) {
                   if (line.contains("loss") && std::isfinite(line.at("loss").get<double>()))
                       losses[line.at("step")] = line.at("loss");
                   if (line.contains("object_ids"))
                       bad_ids_ = line.at("object_ids").get<std::vector<std::int64_t>>();
               },
               [&](const std::string& what) {
                   if (ranks.world.stop_requested()) throw Stopped(what);
               }});
        return losses;
    }

    static std::string bytes(const std::string& file)
    {
        std::ifstream in(file, std::ios::binary);
        return {std::istreambuf_iterator<char>(in), {}};
    }
    std::string model(const std::string& name) const { return bytes(path(name) + "/model.safetensors"); }
    std::vector<std::string> checkpoints(const std::string& name) const
    {
        std::vector<std::string> names;
        for (const auto& entry : fs::directory_iterator(path(name) + "/checkpoints")) {
            names.push_back(entry.path().filename());
        }
        std::sort(names.begin(), names.end());
        return names;
    }
    std::string undisturbed()
    {
        Regression task(ranks_);
        train_in("whole", task);
        return model("whole");
    }
    int code_of(const std::string& name, Task& task, std::string* message = nullptr)
    {
        try {
            train_in(name, task);
        } catch (const Error& error) {
            if (message) *message = error.what();
            return error.exit_code;
        }
        return 0;
    }

    test::Ranks ranks_ = test::all_ranks();
    std::string folder_;
    TrainerConfig config_;
    std::vector<std::int64_t> bad_ids_;
};

TEST_F(Trainer, EndsWhenTheLearningRateHasBeenZeroForAnEpoch)
{
    Regression task(ranks_);
    task.rate_ends_at = 7;
    EXPECT_EQ(train_in("spent", task).rbegin()->first, 12);  // steps 8 to 12, an epoch, had none
    EXPECT_TRUE(fs::exists(path("spent") + "/manifest.json"));
}

TEST_F(Trainer, EndsThereAlsoIfAValidationAtThatStepIsWithoutGain)
{
    Regression task(ranks_);
    task.rate_ends_at = 5;
    task.validation_losses = {3, 4, 5, 6};  // after steps 5, 10, …
    EXPECT_EQ(train_in("spent", task).rbegin()->first, 10);
    EXPECT_TRUE(store::read_manifest(path("spent")).at("content").at("validation").at("ended_early"));
}

// Validation losses that differ in a bit are losses all the same: rank 0's decide for all.
TEST_F(Trainer, StopsOnAllRanksAlikeThoughTheirValidationLossesDiffer)
{
    config_.validate_steps = 2;
    config_.patience = 2;
    Regression task(ranks_);
    const auto last_bit = std::nextafter(1.0, ranks_.rank() % 2 == 0 ? 1.0 : 0.0);
    task.validation_losses = {1, last_bit, 2, 2, 2, 2, 2, 2, 2, 2};
    EXPECT_EQ(train_in("alike", task).rbegin()->first, 6);
}

TEST_F(Trainer, GivesTheSameLossesOnAnyNumberOfRanks)
{
    Regression together(ranks_);
    config_.bucket_bytes = 40;  // several buckets
    const auto losses = train_in("together", together);
    auto alone_ranks = test::this_rank_alone();
    Regression alone(alone_ranks);
    const auto expected = train_in("alone-" + std::to_string(ranks_.rank()), alone, alone_ranks);
    ASSERT_EQ(losses.size(), 20u);
    for (const auto& [step, loss] : expected) {
        EXPECT_NEAR(losses.at(step) / loss, 1, 1e-5) << step;  // float32 sums in another order
    }
    EXPECT_LT(losses.at(20), losses.at(1));
}

TEST_F(Trainer, EndsWithTheSameBitsAfterAnInterruption)
{
    const auto expected = undisturbed();
    config_.checkpoint_steps = 3;
    for (const std::int64_t moment : {2, 7, 19}) {
        const auto name = "killed-" + std::to_string(moment);
        Regression killed(ranks_);
        killed.fail_at = moment;
        EXPECT_THROW(train_in(name, killed), std::runtime_error);
        Regression again(ranks_);
        const auto losses = train_in(name, again);
        EXPECT_EQ(losses.begin()->first, moment / 3 * 3 + 1) << "it goes on from the last checkpoint";
        EXPECT_EQ(model(name), expected);
    }
}

TEST_F(Trainer, KeepsTheNewestCheckpointsOnly)
{
    config_.checkpoint_steps = 4;
    Regression task(ranks_);
    train_in("kept", task);
    EXPECT_EQ(checkpoints("kept"), (std::vector<std::string>{"step-00000016", "step-00000020"}));
}

TEST_F(Trainer, PassesOverDamagedAndUnfinishedCheckpoints)
{
    const auto expected = undisturbed();
    config_.checkpoint_steps = 3;
    config_.keep_checkpoints = 3;
    Regression killed(ranks_);
    killed.fail_at = 13;
    EXPECT_THROW(train_in("torn", killed), std::runtime_error);
    ranks_.world.on_root([&] {
        fs::remove(path("torn") + "/checkpoints/step-00000012/state.json");
        std::fstream file(path("torn") + "/checkpoints/step-00000009/optimizer.safetensors",
                          std::ios::in | std::ios::out | std::ios::binary);
        file.seekp(-2, std::ios::end);
        file.put('x');
    });
    Regression again(ranks_);
    const auto losses = train_in("torn", again);
    EXPECT_EQ(losses.begin()->first, 7);
    EXPECT_EQ(model("torn"), expected);
}

TEST_F(Trainer, SkipsAStepThatIsNotFiniteAndTellsItsObjects)
{
    Regression task(ranks_);
    task.bad_from = 4;
    task.bad_to = 6;
    const auto losses = train_in("bad", task);
    EXPECT_EQ(losses.size(), 18u);
    EXPECT_TRUE(std::isfinite(losses.at(20)));
    EXPECT_EQ(store::read_manifest(path("bad")).at("content").at("bad_steps"), 2);
    ASSERT_FALSE(bad_ids_.empty());
    EXPECT_EQ(bad_ids_.back(), 905);
}

TEST_F(Trainer, EndsWith76AfterTooManyBadStepsWithItsParametersUnchanged)
{
    Regression good(ranks_);
    good.fail_at = 10;
    EXPECT_THROW(train_in("good", good), std::runtime_error);
    Regression task(ranks_);
    task.bad_from = 10;
    task.bad_to = 20;
    std::string message;
    EXPECT_EQ(code_of("bad", task, &message), 76);
    EXPECT_NE(message.find("912"), std::string::npos) << message;
    EXPECT_NE(message.find("max-bad-steps"), std::string::npos) << message;
    for (const auto& [name, tensor] : good.state()) {
        EXPECT_TRUE(tensor.equal(task.state().at(name))) << name;
    }
    EXPECT_FALSE(fs::exists(path("bad") + "/manifest.json"));
}

TEST_F(Trainer, FindsAReplicaThatDriftedByOneBit)
{
    if (ranks_.size() == 1) GTEST_SKIP() << "needs two ranks";
    config_.replica_check_steps = 4;
    Regression task(ranks_);
    task.flip_at = 5;
    std::string message;
    EXPECT_EQ(code_of("flipped", task, &message), 76);
    EXPECT_NE(message.find("rank " + std::to_string(ranks_.size() - 1)), std::string::npos) << message;
    EXPECT_NE(message.find("step 8"), std::string::npos) << message;
}

TEST_F(Trainer, PublishesTheModelOfTheBestValidationAndStopsWhenPatienceEnds)
{
    config_.validate_steps = 2;
    config_.patience = 3;
    Regression task(ranks_);
    task.validation_losses = {3, 2, 4, 1, 5, 5, 5, 0, 0, 0};
    const auto losses = train_in("best", task);
    EXPECT_EQ(losses.size(), 14u);
    const auto content = store::read_manifest(path("best")).at("content");
    EXPECT_EQ(content.at("validation").at("step"), 8);
    EXPECT_EQ(content.at("metadata").at("model"), "regression");

    Regression eight_steps(ranks_);
    config_.steps = 8;
    config_.patience = 0;
    train_in("eight", eight_steps);
    EXPECT_EQ(model("best"), model("eight"));
}

TEST_F(Trainer, RemembersTheBestModelThroughAnInterruption)
{
    config_.validate_steps = 2;
    config_.checkpoint_steps = 5;
    Regression whole(ranks_);
    whole.validation_losses = {3, 2, 4, 5, 6, 7, 8, 9, 9, 9};
    train_in("whole", whole);
    Regression killed(ranks_);
    killed.validation_losses = {3, 2, 4, 5, 6};
    killed.fail_at = 11;
    EXPECT_THROW(train_in("killed", killed), std::runtime_error);
    Regression again(ranks_);
    again.validation_losses = {7, 8, 9, 9, 9};
    train_in("killed", again);
    EXPECT_EQ(model("killed"), model("whole"));
}

TEST_F(Trainer, KeepsTheBestModelsAsModelsOfTheirOwnThroughAnInterruption)
{
    config_.validate_steps = 2;
    config_.checkpoint_steps = 5;
    config_.keep_best = 3;
    Regression whole(ranks_);
    whole.validation_losses = {3, 5, 4, 2, 4,
                               6, 7, 8, 9, 9};  // best after 8, 2, 6 steps: of equals the first
    train_in("whole", whole);
    Regression killed(ranks_);
    killed.validation_losses = {3, 5, 4, 2, 4};  // after step 10: a checkpoint
    killed.fail_at = 11;
    EXPECT_THROW(train_in("killed", killed), std::runtime_error);
    Regression again(ranks_);
    again.validation_losses = {6, 7, 8, 9, 9};
    train_in("killed", again);
    for (const auto& [name, step] :
         std::map<std::string, int>{{"whole", 8}, {"whole/best-2", 2}, {"whole/best-3", 6}}) {
        const auto content = store::read_manifest(path(name)).at("content");
        EXPECT_EQ(content.at("validation").at("step"), step) << name;
        EXPECT_EQ(model("killed" + name.substr(5)), model(name)) << name;
    }
    EXPECT_NE(model("whole/best-2"), model("whole/best-3"));
    EXPECT_FALSE(fs::exists(path("whole/best-4")));
}

TEST_F(Trainer, PublishesTheLastModelIfNoneIsKept)
{
    const auto last = undisturbed();
    config_.validate_steps = 2;
    config_.keep_best = 0;
    Regression task(ranks_);
    task.validation_losses = {3, 1, 4, 5, 6, 7, 8, 9, 9, 9};
    train_in("last", task);
    EXPECT_EQ(model("last"), last);
    EXPECT_EQ(store::read_manifest(path("last")).at("content").at("validation").at("step"), 4);
}

TEST_F(Trainer, TrainsInBfloat16WithFloat32Weights)
{
    config_.precision = "bf16";
    Regression task(ranks_);
    const auto losses = train_in("bf16", task);
    EXPECT_EQ(task.product_type, at::kBFloat16);
    EXPECT_EQ(task.state().at("weight").scalar_type(), at::kFloat);
    EXPECT_LT(losses.at(20), losses.at(1));
}

// The last test: a stop, once asked for, is not taken back.
TEST_F(Trainer, StopsOnASignalToOneRankAfterACheckpoint)
{
    const auto expected = undisturbed();
    catch_stop_signals();
    Regression task(ranks_);
    task.signal_at = 6;
    EXPECT_EQ(code_of("stopped", task), 75);
    EXPECT_EQ(checkpoints("stopped"), std::vector<std::string>{"step-00000007"});
    // Every later call stops one step on, and in the end the model is the same.
    int calls = 0;
    for (Regression again(ranks_); code_of("stopped", again) == 75; ++calls) {
        ASSERT_LT(calls, 20);
    }
    EXPECT_EQ(calls, 12);
    EXPECT_EQ(model("stopped"), expected);
}

}  // namespace
}  // namespace astroclip::train
