#pragma once

#include <string>

namespace astroclip {

std::string version();   // "0.1.0"
std::string revision();  // git revision of the build, or "unknown"
std::string host_name();
std::string job_id();  // SLURM_JOB_ID, or "local-<pid>"

}  // namespace astroclip
