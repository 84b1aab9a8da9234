#include "store/publication.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <regex>
#include <set>
#include <thread>
#include <utility>

#include "core/clock.hpp"
#include "core/fault_point.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "core/provenance.hpp"
#include "store/lock.hpp"

namespace astroclip::store {
namespace {

namespace fs = std::filesystem;

constexpr int format_version = 1;
constexpr std::uintmax_t max_json_bytes = 16u << 20;
constexpr int max_json_depth = 32;

// A file descriptor that closes itself.
class Descriptor {
public:
    Descriptor(const std::string& path, int flags, mode_t mode = 0)
        : path_(path), fd_(open(path.c_str(), flags, mode))
    {
        if (fd_ < 0) {
            throw_errno(path, "open");
        }
    }
    ~Descriptor() { close(fd_); }
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    operator int() const { return fd_; }
    void sync() const
    {
        if (fsync(fd_) != 0) {
            throw_errno(path_, "fsync");
        }
    }

private:
    std::string path_;
    int fd_;
};

std::string folder_of(const std::string& path)
{
    const auto parent = fs::path(path).parent_path().string();
    return parent.empty() ? "." : parent;
}

void sync_path(const std::string& path) { Descriptor(path, O_RDONLY | O_CLOEXEC).sync(); }

bool exists(const std::string& path) { return fs::symlink_status(path).type() != fs::file_type::not_found; }

std::uint64_t size_of_file(const std::string& path)
{
    struct stat facts {};
    if (stat(path.c_str(), &facts) != 0) {
        throw MissingInput(path, fmt::format("is listed in the manifest, but: {}", std::strerror(errno)));
    }
    return static_cast<std::uint64_t>(facts.st_size);
}

std::string block_hash(const Descriptor& file, const std::string& path, std::uint64_t block)
{
    Digest digest;
    std::vector<char> chunk(1u << 20);
    auto at = block * hash_block_bytes;
    const auto end = at + hash_block_bytes;
    while (at < end) {
        const auto got = pread(file, chunk.data(), chunk.size(), static_cast<off_t>(at));
        if (got < 0) {
            throw_errno(path, "read");
        }
        if (got == 0) {
            break;
        }
        digest.add(chunk.data(), static_cast<std::size_t>(got));
        at += static_cast<std::uint64_t>(got);
    }
    alive("hashing a file");
    return digest.hex();
}

bool is_leftover(const std::string& name)
{
    static const std::regex pattern(R"(.+\.part\.[A-Za-z0-9_-]+\.[0-9a-f]{16})");
    return std::regex_match(name, pattern) && !name.starts_with(lock_name);  // locks: lock.cpp, in turn
}

// A temporary name of what all shards make, in turn, or of one of this shard's parts.
bool is_of_shard(const std::string& name, const Shard& shard)
{
    static const std::regex part(R"(part-(\d{5,9})\..*)");
    std::smatch found;
    return !std::regex_match(name, found, part) || shard.takes(std::stol(found[1]));
}

// Files that may lie in a folder before its request does.
bool comes_before_request(const std::string& name)
{
    static const std::regex of_the_run(R"((status|metrics)(-\d+-of-\d+)?\.jsonl?)");
    return name.starts_with(lock_name) || is_leftover(name) || std::regex_match(name, of_the_run);
}

// Names that the pipeline makes in its output folders: --force removes these and no others.
bool is_ours(const std::string& name)
{
    static const std::regex pattern(
        R"((part-\d{5}\.(h5|json)|index\.h5|manifest\.json|request\.json|heartbeat-.*|)"
        R"(.*\.safetensors|checkpoints|tokens|token-cache|predictions|best-\d+))");
    return std::regex_match(name, pattern) || comes_before_request(name);
}

std::vector<std::string> names_in(const std::string& folder)
{
    std::vector<std::string> names;
    std::error_code error;
    for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
        names.push_back(entry->path().filename().string());
    }
    if (error) {
        throw IoError(folder, "cannot be listed: " + error.message());
    }
    std::sort(names.begin(), names.end());
    return names;
}

void remove_path(const std::string& path)
{
    std::error_code error;
    fs::remove_all(path, error);  // a symbolic link is removed, not followed
    if (error) {
        throw IoError(path, "cannot be removed: " + error.message());
    }
}

// The manifest goes first, so that a crash on the way leaves something incomplete, and the request last, so
// that it leaves something recognisable.
void remove_output(const std::string& folder)
{
    std::set<std::string> names;
    if (exists(folder + "/manifest.json")) {
        try {
            const auto manifest = read_manifest(folder);
            for (const auto& file : manifest.at("files")) {
                const auto path = fs::path(file.at("name").get<std::string>());
                if (!path.empty() && path.is_relative()) {  // nothing outside the folder, whatever it lists
                    names.insert(path.begin()->string());
                }
            }
        } catch (const std::exception&) {
            log::warn("{}/manifest.json is damaged; removing what bears our names", folder);
        }
        remove_path(folder + "/manifest.json");
        sync_path(folder);
    }
    for (const auto& name : names_in(folder)) {
        if (is_ours(name)) {
            names.insert(name);
        }
    }
    for (const auto& name : names) {
        if (!name.starts_with(lock_name) && name != "request.json" && name != "." && name != "..") {
            remove_path(folder + "/" + name);
        }
    }
    remove_path(folder + "/request.json");
    sync_path(folder);
}

nlohmann::json to_json(const Request& request)
{
    return {{"stage", request.stage},
            {"configuration", request.configuration},
            {"configuration_digest", request.configuration_digest},
            {"inputs", request.inputs}};
}

// What must be equal for two requests to make the same thing.
bool same_request(const nlohmann::json& before, const nlohmann::json& now)
{
    return before.value("stage", "") == now.at("stage") &&
           before.value("configuration_digest", "") == now.at("configuration_digest") &&
           before.value("inputs", nlohmann::json()) == now.at("inputs");
}

// For people: the configuration's keys, the inputs and the stage that differ.
std::string request_differences(const nlohmann::json& before, const nlohmann::json& now)
{
    std::string text;
    for (const auto* key : {"configuration", "inputs"}) {
        const auto part = differences(before.value(key, nlohmann::json()), now.at(key));
        text += part.empty() ? "" : part + "\n";
    }
    if (before.value("stage", "") != now.at("stage")) {
        text += fmt::format("  stage: {} -> {}\n", before.value("stage", "(none)"),
                            now.at("stage").get<std::string>());
    }
    return text.empty() ? "  configuration digest (another version of the program?)\n" : text;
}

std::string value_text(const nlohmann::json& value)
{
    return value.is_null() ? "(none)" : value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

void checked_manifest(const nlohmann::json& manifest, const std::string& path)
{
    if (!manifest.is_object() || manifest.value("format", "") != "astroclip") {
        throw DataError(path, "is not a manifest of this pipeline");
    }
    const int version = manifest.value("format_version", 0);
    if (version != format_version) {
        throw DataError(path, fmt::format("has format version {}; this program reads version {}", version,
                                          format_version));
    }
    if (!manifest.contains("files") || !manifest["files"].is_array() || !manifest.contains("content")) {
        throw DataError(path, "lacks 'files' or 'content'");
    }
}

std::string id_of(const nlohmann::json& files)
{
    Digest digest;
    for (const auto& file : files) {
        digest.add(file.at("name").get<std::string>());
        digest.add(std::to_string(file.at("bytes").get<std::uint64_t>()));
        for (const auto& block : file.at("blocks")) {
            digest.add(block.get<std::string>());
        }
    }
    return digest.hex();
}

void write_text(const std::string& path, const std::string& text)
{
    const Descriptor file(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    std::size_t done = 0;
    while (done < text.size()) {
        const auto put = ::write(file, text.data() + done, text.size() - done);
        if (put < 0 && errno != EINTR) {
            throw_errno(path, fmt::format("write of {} bytes", text.size() - done));
        }
        done += put > 0 ? static_cast<std::size_t>(put) : 0;
    }
}

// The request of a complete output whose files are all there, in the right size.
nlohmann::json complete_request(const std::string& folder)
{
    const auto manifest = read_manifest(folder);
    for (const auto& file : manifest.at("files")) {
        verify_file(folder, file, true);
    }
    return manifest.at("request");
}

}  // namespace

Output::Output(const comm::World& world, std::string path, Request request, bool force,
               const Opening& opening)
    : world_(world), path_(std::move(path)), request_(std::move(request)), opening_(opening)
{
    umask(027);
    while (path_.size() > 1 && path_.back() == '/') {
        path_.pop_back();
    }
    world_.on_root([&] {
        std::error_code error;
        fs::create_directories(path_, error);
        if (error || !fs::is_directory(path_)) {
            throw IoError(path_,
                          "cannot be made a folder: " + (error ? error.message() : "a file is in the way"));
        }
    });
    lock(opening_.break_lock);
    world_.on_root([&] {
        try {
            if (!shard().whole()) {
                shard_token_ = take_shard_lock(path_, opening_.break_lock, shard());
            }
            begin(force);
        } catch (...) {
            release();
            throw;
        }
        if (!shard().whole()) {  // the others may begin
            release_lock(path_, std::exchange(token_, ""));
        }
    });
    up_to_date_ = world_.any(up_to_date_);
}

Output::~Output() { release(); }

void Output::release() noexcept
{
    release_lock(path_, std::exchange(token_, ""));
    release_lock(path_, std::exchange(shard_token_, ""), shard_lock_name(shard()));
}

// Collective. Takes the folder's lock; a shard waits for its siblings, which hold it for moments.
void Output::lock(bool break_lock)
{
    constexpr int longest_pause_s = 16;
    for (int pause_s = 1;; pause_s = std::min(2 * pause_s, longest_pause_s)) {
        world_.on_root([&] { token_ = take_lock(path_, break_lock, shard()); });
        if (world_.any(!token_.empty())) {
            return;
        }
        if (world_.stop_requested()) {
            throw Stopped(path_ + ": stopped on request while another shard had the folder");
        }
        alive("waiting for another shard");
        std::this_thread::sleep_for(std::chrono::seconds(pause_s));
    }
}

void Output::exclusively(const std::function<void()>& work)
{
    if (shard().whole()) {
        return work();
    }
    lock(false);
    work();
    world_.on_root([&] { release_lock(path_, std::exchange(token_, "")); });
}

void Output::begin(bool force)
{
    const auto now = to_json(request_);
    const auto names = names_in(path_);
    const bool complete = exists(path_ + "/manifest.json");
    const bool begun = exists(path_ + "/request.json");
    if (!complete && !begun) {
        const auto foreign = std::find_if_not(names.begin(), names.end(), comes_before_request);
        if (foreign != names.end()) {
            throw OutputConflict(
                path_, fmt::format("is not an output of this pipeline: it holds '{}' and no request.json or "
                                   "manifest.json; name an empty or new folder",
                                   *foreign));
        }
    }
    sweep_leftovers(path_, shard());
    if (complete || begun) {
        auto before = nlohmann::json::object();
        try {
            before = complete ? complete_request(path_) : read_json(path_ + "/request.json");
        } catch (const std::exception& error) {
            if (!force && opening_.redo.empty()) {
                throw OutputConflict(path_,
                                     fmt::format("holds an output that cannot be read ({}); {} makes it anew",
                                                 error.what(), opening_.remedy));
            }
        }
        const auto word = before.value("redo", "");
        force = force || (!opening_.redo.empty() && opening_.redo != word);
        if (!force && !same_request(before, now)) {
            throw OutputConflict(
                path_, fmt::format("{} with another request:\n{}{} makes it anew, or name another folder",
                                   complete ? "is complete" : "was begun", request_differences(before, now),
                                   opening_.remedy));
        }
        if (!force) {
            opening_.redo = word;
            up_to_date_ = complete;
            return;
        }
        // A shard of what was begun before would publish its parts into what is begun now.
        expect_no_other_shard(path_, opening_.break_lock, shard());
        remove_output(path_);
    }
    auto kept = now;
    kept["redo"] = opening_.redo;
    publish_text(path_ + "/request.json", kept.dump(1) + "\n");
}

void Output::publish(const nlohmann::json& content, const std::vector<std::string>& files)
{
    std::vector<nlohmann::json> entries;
    for (const auto& name : files) {
        entries.push_back(file_entry(world_, path_, name));
    }
    publish_entries(content, entries);
}

void Output::publish_entries(const nlohmann::json& content, const std::vector<nlohmann::json>& entries)
{
    const auto run = run_facts(world_);
    world_.barrier();  // no rank may still be writing something that the manifest promises
    world_.on_root([&] {
        auto files = nlohmann::json(entries);
        auto request = to_json(request_);
        request["redo"] = opening_.redo;
        nlohmann::json manifest = {{"format", "astroclip"},
                                   {"format_version", format_version},
                                   {"kind", content.value("kind", request_.stage)},
                                   {"content", content},
                                   {"content_id", id_of(files)},
                                   {"files", files},
                                   {"request", request},
                                   {"run", run}};
        const auto text = manifest.dump(1) + "\n";
        if (text.size() > max_json_bytes) {
            throw InternalError(
                fmt::format("manifest of {} has {} bytes, more than readers take", path_, text.size()));
        }
        fault_point("publish.before-manifest");
        publish_text(path_ + "/manifest.json", text);
        fault_point("publish.after-manifest");
    });
}

void publish_file(const std::string& final_path,
                  const std::function<void(const std::string& temporary)>& write)
{
    const auto temporary = temporary_name(final_path);
    try {
        write(temporary);
        publish_written(temporary, final_path);
    } catch (...) {
        std::error_code ignored;
        fs::remove(temporary, ignored);
        throw;
    }
}

void publish_text(const std::string& final_path, const std::string& text)
{
    publish_file(final_path, [&](const std::string& temporary) { write_text(temporary, text); });
}

void publish_written(const std::string& temporary, const std::string& final_path)
{
    fault_point("publish.before-sync");
    if (fs::is_regular_file(temporary) && chmod(temporary.c_str(), 0640) != 0) {
        throw_errno(temporary, "chmod");
    }
    sync_path(temporary);
    fault_point("publish.before-rename");
    if (rename(temporary.c_str(), final_path.c_str()) != 0) {
        throw_errno(final_path, "rename");
    }
    sync_path(folder_of(final_path));
    fault_point("publish.after-rename");
}

std::string temporary_name(const std::string& final_path)
{
    return final_path + ".part." + job_id() + "." + new_token();
}

void sweep_leftovers(const std::string& folder, const Shard& shard)
{
    for (const auto& name : names_in(folder)) {
        if (is_leftover(name) && is_of_shard(name, shard)) {
            log::debug("removing {}/{}, left by a job that ended early", folder, name);
            remove_path(folder + "/" + name);
        }
    }
}

nlohmann::json read_json(const std::string& path)
{
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    if (error) {
        throw MissingInput(path, "cannot be read: " + error.message());
    }
    if (bytes > max_json_bytes) {
        throw DataError(path,
                        fmt::format("has {} bytes; {} is the most that is read", bytes, max_json_bytes));
    }
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto limit = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
        if (depth > max_json_depth) {
            throw DataError(path, fmt::format("is nested deeper than {} levels", max_json_depth));
        }
        return true;
    };
    try {
        return nlohmann::json::parse(text, limit);
    } catch (const nlohmann::json::exception& problem) {
        throw DataError(path, std::string("is not valid JSON: ") + problem.what());
    }
}

nlohmann::json read_manifest(const std::string& folder)
{
    const auto path = folder + "/manifest.json";
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
        throw MissingInput(folder, "does not exist, or is not a folder");
    }
    if (!exists(path)) {
        throw MissingInput(folder,
                           "has no manifest.json: it is not complete, or not an output of this pipeline");
    }
    auto manifest = read_json(path);
    try {
        checked_manifest(manifest, path);
        if (manifest.at("content_id") != id_of(manifest.at("files"))) {
            throw DataError(path,
                            "does not agree with itself: content_id is not the hash of the files' hashes");
        }
    } catch (const nlohmann::json::exception& problem) {
        throw DataError(path, std::string("is not a valid manifest: ") + problem.what());
    }
    return manifest;
}

