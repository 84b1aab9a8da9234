#pragma once

#include <string>

#include "store/shard.hpp"

// Exclusive use of a folder by one job, or of its shards by one job each, on file systems that several hosts
// share.
namespace astroclip::store {

inline constexpr const char* lock_name = ".lock";

// Takes FOLDER/.lock and returns its token. The file appears with its whole content at once (a link to a
// finished file), so that nobody ever reads half a lock. A lock of a process that is provably gone is taken
// over: same host and boot, and no process of that number and start time; or an earlier run of the same Slurm
// job; or a job that has ended or waits, as Slurm says, or that it does not know. A file's age is never
// asked. Throws OutputConflict (73) that says who holds it.
//
// One of several shards takes it for moments only, at its beginning and its end: "" if a sibling has it just
// now. The whole folder is not taken while a shard is.
std::string take_lock(const std::string& folder, bool break_lock, const Shard& shard = {});

// For the holder of the folder's lock: takes FOLDER/.lock-INDEX-of-COUNT, for as long as the shard is worked
// on. Throws OutputConflict if a live job has it, or any shard of another division.
std::string take_shard_lock(const std::string& folder, bool break_lock, const Shard& shard);
std::string shard_lock_name(const Shard& shard);

// For the holder of the folder's lock: throws OutputConflict if a live job holds a lock of any other shard.
void expect_no_other_shard(const std::string& folder, bool break_lock, const Shard& shard);

// Removes the lock if it still bears `token`; never throws.
void release_lock(const std::string& folder, const std::string& token,
                  const std::string& name = lock_name) noexcept;

std::string new_token();  // 16 random hexadecimal digits

}  // namespace astroclip::store
