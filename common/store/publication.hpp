#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "store/shard.hpp"

// How anything becomes visible (stores, models, checkpoints, reports): written under a temporary name in the
// same folder, synced, renamed, the folder synced; then the manifest, by rename too: that is the commit. What
// has no manifest does not exist. A published file is never modified.
namespace astroclip::store {

// What a stage is about to make: enough to tell "up to date" from "something else lies there".
struct Request {
    std::string stage;
    nlohmann::json configuration;  // the values that shape the output (config::Options::shaping_values)
    std::string configuration_digest;
    nlohmann::json inputs;  // {name: content id of the input store or file list}
};

// How an output is taken, besides the request.
struct Opening {
    bool break_lock = false;
    std::string redo{};  // a word: made anew, unless it was begun under this word already
    Shard shard{};
    std::string remedy = "--force";  // what makes it anew, as messages say
};

// Exclusive use of an output folder by one job, or of its shards by one job each. The lock file says who
// (job, host, pid, start time, token); it is stale only if that process is provably gone (same host and no
// such pid, or the job is over as Slurm says).
class Output {
public:
    // Collective. Creates the folder if need be and takes its lock (rank 0). Removes leftovers of dead jobs.
    // Throws OutputConflict (73) if another live job holds it, or if it is complete or begun with another
    // request and neither `force` nor `redo`, saying what differs; IoError (74) if it cannot be written;
    // Stopped (75) while it waits for another shard.
    Output(const comm::World& world, std::string path, Request request, bool force,
           const Opening& opening = {});
    ~Output();  // releases the lock
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;

    const std::string& path() const { return path_; }
    const Request& request() const { return request_; }
    const Shard& shard() const { return opening_.shard; }
    bool up_to_date() const { return up_to_date_; }  // complete, with this request: nothing to do
    const std::string& remedy() const { return opening_.remedy; }
    const comm::World& world() const { return world_; }

    // Collective. Runs `work` while no other shard is at its beginning or end.
    void exclusively(const std::function<void()>& work);

    // Collective. Publishes the folder's manifest.json: schema or kind, the files (with sizes and block
    // hashes), and `content`. The last thing a stage does.
    void publish(const nlohmann::json& content, const std::vector<std::string>& files);
    // The same with entries that are known already (parts), so that no file is hashed twice.
    void publish_entries(const nlohmann::json& content, const std::vector<nlohmann::json>& entries);

private:
    void begin(bool force);  // rank 0, under the lock: is what lies in the folder ours, and the same request?
    void lock(bool break_lock);
    void release() noexcept;

    const comm::World& world_;
    std::string path_;
    Request request_;
    Opening opening_;
    std::string token_, shard_token_;  // of the folder's lock and the shard's, on rank 0
    bool up_to_date_ = false;
};

// No communication: one rank a file. `write` fills the temporary file it is given; then sync, rename, sync of
// the folder.
void publish_file(const std::string& final_path,
                  const std::function<void(const std::string& temporary)>& write);
void publish_text(const std::string& final_path, const std::string& text);
// The last steps of publish_file, for a file that all ranks have written and closed.
void publish_written(const std::string& temporary, const std::string& final_path);

// A temporary name beside `final_path` that sweep_leftovers recognises: NAME.part.<job>.<token>.
std::string temporary_name(const std::string& final_path);
// Removes the temporary files of dead jobs: all, or those of a shard's parts and of what all shards make.
void sweep_leftovers(const std::string& folder, const Shard& shard = {});

// Reads FOLDER/manifest.json. MissingInput (66) if there is none ("not complete, or not a store"), DataError
// if it is not valid JSON of a known format version.
nlohmann::json read_manifest(const std::string& folder);
nlohmann::json read_json(const std::string& path);  // depth and size limited

// Content id of a published folder: hash over its manifest's file hashes (not of what differs from run to
// run).
std::string content_id(const std::string& folder);
// Compares a published file with its manifest entry: size always, hashes too unless `trust`. DataError names
// file and block.
void verify_file(const std::string& folder, const nlohmann::json& entry, bool trust);
nlohmann::json file_entry(const std::string& folder,
                          const std::string& name);  // {name, bytes, blocks: [hash…]}
// Collective. The same, synced first and with the blocks hashed by all ranks; `temporary`: the file's present
// name, if it has another yet.
nlohmann::json file_entry(const comm::World& world, const std::string& folder, const std::string& name,
                          const std::string& temporary = "");
// Version, host, job, ranks, UTC: what differs from run to run and stands in manifests alone.
nlohmann::json run_facts(const comm::World& world);
// "key: old -> new" for every value that differs, one a line.
std::string differences(const nlohmann::json& before, const nlohmann::json& now);

}  // namespace astroclip::store
