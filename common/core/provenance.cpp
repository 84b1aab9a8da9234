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

std::string job_id()
{
    if (const auto* id = std::getenv("SLURM_JOB_ID")) {
        return id;
    }
    return "local-" + std::to_string(getpid());
}

}  // namespace astroclip
