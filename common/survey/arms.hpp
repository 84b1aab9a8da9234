#pragma once

#include <cstdint>
#include <span>
#include <vector>

// DESI's three spectrograph arms onto one grid. Coadded files hold the arms B (3600-5800 Angstrom), R
// (5760-7620) and Z (7520-9824), all at 0.8 Angstrom on the same comb: the combined spectrum has 7781 bins,
// 3600 + 0.8 i, vacuum, observed frame. Rules as desispec's coadd_cameras (github.com/desihub/desispec).
namespace astroclip::survey {

inline constexpr int desi_bins = 7781;
inline constexpr double desi_first_angstrom = 3600.0, desi_step_angstrom = 0.8;
std::vector<double> desi_wavelength();  // [7781]

// The mask bit of a bin that no arm covers (SPECMASK NODATA).
inline constexpr std::uint32_t no_data_bit = 1u << 8;

// One arm of one spectrum. flux in 1e-17 erg s-1 cm-2 Angstrom-1; ivar its inverse square; mask: 0 is good.
struct ArmSpectrum {
    int first_bin = 0;  // of its first pixel in the common grid
    std::vector<float> flux, ivar;
    std::vector<std::uint32_t> mask;
};

enum class ArmRule {
    // As at the time of the Early Data Release, the published AstroCLIP spectra: weight = ivar where the mask
    // is 0.
    edr,
    // As desispec has it since: weight = ivar in overlaps; elsewhere the arm is copied, masked or not.
    current,
};

// A spectrum on the common grid, [7781] each. Every value is finite and ivar >= 0; flux is 0 where ivar is 0
// (edr).
struct Spectrum {
    std::vector<float> flux, ivar;
    std::vector<std::uint32_t> mask;
    // Pixels of the arms that claim to be good (mask 0, ivar not 0) but are not finite numbers; they were
    // left out.
    int damaged_pixels = 0;
};

// Several exposures of one arm to one, weighted by ivar where the mask is 0; mask = what all of them have
// set. All have the same grid.
ArmSpectrum coadd_exposures(std::span<const ArmSpectrum> exposures);

Spectrum combine_arms(std::span<const ArmSpectrum> arms, ArmRule rule);

}  // namespace astroclip::survey
