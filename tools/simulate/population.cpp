#include "tools/simulate/population.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "tools/simulate/sersic.hpp"

namespace astroclip::simulate {
namespace {

constexpr double faintest_r = 20.3, brightest_r = 15.5;
constexpr double luminous_red_share = 0.10;

double lognormal(Random& random, double median, double spread)
{
    return median * std::exp(spread * random.normal());
}

// Redshifts of a magnitude-limited sample: p(z) ~ z² exp(-(z/z0)^1.5), of a colour-selected one: a bell
// around 0.47.
double draw_redshift(Random& random, bool luminous_red)
{
    for (;;) {
        double z;
        if (luminous_red) {
            z = 0.47 + 0.08 * random.normal();
        } else {
            const double gamma = -std::log((1 - random.uniform()) * (1 - random.uniform()));
            z = 0.15 * std::pow(gamma, 2.0 / 3);
        }
        if (z > (luminous_red ? 0.3 : 0.02) && z < (luminous_red ? 0.65 : 0.6)) {
            return z;
        }
    }
}

// Absolute magnitude from a Schechter function (M* -21.1, α -1.05), cut at the faint end. Inverts its sum
// over 0.1 mag.
double draw_absolute_magnitude(Random& random, double faintest)
{
    constexpr double brightest = -24.2, step = 0.1;
    faintest = std::max(faintest, brightest + step);
    std::vector<double> cumulative{0};
    for (double m = brightest; m < faintest; m += step) {
        const double luminosity = std::pow(10, -0.4 * (m + 21.1));
        cumulative.push_back(cumulative.back() + std::pow(luminosity, -0.05) * std::exp(-luminosity));
    }
    const double wanted = random.uniform() * cumulative.back();
    const auto above = std::upper_bound(cumulative.begin(), cumulative.end(), wanted) - cumulative.begin();
    const auto i = static_cast<std::size_t>(std::min<long>(above, static_cast<long>(cumulative.size()) - 1));
    const double part = (wanted - cumulative[i - 1]) / (cumulative[i] - cumulative[i - 1]);
    return brightest + step * (static_cast<double>(i - 1) + part);
}

// Shares of the rest-frame r light in the five templates.
Mix red_light(Random& random, double absolute_r)
{
    Mix share{};
    share[0] = std::clamp(0.10 + 0.04 * (-21.5 - absolute_r) + 0.10 * random.normal(), 0.0, 0.4);
    share[2] = lognormal(random, 0.05, 1.1);  // some are on their way to red
    share[4] = lognormal(random, 0.05, 1.1);
    share[3] = std::max(0.3, 1 - share[0] - share[2] - share[4]);
    return share;
}

Mix blue_light(Random& random, double absolute_r)
{
    const double youth = std::clamp(0.58 + 0.09 * (absolute_r + 20.5) + 0.25 * random.normal(), 0.12, 0.97);
    Mix share{};
    share[1] = youth * lognormal(random, 0.015, 0.9);
    share[2] = youth * random.uniform(0.5, 0.9);
    share[4] = youth * random.uniform(0.05, 0.45);
    share[0] = (1 - youth) * random.uniform(0.0, 0.35);
    share[3] = std::max(0.05, 1 - share[0] - share[1] - share[2] - share[4]);
    return share;
}

double circularised(const Profile& profile) { return profile.radius_arcsec * std::sqrt(profile.axis_ratio); }

// Part of the r light within a radius, all parts together, circularised, before the PSF.
double enclosed(const Galaxy& galaxy, double radius_arcsec)
{
    double light = 0;
    for (const auto* profile : {&galaxy.bulge_profile, &galaxy.disk_profile}) {
        const double flux = profile == &galaxy.bulge_profile
                                ? galaxy.part_flux[bulge][1]
                                : galaxy.part_flux[disk][1] + galaxy.part_flux[knots][1];
        if (flux <= 0) {
            continue;
        }
        for (const auto& part : sersic_mixture(profile->sersic)) {
            const double u = radius_arcsec / (part.sigma * circularised(*profile));
            light += flux * part.weight * (1 - std::exp(-0.5 * u * u));
        }
    }
    return light / galaxy.flux[1];
}

double half_light_radius(const Galaxy& galaxy)
{
    double low = 0.01, high = 60;
    while (high / low > 1.001) {
        const double middle = std::sqrt(low * high);
        (enclosed(galaxy, middle) < 0.5 ? low : high) = middle;
    }
    return std::sqrt(low * high);
}

// What the Tractor would call it: unresolved and round, pure exponential, pure de Vaucouleurs, or free index.
void classify(Galaxy& galaxy)
{
    const double share = galaxy.part_flux[bulge][1] / galaxy.flux[1];
    galaxy.half_light_arcsec = half_light_radius(galaxy);
    galaxy.axis_ratio = share > 0.5 ? galaxy.bulge_profile.axis_ratio : galaxy.disk_profile.axis_ratio;
    galaxy.fitted_sersic = share * galaxy.bulge_profile.sersic + (1 - share);
    galaxy.morphology = Morphology::sersic;
    if (galaxy.half_light_arcsec < 0.45) {
        galaxy.morphology = Morphology::rex;
        galaxy.fitted_sersic = 1;
    } else if (share < 0.12) {
        galaxy.morphology = Morphology::exponential;
        galaxy.fitted_sersic = 1;
    } else if (std::abs(galaxy.fitted_sersic - 4) < 0.3) {
        galaxy.morphology = Morphology::de_vaucouleurs;
        galaxy.fitted_sersic = 4;
    }
}

}  // namespace

const char* tractor_type(Morphology morphology)
{
    switch (morphology) {
        case Morphology::rex:
            return "REX";
        case Morphology::exponential:
            return "EXP";
        case Morphology::de_vaucouleurs:
            return "DEV";
        default:
            return "SER";
    }
}

Population::Population(const std::string& data, std::uint64_t seed)
    : seed_(seed),
      filters_{Filter::read(data + "/decam2014-g.ecsv"), Filter::read(data + "/decam2014-r.ecsv"),
               Filter::read(data + "/decam2014-z.ecsv")},
      templates_(Templates::read(data + "/galaxy-templates.fits", filters_[1]))
{
}

Galaxy Population::draw(std::int64_t index) const
{
    Random random(seed_, "galaxy", 0, static_cast<std::uint64_t>(index));
    for (;;) {
        Galaxy galaxy;
        galaxy.index = index;
        if (try_draw(random, galaxy)) {
            return galaxy;
        }
    }
}

// False if its magnitude leaves it out of the sample.
bool Population::try_draw(Random& random, Galaxy& galaxy) const
{
    const bool luminous_red = random.uniform() < luminous_red_share;
    galaxy.redshift = draw_redshift(random, luminous_red);
    const double dimming =
        cosmology_.distance_modulus(galaxy.redshift) + galaxy.redshift;  // with a rough K-correction
    galaxy.absolute_r = draw_absolute_magnitude(random, luminous_red ? -21.7 : faintest_r + 0.3 - dimming);
    const double red_part = 0.12 + 0.70 / (1 + std::exp((galaxy.absolute_r + 20.9) / 0.6));
    galaxy.red = random.uniform() < (luminous_red ? 0.97 : red_part);
    galaxy.ebv = std::min(0.15, lognormal(random, 0.035, 0.4));

    give_stars(random, galaxy);
    give_lines(random, galaxy);
    const auto light = light_of(galaxy, templates_, cosmology_);
    for (const auto part : {bulge, disk, knots}) {
        galaxy.part_flux[part] = band_flux(light, part, galaxy.redshift, templates_, filters_);
        for (std::size_t b = 0; b < 3; ++b) {
            galaxy.flux[b] += galaxy.part_flux[part][b];
        }
    }
    const double r = magnitude(galaxy.flux[1]);
    if (r < brightest_r || (luminous_red ? magnitude(galaxy.flux[2]) > 20.2 || r > 21.4 : r > faintest_r)) {
        return false;
    }
    measure_stars(galaxy);
    give_shape(random, galaxy);
    classify(galaxy);
    return true;
}

// Masses of each template in each part, and the dust. Fainter blue galaxies are younger and have smaller
// bulges; edge-on disks are dustier, so the axis ratio is drawn here.
void Population::give_stars(Random& random, Galaxy& galaxy) const
{
    const auto share =
        galaxy.red ? red_light(random, galaxy.absolute_r) : blue_light(random, galaxy.absolute_r);
    double sum = 0;
    for (const double s : share) {
        sum += s;
    }
    const double inclination = random.uniform();  // cos i
    galaxy.disk_profile.axis_ratio = std::sqrt(0.04 + 0.96 * inclination * inclination);

    const bool elliptical = galaxy.red && random.uniform() < 0.6;
    const double old_in_bulge =
        elliptical   ? 1
        : galaxy.red ? random.uniform(0.4, 0.85)
                     : random.uniform(0.0, std::clamp(0.55 - 0.12 * (galaxy.absolute_r + 21), 0.15, 0.8));
    const double young_in_bulge = elliptical ? 1 : 0;
    const double in_knots = galaxy.red ? 0 : random.uniform(0.1, 0.35);
    for (std::size_t k = 0; k < template_count; ++k) {
        const double mass =
            share[k] / sum * std::pow(10, 0.4 * (templates_.r_magnitude[k] - galaxy.absolute_r));
        const bool old = k == 0 || k == 3;
        const double in_bulge = old ? old_in_bulge : young_in_bulge;
        const double clumped = old || k == 4 ? 0 : (k == 1 ? 1 : in_knots) * (1 - in_bulge);
        galaxy.mass[bulge][k] = mass * in_bulge;
        galaxy.mass[knots][k] = galaxy.red ? 0 : mass * clumped;
        galaxy.mass[disk][k] = mass - galaxy.mass[bulge][k] - galaxy.mass[knots][k];
    }
    const double face_on = galaxy.red ? lognormal(random, 0.08, 0.9) : lognormal(random, 0.4, 0.7);
    const double tilted = std::min(2.0, face_on * std::pow(galaxy.disk_profile.axis_ratio, -0.5));
    galaxy.attenuation = {0.5 * face_on, tilted, tilted};
}

// Strength of the lines: a common scatter, one of each line, and a trend with luminosity that stands for
// metallicity
// ([NII] up, [OIII] down).
void Population::give_lines(Random& random, Galaxy& galaxy) const
{
    const double common = galaxy.red ? -0.4 + 0.4 * random.normal() : 0.22 * random.normal();
    const double metals =
        std::clamp(0.13 * (-20.3 - galaxy.absolute_r) + 0.12 * random.normal(), -0.45, 0.45);
    for (std::size_t l = 0; l < line_count; ++l) {
        const auto& name = templates_.lines[l].name;
        const double trend = name.starts_with("NII")    ? metals
                             : name.starts_with("OIII") ? -1.4 * metals
                             : name.starts_with("OII")  ? -0.5 * metals
                                                        : 0;
        galaxy.line_strength[l] = static_cast<float>(std::pow(10, common + trend + 0.06 * random.normal()));
    }
    galaxy.line_width_kms = std::clamp(
        lognormal(random, 90, 0.25) * std::pow(10, -0.08 * (galaxy.absolute_r + 20.5)), 35.0, 280.0);
}

void Population::measure_stars(Galaxy& galaxy) const
{
    double formed = 0, surviving = 0, metals = 0, young = 0, middle = 0;
    for (const auto& mix : galaxy.mass) {
        for (std::size_t k = 0; k < template_count; ++k) {
            const double left = mix[k] * templates_.surviving[k];
            formed += mix[k];
            surviving += left;
            metals += left * templates_.metallicity[k];
            young += mix[k] * templates_.young_300[k];
            middle += mix[k] * (templates_.young_1000[k] - templates_.young_300[k]);
        }
    }
    galaxy.log_mass = std::log10(surviving);
    galaxy.metallicity = metals / surviving;
    galaxy.star_formation = young / 3e8;
    const double old_age = 0.5 * (1 + Cosmology::age_gyr(galaxy.redshift));
    galaxy.age_gyr = (0.15 * young + 0.65 * middle + old_age * (formed - young - middle)) / formed;
}

// Radii by mass and type after Shen et al. (2003, MNRAS 343, 978, eqs. 17 and 18), a quarter larger since
// theirs are circularised and ours run along the major axis; smaller in the past.
void Population::give_shape(Random& random, Galaxy& galaxy) const
{
    const double mass = std::pow(10, galaxy.log_mass);
    const double median_kpc = galaxy.red ? 3.5e-6 * std::pow(mass, 0.56)
                                         : 0.125 * std::pow(mass, 0.14) * std::pow(1 + mass / 3.98e10, 0.25);
    const double radius_kpc = std::max(0.6, lognormal(random, median_kpc, galaxy.red ? 0.28 : 0.36)) *
                              std::pow(1 + galaxy.redshift, -0.7);
    const double radius_arcsec = radius_kpc / cosmology_.kpc_per_arcsec(galaxy.redshift);
    const bool elliptical = galaxy.red && galaxy.part_flux[disk][1] == 0;

    galaxy.position_angle = random.uniform(0, std::numbers::pi);
    galaxy.disk_profile.radius_arcsec = 1.15 * radius_arcsec;
    galaxy.disk_profile.sersic = 1;
    galaxy.bulge_profile.radius_arcsec =
        elliptical ? radius_arcsec : random.uniform(0.2, 0.4) * radius_arcsec;
    const double index = galaxy.red ? 3.9 + 0.7 * random.normal() : 2.2 + 0.7 * random.normal();
    galaxy.bulge_profile.sersic = nearest_prepared_sersic(std::clamp(index, galaxy.red ? 2.25 : 1.0, 6.0));
    const double roundness = random.uniform(0.55, 1);
    galaxy.bulge_profile.axis_ratio = elliptical ? roundness : std::max(0.6, galaxy.disk_profile.axis_ratio);
    galaxy.knot_count = galaxy.red ? 0 : 15 + static_cast<int>(random.below(45));
    galaxy.arm_pitch = random.uniform(0.2, 0.5);
}

std::vector<Place> places(std::int64_t count, std::uint64_t seed)
{
    constexpr double per_square_degree = 1500, brick_deg = 0.25;
    const double cell = 1 / std::sqrt(per_square_degree);
    const auto rows =
        std::max<std::int64_t>(1, static_cast<std::int64_t>(std::sqrt(static_cast<double>(count) / 2)));
    const auto columns = (count + rows - 1) / rows;

    std::map<int, int> in_brick;
    std::vector<Place> all(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < count; ++i) {
        Random random(seed, "place", 0, static_cast<std::uint64_t>(i));
        auto& place = all[static_cast<std::size_t>(i)];
        const double row = static_cast<double>(i / columns) + random.uniform(0.1, 0.9);
        const double column = static_cast<double>(i % columns) + random.uniform(0.1, 0.9);
        place.dec = (row - 0.5 * static_cast<double>(rows)) * cell;
        const double ra = (column - 0.5 * static_cast<double>(columns)) * cell /
                          std::cos(place.dec * std::numbers::pi / 180);
        place.ra = ra < 0 ? ra + 360 : ra;

        const int brick_row = static_cast<int>((place.dec + 90) / brick_deg);
        const int brick_column = static_cast<int>(place.ra / brick_deg);
        place.release = 9010;
        place.brickid = brick_row * 1440 + brick_column + 1;
        place.objid = in_brick[place.brickid] += 1 + static_cast<int>(random.below(40));
        const double brick_ra = (brick_column + 0.5) * brick_deg,
                     brick_dec = (brick_row + 0.5) * brick_deg - 90;
        place.brickname = fmt::format("{:04}{}{:03}", static_cast<int>(brick_ra * 10),
                                      brick_dec < 0 ? 'm' : 'p', static_cast<int>(std::abs(brick_dec) * 10));
    }
    return all;
}

}  // namespace astroclip::simulate
