#include "store/writer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.hpp"
#include "store/columns.hpp"
#include "store/reader.hpp"
#include "store/tiny_store.hpp"

namespace astroclip::tests {
namespace {

using comm::World;

// Runs `work` with a world of the first `size` ranks; the others wait.
template <typename Work>
void with_ranks(const World& world, int size, Work work)
{
    MPI_Comm part;
    MPI_Comm_split(world.handle(), world.rank() < size ? 0 : 1, world.rank(), &part);
    if (world.rank() < size) {
        work(World(part));
    }
    MPI_Comm_free(&part);
    world.barrier();
}

std::vector<std::int64_t> accepted_objects(const Tiny& tiny)
{
    const auto schema = tiny_schema();
    store::Rows rows(schema);
    std::vector<store::Reject> rejects;
    std::vector<std::int64_t> objects;
    for (std::int64_t object = 0; object < tiny.plan; ++object) {
        const auto before = rejects.size();
        add_tiny(object, tiny, rows, rejects);
        if (rejects.size() == before) {
            objects.push_back(object);
        }
    }
    return objects;
}

TEST(Writer, WritesTheSameBytesFromAnyNumberOfRanks)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    for (const Tiny& tiny :
         {Tiny{}, Tiny{.unit_rows = 4, .empty_part = 1}, Tiny{.plan = 1, .max_reject_fraction = 1},
          Tiny{.plan = 260, .part_rows = 260, .turn_rows = 100}}) {
        const auto name = [&](int ranks) {
            return folder / fmt::format("{}-{}-{}-{}", tiny.plan, tiny.part_rows, tiny.unit_rows, ranks);
        };
        for (const int ranks : {1, 2, 3, 4}) {
            if (ranks <= world.size()) {
                with_ranks(world, ranks, [&](const World& some) { write_tiny(some, name(ranks), tiny); });
            }
        }
        for (int ranks = 2; ranks <= world.size() && world.is_root(); ++ranks) {
            EXPECT_EQ(store::content_id(name(ranks)), store::content_id(name(1))) << ranks << " ranks";
            for (const auto* file : {"part-00000.h5", "index.h5"}) {
                EXPECT_EQ(bytes_of(name(ranks) + "/" + file), bytes_of(name(1) + "/" + file))
                    << file << ", " << ranks << " ranks";
            }
        }
    }
}

TEST(Writer, WritesTheSameBytesAgain)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "first");
    write_tiny(world, folder / "second");
    EXPECT_EQ(store::content_id(folder / "first"), store::content_id(folder / "second"));
}

TEST(Writer, ShardsInAnyOrderMakeTheStoreOfOneWriterAndTheLastCompletesIt)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "whole");
    for (const int count : {2, 5}) {  // there are three parts
        const auto name = folder / std::to_string(count);
        std::int64_t asked = 0;
        for (int index = count - 1; index >= 0; --index) {
            EXPECT_FALSE(std::filesystem::exists(name + "/manifest.json")) << index << " of " << count;
            asked += static_cast<std::int64_t>(
                write_tiny(world, name, {.opening = {.shard = {index, count}}}).size());
        }
        EXPECT_EQ(world.sum(asked), Tiny{}.plan);
        EXPECT_EQ(store::content_id(name), store::content_id(folder / "whole"));
        EXPECT_EQ(bytes_of(name + "/index.h5"), bytes_of(folder / "whole/index.h5"));
        EXPECT_TRUE(write_tiny(world, name, {.opening = {.shard = {0, count}}}).empty());
    }
}

TEST(Writer, OneWriterGoesOnWhereShardsWereLost)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "whole");
    write_tiny(world, folder / "store", {.opening = {.shard = {1, 3}}});
    const auto asked = static_cast<std::int64_t>(write_tiny(world, folder / "store").size());
    EXPECT_EQ(world.sum(asked), Tiny{}.plan - Tiny{}.part_rows);
    EXPECT_EQ(store::content_id(folder / "store"), store::content_id(folder / "whole"));
}

TEST(Writer, ShardsCountDamageTogether)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    // 6 of 260 objects are damaged; no shard alone has more than this share of all.
    const Tiny tiny{.max_reject_fraction = 4.5 / 260};
    const auto shard = [&](int index) {
        auto own = tiny;
        own.opening.shard = {index, 3};
        return exit_code_of([&] { write_tiny(world, folder / "store", own); });
    };
    EXPECT_EQ(shard(0), 0);
    EXPECT_EQ(shard(1), 0);
    EXPECT_EQ(shard(2), 65);
}

