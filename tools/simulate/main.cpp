#include <fmt/format.h>
#include <hdf5.h>

#include <filesystem>
#include <fstream>
#include <iostream>
#include <utility>

#include "config/options.hpp"
#include "core/clock.hpp"
#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "core/interrupt.hpp"
#include "core/log.hpp"
#include "core/progress.hpp"
#include "core/provenance.hpp"
#include "tools/simulate/simulation.hpp"

// astroclip-simulate: galaxies with known truth, in the files of the surveys. Not a stage: no MPI, threads
// only.
namespace astroclip::simulate {
namespace {

constexpr auto purpose =
    "astroclip-simulate: galaxies with known truth, written as the surveys write them.\n"
    "OUTPUT/spectra  coadd-*.fits with redrock-*.fits (DESI)\n"
    "OUTPUT/images   HDF5 chunks (Stein et al.), or FITS cutouts with cutouts.csv (Legacy Surveys)\n"
    "OUTPUT/noiseless  with --noiseless: the same spectra before noise and masks\n"
    "OUTPUT/truth.fits, OUTPUT/votes.csv (what volunteers of Galaxy Zoo would say of the images)\n"
    "OUTPUT/simulation.json (the parameters; it appears when all is complete)\n";
constexpr auto examples =
    "Examples\n"
    "  astroclip-simulate --output survey --galaxies 2000 --threads 2\n"
    "  astroclip-simulate --output damaged --galaxies 300 --images fits --cutout-size 160 --nan-pixels 0.02 "
    "\\\n"
    "      --dead-fibres 0.02 --zero-spectra 0.01 --duplicates 0.02 --truncated-files 0.01\n";

void bind(config::Section options, Settings& s)
{
    using namespace config;
    options.option("output", s.output, "folder to make", runtime_only())
        .option("galaxies", s.galaxies, "number of galaxies", between(1, 1e7))
        .option("images", s.images, "hdf5 (chunks) or fits (a file each)", one_of({"hdf5", "fits"}))
        .option("per-file", s.per_file, "spectra a coadd file, images a chunk (about 0.4 MB of memory each)",
                between(1, 1e5))
        .option("cutout-size", s.cutout_size, "pixels a side, of 0.262 arcsec", between(16, 1024))
        .option("sky-fibres", s.sky_fibres, "sky fibres, as a part of the galaxies", between(0, 1))
        .option("noiseless", s.noiseless,
                "also OUTPUT/noiseless: the same spectra before noise and masks, to compare with")
        .option("nan-pixels", s.nan_pixels, "defect: part of the images with a block of NaN", between(0, 1))
        .option("dead-fibres", s.dead_fibres,
                "defect: part of the spectra with COADD_FIBERSTATUS set and no data", between(0, 1))
        .option("zero-spectra", s.zero_spectra, "defect: part of the spectra that are 0 without a warning",
                between(0, 1))
        .option("duplicates", s.duplicates, "defect: part of the images, and of the spectra, that come twice",
                between(0, 1))
        .option("truncated-files", s.truncated_files, "defect: part of the files cut off (one at least)",
                between(0, 1))
        .option("data", s.data, "folder of templates, filters and noise; empty: that of the build",
                runtime_only());
}

void report_status(const config::Invocation& invocation, const std::string& state, int code,
                   const std::string& message)
{
    if (!invocation.status_file.empty()) {
        std::ofstream(invocation.status_file) << nlohmann::json{{"stage", "simulate"},
                                                                {"state", state},
                                                                {"exit_code", code},
                                                                {"message", message},
                                                                {"utc", utc_now()}}
                                                     .dump(1)
                                              << '\n';
    }
}

void simulate_as_told(config::Options& options, Settings& settings)
{
    const auto& invocation = options.invocation();
    settings.seed = options.run().seed;
    settings.threads = options.run().threads;
    if (settings.output.empty()) {
        throw ConfigError("'output' is not set: the folder to make");
    }
    if (invocation.dry_run) {
        check_data(settings);
        std::cout << fmt::format("would write {} galaxies, {:.2f} GB, to {}\n", settings.galaxies,
                                 static_cast<double>(estimated_bytes(settings)) / 1e9, settings.output);
        return;
    }
    const double start = seconds();
    Progress progress(true);
    bool begun = false;
    const auto made = simulate(settings, options.shaping_values(), invocation.force,
                               [&](std::int64_t done, std::int64_t total) {
                                   if (!std::exchange(begun, true)) {
                                       progress.begin("simulating", total, "objects");
                                   }
                                   progress.update(done);
                               });
    if (begun) {
        progress.end();
    }
    if (made) {
        log::info("{}: {} galaxies in {}", settings.output, settings.galaxies,
                  duration_text(seconds() - start));
    } else {
        log::info("{} is up to date: complete, with the same parameters", settings.output);
    }
    report_status(invocation, "done", 0, made ? "" : "up to date");
}

int fail(const config::Options& options, const std::string& message, int code)
{
    log::error("astroclip-simulate {} (exit code {}): {}", code == 75 ? "stopped" : "failed", code, message);
    report_status(options.invocation(), code == 75 ? "stopped" : "failed", code, message);
    return code;
}

std::string versions()
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("astroclip-simulate {} ({})\nHDF5 {}.{}.{}\n", version(), revision(), major, minor,
                       release);
}

int run(int argc, char** argv)
{
    hdf5::silence();
    catch_stop_signals();
    log::configure(log::Level::info, false, 0);
    Settings settings;
    config::Options options("simulate");
    options.seed_shapes_output();
    bind(options.section(), settings);
    try {
        options.parse(argc, argv);
        if (options.invocation().help) {
            std::cout << purpose << '\n' << options.help() << '\n' << examples;
        } else if (options.invocation().version) {
            std::cout << versions();
        } else if (options.invocation().print_config) {
            std::cout << options.print_config();
        } else {
            simulate_as_told(options, settings);
        }
        return 0;
    } catch (const Error& error) {
        return fail(options, error.what(), error.exit_code);
    } catch (const std::filesystem::filesystem_error& error) {
        return fail(options, error.what(), 74);
    } catch (const std::exception& error) {
        return fail(options, InternalError(error.what()).what(), 70);
    }
}

}  // namespace
}  // namespace astroclip::simulate

int main(int argc, char** argv) { return astroclip::simulate::run(argc, argv); }
