#include "survey/plan.hpp"

#include <gtest/gtest.h>
#include <mpi.h>

#include <filesystem>
#include <map>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace astroclip::survey {
namespace {

const comm::World& world()
{
    static const comm::World instance(MPI_COMM_WORLD);
    return instance;
}

const std::map<std::string, std::vector<std::int64_t>> survey_files{
    {"a", {5, 7, no_id}}, {"b", {}}, {"c", {7, 8, no_id, 5, 8}}, {"d", {9}}};

std::vector<InputFile> inputs(std::initializer_list<const char*> names)
{
    std::vector<InputFile> files;
    for (const auto* name : names) {
        files.push_back({std::string("/survey/") + name, name});
    }
    return files;
}

FileContents read(const InputFile& input) { return {survey_files.at(input.name), digest_of(input.name)}; }

Plan plan_of(std::initializer_list<const char*> names)
{
    return Plan::make(world(), inputs(names), false, read);
}

TEST(Plan, NumbersObjectsInTheOrderOfFilesOverAllRanks)
{
    const auto plan = plan_of({"a", "b", "c", "d"});
    EXPECT_EQ(plan.size(), 9);
    EXPECT_EQ(plan.files()[2].first, 3);
    EXPECT_EQ(plan.item(0).file, 0u);
    EXPECT_EQ(plan.item(3).file, 2u);
    EXPECT_EQ(plan.item(7).index, 4);
    EXPECT_EQ(plan.item(8).file, 3u);
}

TEST(Plan, TakesTheFirstOfEachId)
{
    const auto plan = plan_of({"a", "b", "c", "d"});
    std::vector<std::int64_t> duplicates;
    for (std::int64_t i = 0; i < plan.size(); ++i) {
        if (plan.is_duplicate(i)) {
            duplicates.push_back(i);
        }
    }
    EXPECT_EQ(duplicates, (std::vector<std::int64_t>{3, 6, 7}));
    EXPECT_EQ(plan.duplicates(), 3);
}

TEST(Plan, HasADigestOfOrderAndContentThatNoNumberOfRanksChanges)
{
    const auto plan = plan_of({"a", "b", "c", "d"});
    EXPECT_EQ(plan.digest(), "32e44c9df9d62b518f2326c6e5f024e9");
    EXPECT_NE(plan.digest(), plan_of({"a", "c", "b", "d"}).digest());
    EXPECT_NE(plan.digest(), plan_of({"a", "b", "c"}).digest());
}

TEST(Plan, CountsAnUnreadableFileAsOneObject)
{
    const auto path = (std::filesystem::path(TEST_DATA) / "survey/redrock-test.fits.gz").string();
    auto files = inputs({"a", "d"});
    files.push_back({path, "broken"});
    const auto plan = Plan::make(world(), files, false, [&](const InputFile& input) {
        if (input.name == "broken") {
            throw DataError(input.path, "truncated");
        }
        return read(input);
    });
    EXPECT_EQ(plan.size(), 5);
    EXPECT_EQ(plan.files()[2].error, path + ": truncated");
    EXPECT_FALSE(plan.files()[2].missing);
}

TEST(Plan, CountsTheObjectsOfADamagedFileWhoseIdsAreKnown)
{
    const auto plan = Plan::make(world(), inputs({"a", "c", "d"}), false, [&](const InputFile& input) {
        auto contents = read(input);
        contents.error = input.name == "a" ? "truncated" : "";
        return contents;
    });
    EXPECT_EQ(plan.size(), 9);
    EXPECT_EQ(plan.files()[0].lost_ids, survey_files.at("a"));
    EXPECT_FALSE(plan.is_duplicate(3));  // 7, lost in "a"
    EXPECT_TRUE(plan.is_duplicate(7));   // 8, twice in "c"
}

TEST(Plan, EndsAllRanksAtAMissingFileUnlessItMayBeSkipped)
{
    const auto gone = [](const InputFile& input) {
        if (input.name == "d") {
            throw MissingInput(input.path, "no such file");
        }
        return read(input);
    };
    try {
        Plan::make(world(), inputs({"a", "c", "d"}), false, gone);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.exit_code, 66);
    }
    const auto plan = Plan::make(world(), inputs({"a", "c", "d"}), true, gone);
    EXPECT_EQ(plan.size(), 9);
    EXPECT_TRUE(plan.files()[2].missing);
}

}  // namespace
}  // namespace astroclip::survey
