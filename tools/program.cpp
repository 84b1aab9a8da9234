#include "tools/program.hpp"

#include <mpi.h>

#include <cstdlib>
#include <exception>
#include <iostream>

#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "core/log.hpp"
#include "core/provenance.hpp"

namespace astroclip::program {
namespace {

void answer(const Description& description, const config::Options& options, const std::function<void()>& body)
{
    const auto& asked = options.invocation();
    if (asked.help) {
        std::cout << "astroclip-" << description.name << ": " << description.purpose << "\n\n"
                  << options.help();
    } else if (asked.version) {
        std::cout << "astroclip-" << description.name << ' ' << version() << " (" << revision() << ")\n";
    } else if (asked.print_config) {
        std::cout << options.print_config();
    } else if (asked.dry_run) {
        throw ConfigError("--dry-run: a tool has none, only stages do");
    } else {
        body();
    }
}

}  // namespace

int run(int argc, char** argv, const Description& description, config::Options& options,
        const std::function<void()>& body)
{
    hdf5::silence();
    const auto failed = [&](int code, const char* what) {
        log::error("astroclip-{} failed (exit code {}): {}", description.name, code, what);
        return code;
    };
    try {
        options.parse(argc, argv);
        answer(description, options, body);
        return 0;
    } catch (const Error& error) {
        return failed(error.exit_code, error.what());
    } catch (const std::exception& error) {
        return failed(70, error.what());
    }
}

int run_ranks(int argc, char** argv, const Description& description, config::Options& options,
              const std::function<void()>& body)
{
    setenv("MKL_CBWR", "AUTO,STRICT", 0);  // before the first product, as in every stage
    int provided = 0, ranks = 1;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const int code = run(argc, argv, description, options, body);
    if (code != 0 && ranks > 1) {
        MPI_Abort(MPI_COMM_WORLD, code);  // the others may wait for this one
    }
    MPI_Finalize();
    return code;
}

}  // namespace astroclip::program