std::string content_id(const std::string& folder) { return read_manifest(folder).at("content_id"); }

void verify_file(const std::string& folder, const nlohmann::json& entry, bool trust)
{
    const std::string name = entry.at("name");
    const fs::path relative(name);
    if (name.empty() || relative.is_absolute() ||
        std::find(relative.begin(), relative.end(), "..") != relative.end()) {
        throw DataError(folder + "/manifest.json", "lists a file outside its folder: '" + name + "'");
    }
    const auto path = folder + "/" + name;
    const std::uint64_t expected = entry.at("bytes");
    if (const auto found = size_of_file(path); found != expected) {
        throw DataError(path, fmt::format("has {} bytes, its manifest says {}: it was truncated or changed",
                                          found, expected));
    }
    if (trust) {
        return;
    }
    const auto& blocks = entry.at("blocks");
    if (blocks.size() != (expected + hash_block_bytes - 1) / hash_block_bytes) {
        throw DataError(folder + "/manifest.json",
                        fmt::format("lists {} blocks for '{}'", blocks.size(), name));
    }
    const Descriptor file(path, O_RDONLY | O_CLOEXEC);
    for (std::size_t block = 0; block < blocks.size(); ++block) {
        const auto found = block_hash(file, path, block);
        if (blocks[block] != found) {
            throw DataError(
                path,
                fmt::format("is damaged: block {} (bytes {} to {}) has hash {}, its manifest says {}", block,
                            block * hash_block_bytes, std::min(expected, (block + 1) * hash_block_bytes),
                            found, blocks[block].get<std::string>()));
        }
    }
}

