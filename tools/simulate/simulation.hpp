#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

namespace astroclip::simulate {

struct Settings {
    std::string output;
    std::string
        data;  // folder of templates, filter curves and noise; "" is where they were when this was built
    std::int64_t galaxies = 2000;
    std::uint64_t seed = 42;
    std::string images = "hdf5";  // or "fits"
    int per_file = 500;
    int cutout_size = 152;
    int threads = 1;
    double sky_fibres = 0.02;
    bool noiseless = false;  // also OUTPUT/noiseless: every spectrum of OUTPUT/spectra before noise and masks
    // Defects, as a part of the objects (or files).
    double nan_pixels = 0, dead_fibres = 0, zero_spectra = 0, duplicates = 0, truncated_files = 0;
};

// Objects done so far, of how many.
using Watcher = std::function<void(std::int64_t done, std::int64_t total)>;

// Writes OUTPUT/{spectra,images,truth.fits,votes.csv,simulation.json} and, if asked, OUTPUT/noiseless. All is
// written in OUTPUT.part and appears by one rename; `parameters` go into simulation.json. The bytes depend on
// the settings other than `threads` and `output` only. Returns false if OUTPUT is complete with the same
// parameters already. Throws OutputConflict if it is something else (unless `force`) or being written,
// IoError, MissingInput (data), Stopped.
bool simulate(const Settings& settings, const nlohmann::json& parameters, bool force,
              const Watcher& watch = {});

// Reads templates, filters and noise and throws what is wrong with them.
void check_data(const Settings& settings);

// What simulate() would write, in bytes (without headers).
std::int64_t estimated_bytes(const Settings& settings);

}  // namespace astroclip::simulate