TEST(Writer, KeepsEveryObjectAsARowOrAReject)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const Tiny tiny{.empty_part = 1};
    write_tiny(world, folder / "store", tiny);

    const auto expected = accepted_objects(tiny);
    const store::Reader reader(folder / "store", "tiny");
    ASSERT_EQ(reader.rows(), static_cast<std::int64_t>(expected.size()));
    const auto ids = reader.column<std::int64_t>("object_id");
    const auto flux = reader.column<float>("flux");
    for (std::size_t row = 0; row < expected.size(); ++row) {
        ASSERT_EQ(ids[row], 1000 + expected[row]);
        ASSERT_EQ(flux[row * 4800], tiny_flux(expected[row], 0));
        ASSERT_EQ(flux[row * 4800 + 4799], tiny_flux(expected[row], 4799));
    }
    const auto rejects = reader.rejects();
    EXPECT_EQ(reader.rows() + static_cast<std::int64_t>(rejects.size()), tiny.plan);
    EXPECT_TRUE(std::is_sorted(rejects.begin(), rejects.end(),
                               [](const auto& a, const auto& b) { return a.object_id < b.object_id; }));
    EXPECT_EQ(rejects.front().reason, "not a target");
    EXPECT_EQ(rejects.front().detail, "class 0");
    const auto& counts = reader.manifest()["content"]["rejects"];
    EXPECT_EQ(counts["total"], rejects.size());
    EXPECT_EQ(counts["damage"],
              std::count_if(rejects.begin(), rejects.end(), [](const auto& r) { return r.damage; }));
}

TEST(Writer, WritesSmallColumnsOfManyChunks)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const store::Schema schema{.kind = "ids", .columns = {tiny_schema().columns[0]}};
    const std::int64_t objects = 50'000;  // chunks have 16384 rows at most
    std::vector<std::string> names;
    for (int ranks = 1; ranks <= world.size(); ranks *= 2) {
        names.push_back(folder / std::to_string(ranks));
        with_ranks(world, ranks, [&](const World& some) {
            store::Output output(some, names.back(), tiny_request({}), false);
            store::Writer writer(output, schema, objects, "plan", {.turn_rows = 1777});
            ASSERT_TRUE(writer.next_part());
            for (const auto& turn : writer.turns()) {
                store::Rows rows(schema);
                std::vector<std::int64_t> ids(static_cast<std::size_t>(turn.size()));
                std::iota(ids.begin(), ids.end(), turn.first);
                rows.add("object_id", ids.data(), ids.size());
                writer.append(rows, {});
            }
            writer.publish_part();
            ASSERT_FALSE(writer.next_part());
            writer.publish();
        });
    }
    for (const auto& name : names) {
        EXPECT_EQ(store::content_id(name), store::content_id(names[0]));
        const auto ids = store::Reader(name, "ids").column<std::int64_t>("object_id");
        std::vector<std::int64_t> expected(objects);
        std::iota(expected.begin(), expected.end(), 0);
        EXPECT_EQ(ids, expected);
    }
}

TEST(Writer, GivesRanksWholeUnitsThatTileTheTurn)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const Tiny tiny{.unit_rows = 8};
    const auto mine = write_tiny(world, folder / "store", tiny);
    for (std::size_t i = 0; i < mine.size(); ++i) {
        if (i == 0 || mine[i] != mine[i - 1] + 1) {
            EXPECT_EQ(mine[i] % 8, 0) << "a share starts inside a unit";
        }
    }
    auto all = world.all_gather(mine);
    std::sort(all.begin(), all.end());
    std::vector<std::int64_t> expected(static_cast<std::size_t>(tiny.plan));
    std::iota(expected.begin(), expected.end(), 0);
    EXPECT_EQ(all, expected);
}

TEST(Writer, StopsWithTooManyDamagedObjects)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    std::string message;
    // 5 of 260 are damaged
    EXPECT_EQ(
        exit_code_of([&] { write_tiny(world, folder / "a", {.max_reject_fraction = 0.015}); }, &message), 65);
    EXPECT_NE(message.find("non-finite pixels"), std::string::npos) << message;
    EXPECT_NE(message.find("--max-reject-fraction"), std::string::npos) << message;
    EXPECT_FALSE(std::filesystem::exists(folder / "a/manifest.json"));
    // Selection does not count, whatever its number.
    EXPECT_EQ(exit_code_of(
                  [&] { write_tiny(world, folder / "b", {.max_reject_fraction = 0.02, .empty_part = 1}); }),
              0);
}

