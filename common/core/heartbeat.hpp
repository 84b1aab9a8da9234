#pragma once

#include <string>

namespace astroclip {

// Where this rank is, for the watchdog: every step, part and collective calls alive("all_reduce of
// gradients"). `where` must be a string literal (it is kept by address; the watchdog reads it from another
// thread).
void alive(const char* where);

struct Heartbeat {
    const char* where;  // the last place
    double since_s;     // seconds since then
};
Heartbeat last_heartbeat();

}  // namespace astroclip
