#include "comm/world.hpp"

#include <gtest/gtest.h>

#include <csignal>

#include "core/interrupt.hpp"

namespace astroclip::comm {
namespace {

TEST(World, GathersRaggedVectorsInRankOrder)
{
    const World world(MPI_COMM_WORLD);
    const std::vector<float> local(world.rank(), float(world.rank()));  // rank r holds r copies of r

    std::vector<float> expected;
    for (int r = 0; r < world.size(); ++r) {
        expected.insert(expected.end(), r, float(r));
    }
    EXPECT_EQ(world.all_gather(local), expected);
}

TEST(World, GathersTextsOfAnyLength)
{
    const World world(MPI_COMM_WORLD);
    const auto texts = world.all_gather(std::string(world.rank(), 'x'));
    ASSERT_EQ(texts.size(), static_cast<std::size_t>(world.size()));
    for (int r = 0; r < world.size(); ++r) {
        EXPECT_EQ(texts[r], std::string(r, 'x'));
    }
}

TEST(World, SumsAndMaximaAreOverAllRanks)
{
    const World world(MPI_COMM_WORLD);
    EXPECT_EQ(world.sum(std::int64_t{world.rank()}), world.size() * (world.size() - 1) / 2);
    EXPECT_EQ(world.max(double(world.rank())), world.size() - 1);
    EXPECT_EQ(world.any(world.rank() == world.size() - 1), true);
    EXPECT_EQ(world.any(false), false);
    EXPECT_EQ(world.broadcast(world.is_root() ? "from root" : ""), "from root");
}

TEST(World, AnErrorOfOneRankIsTheErrorOfAllAndMetOnce)
{
    const World world(MPI_COMM_WORLD);
    const int culprit = world.size() - 1;
    int met = 0;
    try {
        world.together([&] {
            if (world.rank() == culprit) {
                throw DataError("x.fits", "is cut short");
            }
        });
        FAIL() << "no error";
    } catch (const SharedError& error) {
        EXPECT_STREQ(error.what(), "x.fits: is cut short");
        EXPECT_EQ(error.exit_code, 65);
        met = error.met_here;
    }
    EXPECT_EQ(world.sum(std::int64_t{met}), 1);
    EXPECT_EQ(met == 1, world.rank() == culprit);
}

TEST(World, OnRootRunsOnRankZeroAlone)
{
    const World world(MPI_COMM_WORLD);
    int runs = 0;
    world.on_root([&] { ++runs; });
    EXPECT_EQ(runs, world.is_root() ? 1 : 0);
    EXPECT_THROW(world.on_root([] { throw ConfigError("bad"); }), SharedError);
}

TEST(World, AStopSignalAtOneRankStopsAll)
{
    const World world(MPI_COMM_WORLD);
    catch_stop_signals();
    EXPECT_FALSE(world.stop_requested());
    if (world.rank() == world.size() - 1) {
        std::raise(SIGUSR2);
    }
    EXPECT_TRUE(world.stop_requested());
}

}  // namespace
}  // namespace astroclip::comm
