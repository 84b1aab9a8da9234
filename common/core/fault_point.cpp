#include "core/fault_point.hpp"

#include <csignal>
#include <cstdlib>
#include <string>

namespace astroclip {
namespace {

struct Fault {
    std::string name;
    int countdown = 1;
    int rank = -1;  // -1: any
};

int own_rank = 0;

Fault parse(const char* text)
{
    Fault fault;
    fault.name = text ? text : "";
    if (const auto at = fault.name.find('@'); at != std::string::npos) {
        fault.rank = std::atoi(fault.name.c_str() + at + 1);
        fault.name.resize(at);
    }
    if (const auto colon = fault.name.find(':'); colon != std::string::npos) {
        fault.countdown = std::atoi(fault.name.c_str() + colon + 1);
        fault.name.resize(colon);
    }
    return fault;
}

}  // namespace

void set_fault_rank(int rank) { own_rank = rank; }

void fault_point(const char* name)
{
    static Fault fault = parse(std::getenv("ASTROCLIP_FAULT"));
    if (fault.name.empty() || fault.name != name || (fault.rank >= 0 && fault.rank != own_rank)) {
        return;
    }
    if (--fault.countdown == 0) {
        std::raise(SIGKILL);
    }
}

}  // namespace astroclip
