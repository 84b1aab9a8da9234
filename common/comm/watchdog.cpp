#include "comm/watchdog.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "core/clock.hpp"
#include "core/heartbeat.hpp"
#include "core/provenance.hpp"

namespace astroclip::comm {
namespace {

// One rank's line on the board. The monotonic clock is the same for all processes of a host.
struct Line {
    std::atomic<double> written_s;   // by the watchdog's thread: stops when the process is stopped
    std::atomic<double> progress_s;  // the last heartbeat
    std::atomic<int> rank;
    std::atomic<int> pid;
    char place[64];
};

struct Board {
    std::atomic<int> claimed;
    Line lines[1];
};

constexpr double tick_s = 0.25;

struct Faults {
    std::mutex mutex;
    std::list<std::function<std::string()>> all;
};

Faults& faults()
{
    static Faults one;
    return one;
}

}  // namespace

Watched::Watched(std::function<std::string()> fault)
{
    const std::lock_guard lock(faults().mutex);
    place_ = faults().all.insert(faults().all.end(), std::move(fault));
}

Watched::~Watched()
{
    const std::lock_guard lock(faults().mutex);
    faults().all.erase(place_);
}

std::string watched_fault()
{
    const std::lock_guard lock(faults().mutex);
    std::string text;
    for (auto fault = faults().all.begin(); text.empty() && fault != faults().all.end(); ++fault) {
        text = (*fault)();
    }
    return text;
}

struct Watchdog::State {
    double timeout_s;
    std::function<void(const std::string&)> report;
    MPI_Comm host = MPI_COMM_NULL;
    MPI_Win window = MPI_WIN_NULL;
    Board* board = nullptr;
    int own_line = 0, lines = 1, rank = 0;
    std::thread thread;
    std::mutex mutex;
    std::condition_variable wake;
    bool ending = false;

    void write_line()
    {
        auto& line = board->lines[own_line];
        const auto last = last_heartbeat();
        std::strncpy(line.place, last.where, sizeof line.place - 1);
        line.progress_s = seconds() - last.since_s;
        line.written_s = seconds();
    }

    // Who was where: a rank whose line is old is stopped or gone; the others wait for it.
    std::string describe() const
    {
        std::string text =
            fmt::format("no progress for {:.0f} s (--hang-timeout) on {}:", timeout_s, host_name());
        for (int i = 0; i < lines; ++i) {
            const auto& line = board->lines[i];
            const auto silent = seconds() - line.written_s.load();
            if (silent > std::max(4 * tick_s, 0.5 * timeout_s)) {
                text += fmt::format(" rank {} (pid {}) does not answer since {:.0f} s, last in '{}';",
                                    line.rank.load(), line.pid.load(), silent, line.place);
            } else {
                text += fmt::format(" rank {} waits in '{}' since {:.0f} s;", line.rank.load(), line.place,
                                    seconds() - line.progress_s.load());
            }
        }
        text.back() = '.';
        return text;
    }

    void give_up(const std::string& why)
    {
        if (board->claimed.exchange(1) == 0) {
            report(why);
        }
        std::thread([] {
            sleep(5);
            _exit(69);
        }).detach();
        MPI_Abort(MPI_COMM_WORLD, 69);
        _exit(69);
    }

    void watch()
    {
        std::unique_lock lock(mutex);
        while (!wake.wait_for(lock, std::chrono::duration<double>(tick_s), [this] { return ending; })) {
            write_line();
            if (last_heartbeat().since_s > timeout_s) {
                give_up(describe());
            }
            if (const auto fault = watched_fault(); !fault.empty()) {
                give_up(fmt::format("rank {} on {}: {}", rank, host_name(), fault));
            }
        }
    }
};

Watchdog::Watchdog(const World& world, double timeout_s, std::function<void(const std::string&)> report)
    : state_(std::make_unique<State>())
{
    auto& s = *state_;
    s.timeout_s = timeout_s;
    s.report = std::move(report);
    s.rank = world.rank();
    check(MPI_Comm_split_type(world.handle(), MPI_COMM_TYPE_SHARED, world.rank(), MPI_INFO_NULL, &s.host),
          "MPI_Comm_split_type");
    check(MPI_Comm_rank(s.host, &s.own_line), "MPI_Comm_rank");
    check(MPI_Comm_size(s.host, &s.lines), "MPI_Comm_size");
    const MPI_Aint bytes =
        s.own_line == 0 ? sizeof(Board) + static_cast<std::size_t>(s.lines) * sizeof(Line) : 0;
    void* own = nullptr;
    check(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, s.host, &own, &s.window),
          "MPI_Win_allocate_shared");
    MPI_Aint size = 0;
    int unit = 0;
    check(MPI_Win_shared_query(s.window, 0, &size, &unit, &s.board), "MPI_Win_shared_query");
    if (s.own_line == 0) {
        std::memset(static_cast<void*>(s.board), 0, static_cast<std::size_t>(bytes));
    }
    check(MPI_Barrier(s.host), "MPI_Barrier");
    s.board->lines[s.own_line].rank = world.rank();
    s.board->lines[s.own_line].pid = getpid();
    alive("start");
    s.write_line();
    check(MPI_Barrier(s.host), "MPI_Barrier");
    s.thread = std::thread([&s] { s.watch(); });
}

bool Watchdog::claim_report() { return state_->board->claimed.exchange(1) == 0; }

void Watchdog::stop()
{
    auto& s = *state_;
    if (s.thread.joinable()) {
        {
            const std::lock_guard lock(s.mutex);
            s.ending = true;
        }
        s.wake.notify_one();
        s.thread.join();
    }
    if (s.window != MPI_WIN_NULL) {
        MPI_Win_free(&s.window);
        MPI_Comm_free(&s.host);
    }
}

Watchdog::~Watchdog()
{
    auto& s = *state_;
    if (s.thread.joinable()) {  // the error path: no collective call, the process is about to end
        {
            const std::lock_guard lock(s.mutex);
            s.ending = true;
        }
        s.wake.notify_one();
        s.thread.join();
    }
}

}  // namespace astroclip::comm
