#pragma once

#include <string>

// Exclusive use of a folder by one job, on file systems that several hosts share.
namespace astroclip::store {

inline constexpr const char* lock_name = ".lock";

// Takes FOLDER/.lock and returns its token. The file appears with its whole content at once (a link to a
// finished file), so that nobody ever reads half a lock. A lock of a process that is provably gone is taken
// over: same host and boot, and no process of that number and start time; or an earlier run of the same Slurm
// job; or a job that Slurm does not know. A file's age is never asked. Throws OutputConflict (73) that says
// who holds it.
std::string take_lock(const std::string& folder, bool break_lock);

// Removes the lock if it still bears `token`; never throws.
void release_lock(const std::string& folder, const std::string& token) noexcept;

std::string new_token();  // 16 random hexadecimal digits

}  // namespace astroclip::store
