#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tools/simulate/parallel.hpp"
#include "tools/simulate/population.hpp"
#include "tools/simulate/spectroscopy.hpp"

namespace astroclip::simulate {
namespace {

const std::string data = TEST_DATA "/../../tools/simulate/data";
constexpr int count = 2000;

class Survey : public testing::Test {
protected:
    static void SetUpTestSuite()
    {
        population = new Population(data, 42);
        galaxies = new std::vector<Galaxy>(count);
        parallel_for(count, 2,
                     [&](std::int64_t i) { (*galaxies)[static_cast<std::size_t>(i)] = population->draw(i); });
    }
    static void TearDownTestSuite()
    {
        delete galaxies;
        delete population;
    }
    static Population* population;
    static std::vector<Galaxy>* galaxies;
};
Population* Survey::population = nullptr;
std::vector<Galaxy>* Survey::galaxies = nullptr;

// R² of the mean redshift of the 16 nearest neighbours in g, r, z magnitudes; the last fifth is predicted
// from the rest.
double photo_z_r2(const std::vector<Galaxy>& galaxies)
{
    const std::size_t train = galaxies.size() * 4 / 5;
    const auto mean_of = [&](auto first, auto last, auto get) {
        double sum = 0;
        for (auto g = first; g != last; ++g) {
            sum += get(*g);
        }
        return sum / static_cast<double>(last - first);
    };
    const auto z = [](const Galaxy& g) { return g.redshift; };
    const double mean = mean_of(galaxies.begin() + static_cast<long>(train), galaxies.end(), z);
    double residual = 0, total = 0;
    for (auto i = train; i < galaxies.size(); ++i) {
        std::vector<std::pair<double, double>> distance_and_z;
        for (std::size_t j = 0; j < train; ++j) {
            double distance = 0;
            for (std::size_t b = 0; b < 3; ++b) {
                distance += std::pow(magnitude(galaxies[i].flux[b]) - magnitude(galaxies[j].flux[b]), 2);
            }
            distance_and_z.emplace_back(distance, galaxies[j].redshift);
        }
        std::partial_sort(distance_and_z.begin(), distance_and_z.begin() + 16, distance_and_z.end());
        double predicted = 0;
        for (int k = 0; k < 16; ++k) {
            predicted += distance_and_z[static_cast<std::size_t>(k)].second / 16;
        }
        residual += std::pow(predicted - galaxies[i].redshift, 2);
        total += std::pow(mean - galaxies[i].redshift, 2);
    }
    return 1 - residual / total;
}

double percentile(std::vector<double> values, double part)
{
    std::sort(values.begin(), values.end());
    return values[static_cast<std::size_t>(part * static_cast<double>(values.size() - 1))];
}

TEST_F(Survey, IsAsHardForPhotometricRedshiftsAsTheSky)
{
    const double r2 = photo_z_r2(*galaxies);
    RecordProperty("photo_z_r2", std::to_string(r2));
    std::cout << "photo-z R² of kNN on g, r, z magnitudes: " << r2 << '\n';
    EXPECT_GT(r2, 0.65);
    EXPECT_LT(r2, 0.85);  // 0.81 for real galaxies with ugriz magnitudes reduced to g, r, z
}

TEST_F(Survey, CoversTheRangesOfABrightGalaxySurvey)
{
    std::vector<double> r, z, g_r;
    for (const auto& galaxy : *galaxies) {
        r.push_back(magnitude(galaxy.flux[1]));
        z.push_back(galaxy.redshift);
        g_r.push_back(magnitude(galaxy.flux[0]) - r.back());
        EXPECT_GT(galaxy.log_mass, 6.5);
        EXPECT_LT(galaxy.log_mass, 12.5);
        EXPECT_GT(galaxy.half_light_arcsec, 0.05);
        EXPECT_TRUE(std::isfinite(std::log10(galaxy.star_formation)));
    }
    EXPECT_LT(percentile(r, 0.05), 18);
    EXPECT_GT(percentile(r, 0.95), 20);
    EXPECT_LT(percentile(z, 0.05), 0.1);
    EXPECT_GT(percentile(z, 0.95), 0.4);
    EXPECT_LT(percentile(g_r, 0.1), 0.7);
    EXPECT_GT(percentile(g_r, 0.9), 1.4);
}

TEST_F(Survey, HasRedGalaxiesThatAreMassiveAndQuiet)
{
    double mass[2] = {}, activity[2] = {};
    int number[2] = {};
    for (const auto& galaxy : *galaxies) {
        ++number[galaxy.red];
        mass[galaxy.red] += galaxy.log_mass;
        activity[galaxy.red] += std::log10(galaxy.star_formation) - galaxy.log_mass;
    }
    EXPECT_GT(number[0], count / 4);
    EXPECT_GT(number[1], count / 4);
    EXPECT_GT(mass[1] / number[1], mass[0] / number[0] + 0.2);
    EXPECT_LT(activity[1] / number[1], activity[0] / number[0] - 0.5);
}

TEST_F(Survey, HasSpectraFromFaintToBright)
{
    const auto noise = SkyNoise::read(data + "/desi-noise.fits");
    std::vector<double> snr(200);
    parallel_for(200, 2, [&](std::int64_t i) {
        const auto& galaxy = (*galaxies)[static_cast<std::size_t>(i)];
        snr[static_cast<std::size_t>(i)] = median_snr(observe_spectrum(galaxy, *population, noise));
    });
    std::cout << "median S/N per bin, 10, 50, 90 %: " << percentile(snr, 0.1) << ' ' << percentile(snr, 0.5)
              << ' ' << percentile(snr, 0.9) << '\n';
    EXPECT_LT(percentile(snr, 0.1), 1.7);
    EXPECT_GT(percentile(snr, 0.1), 0.6);
    EXPECT_LT(percentile(snr, 0.9), 12);
    EXPECT_GT(percentile(snr, 0.9), 5);
}

TEST_F(Survey, HasNoiseThatItsInverseVarianceDescribes)
{
    const auto noise = SkyNoise::read(data + "/desi-noise.fits");
    double chi2 = 0, bins = 0, masked = 0;
    for (int i = 0; i < 20; ++i) {
        const auto sky = observe_sky(i, *population, noise);
        for (std::size_t a = 0; a < arms.size(); ++a) {
            for (std::size_t k = 0; k < arms[a].bins; ++k) {
                const bool good = sky.mask[a][k] == 0 && sky.ivar[a][k] > 0;
                chi2 += good ? sky.flux[a][k] * sky.flux[a][k] * sky.ivar[a][k] : 0;
                bins += good;
                masked += sky.mask[a][k] != 0;
            }
        }
    }
    EXPECT_NEAR(chi2 / bins, 1, 0.02);  // 5σ for 1.6e5 bins
    EXPECT_GT(masked, 0);
    EXPECT_LT(masked / bins, 0.01);
}

TEST(Places, HaveTheirOwnIdsAndStayApart)
{
    const auto all = places(500, 9);
    std::set<std::int64_t> ids;
    bool west = false, east = false;
    for (const auto& place : all) {
        EXPECT_TRUE(ids.insert(place.targetid()).second);
        EXPECT_EQ(place.targetid() & 0x3FFFFF, place.objid);
        EXPECT_EQ(place.targetid() >> 22 & 0xFFFFF, place.brickid);
        EXPECT_EQ(place.targetid() >> 42, place.release);
        east |= place.ra < 90;
        west |= place.ra > 270;
    }
    EXPECT_TRUE(east && west);  // the field lies across RA 0
    for (std::size_t i = 0; i < all.size(); ++i) {
        for (std::size_t j = i + 1; j < all.size(); ++j) {
            const double ra = std::remainder(all[i].ra - all[j].ra, 360);
            EXPECT_GT(std::hypot(ra, all[i].dec - all[j].dec) * 3600, 15);
        }
    }
}

}  // namespace
}  // namespace astroclip::simulate
