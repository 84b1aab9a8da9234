#include "store/lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>
#include <sstream>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "core/log.hpp"
#include "core/provenance.hpp"
#include "store/publication.hpp"

namespace astroclip::store {
namespace {

std::string first_line(const std::string& path)
{
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

// Start time of a process in clock ticks since boot, which tells a reused process number; "" if there is none
// such.
std::string start_of(long pid)
{
    const auto line = first_line(fmt::format("/proc/{}/stat", pid));
    const auto name_end = line.rfind(')');  // the name may hold blanks and brackets
    if (name_end == std::string::npos) {
        return "";
    }
    std::istringstream fields(line.substr(name_end + 2));
    std::string field;
    for (int i = 3; i <= 22 && fields >> field; ++i) {
        if (i == 3 && (field == "Z" || field == "X")) {
            return "";  // dead, only not collected by its parent yet
        }
    }
    return field;
}

std::string environment(const char* name)
{
    const auto* value = std::getenv(name);
    return value ? value : "";
}

// Where process numbers mean the same: a host since its boot, or a container's own numbering.
std::string process_space()
{
    std::array<char, 64> link{};
    const auto length = readlink("/proc/self/ns/pid", link.data(), link.size() - 1);
    return first_line("/proc/sys/kernel/random/boot_id") + " " +
           std::string(link.data(), length > 0 ? length : 0);
}

nlohmann::json own_lock(const std::string& token, const Shard& shard)
{
    return {{"job", job_id()},
            {"slurm_job", slurm_job()},
            {"slurm_restart", environment("SLURM_RESTART_COUNT")},
            {"host", host_name()},
            {"process_space", process_space()},
            {"pid", static_cast<long>(getpid())},
            {"start", start_of(getpid())},
            {"utc", utc_now()},
            {"shard", shard.whole() ? "" : fmt::format("{} of {}", shard.index, shard.count)},
            {"token", token}};
}

// States of a job none of whose processes can be left. One that waits does so again: its earlier run is over.
bool has_no_processes(const std::string& state)
{
    static const std::set<std::string> states = {"PENDING",   "COMPLETED", "FAILED",        "CANCELLED",
                                                 "TIMEOUT",   "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
                                                 "BOOT_FAIL", "DEADLINE"};
    return states.contains(state);
}

// Asks Slurm; true only if it says clearly that the job is over. It says nothing of jobs of others that it
// hides.
bool slurm_job_is_over(const std::string& job)
{
    if (job.empty() || job.find_first_not_of("0123456789_") != std::string::npos) {
        return false;
    }
    const auto command = "timeout 30 squeue --noheader --states=all --jobs=" + job + " --format=%T 2>&1";
    std::FILE* pipe = popen(command.c_str(), "re");
    if (!pipe) {
        return false;
    }
    std::array<char, 512> text{};
    std::istringstream answer(std::string(text.data(), std::fread(text.data(), 1, text.size(), pipe)));
    const bool answered = pclose(pipe) == 0;
    if (answer.str().find("Invalid job id") != std::string::npos) {
        return true;
    }
    const std::vector<std::string> words(std::istream_iterator<std::string>(answer), {});
    return answered && !words.empty() && std::all_of(words.begin(), words.end(), has_no_processes);
}

bool provably_dead(const nlohmann::json& holder)
{
    const bool same_host = holder.value("host", "") == host_name();
    if (same_host && holder.value("process_space", "") == process_space()) {
        const auto start = start_of(holder.value("pid", 0L));
        return start.empty() || start != holder.value("start", "");
    }
    const auto job = holder.value("slurm_job", "");
    if (!job.empty() && job == slurm_job() &&
        holder.value("slurm_restart", "") != environment("SLURM_RESTART_COUNT")) {
        return true;  // this job was requeued: its earlier run is over
    }
    return slurm_job_is_over(job);
}

// Serialises the takers on file systems with flock, so that two of them cannot both remove a dead job's lock,
// the second one removing the first one's new lock. It ends with the process, so it cannot go stale itself.
class Turnstile {
public:
    explicit Turnstile(const std::string& folder)
        : fd_(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC))
    {
        while (fd_ >= 0 && flock(fd_, LOCK_EX) != 0 && errno == EINTR) {
        }
    }
    ~Turnstile() { close(fd_); }
    Turnstile(const Turnstile&) = delete;
    Turnstile& operator=(const Turnstile&) = delete;

private:
    int fd_;
};

void write_lock(const std::string& path, const std::string& text)
{
    std::ofstream file(path);
    file << text;
    file.close();
    if (!file || chmod(path.c_str(), 0640) != 0) {
        throw_errno(path, fmt::format("write of a lock of {} bytes", text.size()));
    }
}

struct Holder {
    std::string who;
    bool dead = false;
    std::string shard{};  // "2 of 4", if it holds the lock as one of several
};

// Nothing if the lock is gone. One that cannot be understood counts as alive.
std::optional<Holder> read_lock(const std::string& path)
{
    try {
        const auto lock = read_json(path);
        return Holder{fmt::format("job {} on {}, process {}, since {}", lock.at("job").get<std::string>(),
                                  lock.at("host").get<std::string>(), lock.at("pid").get<long>(),
                                  lock.at("utc").get<std::string>()),
                      provably_dead(lock), lock.value("shard", "")};
    } catch (const MissingInput&) {
        return std::nullopt;
    } catch (const std::exception& error) {
        return Holder{fmt::format("somebody whose lock cannot be read ({})", error.what())};
    }
}

// Of jobs killed between writing their lock and linking it; nobody is at that point now, since we hold the
// turnstile.
void remove_unfinished_locks(const std::string& folder)
{
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const auto name = entry.path().filename().string();
        if (name.starts_with(lock_name) && name.find(".part.") != std::string::npos) {
            std::error_code ignored;
            std::filesystem::remove(entry.path(), ignored);
        }
    }
}

[[noreturn]] void throw_in_use(const std::string& what, const Holder& holder)
{
    throw OutputConflict(
        what, fmt::format("is in use by {}; wait for it, or if it is surely dead, --break-lock", holder.who));
}

// Under the turnstile. Links a lock of ours to `path`, unless somebody alive is there: then that one.
std::optional<Holder> link_lock(const std::string& path, const std::string& text, bool break_lock)
{
    const auto mine = temporary_name(path);
    write_lock(mine, text);
    const std::unique_ptr<const std::string, void (*)(const std::string*)> cleanup(
        &mine, [](const std::string* written) { unlink(written->c_str()); });
    while (link(mine.c_str(), path.c_str()) != 0) {
        if (errno != EEXIST) {
            throw_errno(path, "link");
        }
        const auto holder = read_lock(path);
        if (!holder) {
            continue;  // released just now
        }
        if (!break_lock && !holder->dead) {
            return holder;
        }
        log::info("taking over {} of {}", path, holder->who);
        if (unlink(path.c_str()) != 0 && errno != ENOENT) {
            throw_errno(path, "unlink");
        }
    }
    return std::nullopt;
}

bool is_of_division(const std::string& name, const Shard& shard)
{
    return !shard.whole() && name.ends_with(fmt::format("-of-{}", shard.count));
}

// Locks of shards that may not be there beside `shard`: all, if it is the whole; else those of another
// division.
void clear_other_shards(const std::string& folder, bool break_lock, const Shard& shard)
{
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const auto name = entry.path().filename().string();
        if (!name.starts_with(std::string(lock_name) + "-") || is_of_division(name, shard)) {
            continue;
        }
        const auto holder = read_lock(entry.path().string());
        if (holder && !holder->dead && !break_lock) {
            throw_in_use(folder, *holder);
        }
        unlink(entry.path().c_str());
    }
}

}  // namespace

