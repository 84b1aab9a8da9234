#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace astroclip {

// How far a stage has come: for people on stderr (rank 0: a bar on a terminal, a line now and then in a log)
// and for the status file. Every call is also a heartbeat.
class Progress {
public:
    struct Report {
        std::string what;  // "training"
        std::int64_t done = 0, total = 0;
        std::string unit;  // "steps"
        double rate = 0;   // units a second, since the start of this run
        double left_s = 0;
    };

    explicit Progress(bool visible) : visible_(visible) {}

    // A new piece of work; `done`: what an earlier run had finished.
    void begin(const std::string& what, std::int64_t total, const std::string& unit, std::int64_t done = 0);
    void update(std::int64_t done, const std::string& note = "");  // note: "loss 3.214"
    void end();

    void on_report(std::function<void(const Report&)> sink) { sink_ = std::move(sink); }
    const Report& last() const { return report_; }

private:
    void show(const std::string& note, bool last);

    bool visible_;
    Report report_;
    std::int64_t done_at_start_ = 0;
    double started_s_ = 0, shown_s_ = 0;
    double interval_s_ = 1;
    std::function<void(const Report&)> sink_;
};

}  // namespace astroclip
