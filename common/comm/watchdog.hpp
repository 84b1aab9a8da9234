#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include "comm/world.hpp"

namespace astroclip::comm {

// MPI has no time-out: a rank that stops answering would hang the others for ever. One thread a rank looks at
// the last heartbeat (core/heartbeat.hpp) and keeps it on a board in memory shared by the ranks of the host,
// so that whoever gives up can say which rank was where. After `timeout_s` without progress, or a fault that
// is Watched: one report, then MPI_Abort(69), and _exit(69) if that has not ended the process within 5 s.
class Watchdog {
public:
    // Collective. `report` is called once on a host, from the watchdog's thread, with the text for people.
    Watchdog(const World& world, double timeout_s, std::function<void(const std::string&)> report);
    ~Watchdog();
    Watchdog(const Watchdog&) = delete;
    Watchdog& operator=(const Watchdog&) = delete;

    // True for the first caller among the ranks of this host: who reports a failure that several ranks met.
    bool claim_report();
    void stop();  // before MPI_Finalize; collective

private:
    struct State;
    std::unique_ptr<State> state_;
};

// What else the watchdog of this rank looks at in each tick, as long as this lives: `fault` tells, from the
// watchdog's thread, of an error that no call has met, or "". Such an error ends the job as a hang does.
class Watched {
public:
    explicit Watched(std::function<std::string()> fault);
    ~Watched();
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;

private:
    std::list<std::function<std::string()>>::iterator place_;
};
std::string watched_fault();  // the first that is told, or ""

}  // namespace astroclip::comm
