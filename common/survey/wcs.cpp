#include "survey/wcs.hpp"

#include <fmt/format.h>
#include <wcsfix.h>
#include <wcshdr.h>
#include <wcslib.h>

#include <array>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr int some_points_invalid_to_sky = 8, some_points_invalid_to_pixels = 9;  // WCSLIB's statuses

// All descriptions of a header; freed with it.
struct Descriptions {
    int count = 0;
    wcsprm* list = nullptr;
    ~Descriptions() { wcsvfree(&count, &list); }
};

// Of the primary description (without a letter) the celestial axes, in the order of the image's.
std::shared_ptr<wcsprm> celestial_part(const Descriptions& all)
{
    for (int i = 0; i < all.count; ++i) {
        if (all.list[i].alt[0] != ' ') continue;
        std::shared_ptr<wcsprm> part(new wcsprm{}, [](wcsprm* wcs) {
            wcsfree(wcs);
            delete wcs;
        });
        part->flag = -1;
        int axes[2] = {WCSSUB_CELESTIAL, 0}, count = 1;
        if (wcssub(1, &all.list[i], &count, axes, part.get()) == 0 && count == 2) return part;
    }
    return nullptr;
}

std::string text_of(const char* field)
{
    const std::string text(field);
    return text.substr(0, text.find_last_not_of(' ') + 1);
}

void check_system(const wcsprm& wcs, const std::string& path)
{
    const auto system = text_of(wcs.radesys);
    const bool equatorial = text_of(wcs.lngtyp) == "RA" && text_of(wcs.lattyp) == "DEC";
    const bool j2000 = system == "ICRS" || system.empty() || (system == "FK5" && wcs.equinox == 2000);
    if (!equatorial || !j2000) {
        throw DataError(
            path, fmt::format("coordinates {}, {} of {} (equinox {}); RA, DEC of ICRS or FK5 J2000 "
                              "expected",
                              text_of(wcs.lngtyp), text_of(wcs.lattyp), system.empty() ? "no system" : system,
                              wcs.equinox));
    }
}

}  // namespace

std::optional<Wcs> Wcs::of(const fits::File& file, int hdu)
{
    auto cards = file.header_cards(hdu);
    int rejected = 0;
    Descriptions all;
    if (wcspih(cards.data(), static_cast<int>(cards.size() / 80), WCSHDR_all, 0, &rejected, &all.count,
               &all.list) != 0) {
        throw DataError(file.path(), "its world coordinates cannot be read");
    }
    auto wcs = celestial_part(all);
    if (!wcs) return std::nullopt;
    std::array<int, NWCSFIX> fixes{};
    wcsfix(0, nullptr, wcs.get(), fixes.data());  // old spellings; what cannot be mended wcsset tells
    if (const int status = wcsset(wcs.get())) {
        throw DataError(file.path(), fmt::format("its world coordinates are broken: {}", wcs_errmsg[status]));
    }
    check_system(*wcs, file.path());
    return Wcs(wcs);
}

std::vector<double> Wcs::to_sky(std::vector<double> pixels) const
{
    const auto count = pixels.size() / 2;
    for (auto& value : pixels) value += 1;  // FITS counts from 1
    std::vector<double> world(2 * count), image(2 * count), phi(count), theta(count);
    std::vector<int> bad(count);
    auto* wcs = parameters_.get();
    const int status = count == 0 ? 0
                                  : wcsp2s(wcs, static_cast<int>(count), 2, pixels.data(), image.data(),
                                           phi.data(), theta.data(), world.data(), bad.data());
    if (status != 0 && status != some_points_invalid_to_sky) {
        throw InternalError(fmt::format("WCSLIB: {}", wcs_errmsg[status]));
    }
    std::vector<double> degrees(2 * count);
    for (std::size_t i = 0; i < count; ++i) {
        degrees[2 * i] = bad[i] ? nan64 : world[2 * i + static_cast<std::size_t>(wcs->lng)];
        degrees[2 * i + 1] = bad[i] ? nan64 : world[2 * i + static_cast<std::size_t>(wcs->lat)];
    }
    return degrees;
}

std::vector<double> Wcs::to_pixels(std::vector<double> degrees) const
{
    const auto count = degrees.size() / 2;
    auto* wcs = parameters_.get();
    std::vector<double> world(2 * count), image(2 * count), phi(count), theta(count), pixels(2 * count);
    std::vector<int> bad(count);
    for (std::size_t i = 0; i < count; ++i) {
        world[2 * i + static_cast<std::size_t>(wcs->lng)] = degrees[2 * i];
        world[2 * i + static_cast<std::size_t>(wcs->lat)] = degrees[2 * i + 1];
    }
    const int status = count == 0 ? 0
                                  : wcss2p(wcs, static_cast<int>(count), 2, world.data(), phi.data(),
                                           theta.data(), image.data(), pixels.data(), bad.data());
    if (status != 0 && status != some_points_invalid_to_pixels) {
        throw InternalError(fmt::format("WCSLIB: {}", wcs_errmsg[status]));
    }
    for (std::size_t i = 0; i < 2 * count; ++i) pixels[i] = bad[i / 2] ? nan64 : pixels[i] - 1;
    return pixels;
}

double Wcs::pixel_scale_arcsec(double x, double y) const
{
    const auto sky = to_sky({x - 0.5, y, x + 0.5, y, x, y - 0.5, x, y + 0.5});
    const auto edge = [&](std::size_t from, std::size_t to) {
        const auto a = unit_vector(sky[2 * from], sky[2 * from + 1]),
                   b = unit_vector(sky[2 * to], sky[2 * to + 1]);
        return UnitVector{b[0] - a[0], b[1] - a[1], b[2] - a[2]};
    };
    const auto u = edge(0, 1), v = edge(2, 3);
    const double area =
        std::hypot(u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]);
    return std::sqrt(area) * 3600 * 180 / M_PI;
}

}  // namespace astroclip::survey
