#include "tools/simulate/dust.hpp"

#include <cmath>

namespace astroclip::simulate {

double calzetti(double wavelength_angstrom)
{
    const double x = 1e4 / wavelength_angstrom;  // 1/µm
    const double shape =
        wavelength_angstrom < 6300 ? -2.156 + x * (1.509 + x * (-0.198 + x * 0.011)) : -1.857 + 1.040 * x;
    return (2.659 * shape + 4.05) / 4.05;
}

double milky_way(double wavelength_angstrom)
{
    const double x = 1e4 / wavelength_angstrom;
    double a, b;
    if (x < 1.1) {
        a = 0.574 * std::pow(x, 1.61);
        b = -0.527 * std::pow(x, 1.61);
    } else {
        const double y = x - 1.82;
        a = 1 + y * (0.17699 +
                     y * (-0.50447 +
                          y * (-0.02427 + y * (0.72085 + y * (0.01979 + y * (-0.77530 + y * 0.32999))))));
        b = y *
            (1.41338 +
             y * (2.28305 + y * (1.07233 + y * (-5.38434 + y * (-0.62251 + y * (5.30260 - y * 2.09002))))));
    }
    return 0.86 * (3.1 * a + b);
}

}  // namespace astroclip::simulate
