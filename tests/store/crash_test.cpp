// What is left when a writer dies, starves or meets another one; each case in a process of its own.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "store/reader.hpp"
#include "store/tiny_store.hpp"

namespace astroclip::tests {
namespace {

using comm::World;

constexpr const char* mpirun = "mpirun --oversubscribe --bind-to none -n 2";

// The environment of a job of its own, not of this test's; a single process needs no daemon of Open MPI's.
constexpr const char* fresh =
    "env -i PATH=\"$PATH\" HOME=\"$HOME\" OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    "OMPI_MCA_ess_singleton_isolated=1 ";

// Runs a shell command; 128 + signal if it was killed.
int run(const std::string& command, std::string* output = nullptr)
{
    std::FILE* pipe = popen((fresh + ("sh -c '" + command + "' 2>&1")).c_str(), "r");
    std::string text;
    char chunk[4096];
    while (const auto got = std::fread(chunk, 1, sizeof chunk, pipe)) {
        text.append(chunk, got);
    }
    const int status = pclose(pipe);
    if (output) {
        *output = text;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int write_store(const std::string& path, const std::string& before = "", std::string* output = nullptr)
{
    return run(before + " " TINY_WRITER " " + path, output);
}

constexpr std::chrono::minutes patience{2};  // with a busy machine

template <typename Condition>
void wait_until(Condition met)
{
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!met() && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

// Processes that reach for one lock; the one that gets it holds it until `release`.
class LockTakers {
public:
    LockTakers(int processes, const std::string& folder)
    {
        if (pipe2(input_, O_CLOEXEC) != 0) {
            throw std::runtime_error("no pipe");
        }
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, input_[0], STDIN_FILENO);
        const std::vector<const char*> arguments{TINY_WRITER, "lock", folder.c_str(), nullptr};
        for (int i = 0; i < processes; ++i) {
            pid_t child = 0;
            if (posix_spawn(&child, TINY_WRITER, &actions, nullptr, const_cast<char**>(arguments.data()),
                            environ) == 0) {
                running_.push_back(child);
            }
        }
        posix_spawn_file_actions_destroy(&actions);
        close(input_[0]);
    }
    ~LockTakers() { release(); }

    // Waits until all but one have ended.
    void wait_for_losers()
    {
        wait_until([this] {
            collect(WNOHANG);
            return running_.size() <= 1;
        });
    }
    void kill_all()
    {
        for (const auto child : running_) kill(child, SIGKILL);
    }
    // The exit codes of all.
    const std::vector<int>& release()
    {
        if (input_[1] >= 0) close(std::exchange(input_[1], -1));
        collect(0);
        return codes_;
    }

private:
    void collect(int options)
    {
        std::erase_if(running_, [&](pid_t child) {
            int status = 0;
            if (waitpid(child, &status, options) != child) return false;
            codes_.push_back(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
            return true;
        });
    }

    int input_[2] = {-1, -1};
    std::vector<pid_t> running_;
    std::vector<int> codes_;
};

void expect_one_winner(int processes, const std::string& folder)
{
    LockTakers takers(processes, folder);
    takers.wait_for_losers();
    const auto& codes = takers.release();
    EXPECT_EQ(std::count(codes.begin(), codes.end(), 0), 1);
    EXPECT_EQ(std::count(codes.begin(), codes.end(), 73), processes - 1);
}

struct CrashTest : testing::Test {
    CrashTest() : world(MPI_COMM_WORLD), folder(world) {}
    World world;
    Folder folder;
};

// Three parts, an index and a manifest: every point is passed several times.
TEST_F(CrashTest, AWriterKilledAtAnyStepOfPublishingLeavesNothingWrongAndIsFinishedByTheNext)
{
    write_tiny(world, folder / "whole");
    const auto expected = store::content_id(folder / "whole");
    const std::map<std::string, std::vector<int>> points = {
        {"publish.before-close", {2}},       {"publish.before-sync", {1, 3, 9}},
        {"publish.before-rename", {2, 9}},   {"publish.after-rename", {2, 9}},
        {"publish.before-manifest", {1, 4}}, {"publish.after-manifest", {2, 4}}};
    int round = 0;
    for (const auto& [point, times] : points) {
        for (const int time : times) {
            const auto where = fmt::format("{}:{}", point, time);
            const auto path = folder / std::to_string(++round);
            EXPECT_EQ(write_store(path, "ASTROCLIP_FAULT=" + where), 137) << where;
            const bool complete = where == "publish.after-rename:9" || where == "publish.after-manifest:4";
            EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }), complete ? 0 : 66) << where;
            std::string output;
            EXPECT_EQ(write_store(path, "", &output), 0) << where << ": " << output;
            EXPECT_EQ(store::content_id(path), expected) << where;
            for (const auto& entry : std::filesystem::directory_iterator(path)) {
                EXPECT_EQ(entry.path().filename().string().find(".part."), std::string::npos) << where;
            }
        }
    }
}

TEST_F(CrashTest, ARankOfSeveralThatIsKilledIsNoDifferent)
{
    const auto path = folder / "store";
    EXPECT_NE(write_store(path, "ASTROCLIP_FAULT=publish.before-close:2@1 " + std::string(mpirun)), 0);
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }), 66);
    EXPECT_TRUE(std::filesystem::exists(path + "/part-00000.json"));
    EXPECT_FALSE(std::filesystem::exists(path + "/part-00001.json"));
    std::string output;
    EXPECT_EQ(write_store(path, mpirun, &output), 0) << output;
    write_tiny(world, folder / "whole");
    EXPECT_EQ(store::content_id(path), store::content_id(folder / "whole"));
}

