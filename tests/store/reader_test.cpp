#include "store/reader.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"
#include "store/columns.hpp"
#include "store/tiny_store.hpp"
#include "store/verify.hpp"

namespace astroclip::tests {
namespace {

using comm::World;

struct ReaderTest : testing::Test {
    ReaderTest() : world(MPI_COMM_WORLD), folder(world), path(folder / "store") { write_tiny(world, path); }
    World world;
    Folder folder;
    std::string path;
};

TEST_F(ReaderTest, ReadsAnyRangeAcrossPartsAsPartOfTheWhole)
{
    const store::Reader reader(path, "tiny");
    const auto whole = reader.column<double>("ra");
    const auto flux = reader.column<float>("flux");
    for (const std::int64_t first : {0, 1, 50, 70, 139}) {
        for (const std::int64_t count : {0, 1, 13, 60}) {
            if (first + count > reader.rows()) continue;
            std::vector<double> some(static_cast<std::size_t>(count));
            reader.read("ra", first, count, some.data());
            EXPECT_TRUE(std::equal(some.begin(), some.end(), whole.begin() + first)) << first << " " << count;
            std::vector<float> pixels(static_cast<std::size_t>(count) * 4800);
            reader.read("flux", first, count, pixels.data());
            EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), flux.begin() + first * 4800))
                << first << " " << count;
        }
    }
}

TEST_F(ReaderTest, ConvertsToTheTypeAskedFor)
{
    const store::Reader reader(path, "tiny");
    const auto wide = reader.column<std::int64_t>("class");
    const auto narrow = reader.column<std::uint8_t>("class");
    EXPECT_TRUE(std::equal(wide.begin(), wide.end(), narrow.begin(), narrow.end()));
    const auto ids = reader.column<double>("object_id");
    EXPECT_EQ(ids[0], 1000.0);
}

TEST_F(ReaderTest, KnowsTheSchemaAndTheAxes)
{
    const store::Reader reader(path, "");
    EXPECT_EQ(store::to_json(reader.schema()), store::to_json(tiny_schema()));
    EXPECT_EQ(reader.axis("wavelength"), tiny_schema().axes[0].values);
    EXPECT_EQ(exit_code_of([&] { reader.axis("time"); }), 65);
    std::string message;
    EXPECT_EQ(exit_code_of([&] { reader.column<float>("flx"); }, &message), 65);
    EXPECT_NE(message.find("object_id, ra, dec, flux"), std::string::npos) << message;
    double value = 0;
    EXPECT_EQ(exit_code_of([&] { reader.read("ra", reader.rows(), 1, &value); }), 70);
}

TEST_F(ReaderTest, RefusesAStoreOfAnotherKind)
{
    std::string message;
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "spectra"); }, &message), 65);
    EXPECT_NE(message.find("is a store of tiny; spectra are expected"), std::string::npos) << message;
}

TEST_F(ReaderTest, RefusesAStoreWithoutManifest)
{
    std::filesystem::remove(path + "/manifest.json");
    std::string message;
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }, &message), 66);
    EXPECT_NE(message.find(path), std::string::npos) << message;
}

TEST_F(ReaderTest, RefusesAStoreWithoutOneOfItsParts)
{
    std::filesystem::remove(path + "/part-00001.h5");
    std::string message;
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }, &message), 66);
    EXPECT_NE(message.find("part-00001.h5"), std::string::npos) << message;
}

TEST_F(ReaderTest, RefusesATruncatedPart)
{
    const auto part = path + "/part-00002.h5";
    std::filesystem::resize_file(part, std::filesystem::file_size(part) - 1);
    std::string message;
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny", true); }, &message), 65);
    EXPECT_NE(message.find("part-00002.h5"), std::string::npos) << message;
}

// Every flip, wherever it falls, is found before HDF5 sees the file.
TEST_F(ReaderTest, FindsEveryFlippedBitAtFirstUse)
{
    const auto part = path + "/part-00001.h5";
    const auto size = std::filesystem::file_size(part);
    for (int i = 0; i < 40; ++i) {
        const auto at = size * i / 40 + i;
        damage(part, at);
        const store::Reader reader(path, "tiny");
        std::string message;
        EXPECT_EQ(exit_code_of([&] { reader.column<std::int64_t>("object_id"); }, &message), 65) << at;
        EXPECT_NE(message.find("part-00001.h5: is damaged: block 0"), std::string::npos) << message;
        damage(part, at);  // and back
    }
    const store::Reader reader(path, "tiny");
    EXPECT_EQ(reader.column<std::int64_t>("object_id").size(), static_cast<std::size_t>(reader.rows()));
}

TEST_F(ReaderTest, HashesOfAllPartsAreComparedOverTheRanks)
{
    store::verify_parts(world, path);
    for (const auto* name : {"part-00000.h5", "part-00002.h5"}) {
        world.barrier();
        if (world.is_root()) damage(path + "/" + name, 5000);
        world.barrier();
        std::string message;
        EXPECT_EQ(exit_code_of([&] { store::verify_parts(world, path); }, &message), 65);
        EXPECT_NE(message.find(std::string(name) + ": is damaged"), std::string::npos) << message;
        world.barrier();
        if (world.is_root()) damage(path + "/" + name, 5000);  // and back
        world.barrier();
    }
}

// Without hashes (trust) the checksums of the chunks still find damage in the rows.
TEST_F(ReaderTest, NamesDatasetAndRowsOfADamagedChunk)
{
    const auto part = path + "/part-00000.h5";
    const auto bytes = bytes_of(part);
    const float value = tiny_flux(53, 3);
    const auto at = bytes.find(std::string(reinterpret_cast<const char*>(&value), sizeof value));
    ASSERT_NE(at, std::string::npos);
    damage(part, at);
    const store::Reader reader(path, "tiny", true);
    std::string message;
    EXPECT_EQ(exit_code_of([&] { reader.column<float>("flux"); }, &message), 65);
    EXPECT_NE(message.find("part-00000.h5: dataset 'flux', rows 0 to "), std::string::npos) << message;
}

TEST_F(ReaderTest, KeepsFewOfManyPartsOpen)
{
    const auto many = folder / "many";
    write_tiny(world, many, {.plan = 300, .part_rows = 2});
    const store::Reader reader(many, "tiny", true);
    ASSERT_EQ(reader.manifest().at("content").at("parts").size(), 150u);
    const auto ids = reader.column<std::int64_t>("object_id");
    EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
    EXPECT_EQ(reader.column<std::int64_t>("object_id"), ids);  // and again, from those that were closed
    std::size_t open = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        std::error_code gone;  // the iterator's own
        open += std::filesystem::read_symlink(entry.path(), gone).string().find("/many/part-") !=
                std::string::npos;
    }
    EXPECT_GT(open, 0u);
    EXPECT_LE(open, 128u);
}

TEST_F(ReaderTest, FindsASchemaThatTheFilesDoNotHave)
{
    const auto manifest_path = path + "/manifest.json";
    auto manifest = store::read_json(manifest_path);
    manifest["content"]["schema"]["columns"][3]["shape"] = {3, 41, 40};
    std::ofstream(manifest_path) << manifest.dump();
    const store::Reader reader(path, "tiny");
    std::vector<float> pixels(3 * 41 * 40);
    std::string message;
    EXPECT_EQ(exit_code_of([&] { reader.read("flux", 0, 1, pixels.data()); }, &message), 65);
    EXPECT_NE(message.find("dataset 'flux' has shape"), std::string::npos) << message;
}

}  // namespace
}  // namespace astroclip::tests
