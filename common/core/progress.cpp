#include "core/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "core/clock.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"

namespace astroclip {
namespace {

constexpr double bar_interval_s = 0.2;
constexpr double first_line_s = 5, longest_line_s = 60;  // in a log: soon at first, then once a minute

std::string bar(double fraction)
{
    constexpr int width = 24;
    const auto full = static_cast<int>(fraction * width);
    return "[" + std::string(full, '=') + std::string(width - full, ' ') + "]";
}

}  // namespace

void Progress::begin(const std::string& what, std::int64_t total, const std::string& unit, std::int64_t done)
{
    report_ = {what, done, total, unit, 0, 0};
    done_at_start_ = done;
    started_s_ = shown_s_ = seconds();
    interval_s_ = isatty(STDERR_FILENO) ? bar_interval_s : first_line_s;
    alive("start of a piece of work");
    if (sink_) {
        sink_(report_);
    }
}

void Progress::update(std::int64_t done, const std::string& note)
{
    alive("work");
    report_.done = done;
    const auto now = seconds();
    if (now - shown_s_ < interval_s_) {
        return;
    }
    shown_s_ = now;
    const auto elapsed = std::max(now - started_s_, 1e-9);
    report_.rate = static_cast<double>(done - done_at_start_) / elapsed;
    report_.left_s = report_.rate > 0 ? static_cast<double>(report_.total - done) / report_.rate : 0;
    show(note, false);
    if (sink_) {
        sink_(report_);
    }
}

void Progress::end()
{
    const auto elapsed = std::max(seconds() - started_s_, 1e-9);
    report_.rate = static_cast<double>(report_.done - done_at_start_) / elapsed;
    report_.left_s = 0;
    show(fmt::format("in {}", duration_text(elapsed)), true);
    if (sink_) {
        sink_(report_);
    }
}

void Progress::show(const std::string& note, bool last)
{
    if (!visible_) {
        return;
    }
    const auto& r = report_;
    const auto rate = r.rate >= 10 ? fmt::format("{:.0f}", r.rate) : fmt::format("{:.2g}", r.rate);
    const auto left = last ? std::string() : fmt::format(", {} left", duration_text(r.left_s));
    const auto text = fmt::format("{} {}/{} {}, {}/s{}{}{}", r.what, r.done, r.total, r.unit, rate, left,
                                  note.empty() ? "" : ", ", note);
    if (isatty(STDERR_FILENO)) {
        const auto fraction =
            r.total > 0 ? std::clamp(static_cast<double>(r.done) / static_cast<double>(r.total), 0., 1.) : 1.;
        fmt::print(stderr, "\r\033[K{} {}{}", bar(fraction), text, last ? "\n" : "");
        std::fflush(stderr);
        return;
    }
    interval_s_ = std::min(interval_s_ * 1.5, longest_line_s);
    log::info("{}", text);
}

}  // namespace astroclip
