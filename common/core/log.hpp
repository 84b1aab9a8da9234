#pragma once

#include <fmt/format.h>

#include <string>

// Messages for people, on stderr: rank 0 from `info` on, the other ranks from `warn` on (unless --log-level
// says debug). One line each, "2026-11-22T10:15:02Z info  [0] text", or one JSON object with --log-format
// json.
namespace astroclip::log {

enum class Level { debug, info, warn, error };

void configure(Level level, bool json, int rank);
bool shows(Level level);
void write(Level level, const std::string& text);

template <typename... Args>
void debug(fmt::format_string<Args...> format, Args&&... args)
{
    if (shows(Level::debug)) write(Level::debug, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void info(fmt::format_string<Args...> format, Args&&... args)
{
    if (shows(Level::info)) write(Level::info, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void warn(fmt::format_string<Args...> format, Args&&... args)
{
    if (shows(Level::warn)) write(Level::warn, fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
void error(fmt::format_string<Args...> format, Args&&... args)
{
    write(Level::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace astroclip::log
