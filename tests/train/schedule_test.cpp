#include "train/schedule.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "support/reference.hpp"

namespace astroclip::train {
namespace {

// Stored values are float32.
void expect_close(double ours, double reference, const std::string& where)
{
    EXPECT_NEAR(ours, reference, 1e-6 * std::abs(reference) + 1e-15) << where;
}

const std::map<std::string, WarmupCosine> published_runs{
    {"astroclip_as_run", {1e-4, 1000, 10'000, 0.0}},
    {"astroclip_intended", {1e-4, 1000, 10'000, 2e-7}},
    {"specformer_as_run", {1e-5, 2000, 500'000, 0.0}},
    {"specformer_intended", {1e-5, 2000, 500'000, 1e-7}},
};

TEST(WarmupCosine, EqualsThePublishedScheduler)
{
    const auto reference = test::read_reference(TEST_DATA "/train/astroclip_scheduler.safetensors");
    for (const auto& [name, schedule] : published_runs) {
        const auto steps = reference.at(name + "/in/step");
        const auto rates = reference.at(name + "/out/lr");
        for (std::int64_t i = 0; i < steps.size(0); ++i) {
            const auto step = static_cast<std::int64_t>(steps[i].item<float>());
            expect_close(schedule.at(step), rates[i].item<float>(), name + " " + std::to_string(step));
        }
    }
}

TEST(WarmupCosine, WithoutWarmupStartsAtTheFullRate)
{
    const WarmupCosine schedule{1e-3, 0, 100, 1e-4};
    EXPECT_DOUBLE_EQ(schedule.at(0), 1e-3);
    EXPECT_DOUBLE_EQ(schedule.at(50), 0.55e-3);
    EXPECT_DOUBLE_EQ(schedule.at(100), 1e-4);
    EXPECT_DOUBLE_EQ(schedule.at(1'000'000), 1e-4);
}

// Cosine by epoch as the aligned models were trained: 80 epochs of 309 steps from 5e-5 to 5e-6, and 161 in
// all.
TEST(AlignmentSchedule, FallsByEpochsAndRisesAgainOrStays)
{
    AlignmentSchedule schedule{.by_step = {5e-5, 0, 1, 5e-6}, .epochs = 80, .again = true};
    const auto at_epoch = [&](std::int64_t epoch) { return schedule.at(309 * epoch, 309); };
    const auto formula = [](int epoch) {
        return 5e-6 + 0.5 * (5e-5 - 5e-6) * (1 + std::cos(M_PI * epoch / 80));
    };
    for (const int epoch : {0, 1, 40, 79, 80, 81, 120, 160}) {
        EXPECT_NEAR(at_epoch(epoch), formula(epoch), 1e-15) << epoch;
        EXPECT_EQ(schedule.at(309 * epoch + 308, 309), at_epoch(epoch)) << epoch;
    }
    EXPECT_NEAR(at_epoch(160), 5e-5, 1e-15);
    schedule.again = false;
    EXPECT_NEAR(at_epoch(79), formula(79), 1e-15);
    EXPECT_DOUBLE_EQ(at_epoch(80), 5e-6);
    EXPECT_DOUBLE_EQ(at_epoch(160), 5e-6);
}

TEST(AlignmentSchedule, WarmsUpWithinEpochsAndFallsByStepsWithoutThem)
{
    const AlignmentSchedule by_epoch{.by_step = {1e-3, 20, 100, 0}, .epochs = 4};
    EXPECT_DOUBLE_EQ(by_epoch.at(0, 10), 0);
    EXPECT_DOUBLE_EQ(by_epoch.at(5, 10), 0.25e-3);
    EXPECT_NEAR(by_epoch.at(20, 10), 0.5e-3, 1e-15);
    const AlignmentSchedule by_step{.by_step = {1e-3, 20, 100, 0}};
    for (const std::int64_t step : {0, 7, 20, 55, 100, 1000}) {
        EXPECT_EQ(by_step.at(step, 10), by_step.by_step.at(step));
    }
}

TEST(DinoSchedule, EqualsThePublishedSchedules)
{
    const DinoSchedule schedule;
    const auto reference = test::read_reference(TEST_DATA "/train/dino_schedules.safetensors");
    const auto iterations = reference.at("schedule/in/iteration");
    const auto value = [&](const std::string& name, std::int64_t i) {
        return reference.at("schedule/out/" + name)[i].item<float>();
    };
    for (std::int64_t i = 0; i < iterations.size(0); ++i) {
        const auto step = static_cast<std::int64_t>(iterations[i].item<float>());
        const auto where = std::to_string(step);
        expect_close(schedule.learning_rate_at(step), value("lr", i), where);
        expect_close(schedule.last_layer_learning_rate_at(step), value("last_layer_lr", i), where);
        expect_close(schedule.weight_decay_at(step), value("wd", i), where);
        expect_close(schedule.momentum_at(step), value("teacher_momentum", i), where);
        expect_close(schedule.teacher_temperature_at(step), value("teacher_temp", i), where);
    }
}

TEST(DinoSchedule, HasTheKnownValues)
{
    const DinoSchedule schedule;
    EXPECT_NEAR(schedule.scaled_learning_rate(), 2.3717082451262845e-4, 1e-18);
    EXPECT_NEAR(schedule.learning_rate_at(1), 5.929419e-9, 1e-15);
    EXPECT_NEAR(schedule.learning_rate_at(1250), 7.411774e-6, 1e-12);
    EXPECT_NEAR(schedule.learning_rate_at(125'000), 1.538917e-4, 1e-10);
    EXPECT_NEAR(schedule.momentum_at(125'000), 0.996, 1e-9);
}

TEST(DinoParameterScale, EqualsThePublishedMultipliers)
{
    std::ifstream file(TEST_DATA "/train/dino_multipliers.txt");
    std::string line;
    int parameters = 0;
    while (std::getline(file, line)) {
        std::string name;
        double learning_rate = 0.0;
        double weight_decay = 0.0;
        bool last_layer = false;
        if (std::istringstream(line) >> name >> learning_rate >> weight_decay >> last_layer) {
            const auto scale = dino_parameter_scale(name, 24);
            EXPECT_NEAR(scale.learning_rate, learning_rate, 1e-12) << name;
            EXPECT_EQ(scale.weight_decay, weight_decay) << name;
            EXPECT_EQ(scale.last_layer, last_layer) << name;
            ++parameters;
        }
    }
    EXPECT_EQ(parameters, 351);
}

TEST(DinoParameterScale, ReadsBlocksWithAndWithoutChunkNumbers)
{
    const auto chunked = dino_parameter_scale("blocks.1.6.attn.qkv.weight", 24);
    const auto flat = dino_parameter_scale("blocks.6.attn.qkv.weight", 24);
    EXPECT_DOUBLE_EQ(chunked.learning_rate, std::pow(0.9, 18));
    EXPECT_DOUBLE_EQ(flat.learning_rate, chunked.learning_rate);
}

}  // namespace
}  // namespace astroclip::train
