#include "catalogue/photometry.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace astroclip::catalogue {
namespace {

// Feet and shoulders of each band, Angstrom (half-power points of the DECam filters, with edges of 200
// Angstrom).
struct Trapezium {
    double foot, shoulder, other_shoulder, other_foot;
    double operator()(double wavelength) const
    {
        const auto rise = (wavelength - foot) / (shoulder - foot);
        const auto fall = (other_foot - wavelength) / (other_foot - other_shoulder);
        return std::clamp(std::min(rise, fall), 0.0, 1.0);
    }
};
constexpr std::array<Trapezium, 3> bands{
    {{3900, 4100, 5380, 5580}, {5580, 5780, 7060, 7260}, {8380, 8580, 9900, 10100}}};

constexpr double light_speed_angstrom = 2.99792458e18;  // Angstrom/s
constexpr double nanomaggy = 3.631e-29;                 // erg s-1 cm-2 Hz-1
constexpr double faintest = 0.01;                       // nanomaggy

// (r, g - r, r - z) of magnitudes [n, 3] in g, r, z.
at::Tensor colours(const at::Tensor& magnitude)
{
    const auto g = magnitude.select(1, 0), r = magnitude.select(1, 1), z = magnitude.select(1, 2);
    return at::stack({r, g - r, r - z}, 1).to(at::kDouble).contiguous();
}

at::Tensor column_medians(const at::Tensor& values) { return std::get<0>(values.nanmedian(0)); }

}  // namespace

at::Tensor synthetic_flux(const at::Tensor& flux, const at::Tensor& ivar,
                          const std::vector<double>& wavelength)
{
    const auto bins = static_cast<std::int64_t>(wavelength.size());
    const auto response = at::zeros({3, bins}, at::kDouble);
    auto weights = response.accessor<double, 2>();
    for (std::int64_t band = 0; band < 3; ++band) {
        for (std::int64_t bin = 0; bin < bins; ++bin) {
            weights[band][bin] =
                bands[static_cast<std::size_t>(band)](wavelength[static_cast<std::size_t>(bin)]);
        }
    }
    const auto lambda = at::tensor(wavelength, at::kDouble);
    const auto good = (ivar > 0).to(at::kDouble);
    // The grid's step is the same in both integrals and cancels.
    const auto energy = (flux.to(at::kDouble) * good).matmul((response * lambda).t()) * 1e-17;
    const auto reference = good.matmul((response / lambda).t()) * light_speed_angstrom * nanomaggy;
    return at::where(reference > 0, energy / reference, std::numeric_limits<double>::quiet_NaN());
}

at::Tensor magnitudes(const at::Tensor& flux)
{
    return 22.5 - 2.5 * flux.to(at::kDouble).clamp_min(faintest).log10();
}

ColourScale ColourScale::of(const at::Tensor& one, const at::Tensor& other)
{
    const auto difference = colours(one) - colours(other);
    const auto offset = column_medians(difference);
    const auto spread = 1.4826 * column_medians((difference - offset).abs());
    return {offset.nan_to_num(0.0), at::where(spread > 0, spread, 1.0)};
}

std::vector<std::int64_t> photometric_places(const comm::World& world, const at::Tensor& queries,
                                             const at::Tensor& catalogue, const ColourScale& scale)
{
    const auto count = queries.size(0);
    const auto asked = ((colours(queries) - scale.offset) / scale.spread).contiguous();
    const auto known = (colours(catalogue) / scale.spread).contiguous();
    std::vector<std::int64_t> places;
    for (auto query = count * world.rank() / world.size(); query < count * (world.rank() + 1) / world.size();
         ++query) {
        // What lacks a magnitude comes last.
        const auto distance =
            (known - asked[query]).square().sum(1).nan_to_num(std::numeric_limits<double>::infinity());
        const auto* d = distance.data_ptr<double>();
        std::int64_t place = 1;
        for (std::int64_t row = 0; row < count; ++row) {
            place += d[row] < d[query] || (d[row] == d[query] && row < query);
        }
        places.push_back(place);
    }
    return world.all_gather(places);
}

}  // namespace astroclip::catalogue
