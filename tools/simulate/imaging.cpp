#include "tools/simulate/imaging.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>

#include "core/random.hpp"
#include "tools/simulate/noise.hpp"
#include "tools/simulate/photometry.hpp"
#include "tools/simulate/sersic.hpp"

namespace astroclip::simulate {
namespace {

// PSF: 80 % of the light in a Gaussian of σ, 20 % in one of 2σ; FWHM = 2.425 σ.
constexpr std::array<MixturePart, 2> psf_mixture = {{{0.8, 1}, {0.2, 2}}};
double psf_sigma(double fwhm) { return fwhm / 2.425; }

// Electrons a nanomaggy, for the photon noise of the sources: DECam's zero points (25.1, 25.3, 24.9 mag at 1
// e/s), 300 s.
constexpr std::array<double, 3> electrons = {3300, 3900, 2800};
constexpr std::array<double, 3> usual_noise = {0.0035, 0.006, 0.018};  // nanomaggy a pixel
constexpr std::array<double, 3> usual_seeing = {1.35, 1.25, 1.15};     // arcsec

struct Plane {
    float* pixels;
    int size;
};

// An elliptical Gaussian: centre (x, y) and covariance in pixels.
struct Gaussian {
    double x, y, xx, xy, yy, flux;
};

// Adds it, out to 5σ. Along a row the exponential obeys a recurrence (each step's ratio shrinks by a constant
// factor), so that a pixel costs two multiplications; it starts at the row's peak and runs outwards, where
// errors fade.
void add(const Plane& plane, const Gaussian& g)
{
    const double determinant = g.xx * g.yy - g.xy * g.xy;
    const double a = g.yy / determinant, b = -g.xy / determinant, c = g.xx / determinant;
    const double peak = g.flux / (2 * std::numbers::pi * std::sqrt(determinant));
    const double reach = 5 * std::sqrt(g.yy);
    const int first_row = std::max(0, static_cast<int>(std::ceil(g.y - reach)));
    const int last_row = std::min(plane.size - 1, static_cast<int>(std::floor(g.y + reach)));
    const double shrink = std::exp(-a);
    for (int row = first_row; row <= last_row; ++row) {
        const double dy = row - g.y;
        const double along = (c - b * b / a) * dy * dy;  // the row's least distance, in σ²
        if (along >= 25) {
            continue;
        }
        const double centre = g.x - b / a * dy;
        const double half_width = std::sqrt((25 - along) / a);
        const int low = std::max(0, static_cast<int>(std::ceil(centre - half_width)));
        const int high = std::min(plane.size - 1, static_cast<int>(std::floor(centre + half_width)));
        const int start = std::clamp(static_cast<int>(std::lround(centre)), low, std::max(low, high));
        float* pixels = plane.pixels + static_cast<std::ptrdiff_t>(row) * plane.size;
        const double dx = start - centre;
        const double at_start = peak * std::exp(-0.5 * (along + a * dx * dx));
        double value = at_start, ratio = std::exp(-a * (dx + 0.5));
        for (int x = start; x <= high; ++x) {
            pixels[x] += static_cast<float>(value);
            value *= ratio;
            ratio *= shrink;
        }
        ratio = std::exp(a * (dx - 0.5));
        value = at_start * ratio;
        for (int x = start - 1; x >= low; --x) {
            ratio *= shrink;
            pixels[x] += static_cast<float>(value);
            value *= ratio;
        }
    }
}

// A round Gaussian of variance `variance` (pixels²) squeezed to the axis ratio, its long side at the position
// angle (from north = +y through east = -x), seen through one part of the PSF. 1/12 pixel² stands for the
// square pixel.
Gaussian squeezed(double x, double y, double variance, double axis_ratio, double angle, double psf_variance,
                  double flux)
{
    const double along_x = -std::sin(angle), along_y = std::cos(angle);
    const double major = variance, minor = variance * axis_ratio * axis_ratio;
    const double blur = psf_variance + 1.0 / 12;
    return {x,
            y,
            major * along_x * along_x + minor * along_y * along_y + blur,
            (major - minor) * along_x * along_y,
            major * along_y * along_y + minor * along_x * along_x + blur,
            flux};
}

void add_profile(const Plane& plane, double x, double y, const Profile& profile, double angle,
                 double fwhm_arcsec, double flux)
{
    const double psf_variance = std::pow(psf_sigma(fwhm_arcsec) / pixel_arcsec, 2);
    const double radius = profile.radius_arcsec / pixel_arcsec;
    for (const auto& part : sersic_mixture(profile.sersic)) {
        const double variance = std::pow(part.sigma * radius, 2);
        if (variance * profile.axis_ratio * profile.axis_ratio > 16 * psf_variance) {
            // Wide against the PSF: only the PSF's variance matters.
            add(plane,
                squeezed(x, y, variance, profile.axis_ratio, angle, 1.6 * psf_variance, flux * part.weight));
            continue;
        }
        for (const auto& psf : psf_mixture) {
            add(plane, squeezed(x, y, variance, profile.axis_ratio, angle,
                                psf.sigma * psf.sigma * psf_variance, flux * part.weight * psf.weight));
        }
    }
}

void add_star(const Plane& plane, double x, double y, double fwhm_arcsec, double flux)
{
    const double psf_variance = std::pow(psf_sigma(fwhm_arcsec) / pixel_arcsec, 2);
    for (const auto& psf : psf_mixture) {
        add(plane, squeezed(x, y, 0, 1, 0, psf.sigma * psf.sigma * psf_variance, flux * psf.weight));
    }
}

struct Knot {
    double x, y;  // arcsec along the disk's major and minor axis, as seen
    double weight;
};

// Young stars along two logarithmic arms in the plane of the disk, with its scale length (radius/1.678).
std::vector<Knot> knots_of(const Galaxy& galaxy, std::uint64_t seed)
{
    Random random(seed, "knots", 0, static_cast<std::uint64_t>(galaxy.index));
    const double scale = galaxy.disk_profile.radius_arcsec / 1.678;
    const double first_angle = random.uniform(0, 2 * std::numbers::pi);
    const double sense = random.uniform() < 0.5 ? -1 : 1;
    std::vector<Knot> knots;
    double sum = 0;
    for (int i = 0; i < galaxy.knot_count; ++i) {
        const double radius = std::clamp(-scale * std::log((1 - random.uniform()) * (1 - random.uniform())),
                                         0.3 * scale, 4 * scale);
        const double arm = random.uniform() < 0.5 ? 0 : std::numbers::pi;
        const double angle = first_angle + arm +
                             sense * std::log(radius / scale) / std::tan(galaxy.arm_pitch) +
                             0.25 * random.normal();
        const double weight = std::exp(0.5 * random.normal());
        knots.push_back(
            {radius * std::cos(angle), radius * std::sin(angle) * galaxy.disk_profile.axis_ratio, weight});
        sum += weight;
    }
    for (auto& knot : knots) {
        knot.weight /= sum;
    }
    return knots;
}

void add_galaxy(const Plane& plane, const Galaxy& galaxy, std::size_t band, double fwhm_arcsec,
                std::uint64_t seed)
{
    const double middle = 0.5 * (plane.size - 1), angle = galaxy.position_angle;
    if (galaxy.part_flux[bulge][band] > 0) {
        add_profile(plane, middle, middle, galaxy.bulge_profile, angle, fwhm_arcsec,
                    galaxy.part_flux[bulge][band]);
    }
    if (galaxy.part_flux[disk][band] > 0) {
        add_profile(plane, middle, middle, galaxy.disk_profile, angle, fwhm_arcsec,
                    galaxy.part_flux[disk][band]);
    }
    if (galaxy.part_flux[knots][band] <= 0) {
        return;
    }
    const double psf_variance = std::pow(psf_sigma(fwhm_arcsec) / pixel_arcsec, 2);
    const double size = 0.12 * galaxy.disk_profile.radius_arcsec / pixel_arcsec;
    for (const auto& knot : knots_of(galaxy, seed)) {
        const double x = middle + (-std::sin(angle) * knot.x - std::cos(angle) * knot.y) / pixel_arcsec;
        const double y = middle + (std::cos(angle) * knot.x - std::sin(angle) * knot.y) / pixel_arcsec;
        for (const auto& psf : psf_mixture) {
            add(plane, squeezed(x, y, size * size, galaxy.disk_profile.axis_ratio, angle,
                                psf.sigma * psf.sigma * psf_variance,
                                galaxy.part_flux[knots][band] * knot.weight * psf.weight));
        }
    }
}

struct Neighbour {
    double x, y;  // pixels
    std::array<double, 3> flux;
    Profile profile;  // radius 0: a star
    double angle;
};

std::array<double, 3> flux_from_colours(double r, double g_r, double r_z)
{
    return {flux_of_magnitude(r + g_r), flux_of_magnitude(r), flux_of_magnitude(r - r_z)};
}

int poisson(Random& random, double mean)
{
    int count = 0;
    for (double product = random.uniform(); product > std::exp(-mean); product *= random.uniform()) {
        ++count;
    }
    return count;
}

// Field objects by rough counts a square arcmin: 22 galaxies to r = 23.5 (slope 0.38), 3 stars to r = 22.
std::vector<Neighbour> neighbours_of(const Galaxy& galaxy, int size, std::uint64_t seed)
{
    Random random(seed, "neighbours", 0, static_cast<std::uint64_t>(galaxy.index));
    const double area = std::pow(size * pixel_arcsec / 60, 2);
    const int galaxies = poisson(random, 22 * area), stars = poisson(random, 3 * area);
    const double free = std::max(2.5, 1.5 * galaxy.half_light_arcsec) / pixel_arcsec;
    const double middle = 0.5 * (size - 1);
    std::vector<Neighbour> neighbours;
    for (int i = 0; i < galaxies + stars; ++i) {
        Neighbour n{random.uniform(-5, size + 5),
                    random.uniform(-5, size + 5),
                    {},
                    {},
                    random.uniform(0, std::numbers::pi)};
        if (i < galaxies) {
            const double r = std::max(16.5, 23.5 + std::log10(1 - random.uniform()) / 0.38);
            const double g_r = 0.8 + 0.4 * random.normal();
            n.flux = flux_from_colours(r, g_r, 0.1 + 0.5 * g_r + 0.12 * random.normal());
            n.profile.radius_arcsec = 0.4 * std::exp(0.35 * random.normal()) * std::pow(10, 0.1 * (22.5 - r));
            n.profile.axis_ratio = random.uniform(0.3, 1);
            n.profile.sersic = random.uniform() < 0.25 ? 4 : 1;
        } else {
            const double r = std::max(15.5, 22 + std::log10(1 - random.uniform()) / 0.2);
            const double g_r = random.uniform(0.3, 1.5);
            n.flux = flux_from_colours(r, g_r, 0.1 + 0.45 * g_r + (g_r > 1.2 ? random.uniform(0, 1.2) : 0));
        }
        if (std::hypot(n.x - middle, n.y - middle) > free) {
            neighbours.push_back(n);
        }
    }
    return neighbours;
}

Plane plane_of(std::vector<float>& pixels, std::size_t band, int size)
{
    return {pixels.data() + band * static_cast<std::size_t>(size) * static_cast<std::size_t>(size), size};
}

}  // namespace

double fibre_fraction(const Profile& profile, double seeing_arcsec)
{
    constexpr double fibre_radius_arcsec = 0.75;
    constexpr std::array<MixturePart, 1> point = {{{1, 0}}};
    const auto mixture =
        profile.radius_arcsec > 0 ? sersic_mixture(profile.sersic) : std::span<const MixturePart>(point);
    double inside = 0;
    for (const auto& part : mixture) {
        for (const auto& psf : psf_mixture) {
            const double variance = std::pow(part.sigma * profile.radius_arcsec, 2) * profile.axis_ratio +
                                    std::pow(psf.sigma * psf_sigma(seeing_arcsec), 2);
            inside += part.weight * psf.weight *
                      (1 - std::exp(-0.5 * fibre_radius_arcsec * fibre_radius_arcsec / variance));
        }
    }
    return inside;
}

Imaging observe(const Galaxy& galaxy, std::uint64_t seed)
{
    Random random(seed, "imaging", 0, static_cast<std::uint64_t>(galaxy.index));
    const double in_fibre[] = {fibre_fraction(galaxy.bulge_profile, 1),
                               fibre_fraction(galaxy.disk_profile, 1)};
    Imaging imaging;
    for (std::size_t b = 0; b < 3; ++b) {
        imaging.psf_fwhm_arcsec[b] = usual_seeing[b] * std::exp(0.12 * random.normal());
        imaging.pixel_noise[b] = usual_noise[b] * std::exp(0.2 * random.normal());
        imaging.exposures[b] = 2 + static_cast<int>(random.below(4));
        const double psf_area =
            4 * std::numbers::pi * std::pow(psf_sigma(imaging.psf_fwhm_arcsec[b]) / pixel_arcsec, 2);
        const double area =
            psf_area + 4 * std::numbers::pi * std::pow(galaxy.half_light_arcsec / pixel_arcsec, 2);
        const double sky = imaging.pixel_noise[b] * imaging.pixel_noise[b];
        imaging.psf_depth[b] = 1 / (sky * psf_area);
        imaging.flux_ivar[b] = 1 / (sky * area + galaxy.flux[b] / electrons[b]);
        // Fits of a profile err by 1.5 % of the flux besides the noise.
        imaging.flux[b] = galaxy.flux[b] * (1 + 0.015 * random.normal()) +
                          random.normal() / std::sqrt(imaging.flux_ivar[b]);
        imaging.fiber_flux[b] = galaxy.part_flux[bulge][b] * in_fibre[0] +
                                (galaxy.part_flux[disk][b] + galaxy.part_flux[knots][b]) * in_fibre[1];
    }
    return imaging;
}

std::vector<float> noiseless_cutout(const Galaxy& galaxy, const Imaging& imaging, int size,
                                    std::uint64_t seed)
{
    std::vector<float> pixels(3 * static_cast<std::size_t>(size) * static_cast<std::size_t>(size), 0);
    for (std::size_t b = 0; b < 3; ++b) {
        add_galaxy(plane_of(pixels, b, size), galaxy, b, imaging.psf_fwhm_arcsec[b], seed);
    }
    return pixels;
}

std::vector<float> cutout(const Galaxy& galaxy, const Imaging& imaging, int size, std::uint64_t seed,
                          std::uint32_t realization)
{
    auto pixels = noiseless_cutout(galaxy, imaging, size, seed);
    const auto neighbours = neighbours_of(galaxy, size, seed);
    Noise noise(seed, "image-noise", realization, static_cast<std::uint64_t>(galaxy.index));
    for (std::size_t b = 0; b < 3; ++b) {
        const auto plane = plane_of(pixels, b, size);
        for (const auto& n : neighbours) {
            if (n.profile.radius_arcsec > 0) {
                add_profile(plane, n.x, n.y, n.profile, n.angle, imaging.psf_fwhm_arcsec[b], n.flux[b]);
            } else {
                add_star(plane, n.x, n.y, imaging.psf_fwhm_arcsec[b], n.flux[b]);
            }
        }
        const auto sky = static_cast<float>(imaging.pixel_noise[b] * imaging.pixel_noise[b]);
        const auto photon = static_cast<float>(1 / electrons[b]);
        const float offset = 0.05f * std::sqrt(sky) * noise();  // of the sky that was taken off
        for (int i = 0; i < size * size; ++i) {
            const float light = plane.pixels[i];
            plane.pixels[i] = light + offset + std::sqrt(sky + photon * light) * noise();
        }
    }
    return pixels;
}

}  // namespace astroclip::simulate