TEST(Writer, RefusesATurnThatLosesAnObject)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto schema = tiny_schema();
    store::Output output(world, folder / "store", tiny_request({}), false);
    store::Writer writer(output, schema, 40, "plan", {.turn_rows = 40});
    ASSERT_TRUE(writer.next_part());
    const store::Rows none(schema);
    std::string message;
    EXPECT_EQ(exit_code_of([&] { writer.append(none, {}); }, &message), 70);
    EXPECT_NE(message.find("gave 0 rows and 0 rejects"), std::string::npos) << message;
}

TEST(Writer, RefusesColumnsOfUnequalLength)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const store::Schema schema{.kind = "two",
                               .columns = {tiny_schema().columns[0], tiny_schema().columns[1]}};
    store::Output output(world, folder / "store", tiny_request({}), false);
    store::Writer writer(output, schema, world.size(), "plan", {});
    ASSERT_TRUE(writer.next_part());
    store::Rows rows(schema);
    rows.add("object_id", world.rank());
    EXPECT_EQ(exit_code_of([&] { writer.append(rows, {}); }), 70);
}

TEST(Writer, RefusesAnIdentifierThatOccursTwice)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const store::Schema schema{.kind = "ids", .columns = {tiny_schema().columns[0]}};
    store::Output output(world, folder / "store", tiny_request({}), false);
    store::Writer writer(output, schema, 2, "plan", {});
    ASSERT_TRUE(writer.next_part());
    for (const auto& turn : writer.turns()) {
        store::Rows rows(schema);
        for (auto object = turn.first; object < turn.last; ++object) {
            rows.add<std::int64_t>("object_id", 7);
        }
        writer.append(rows, {});
    }
    writer.publish_part();
    std::string message;
    EXPECT_EQ(exit_code_of([&] { writer.publish(); }, &message), 70);
    EXPECT_NE(message.find("object_id 7"), std::string::npos) << message;
}

TEST(Writer, ResumesAfterThePartsThatArePublished)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "whole");
    write_tiny(world, folder / "store");
    // As a run leaves it that was killed in its last part.
    world.on_root([&] {
        for (const auto* name : {"manifest.json", "index.h5", "part-00002.json"}) {
            std::filesystem::remove(folder / "store/" + name);
        }
    });
    const auto mine = write_tiny(world, folder / "store");
    for (const auto object : mine) {
        EXPECT_GE(object, 202) << "an object of a published part was read again";
    }
    EXPECT_EQ(store::content_id(folder / "store"), store::content_id(folder / "whole"));
}

TEST(Writer, MakesAPartAnewThatHasLostItsFile)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "whole");
    write_tiny(world, folder / "store");
    world.on_root([&] {
        std::filesystem::remove(folder / "store/manifest.json");
        std::filesystem::remove(folder / "store/part-00001.h5");
    });
    write_tiny(world, folder / "store");
    EXPECT_EQ(store::content_id(folder / "store"), store::content_id(folder / "whole"));
}

TEST(Writer, RefusesToResumeWithAnotherPlan)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "store");
    world.on_root([&] { std::filesystem::remove(folder / "store/manifest.json"); });
    EXPECT_EQ(exit_code_of([&] { write_tiny(world, folder / "store", {.plan = 261}); }), 73);
}

TEST(Writer, MapsLargeColumnsIntoTheIndex)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_tiny(world, folder / "store");
    if (!world.is_root()) {
        return;
    }
    const store::Reader reader(folder / "store", "tiny");
    const auto path = folder / "store/index.h5";
    {
        const auto index = hdf5::open_file(path);
        EXPECT_EQ(hdf5::read<float>(hdf5::open_dataset(index, "flux", path), path),
                  reader.column<float>("flux"));
        EXPECT_EQ(hdf5::read<std::int64_t>(hdf5::open_dataset(index, "object_id", path), path),
                  reader.column<std::int64_t>("object_id"));
        EXPECT_EQ(store::read_rejects(index, path).size(), reader.rejects().size());
        EXPECT_EQ(hdf5::read_text_attribute(hdf5::open_dataset(index, "flux", path), "unit"), "nanomaggy");
    }
    // A part that is gone reads as NaN, not as zeros.
    std::filesystem::remove(folder / "store/part-00000.h5");
    const auto index = hdf5::open_file(path);
    const auto flux = hdf5::read<float>(hdf5::open_dataset(index, "flux", path), path);
    EXPECT_TRUE(std::isnan(flux.front()));
    EXPECT_FALSE(std::isnan(flux.back()));
}

}  // namespace
}  // namespace astroclip::tests
