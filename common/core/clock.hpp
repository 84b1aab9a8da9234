#pragma once

#include <string>

namespace astroclip {

std::string utc_now();                      // "2026-11-22T10:15:02Z"
double seconds();                           // monotonic, for durations
std::string duration_text(double seconds);  // "2 h 05 min", "3 min 20 s", "1.4 s"

}  // namespace astroclip