std::string take_lock(const std::string& folder, bool break_lock, const Shard& shard)
{
    const auto token = new_token();
    const Turnstile one_at_a_time(folder);
    remove_unfinished_locks(folder);
    const auto holder =
        link_lock(folder + "/" + lock_name, own_lock(token, shard).dump(1) + "\n", break_lock);
    if (holder && !shard.whole() && !holder->shard.empty()) {
        return "";
    }
    if (holder) {
        throw_in_use(folder, *holder);
    }
    try {
        clear_other_shards(folder, break_lock, shard);
    } catch (...) {
        release_lock(folder, token);
        throw;
    }
    return token;
}

std::string take_shard_lock(const std::string& folder, bool break_lock, const Shard& shard)
{
    const auto token = new_token();
    const Turnstile one_at_a_time(folder);
    const auto path = folder + "/" + shard_lock_name(shard);
    if (const auto holder = link_lock(path, own_lock(token, shard).dump(1) + "\n", break_lock)) {
        throw_in_use(fmt::format("{}, shard {}", folder, holder->shard), *holder);
    }
    return token;
}

void expect_no_other_shard(const std::string& folder, bool break_lock, const Shard& shard)
{
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        const auto name = entry.path().filename().string();
        if (!name.starts_with(std::string(lock_name) + "-") || name == shard_lock_name(shard)) {
            continue;
        }
        const auto holder = read_lock(entry.path().string());
        if (holder && !holder->dead && !break_lock) {
            throw_in_use(folder, *holder);
        }
    }
}

std::string shard_lock_name(const Shard& shard)
{
    return fmt::format("{}-{}-of-{}", lock_name, shard.index, shard.count);
}

void release_lock(const std::string& folder, const std::string& token, const std::string& name) noexcept
{
    if (token.empty()) {
        return;
    }
    try {
        const auto lock = folder + "/" + name;
        if (read_json(lock).value("token", "") == token) {
            unlink(lock.c_str());
        }
    } catch (...) {
        return;  // somebody removed it: nothing of ours is left
    }
}

std::string new_token()
{
    std::random_device random;
    return fmt::format("{:08x}{:08x}", random(), random());
}

}  // namespace astroclip::store
