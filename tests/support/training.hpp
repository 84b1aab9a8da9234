#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/progress.hpp"
#include "data/batches.hpp"
#include "nn/weights.hpp"
#include "support/ranks.hpp"
#include "support/tiny_survey.hpp"
#include "train/trainer.hpp"

namespace astroclip::test {

struct Killed {};

// A training task on a tiny survey, trained as its stage trains it: by all ranks of the test, or by this one
// alone. A test sets config_ and trainer_; the constructor of its class describes the survey, whose stores
// the first test writes for all, and opens galaxies_.
template <typename Task, typename Config>
class Training : public testing::Test {
protected:
    using Lines = std::vector<nlohmann::json>;

    explicit Training(const std::string& name)
        : ranks_(all_ranks()), outputs_(scratch_folder(ranks_.world, name + "-outputs"))
    {
    }
    ~Training() override { remove_scratch(ranks_.world, outputs_); }
    static void TearDownTestSuite()
    {
        remove_scratch(comm::World(MPI_COMM_WORLD), stores_);
        stores_.clear();
    }

    // Writes the survey's stores by `write`, in one part, unless an earlier test has. Collective.
    void write_stores(void (*write)(const comm::World& world, const TinySurvey& survey))
    {
        survey_.part_rows = survey_.galaxies;
        if (stores_.empty()) {
            survey_.folder = stores_ = scratch_folder(ranks_.world, "stores");
            write(ranks_.world, survey_);
        }
        survey_.folder = stores_;
    }

    std::string folder(const std::string& name) const { return outputs_ + "/" + name; }
    std::string model(const std::string& name) const { return folder(name) + "/model.safetensors"; }

    // Lines of metrics of training into `folder(name)`; with `killed_after` it throws Killed once there are
    // so many. Collective.
    Lines train_in(const std::string& name, Ranks& ranks, int killed_after = 0)
    {
        Lines lines;
        Task task(config_, *galaxies_, ranks, 5);
        store::Output output(ranks.world, folder(name), {"training", {}, "tiny", {}}, false);
        Progress progress(false);
        train::train(task, trainer_,
                     {ranks.world, *ranks.tensors, output, progress,
                      [&](const nlohmann::json& line) {
                          lines.push_back(line);
                          if (int(lines.size()) == killed_after) throw Killed();
                      },
                      [](const std::string&) {}});
        return lines;
    }

    // Trained by all ranks into "together"; rank 0 compares with what it trains alone. |ours - theirs| is at
    // most tolerance·max(|theirs|, smallest), for values that pass through 0. Returns the ranks' lines.
    Lines expect_the_same_alone_and_together(const std::vector<std::string>& keys, double tolerance,
                                             double smallest = 0)
    {
        auto lines = train_in("together", ranks_);
        if (ranks_.rank() != 0) return lines;
        auto alone = this_rank_alone();
        const auto expected = train_in("alone", alone);
        EXPECT_EQ(lines.size(), expected.size());
        for (std::size_t i = 0; i < std::min(lines.size(), expected.size()); ++i) {
            for (const auto& key : keys) {
                EXPECT_EQ(lines[i].contains(key), expected[i].contains(key)) << key << " " << i;
                if (!lines[i].contains(key) || !expected[i].contains(key)) continue;
                const double wanted = expected[i].at(key), found = lines[i].at(key);
                EXPECT_NEAR(found, wanted, tolerance * std::max(std::abs(wanted), smallest))
                    << key << " " << i;
            }
        }
        return lines;
    }

    // Kills training into "resumed" after so many lines and lets it go on, to the bits of "whole", which was
    // never stopped. Returns the lines since the kill. Collective.
    Lines expect_the_same_bits_after_a_kill(int killed_after)
    {
        train_in("whole", ranks_);
        EXPECT_THROW(train_in("resumed", ranks_, killed_after), Killed);
        ranks_.world.barrier();
        auto rest = train_in("resumed", ranks_);
        const nn::WeightsFile whole(model("whole")), resumed(model("resumed"));
        EXPECT_EQ(whole.names(), resumed.names());
        for (const auto& name : whole.names()) {
            EXPECT_TRUE(whole.tensor(name).equal(resumed.tensor(name))) << name;
        }
        return rest;
    }

    static inline std::string stores_;  // folder

    Ranks ranks_;
    std::string outputs_;  // folder
    TinySurvey survey_;
    std::unique_ptr<data::Galaxies> galaxies_;
    Config config_;
    train::TrainerConfig trainer_;
};

}  // namespace astroclip::test
