#include "core/interrupt.hpp"

#include <csignal>

namespace astroclip {
namespace {

volatile std::sig_atomic_t flag = 0;

}  // namespace

void catch_stop_signals()
{
    struct sigaction action {};
    action.sa_handler = [](int) { flag = 1; };
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, nullptr);
    sigaction(SIGUSR2, &action, nullptr);
}

bool stop_signalled() { return flag != 0; }

}  // namespace astroclip
