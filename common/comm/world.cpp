#include "comm/world.hpp"

#include <fmt/format.h>

#include <limits>
#include <numeric>

#include "core/heartbeat.hpp"
#include "core/interrupt.hpp"

namespace astroclip::comm {
namespace {

// A failure on one rank, as the others have to see it. `exit_code` 0: no failure.
struct Failure {
    int exit_code = 0;
    std::string text;
};

Failure attempt(const std::function<void()>& work)
{
    try {
        work();
        return {};
    } catch (const Error& error) {
        return {error.exit_code, error.what()};
    } catch (const std::bad_alloc&) {
        return {70, "out of memory"};
    } catch (const std::exception& error) {
        return {70, std::string("internal error: ") + error.what()};
    }
}

}  // namespace

void check(int code, const char* call)
{
    if (code == MPI_SUCCESS) {
        return;
    }
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw PeerLost(fmt::format("{} failed: {}", call, text));
}

World::World(MPI_Comm comm)
{
    check(MPI_Comm_dup(comm, &comm_), "MPI_Comm_dup");
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");

    MPI_Comm host;
    check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &host),
          "MPI_Comm_split_type");
    check(MPI_Comm_rank(host, &local_rank_), "MPI_Comm_rank");
    MPI_Comm_free(&host);
}

World::~World()
{
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) {
        MPI_Comm_free(&comm_);
    }
}

void World::barrier() const
{
    alive("barrier");
    check(MPI_Barrier(comm_), "MPI_Barrier");
}

std::string World::broadcast(const std::string& text, int root) const
{
    alive("broadcast of text");
    std::int64_t size = static_cast<std::int64_t>(text.size());
    check(MPI_Bcast(&size, 1, MPI_INT64_T, root, comm_), "MPI_Bcast");
    if (size > std::numeric_limits<int>::max()) {
        throw InternalError("a text of more than 2 GiB is broadcast");
    }
    std::string received = text;
    received.resize(static_cast<std::size_t>(size));
    check(MPI_Bcast(received.data(), static_cast<int>(size), MPI_CHAR, root, comm_), "MPI_Bcast");
    return received;
}

std::int64_t World::sum(std::int64_t value) const
{
    alive("sum over ranks");
    check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_SUM, comm_), "MPI_Allreduce");
    return value;
}

double World::sum(double value) const
{
    alive("sum over ranks");
    check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_SUM, comm_), "MPI_Allreduce");
    return value;
}

std::int64_t World::max(std::int64_t value) const
{
    alive("maximum over ranks");
    check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, comm_), "MPI_Allreduce");
    return value;
}

double World::max(double value) const
{
    alive("maximum over ranks");
    check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, comm_), "MPI_Allreduce");
    return value;
}

bool World::any(bool value) const { return max(std::int64_t{value}) != 0; }

std::vector<char> World::all_gather_bytes(const char* local, std::size_t bytes) const
{
    alive("all_gather of host values");
    const auto own = static_cast<std::int64_t>(bytes);
    std::vector<std::int64_t> counts(size_);
    check(MPI_Allgather(&own, 1, MPI_INT64_T, counts.data(), 1, MPI_INT64_T, comm_), "MPI_Allgather");

    std::vector<std::int64_t> offsets(size_ + 1, 0);
    std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
    std::vector<char> all(static_cast<std::size_t>(offsets.back()));
    // One broadcast a rank, in pieces: counts beyond 2 GiB do not fit MPI's int.
    constexpr std::int64_t piece = 1 << 30;
    if (own > 0) {
        std::copy(local, local + bytes, all.begin() + offsets[rank_]);
    }
    if (offsets.back() <= piece) {
        const std::vector<int> lengths(counts.begin(), counts.end());
        const std::vector<int> starts(offsets.begin(), offsets.end() - 1);
        check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all.data(), lengths.data(), starts.data(),
                             MPI_CHAR, comm_),
              "MPI_Allgatherv");
        return all;
    }
    for (int root = 0; root < size_; ++root) {
        for (auto at = offsets[root]; at < offsets[root + 1]; at += piece) {
            const auto length = static_cast<int>(std::min(piece, offsets[root + 1] - at));
            check(MPI_Bcast(all.data() + at, length, MPI_CHAR, root, comm_), "MPI_Bcast");
        }
    }
    return all;
}

std::vector<std::string> World::all_gather(const std::string& local) const
{
    const auto lengths = all_gather(std::vector<std::int64_t>{static_cast<std::int64_t>(local.size())});
    const auto bytes = all_gather_bytes(local.data(), local.size());
    std::vector<std::string> texts;
    auto at = bytes.begin();
    for (const auto length : lengths) {
        texts.emplace_back(at, at + length);
        at += length;
    }
    return texts;
}

void World::together(const std::function<void()>& work) const
{
    const auto failure = attempt(work);
    const std::int64_t own = failure.exit_code == 0 ? size_ : rank_;
    std::int64_t first = own;
    alive("agreement on errors");
    check(MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT64_T, MPI_MIN, comm_), "MPI_Allreduce");
    if (first == size_) {
        return;
    }
    const int root = static_cast<int>(first);
    std::int64_t code = failure.exit_code;
    check(MPI_Bcast(&code, 1, MPI_INT64_T, root, comm_), "MPI_Bcast");
    const auto text = broadcast(failure.text, root);
    throw SharedError(text, static_cast<int>(code), root == rank_);
}

void World::on_root(const std::function<void()>& work) const
{
    together([&] {
        if (is_root()) {
            work();
        }
    });
}

bool World::stop_requested() const { return any(stop_signalled()); }

}  // namespace astroclip::comm