nlohmann::json file_entry(const std::string& folder, const std::string& name)
{
    const auto path = folder + "/" + name;
    return {{"name", name}, {"bytes", size_of_file(path)}, {"blocks", file_block_hashes(path)}};
}

nlohmann::json file_entry(const comm::World& world, const std::string& folder, const std::string& name,
                          const std::string& temporary)
{
    const auto path = temporary.empty() ? folder + "/" + name : temporary;
    std::uint64_t bytes = 0;
    std::string own;  // hashes of this rank's blocks, which are contiguous
    world.together([&] {
        sync_path(path);  // every host may hold pages of a file that all ranks wrote
        bytes = size_of_file(path);
        const auto blocks = (bytes + hash_block_bytes - 1) / hash_block_bytes;
        const auto rank = static_cast<std::uint64_t>(world.rank()),
                   size = static_cast<std::uint64_t>(world.size());
        const Descriptor file(path, O_RDONLY | O_CLOEXEC);
        for (auto block = blocks * rank / size; block < blocks * (rank + 1) / size; ++block) {
            own += block_hash(file, path, block);
        }
    });
    auto blocks = nlohmann::json::array();
    for (const auto& hashes : world.all_gather(own)) {
        for (std::size_t at = 0; at < hashes.size(); at += 32) {
            blocks.push_back(hashes.substr(at, 32));
        }
    }
    return {{"name", name}, {"bytes", bytes}, {"blocks", blocks}};
}

nlohmann::json run_facts(const comm::World& world)
{
    return {{"version", version()}, {"revision", revision()}, {"host", host_name()},
            {"job", job_id()},      {"ranks", world.size()},  {"utc", utc_now()}};
}

std::string differences(const nlohmann::json& before, const nlohmann::json& now)
{
    const auto old_values = before.is_structured() ? before.flatten() : nlohmann::json::object();
    const auto new_values = now.is_structured() ? now.flatten() : nlohmann::json::object();
    std::set<std::string> keys;
    for (const auto* values : {&old_values, &new_values}) {
        for (const auto& item : values->items()) {
            keys.insert(item.key());
        }
    }
    std::string text;
    for (const auto& key : keys) {
        const auto was = old_values.value(key, nlohmann::json()),
                   is = new_values.value(key, nlohmann::json());
        if (was != is && !key.empty()) {
            text += fmt::format("{}  {}: {} -> {}", text.empty() ? "" : "\n", key.substr(1), value_text(was),
                                value_text(is));
        }
    }
    return text;
}

}  // namespace astroclip::store
