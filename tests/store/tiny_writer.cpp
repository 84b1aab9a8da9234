// Writes the tiny store, or one of its shards, or takes and holds a lock:
//   tiny_writer FOLDER | tiny_writer FOLDER INDEX COUNT | tiny_writer lock FOLDER, until its input ends
// TINY_FILE_LIMIT=BYTES: no file may grow beyond, which acts like a full disk. TINY_STOP: it is asked to stop
// when it has published its first part.
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "core/error.hpp"
#include "core/fault_point.hpp"
#include "core/hdf5.hpp"
#include "core/interrupt.hpp"
#include "store/lock.hpp"
#include "store/tiny_store.hpp"

namespace {

int hold_lock(const std::string& folder)
{
    try {
        const auto token = astroclip::store::take_lock(folder, false);
        while (std::getchar() != EOF) {
        }
        astroclip::store::release_lock(folder, token);
    } catch (const astroclip::Error& error) {
        return error.exit_code;
    }
    return 0;
}

void limit_files()
{
    if (const auto* bytes = std::getenv("TINY_FILE_LIMIT")) {
        std::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{std::strtoul(bytes, nullptr, 10), RLIM_INFINITY};
        setrlimit(RLIMIT_FSIZE, &limit);
    }
}

int write(const std::string& folder, const astroclip::store::Shard& shard)
{
    const astroclip::comm::World world(MPI_COMM_WORLD);
    astroclip::set_fault_rank(world.rank());
    try {
        astroclip::tests::write_tiny(world, folder, {.opening = {.shard = shard}});
    } catch (const astroclip::SharedError& error) {
        if (error.met_here) {
            std::fprintf(stderr, "%s\n", error.what());
        }
        return error.exit_code;
    } catch (const astroclip::Error& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return error.exit_code;
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv)
{
    if (argc == 3 && std::strcmp(argv[1], "lock") == 0) {
        return hold_lock(argv[2]);
    }
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    limit_files();  // not before: MPI's own files are large
    astroclip::hdf5::silence();
    astroclip::catch_stop_signals();
    const int code =
        argc == 4 ? write(argv[1], {std::atoi(argv[2]), std::atoi(argv[3])}) : write(argv[1], {});
    if (code != 0) {
        MPI_Abort(MPI_COMM_WORLD, code);
    }
    MPI_Finalize();
    return 0;
}
