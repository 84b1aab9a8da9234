#pragma once

namespace astroclip {

// SIGTERM and SIGUSR2 ask for a stop at the next step or part boundary: the handlers set one flag and nothing
// else.
void catch_stop_signals();
bool stop_signalled();  // on this rank; ranks agree through World::stop_requested

}  // namespace astroclip
