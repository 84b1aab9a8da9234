#include "core/log.hpp"

#include <unistd.h>

#include <nlohmann/json.hpp>

#include "core/clock.hpp"

namespace astroclip::log {
namespace {

Level threshold = Level::info;
bool as_json = false;
int own_rank = 0;

constexpr const char* names[] = {"debug", "info", "warn", "error"};

}  // namespace

void configure(Level level, bool json, int rank)
{
    threshold = rank == 0 || level == Level::debug ? level : std::max(level, Level::warn);
    as_json = json;
    own_rank = rank;
}

bool shows(Level level) { return level >= threshold; }

void write(Level level, const std::string& text)
{
    const auto* name = names[static_cast<int>(level)];
    std::string line;
    if (as_json) {
        line = nlohmann::json{{"utc", utc_now()}, {"level", name}, {"rank", own_rank}, {"text", text}}.dump(
            -1, ' ', false, nlohmann::json::error_handler_t::replace);
    } else {
        line = fmt::format("{} {:<5} [{}] {}", utc_now(), name, own_rank, text);
    }
    line += '\n';
    // One write a line, so that lines of several ranks do not mix.
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace astroclip::log
