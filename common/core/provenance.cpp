#include "core/provenance.hpp"

#include <unistd.h>

#include <cstdlib>

namespace astroclip {

std::string version() { return ASTROCLIP_VERSION; }

std::string revision()
{
    const std::string built = ASTROCLIP_REVISION;
    return built.empty() ? "unknown" : built;
}

std::string host_name()
{
    char name[256] = {};
    gethostname(name, sizeof name - 1);
    return name;
}

std::string slurm_job()
{
    const auto* array = std::getenv("SLURM_ARRAY_JOB_ID");
    const auto* task = std::getenv("SLURM_ARRAY_TASK_ID");
    if (array && task) {
        return std::string(array) + "_" + task;
    }
    const auto* job = std::getenv("SLURM_JOB_ID");
    return job ? job : "";
}

std::string job_id()
{
    const auto job = slurm_job();
    return job.empty() ? "local-" + std::to_string(getpid()) : job;
}

}  // namespace astroclip
