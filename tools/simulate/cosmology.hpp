#pragma once

#include <vector>

namespace astroclip::simulate {

// Flat ΛCDM with H0 = 70 km/s/Mpc, Ωm = 0.3, without radiation; distances from a table up to z = 2 (error <
// 1e-5).
class Cosmology {
public:
    Cosmology();
    double comoving_mpc(double redshift) const;
    double luminosity_distance_mpc(double redshift) const { return (1 + redshift) * comoving_mpc(redshift); }
    double distance_modulus(double redshift) const;
    double kpc_per_arcsec(double redshift) const;
    static double age_gyr(double redshift);  // of the Universe

private:
    std::vector<double> comoving_;  // at multiples of the table's step
};

}  // namespace astroclip::simulate
