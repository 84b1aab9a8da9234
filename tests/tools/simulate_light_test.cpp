#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <numeric>

#include "core/error.hpp"
#include "tools/simulate/cosmology.hpp"
#include "tools/simulate/dust.hpp"
#include "tools/simulate/fits_file.hpp"
#include "tools/simulate/imaging.hpp"
#include "tools/simulate/light.hpp"
#include "tools/simulate/noise.hpp"
#include "tools/simulate/population.hpp"
#include "tools/simulate/sersic.hpp"
#include "tools/simulate/spectroscopy.hpp"

namespace astroclip::simulate {
namespace {

const std::string data = TEST_DATA "/../../tools/simulate/data";

// Arms combined by ivar on the grid of 7781 bins.
struct Combined {
    std::vector<double> wavelength, flux;
};
Combined combine(FitsFile& file)
{
    Combined combined;
    std::vector<double> sum(7781, 0), weight(7781, 0);
    for (const auto& arm : arms) {
        const std::string letter(1, arm.letter);
        file.move_to(letter + "_FLUX");
        const auto flux = file.read_image();
        file.move_to(letter + "_IVAR");
        const auto ivar = file.read_image();
        const auto offset = static_cast<std::size_t>(std::lround((arm.first_angstrom - 3600) / bin_angstrom));
        for (std::size_t i = 0; i < arm.bins; ++i) {
            sum[offset + i] += ivar[i] * flux[i];
            weight[offset + i] += ivar[i];
        }
    }
    for (std::size_t i = 0; i < sum.size(); ++i) {
        combined.wavelength.push_back(3600 + bin_angstrom * static_cast<double>(i));
        combined.flux.push_back(sum[i] / weight[i]);
    }
    return combined;
}

TEST(Photometry, OfARealSpectrumGivesItsGoldenFluxes)
{
    auto file = FitsFile::open(TEST_DATA "/survey/coadd-4-80613-thru20210324.fits");
    const auto spectrum = combine(file);
    // The object lies in the north: BASS g, r and MzLS z. The figures are known to 3 digits.
    const auto flux = [&](const char* name) {
        return Filter::read(std::string(TEST_DATA "/tools/") + name)
            .flux_nanomaggy(spectrum.wavelength, spectrum.flux);
    };
    EXPECT_NEAR(flux("BASS-g.ecsv"), 2.81, 0.01);
    EXPECT_NEAR(flux("BASS-r.ecsv"), 4.68, 0.01);
    EXPECT_NEAR(flux("MzLS-z.ecsv"), 6.27, 0.01);
}

TEST(Photometry, OfAFlatSpectrumInFrequencyIsTheSameInEveryFilterWhateverItsUnit)
{
    std::vector<double> wavelength, flux;
    for (double w = 3000; w < 11500; w += 1) {
        wavelength.push_back(w);
        flux.push_back(3.631e-29 * 2.99792458e18 / (w * w) * 1e17);  // 1 nanomaggy
    }
    for (const char* name : {"decam2014-g", "decam2014-r", "decam2014-z"}) {  // in nm
        EXPECT_NEAR(Filter::read(data + "/" + name + ".ecsv").flux_nanomaggy(wavelength, flux), 1, 1e-6)
            << name;
    }
    const auto in_angstrom = Filter::read(TEST_DATA "/tools/BASS-g.ecsv");
    EXPECT_GT(in_angstrom.first_angstrom(), 3800);
    EXPECT_NEAR(in_angstrom.flux_nanomaggy(wavelength, flux), 1, 1e-6);
}

TEST(Photometry, RefusesACurveWithoutUnit)
{
    const std::string path = testing::TempDir() + "no-unit.ecsv";
    std::ofstream(path) << "# %ECSV 0.9\nwavelength response\n400 0.1\n401 0.2\n";
    EXPECT_THROW(Filter::read(path), DataError);
    EXPECT_THROW(Filter::read(path + ".missing"), MissingInput);
}

TEST(Cosmology, AgreesWithKnownDistances)
{
    const Cosmology cosmology;
    // H0 70, Ωm 0.3, by numerical integration to 5 digits.
    EXPECT_NEAR(cosmology.luminosity_distance_mpc(0.1), 460.30, 0.05);
    EXPECT_NEAR(cosmology.luminosity_distance_mpc(0.5), 2832.94, 0.3);
    EXPECT_NEAR(cosmology.kpc_per_arcsec(0.5), 6.104, 0.002);
    EXPECT_NEAR(Cosmology::age_gyr(0), 13.467, 0.005);
}

TEST(Dust, HasTheLegacySurveysCoefficientsForTheMilkyWay)
{
    // 3.214, 2.165, 1.211 for the bands' mean wavelengths; another law and no spectrum here, so 5 %.
    EXPECT_NEAR(milky_way(4800), 3.214, 0.16);
    EXPECT_NEAR(milky_way(6400), 2.165, 0.11);
    EXPECT_NEAR(milky_way(9150), 1.211, 0.06);
    EXPECT_NEAR(calzetti(5500), 1, 0.01);
}

TEST(SersicMixture, KeepsTheProfileAndItsHalfLightRadius)
{
    for (const double n : {0.5, 1.0, 2.0, 4.0, 6.0}) {
        double inside = 0, sum = 0;
        for (const auto& part : sersic_mixture(n)) {
            sum += part.weight;
            inside += part.weight * (1 - std::exp(-0.5 / (part.sigma * part.sigma)));
        }
        EXPECT_NEAR(sum, 1, 1e-12) << n;
        // What lies outside 8 radii is left out: 4 % of the light for n = 4, 9 % for n = 6.
        EXPECT_NEAR(inside, 0.5, n > 4 ? 0.06 : 0.03) << n;
        for (const double r : {0.3, 0.6, 1.0, 2.0}) {
            double brightness = 0;
            for (const auto& part : sersic_mixture(n)) {
                const double variance = part.sigma * part.sigma;
                brightness += part.weight / (2 * M_PI * variance) * std::exp(-0.5 * r * r / variance);
            }
            EXPECT_NEAR(brightness / sersic_brightness(n, r), 1, 0.12) << n << " at " << r;
        }
    }
}

TEST(Noise, IsStandardNormalAndRepeats)
{
    Noise noise(1, "test", 0, 7), again(1, "test", 0, 7), other(1, "test", 1, 7);
    double mean = 0, square = 0;
    int equal = 0;
    constexpr int count = 200000;
    for (int i = 0; i < count; ++i) {
        const float x = noise();
        ASSERT_EQ(x, again());
        equal += x == other();
        mean += x;
        square += x * x;
    }
    EXPECT_NEAR(mean / count, 0, 0.01);  // 4σ of the mean of 2e5 draws is 0.009
    EXPECT_NEAR(square / count, 1, 0.015);
    EXPECT_LT(equal, 5);
}

class LightOfGalaxies : public testing::Test {
protected:
    static void SetUpTestSuite() { population = new Population(data, 3); }
    static void TearDownTestSuite() { delete population; }
    static Population* population;
};
Population* LightOfGalaxies::population = nullptr;

TEST_F(LightOfGalaxies, GivesTheSameFluxThroughTheSpectrumAndThroughTheImage)
{
    std::vector<double> grid;
    for (double w = 3330; w < 11000; w += 0.8) {
        grid.push_back(w);
    }
    for (int i = 0; i < 30; ++i) {
        const auto galaxy = population->draw(i);
        const auto light = light_of(galaxy, population->templates(), population->cosmology());
        const auto flux = spectrum_on(grid, light, galaxy, population->templates(), {1, 1, 1}, 0.75);
        const auto imaging = observe(galaxy, 3);
        constexpr int size = 801;  // wide enough for the wings
        const auto image = noiseless_cutout(galaxy, imaging, size, 3);
        for (std::size_t b = 0; b < 3; ++b) {
            const double from_spectrum = population->filters()[b].flux_nanomaggy(grid, flux);
            EXPECT_NEAR(from_spectrum / galaxy.flux[b], 1, 0.003) << "galaxy " << i << " band " << b;
            const auto first = image.begin() + static_cast<long>(b) * size * size;
            const double from_image = std::accumulate(first, first + size * size, 0.0);
            EXPECT_NEAR(from_image / galaxy.flux[b], 1, 0.003) << "galaxy " << i << " band " << b;
        }
    }
}

TEST_F(LightOfGalaxies, PutsEmissionLinesWhereTheRedshiftSays)
{
    for (int i = 0;; ++i) {
        auto galaxy = population->draw(i);
        if (galaxy.red || galaxy.redshift > 0.3) {
            continue;
        }
        const auto light = light_of(galaxy, population->templates(), population->cosmology());
        const auto grid = wavelength_of(arms[galaxy.redshift > 0.16 ? 2 : 1]);
        const auto flux = spectrum_on(grid, light, galaxy, population->templates(), {1, 1, 1}, 0.75);
        const double halpha = 6564.61 * (1 + galaxy.redshift);
        std::size_t peak = 0;
        for (std::size_t k = 0; k < grid.size(); ++k) {
            if (std::abs(grid[k] - halpha) < 15 && (peak == 0 || flux[k] > flux[peak])) {
                peak = k;
            }
        }
        EXPECT_NEAR(grid[peak], halpha, bin_angstrom);
        EXPECT_GT(flux[peak], 1.2 * flux[peak - 25]);
        break;
    }
}

TEST_F(LightOfGalaxies, IsPartlyLostByFibresButNeverByStars)
{
    EXPECT_GT(fibre_fraction(Profile{}, 1.1), 0.6);
    Profile wide{.radius_arcsec = 3, .sersic = 1, .axis_ratio = 1},
        narrow{.radius_arcsec = 0.5, .sersic = 1, .axis_ratio = 1};
    EXPECT_LT(fibre_fraction(wide, 1.1), 0.15);
    EXPECT_LT(fibre_fraction(wide, 1.1), fibre_fraction(narrow, 1.1));
    EXPECT_LT(fibre_fraction(narrow, 1.1), fibre_fraction(Profile{}, 1.1));
}

}  // namespace
}  // namespace astroclip::simulate
