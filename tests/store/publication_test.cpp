#include "store/publication.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "core/error.hpp"
#include "store/lock.hpp"
#include "store/tiny_store.hpp"

namespace astroclip::tests {
namespace {

using comm::World;

int open_code(const World& world, const std::string& path, const Tiny& tiny, std::string* message = nullptr)
{
    return exit_code_of([&] { store::Output(world, path, tiny_request(tiny), tiny.force, tiny.opening); },
                        message);
}

void write_model(const World& world, const std::string& path, const Tiny& tiny = {})
{
    store::Output output(world, path, tiny_request(tiny), tiny.force, tiny.opening);
    world.on_root([&] { store::publish_text(path + "/model.safetensors", "weights " + tiny.setting); });
    output.publish({{"kind", "model"}, {"width", 8}}, {"model.safetensors"});
}

TEST(Output, PublishesAFolderThatIsThenUpToDate)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_model(world, folder / "model");
    const auto manifest = store::read_manifest(folder / "model");
    EXPECT_EQ(manifest["kind"], "model");
    EXPECT_EQ(manifest["content"]["width"], 8);
    EXPECT_EQ(manifest["files"][0]["name"], "model.safetensors");
    EXPECT_EQ(manifest["run"]["ranks"], world.size());
    const store::Output again(world, folder / "model", tiny_request({}), false);
    EXPECT_TRUE(again.up_to_date());
}

TEST(Output, RefusesAnotherConfigurationAndSaysWhatDiffers)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_model(world, folder / "model");
    std::string message;
    EXPECT_EQ(open_code(world, folder / "model", {.setting = "b"}, &message), 73);
    EXPECT_NE(message.find("tiny/setting: \"a\" -> \"b\""), std::string::npos) << message;
    EXPECT_TRUE(std::filesystem::exists(folder / "model/manifest.json"));
}

TEST(Output, RefusesWhatWasBegunWithAnotherConfiguration)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    EXPECT_EQ(open_code(world, folder / "model", {}), 0);
    EXPECT_EQ(open_code(world, folder / "model", {}), 0);
    std::string message;
    EXPECT_EQ(open_code(world, folder / "model", {.setting = "b"}, &message), 73);
    EXPECT_NE(message.find("was begun with another request"), std::string::npos) << message;
}

TEST(Output, ForceReplacesWhatIsOursAndNothingElse)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_model(world, folder / "model");
    world.on_root([&] { store::publish_text(folder / "model/notes.txt", "mine"); });
    write_model(world, folder / "model", {.setting = "b", .force = true});
    EXPECT_EQ(bytes_of(folder / "model/model.safetensors"), "weights b");
    EXPECT_EQ(bytes_of(folder / "model/notes.txt"), "mine");
    EXPECT_EQ(store::read_manifest(folder / "model")["request"]["configuration"]["tiny"]["setting"], "b");
}

TEST(Output, IsMadeAnewOnceForEachWord)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto up_to_date = [&](const std::string& word, const std::string& setting = "a") {
        const store::Output output(world, folder / "model", tiny_request({.setting = setting}), false,
                                   {.redo = word});
        return output.up_to_date();
    };
    write_model(world, folder / "model");
    EXPECT_FALSE(up_to_date("monday"));  // removed, and begun again
    write_model(world, folder / "model", {.opening = {.redo = "monday"}});
    EXPECT_TRUE(up_to_date("monday"));
    EXPECT_TRUE(up_to_date(""));
    EXPECT_FALSE(up_to_date("tuesday", "b"));
    write_model(world, folder / "model", {.setting = "b"});  // goes on with what "tuesday" began
    EXPECT_TRUE(up_to_date("tuesday", "b"));
}

TEST(Output, RefusesAForeignFolderEvenByForce)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    world.on_root([&] { store::publish_text(folder / "thesis.tex", "years of work"); });
    std::string message;
    EXPECT_EQ(open_code(world, folder.path, {.force = true}, &message), 73);
    EXPECT_NE(message.find("thesis.tex"), std::string::npos) << message;
    EXPECT_TRUE(std::filesystem::exists(folder / "thesis.tex"));
    EXPECT_FALSE(std::filesystem::exists(folder / ".lock"));
}

