#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tools/simulate/galaxy.hpp"
#include "tools/simulate/population.hpp"

namespace astroclip::simulate {

// DESI's three arms, 0.8 Å a bin; their union is the grid of 7781 bins from 3600 Å.
struct Arm {
    char letter;
    double first_angstrom;
    std::size_t bins;
};
inline constexpr std::array<Arm, 3> arms = {{{'B', 3600, 2751}, {'R', 5760, 2326}, {'Z', 7520, 2881}}};
inline constexpr double bin_angstrom = 0.8;
std::vector<double> wavelength_of(const Arm& arm);

// Inverse variance of real exposures, one row each (desi-noise.fits).
struct SkyNoise {
    // [arm][row][bin]: logarithm of the ivar, scaled to a median of 1 in R; -inf where there were no data.
    std::array<std::vector<std::vector<double>>, 3> log_ivar;
    static SkyNoise read(const std::string& path);
};

struct Spectrum {
    std::array<std::vector<float>, 3> flux;         // 1e-17 erg/s/cm²/Å
    std::array<std::vector<float>, 3> ivar;         // its inverse variance
    std::array<std::vector<std::int32_t>, 3> mask;  // 0 is good; bits of DESI's SPECMASK
    double exposure_s = 0;
};

// What redrock says of it.
struct Redrock {
    double z = 0, zerr = 0, chi2 = 0, deltachi2 = 0;
    std::int64_t zwarn = 0;
    std::int64_t pixels = 0;
};

inline constexpr std::int32_t mask_cosmic = 1 << 2, mask_bad_column = 1 << 10;
inline constexpr std::int64_t zwarn_sky = 1, zwarn_small_delta_chi2 = 1 << 2, zwarn_no_data = 1 << 9;

// The light that enters the fibre (parts lose light by their size), with 5 % scatter of the calibration and
// small tilts of each arm, the noise of a real sky and of the photons, and bins masked for cosmic rays and
// bad columns (there the flux is wrong, and the ivar usually 0).
// Without noise: the same light and ivar, before noise and masks.
enum class Exposure { noisy, noiseless };
Spectrum observe_spectrum(const Galaxy& galaxy, const Population& population, const SkyNoise& noise,
                          std::uint32_t realization = 0, Exposure exposure = Exposure::noisy);
// A fibre on empty sky.
Spectrum observe_sky(std::int64_t number, const Population& population, const SkyNoise& noise,
                     Exposure exposure = Exposure::noisy);

// Median over all bins of flux · sqrt(ivar), arms combined by ivar on the common grid; bins without ivar
// count as 0.
double median_snr(const Spectrum& spectrum);

// z with an error of some 30 km/s/snr; wrong (and mostly said so) where there is little signal.
Redrock fit_redshift(const Galaxy& galaxy, double snr, std::uint64_t seed, std::uint32_t realization = 0);

}  // namespace astroclip::simulate
