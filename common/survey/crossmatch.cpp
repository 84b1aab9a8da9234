#include "survey/crossmatch.hpp"

#include <algorithm>
#include <limits>
#include <nanoflann.hpp>
#include <numeric>

#include "core/heartbeat.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {
namespace {

// The unit vectors of a catalogue, as nanoflann wants to see them.
struct Cloud {
    std::vector<UnitVector> points;

    std::size_t kdtree_get_point_count() const { return points.size(); }
    double kdtree_get_pt(std::size_t i, std::size_t axis) const { return points[i][axis]; }
    template <typename Box>
    bool kdtree_get_bbox(Box&) const
    {
        return false;
    }
};
using Tree =
    nanoflann::KDTreeSingleIndexAdaptor<nanoflann::L2_Simple_Adaptor<double, Cloud>, Cloud, 3, std::int64_t>;

Cloud cloud_of(const Sources& sources)
{
    Cloud cloud;
    cloud.points.reserve(sources.ra.size());
    for (std::size_t i = 0; i < sources.ra.size(); ++i) {
        cloud.points.push_back(unit_vector(sources.ra[i], sources.dec[i]));
    }
    return cloud;
}

struct Nearest {
    std::int64_t row = -1;
    double separation = std::numeric_limits<double>::infinity();
};

// For each of `from` the nearest of `to` within the radius. All within it are compared by their exact
// separation and, when that is equal, by id: the tree's own order among equals depends on how it was built.
std::vector<Nearest> nearest(const Cloud& from, const Cloud& to, const std::vector<std::int64_t>& ids,
                             double radius)
{
    std::vector<Nearest> found(from.points.size());
    if (to.points.empty()) {
        return found;
    }
    const Tree tree(3, to, nanoflann::KDTreeSingleIndexAdaptorParams(16));
    // A hair wider than the radius: the chord is only the coarse sieve.
    const double reach = chord(radius) * (1 + 1e-9) + 1e-15;
    const nanoflann::SearchParams unsorted(32, 0, false);
    std::vector<std::pair<std::int64_t, double>> within;
    for (std::size_t i = 0; i < from.points.size(); ++i) {
        within.clear();
        tree.radiusSearch(from.points[i].data(), reach * reach, within, unsorted);
        for (const auto& [row, distance] : within) {
            const double separation = separation_arcsec(from.points[i], to.points[row]);
            auto& best = found[i];
            if (separation <= radius && (separation < best.separation ||
                                         (separation == best.separation && ids[row] < ids[best.row]))) {
                best = {row, separation};
            }
        }
        if (i % 100000 == 0) {
            alive("cross-match on the sky");
        }
    }
    return found;
}

std::vector<std::int64_t> order_by_id(const std::vector<std::int64_t>& ids)
{
    std::vector<std::int64_t> order(ids.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return ids[a] < ids[b]; });
    return order;
}

}  // namespace

std::vector<Match> match_by_id(const Sources& first, const Sources& second)
{
    const auto order = order_by_id(second.object_id);
    std::vector<Match> matches;
    for (std::size_t i = 0; i < first.object_id.size(); ++i) {
        const auto id = first.object_id[i];
        const auto at = std::lower_bound(order.begin(), order.end(), id, [&](auto row, auto wanted) {
            return second.object_id[row] < wanted;
        });
        if (at != order.end() && second.object_id[*at] == id) {
            matches.push_back(
                {static_cast<std::int64_t>(i), *at,
                 separation_arcsec(first.ra[i], first.dec[i], second.ra[*at], second.dec[*at])});
        }
    }
    return matches;
}

std::vector<Match> match_on_sky(const Sources& first, const Sources& second, double radius_arcsec)
{
    const auto a = cloud_of(first), b = cloud_of(second);
    const auto forward = nearest(a, b, second.object_id, radius_arcsec);
    const auto backward = nearest(b, a, first.object_id, radius_arcsec);
    std::vector<Match> matches;
    for (std::size_t i = 0; i < forward.size(); ++i) {
        const auto row = forward[i].row;
        if (row >= 0 && backward[row].row == static_cast<std::int64_t>(i)) {
            matches.push_back({static_cast<std::int64_t>(i), row, forward[i].separation});
        }
    }
    return matches;
}

}  // namespace astroclip::survey
