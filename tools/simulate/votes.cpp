#include "tools/simulate/votes.hpp"

#include <algorithm>
#include <cmath>

#include "core/random.hpp"

namespace astroclip::simulate {
namespace {

double logistic(double x) { return 1 / (1 + std::exp(-x)); }

// Chances of answers that stand in the order of x, with these limits between them, each as wide as `width`.
std::vector<double> ordered(double x, const std::vector<double>& limits, double width)
{
    std::vector<double> chances;
    double below = 0;
    for (const double limit : limits) {
        const double up_to = logistic((limit - x) / width);
        chances.push_back(up_to - below);
        below = up_to;
    }
    chances.push_back(1 - below);
    return chances;
}

// Axis ratio of what has this half-light radius along its major axis, behind a PSF of half-light radius
// fwhm / 2.
double seen_axis_ratio(double axis_ratio, double radius_arcsec, double fwhm_arcsec)
{
    const double light = radius_arcsec * radius_arcsec, blur = 0.25 * fwhm_arcsec * fwhm_arcsec;
    return std::sqrt((light * axis_ratio * axis_ratio + blur) / (light + blur));
}

std::size_t draw(Random& random, const std::vector<double>& chances)
{
    double left = random.uniform();
    std::size_t answer = 0;
    while (answer + 1 < chances.size() && (left -= chances[answer]) >= 0) {
        ++answer;
    }
    return answer;
}

}  // namespace

const std::vector<Poll>& polls()
{
    static const std::vector<Poll> all{{"smooth-or-featured", {"smooth", "featured-or-disk", "artifact"}},
                                       {"disk-edge-on", {"yes", "no"}},
                                       {"how-rounded", {"round", "in-between", "cigar-shaped"}},
                                       {"has-spiral-arms", {"yes", "no"}},
                                       {"bulge-size", {"dominant", "large", "moderate", "small", "none"}}};
    return all;
}

std::vector<std::vector<double>> answer_chances(const Galaxy& galaxy, const Imaging& imaging)
{
    constexpr double artifact = 0.02;
    const double fwhm = imaging.psf_fwhm_arcsec[1], radius = galaxy.disk_profile.radius_arcsec;
    const double in_bulge = galaxy.part_flux[bulge][1] / galaxy.flux[1];
    const double in_arms = galaxy.part_flux[knots][0] / galaxy.flux[0];  // blue: brightest in g
    // A disk shows from half the FWHM on, arms in it from the whole of it.
    const double disk_resolved = logistic(std::log(radius / (0.5 * fwhm)) / 0.2);
    const double arms_resolved = logistic(std::log(radius / fwhm) / 0.2);

    std::vector<std::vector<double>> chances(polls().size());
    const double featured = (1 - artifact) * disk_resolved * logistic((0.55 - in_bulge) / 0.08);
    chances[smooth_or_featured] = {1 - artifact - featured, featured, artifact};
    chances[edge_on] = ordered(seen_axis_ratio(galaxy.disk_profile.axis_ratio, radius, fwhm), {0.45}, 0.04);
    const double whole_radius = galaxy.half_light_arcsec / std::sqrt(galaxy.axis_ratio);
    chances[how_rounded] = ordered(seen_axis_ratio(galaxy.axis_ratio, whole_radius, fwhm), {0.5, 0.88}, 0.03);
    std::reverse(chances[how_rounded].begin(), chances[how_rounded].end());
    const double arms = arms_resolved * logistic((in_arms - 0.12) / 0.03);
    chances[spiral_arms] = {arms, 1 - arms};
    chances[bulge_size] = ordered(in_bulge, {0.05, 0.2, 0.4, 0.65}, 0.03);
    std::reverse(chances[bulge_size].begin(), chances[bulge_size].end());
    return chances;
}

std::vector<std::vector<int>> votes_on(const Galaxy& galaxy, const Imaging& imaging, std::uint64_t seed)
{
    Random random(seed, "votes", 0, static_cast<std::uint64_t>(galaxy.index));
    const auto chances = answer_chances(galaxy, imaging);
    std::vector<std::vector<int>> votes;
    for (const auto& poll : polls()) {
        votes.emplace_back(poll.answers.size(), 0);
    }
    const auto ask = [&](PollNumber poll) {
        const auto answer = draw(random, chances[poll]);
        ++votes[poll][answer];
        return polls()[poll].answers[answer];
    };
    const bool shown_to_few = random.uniform() < 0.05;
    const auto volunteers = shown_to_few ? 1 + static_cast<long>(random.below(10))
                                         : std::max(1L, std::lround(40 + 4 * random.normal()));
    for (long i = 0; i < volunteers; ++i) {
        const auto first = ask(smooth_or_featured);
        if (first == "smooth") {
            ask(how_rounded);
        } else if (first == "featured-or-disk" && ask(edge_on) == "no") {
            ask(spiral_arms);
            ask(bulge_size);
        }
    }
    return votes;
}

}  // namespace astroclip::simulate