// Three shards, at the same time; the exit code of the second.
int write_shards(const std::string& path, const std::string& fault_of_second, std::string* output = nullptr)
{
    // Each has its own folder for MPI's session: Open MPI removes the common one when a job ends, even if
    // another is just about to use it.
    const auto shard = [&](int index) {
        const auto session = fmt::format("{}-mpi-{}", path, index);
        std::filesystem::create_directories(session);
        return fmt::format("OMPI_MCA_orte_tmpdir_base={} " TINY_WRITER " {} {} 3", session, path, index);
    };
    return run(fmt::format("{} & a=$!; ASTROCLIP_FAULT={} {} & b=$!; {} & c=$!; "
                           "wait $a || exit 1; wait $c || exit 2; wait $b",
                           shard(0), fault_of_second, shard(1), shard(2)),
               output);
}

TEST_F(CrashTest, ShardsThatRunAtOnceMakeOneStoreAndAKilledOneIsRunAgainAlone)
{
    write_tiny(world, folder / "whole");
    const auto expected = store::content_id(folder / "whole");
    for (int round = 0; round < 4; ++round) {
        const auto path = folder / ("undisturbed" + std::to_string(round));
        std::string output;
        EXPECT_EQ(write_shards(path, "", &output), 0) << output;
        EXPECT_EQ(store::content_id(path), expected) << "completed by nobody";
    }
    for (const std::string fault : {"publish.before-close:1", "publish.before-manifest:1"}) {
        const auto path = folder / fault;
        EXPECT_EQ(write_shards(path, fault), 137) << fault;
        EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }), 66) << fault;
        std::string output;
        EXPECT_EQ(write_store(path + " 1 3", "", &output), 0) << fault << ": " << output;
        EXPECT_EQ(store::content_id(path), expected) << fault;
    }
}

// A limit on the size of files stands for a full disk: parts have about 2 MB.
TEST_F(CrashTest, AFullDiskIsAnIoErrorThatNamesTheFile)
{
    const auto path = folder / "store";
    for (const auto* limit : {"100", "20000", "1000000", "1600000"}) {
        std::string output;
        EXPECT_EQ(write_store(path, fmt::format("TINY_FILE_LIMIT={}", limit), &output), 74)
            << limit << ": " << output;
        EXPECT_NE(output.find(path), std::string::npos) << limit << ": " << output;
        EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }), 66) << limit;
    }
    const auto two_ranks = fmt::format("TINY_FILE_LIMIT=1200000 timeout 120 {}", mpirun);
    EXPECT_EQ(write_store(path, two_ranks), 74);
    EXPECT_EQ(write_store(path), 0);
}

TEST_F(CrashTest, OfFiftySimultaneousStartsExactlyOneWins)
{
    expect_one_winner(50, folder.path);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path));
}

TEST_F(CrashTest, TheLockOfADeadProcessGoesToExactlyOneOfMany)
{
    for (int round = 0; round < 3; ++round) {
        LockTakers dead(1, folder.path);
        wait_until([&] { return std::filesystem::exists(folder / ".lock"); });
        dead.kill_all();
        EXPECT_EQ(dead.release(), std::vector<int>{128 + SIGKILL});
        EXPECT_TRUE(std::filesystem::exists(folder / ".lock"));
        expect_one_winner(20, folder.path);
    }
}

TEST_F(CrashTest, AStopRequestEndsAtThePartBoundaryAndTheRunGoesOn)
{
    const auto path = folder / "store";
    std::string output;
    EXPECT_EQ(write_store(path, "TINY_STOP=1", &output), 75) << output;
    EXPECT_EQ(exit_code_of([&] { store::Reader(path, "tiny"); }), 66);
    EXPECT_TRUE(std::filesystem::exists(path + "/part-00000.json"));
    EXPECT_FALSE(std::filesystem::exists(path + "/part-00001.json"));
    EXPECT_EQ(write_store(path), 0);
}

std::string check_output(const std::string& arguments, int code)
{
    std::string output;
    EXPECT_EQ(run(BIN "/astroclip-check " + arguments, &output), code) << output;
    return output;
}

TEST_F(CrashTest, CheckAcceptsAStoreAndPrintsItsDigest)
{
    const auto path = folder / "store";
    write_tiny(world, path);
    EXPECT_EQ(check_output("--digest " + path, 0), store::content_id(path) + "\n");
    EXPECT_NE(check_output(path, 0).find("complete and undamaged"), std::string::npos);
    const auto summary = nlohmann::json::parse(check_output("--json " + path, 0));
    EXPECT_EQ(summary["valid"], true);
    EXPECT_EQ(summary["rows"].get<int>() + summary["rejects"]["total"].get<int>(), 260);
}

TEST_F(CrashTest, CheckNamesWhatIsWrong)
{
    const auto path = folder / "store";
    write_tiny(world, path);
    check_output("", 64);
    check_output("--wrong " + path, 64);
    check_output(folder / "nowhere", 66);
    damage(path + "/part-00001.h5", 5000);
    EXPECT_NE(check_output(path, 65).find("part-00001.h5"), std::string::npos);
    damage(path + "/part-00001.h5", 5000);
    damage(path + "/index.h5", 5000);
    EXPECT_NE(check_output(path, 65).find("index.h5"), std::string::npos);
    damage(path + "/index.h5", 5000);
    check_output(path, 0);
    auto manifest = store::read_json(path + "/manifest.json");
    manifest["content"]["plan"]["objects"] = 261;
    std::ofstream(path + "/manifest.json") << manifest.dump();
    EXPECT_NE(check_output(path, 65).find("not the 261 objects of the plan"), std::string::npos);
    std::filesystem::remove(path + "/manifest.json");
    check_output(path, 66);
}

}  // namespace
}  // namespace astroclip::tests
