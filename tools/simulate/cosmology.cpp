#include "tools/simulate/cosmology.hpp"

#include <cmath>

#include "core/error.hpp"

namespace astroclip::simulate {
namespace {

constexpr double hubble_km_s_mpc = 70, matter = 0.3;
constexpr double light_km_s = 299792.458;
constexpr double step = 0.001, last = 2;

double inverse_expansion(double redshift)
{
    return 1 / std::sqrt(matter * std::pow(1 + redshift, 3) + 1 - matter);
}

}  // namespace

Cosmology::Cosmology() : comoving_{0}
{
    for (double z = 0; z < last; z += step) {
        const auto mean =  // Simpson's rule
            (inverse_expansion(z) + 4 * inverse_expansion(z + step / 2) + inverse_expansion(z + step)) / 6;
        comoving_.push_back(comoving_.back() + light_km_s / hubble_km_s_mpc * step * mean);
    }
}

double Cosmology::comoving_mpc(double redshift) const
{
    const double place = redshift / step;
    const auto cell = static_cast<std::size_t>(place);
    if (redshift < 0 || cell + 1 >= comoving_.size()) {
        throw InternalError("redshift outside the table of distances");
    }
    const double part = place - static_cast<double>(cell);
    return (1 - part) * comoving_[cell] + part * comoving_[cell + 1];
}

double Cosmology::distance_modulus(double redshift) const
{
    return 25 + 5 * std::log10(luminosity_distance_mpc(redshift));
}

double Cosmology::kpc_per_arcsec(double redshift) const
{
    return comoving_mpc(redshift) / (1 + redshift) * 1e3 / 206264.806;
}

double Cosmology::age_gyr(double redshift)
{
    constexpr double hubble_time_gyr = 977.792 / hubble_km_s_mpc;
    const double dark = 1 - matter;
    return hubble_time_gyr * 2 / (3 * std::sqrt(dark)) *
           std::asinh(std::sqrt(dark / matter) * std::pow(1 + redshift, -1.5));
}

}  // namespace astroclip::simulate