TEST(Output, DoesNotCallAnOutputCompleteThatHasLostAFile)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_model(world, folder / "model");
    world.on_root([&] { std::filesystem::remove(folder / "model/model.safetensors"); });
    EXPECT_EQ(open_code(world, folder / "model", {}), 73);
    EXPECT_EQ(open_code(world, folder / "model", {.force = true}), 0);
}

TEST(Output, IsExclusive)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const store::Output output(world, folder / "store", tiny_request({}), false);
    std::string message;
    EXPECT_EQ(open_code(world, folder / "store", {}, &message), 73);
    EXPECT_NE(message.find("is in use by job"), std::string::npos) << message;
}

TEST(Output, IsTakenByShardsOfOneDivisionAtOnceAndByNobodyElse)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto shard = [](int index, int count) { return Tiny{.opening = {.shard = {index, count}}}; };
    {
        const store::Output first(world, folder / "store", tiny_request({}), false, shard(0, 2).opening);
        const store::Output second(world, folder / "store", tiny_request({}), false, shard(1, 2).opening);
        std::string message;
        EXPECT_EQ(open_code(world, folder / "store", shard(1, 2), &message), 73);
        EXPECT_NE(message.find("shard 1 of 2"), std::string::npos) << message;
        EXPECT_EQ(open_code(world, folder / "store", shard(1, 3)), 73);
        EXPECT_EQ(open_code(world, folder / "store", {}), 73);
    }
    const store::Output whole(world, folder / "store", tiny_request({}), false);
    EXPECT_EQ(open_code(world, folder / "store", shard(1, 2)), 73);
}

TEST(Output, IsNotMadeAnewWhileAShardOfWhatWasBegunIsAtWork)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto shard = [](int index, const char* word) {
        return Tiny{.opening = {.redo = word, .shard = {index, 2}}};
    };
    {
        const store::Output first(world, folder / "store", tiny_request({}), false, shard(0, "a").opening);
        EXPECT_EQ(open_code(world, folder / "store", shard(1, "b")), 73);
        EXPECT_EQ(open_code(world, folder / "store", shard(1, "a")), 0);
    }
    EXPECT_EQ(open_code(world, folder / "store", shard(1, "b")), 0);
}

TEST(Output, RemovesLeftoversOfDeadJobs)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto leftover = folder / "store/part-00000.h5.part.1234.0123456789abcdef";
    EXPECT_EQ(open_code(world, folder / "store", {}), 0);
    world.on_root([&] { std::ofstream(leftover) << "half"; });
    EXPECT_EQ(open_code(world, folder / "store", {}), 0);
    EXPECT_FALSE(std::filesystem::exists(leftover));
}

TEST(Output, AShardRemovesLeftoversOfItsOwnPartsAlone)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    const auto leftover = folder / "store/part-00002.h5.part.1234.0123456789abcdef";
    EXPECT_EQ(open_code(world, folder / "store", {}), 0);
    world.on_root([&] { std::ofstream(leftover) << "half"; });
    EXPECT_EQ(open_code(world, folder / "store", {.opening = {.shard = {1, 2}}}), 0);
    EXPECT_TRUE(std::filesystem::exists(leftover));  // somebody may be writing it
    EXPECT_EQ(open_code(world, folder / "store", {.opening = {.shard = {0, 2}}}), 0);
    EXPECT_FALSE(std::filesystem::exists(leftover));
}

TEST(Output, SaysWhyAFolderCannotBeMade)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    world.on_root([&] { std::ofstream(folder / "file") << "in the way"; });
    EXPECT_EQ(open_code(world, folder / "file", {}), 74);
    EXPECT_EQ(open_code(world, folder / "file/below", {}), 74);
}

