#pragma once

#include <string>

namespace astroclip {

std::string version();   // "0.1.0"
std::string revision();  // git revision of the build, or "unknown"
std::string host_name();
// The Slurm job that this process is part of, "123" or "123_4" (task 4 of an array); "" outside of one. The
// number in SLURM_JOB_ID is no name for a task: one of them bears that of the whole array.
std::string slurm_job();
std::string job_id();  // slurm_job(), or "local-<pid>"

}  // namespace astroclip