TEST(Publication, KeepsFilesFromOthers)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    write_model(world, folder / "model");
    struct stat facts {};
    for (const auto* name : {"model.safetensors", "manifest.json", "request.json"}) {
        ASSERT_EQ(stat((folder / "model/" + name).c_str(), &facts), 0);
        EXPECT_EQ(facts.st_mode & 0777, 0640u) << name;
    }
    ASSERT_EQ(stat((folder / "model").c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, 0750u);
}

TEST(Publication, LeavesNothingBehindWhenWritingFails)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    EXPECT_EQ(exit_code_of([&] {
                  world.on_root([&] {
                      store::publish_file(folder / "report", [](const std::string& temporary) {
                          std::ofstream(temporary) << "half";
                          throw IoError(temporary, "no space");
                      });
                  });
              }),
              74);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path));
}

TEST(Publication, HashesBlocksAlikeOnAnyNumberOfRanks)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    world.on_root([&] {
        std::ofstream(folder / "large", std::ios::binary) << "begin";
        std::filesystem::resize_file(folder / "large",
                                     (128u << 20) + 7);  // a hole: three blocks, little disk
    });
    const auto whole = store::file_entry(folder.path, "large");
    EXPECT_EQ(store::file_entry(world, folder.path, "large"), whole);
    EXPECT_EQ(whole["blocks"].size(), 3u);
    EXPECT_EQ(exit_code_of([&] { store::verify_file(folder.path, whole, false); }), 0);
    world.barrier();
    world.on_root([&] { damage(folder / "large", (64u << 20) + 5); });
    std::string message;
    EXPECT_EQ(exit_code_of([&] { store::verify_file(folder.path, whole, false); }, &message), 65);
    EXPECT_NE(message.find("block 1 "), std::string::npos) << message;
}

TEST(Publication, RefusesManifestsThatAreNotOurs)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    if (!world.is_root()) {
        return;
    }
    const auto code = [&](const std::string& text) {
        std::ofstream(folder / "manifest.json") << text;
        return exit_code_of([&] { store::read_manifest(folder.path); });
    };
    EXPECT_EQ(exit_code_of([&] { store::read_manifest(folder.path); }), 66);
    EXPECT_EQ(exit_code_of([&] { store::read_manifest(folder / "nowhere"); }), 66);
    EXPECT_EQ(code("{"), 65);
    EXPECT_EQ(code("[]"), 65);
    EXPECT_EQ(code(R"({"format": 3})"), 65);
    EXPECT_EQ(code(R"({"format": "astroclip", "format_version": 2, "files": [], "content": {}})"), 65);
    EXPECT_EQ(code(R"({"format": "astroclip", "format_version": 1, "files": [], "content": {}})"), 65);
    EXPECT_EQ(
        code(
            R"({"format": "astroclip", "format_version": 1, "files": [{}], "content": {}, "content_id": ""})"),
        65);
    EXPECT_EQ(code(std::string(100, '[') + std::string(100, ']')), 65);
}

TEST(Publication, DoesNotReadFilesOutsideTheFolder)
{
    const World world(MPI_COMM_WORLD);
    const Folder folder(world);
    for (const auto* name : {"../x", "/etc/passwd", "a/../../x", ""}) {
        const nlohmann::json entry = {{"name", name}, {"bytes", 1}, {"blocks", {"00"}}};
        EXPECT_EQ(exit_code_of([&] { store::verify_file(folder.path, entry, true); }), 65) << name;
    }
}

TEST(Publication, ListsEveryDifference)
{
    EXPECT_EQ(store::differences({{"a", 1}, {"b", {{"c", "x"}}}, {"same", true}},
                                 {{"a", 2}, {"b", {{"d", "y"}}}, {"same", true}}),
              "  a: 1 -> 2\n  b/c: \"x\" -> (none)\n  b/d: (none) -> \"y\"");
    EXPECT_EQ(store::differences(nlohmann::json::object(), nlohmann::json::object()), "");
}

}  // namespace
}  // namespace astroclip::tests
