#include "survey/sky_image.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

constexpr int lobes = 3, taps = 2 * lobes;
constexpr double same_pixel = 0.01;

Wcs wcs_of(const fits::File& file, int hdu)
{
    auto wcs = Wcs::of(file, hdu);
    if (!wcs) {
        throw DataError(file.path(), "its header has no world coordinates (CTYPE1, CTYPE2: RA and Dec)");
    }
    return *wcs;
}

std::array<double, taps> lanczos(double fraction)
{
    std::array<double, taps> weights{};
    for (int i = 0; i < taps; ++i) {
        const double t = std::numbers::pi * (fraction - (i - lobes + 1));
        weights[static_cast<std::size_t>(i)] =
            t == 0 ? 1 : lobes * std::sin(t) * std::sin(t / lobes) / (t * t);
    }
    return weights;
}

bool has_data(float value) { return std::isfinite(value) && value != 0; }

// A piece of an image: pixel (x, y) of the image is at row y - y0, column x - x0.
struct Piece {
    std::int64_t x0, y0, width;
    std::vector<float> pixels;
    float at(std::int64_t x, std::int64_t y) const
    {
        return pixels[static_cast<std::size_t>((y - y0) * width + x - x0)];
    }
};

float interpolate(const Piece& piece, double x, double y)
{
    const auto left = static_cast<std::int64_t>(std::floor(x)),
               low = static_cast<std::int64_t>(std::floor(y));
    const auto nearest = piece.at(std::llround(x), std::llround(y));
    if (!has_data(nearest)) return nearest;
    const auto along_x = lanczos(x - static_cast<double>(left)),
               along_y = lanczos(y - static_cast<double>(low));
    double sum = 0, weights = 0;
    for (int j = 0; j < taps; ++j) {
        for (int i = 0; i < taps; ++i) {
            const auto value = piece.at(left + i - lobes + 1, low + j - lobes + 1);
            if (!has_data(value)) continue;
            const double weight = along_x[static_cast<std::size_t>(i)] * along_y[static_cast<std::size_t>(j)];
            sum += weight * value;
            weights += weight;
        }
    }
    return static_cast<float>(sum / weights);
}

// Positions of the box's pixels that are still missing, and where they are in the canvas.
struct Missing {
    std::vector<std::size_t> place;
    std::vector<double> points;
};

Missing missing_of(const Canvas& canvas, const PixelBox& box)
{
    Missing missing;
    for (int y = 0; y < box.size; ++y) {
        for (int x = 0; x < box.size; ++x) {
            const auto place = static_cast<std::size_t>(y * box.size + x);
            if (canvas.covered[place]) continue;
            missing.place.push_back(place);
            missing.points.push_back(static_cast<double>(box.x + x));
            missing.points.push_back(static_cast<double>(box.y + y));
        }
    }
    return missing;
}

// By how many whole pixels the box moves from one grid to the other, if that is all that they differ by.
std::optional<std::array<std::int64_t, 2>> shift_between(const Wcs& from, const Wcs& to, const PixelBox& box)
{
    const auto x = static_cast<double>(box.x), y = static_cast<double>(box.y), far = box.size - 1.0;
    const std::vector<double> corners{x, y, x + far, y, x, y + far, x + far, y + far};
    const auto there = to.to_pixels(from.to_sky(corners));
    if (!std::all_of(there.begin(), there.end(), [](double v) { return std::abs(v) < 1e9; })) return {};
    const std::array<std::int64_t, 2> shift{std::llround(there[0] - x), std::llround(there[1] - y)};
    for (std::size_t i = 0; i < corners.size(); ++i) {
        const auto off = there[i] - corners[i] - static_cast<double>(shift[i % 2]);
        if (std::abs(off) > same_pixel) return {};
    }
    return shift;
}

// Pixels of `to` in one of `from`, by area, at a pixel position of `from`.
double area_ratio(const Wcs& from, const Wcs& to, double x, double y)
{
    const auto p = to.to_pixels(from.to_sky({x - 0.5, y, x + 0.5, y, x, y - 0.5, x, y + 0.5}));
    return std::abs((p[2] - p[0]) * (p[7] - p[5]) - (p[3] - p[1]) * (p[6] - p[4]));
}

}  // namespace

bool is_nanomaggy(std::string unit)
{
    std::transform(unit.begin(), unit.end(), unit.begin(), [](unsigned char c) { return std::tolower(c); });
    return unit == "nanomaggy" || unit == "nanomaggies" || unit == "nmgy";
}

Canvas::Canvas(int size)
    : pixels(static_cast<std::size_t>(size) * static_cast<std::size_t>(size)),
      covered(pixels.size()),
      missing(static_cast<std::int64_t>(pixels.size()))
{
}

SkyImage::SkyImage(const std::string& path)
    : file_(path), hdu_(file_.first_image()), shape_(file_.image_shape(hdu_)), wcs_(wcs_of(file_, hdu_))
{
    if (shape_.size() != 2) {
        throw DataError(path, fmt::format("its image has shape [{}], [height, width] of one band expected",
                                          fmt::join(shape_, ", ")));
    }
    if (const auto unit = file_.text(hdu_, "BUNIT"); !is_nanomaggy(unit)) {
        throw DataError(path, fmt::format("BUNIT = '{}', nanomaggy expected", unit));
    }
}

double SkyImage::depth(double x, double y) const
{
    const double in_x = std::min(x + 0.5, static_cast<double>(width()) - 0.5 - x),
                 in_y = std::min(y + 0.5, static_cast<double>(height()) - 0.5 - y);
    return std::isnan(in_x) ? in_x : std::min(in_x, in_y);
}

void SkyImage::fill(Canvas& canvas, const SkyImage& reference, const PixelBox& box) const
{
    if (this == &reference) {
        copy(canvas, box);
    } else if (const auto shift = shift_between(reference.wcs_, wcs_, box)) {
        copy(canvas, {box.x + (*shift)[0], box.y + (*shift)[1], box.size});
    } else {
        resample(canvas, reference, box);
    }
}

void SkyImage::copy(Canvas& canvas, const PixelBox& box) const
{
    const auto left = std::max<std::int64_t>(box.x, 0), right = std::min(box.x + box.size, width()),
               low = std::max<std::int64_t>(box.y, 0), high = std::min(box.y + box.size, height());
    if (left >= right || low >= high) return;
    const auto pixels = file_.read_box<float>(hdu_, {low, left}, {high - low, right - left});
    auto value = pixels.begin();
    for (auto y = low; y < high; ++y) {
        for (auto x = left; x < right; ++x, ++value) {
            const auto place = static_cast<std::size_t>((y - box.y) * box.size + x - box.x);
            if (canvas.covered[place]) continue;
            canvas.pixels[place] = *value;
            canvas.covered[place] = 1;
            --canvas.missing;
        }
    }
}

void SkyImage::resample(Canvas& canvas, const SkyImage& reference, const PixelBox& box) const
{
    const auto missing = missing_of(canvas, box);
    const auto points = wcs_.to_pixels(reference.wcs_.to_sky(missing.points));
    const auto inside = [&](std::size_t i) {
        const double x = std::floor(points[2 * i]), y = std::floor(points[2 * i + 1]);
        return x >= lobes - 1 && y >= lobes - 1 && x + lobes < static_cast<double>(width()) &&
               y + lobes < static_cast<double>(height());  // false for NaN
    };
    std::array<double, 4> bounds{1e18, -1e18, 1e18, -1e18};  // of x, of y
    for (std::size_t i = 0; i < missing.place.size(); ++i) {
        if (!inside(i)) continue;
        bounds = {std::min(bounds[0], points[2 * i]), std::max(bounds[1], points[2 * i]),
                  std::min(bounds[2], points[2 * i + 1]), std::max(bounds[3], points[2 * i + 1])};
    }
    if (bounds[0] > bounds[1]) return;
    const auto first = [](double low) { return static_cast<std::int64_t>(std::floor(low)) - lobes + 1; };
    const auto past = [](double high) { return static_cast<std::int64_t>(std::floor(high)) + lobes + 1; };
    Piece piece{first(bounds[0]), first(bounds[2]), past(bounds[1]) - first(bounds[0]), {}};
    piece.pixels =
        file_.read_box<float>(hdu_, {piece.y0, piece.x0}, {past(bounds[3]) - piece.y0, piece.width});
    const auto middle = (box.size - 1) / 2.0;
    const auto ratio = static_cast<float>(area_ratio(
        reference.wcs_, wcs_, static_cast<double>(box.x) + middle, static_cast<double>(box.y) + middle));
    for (std::size_t i = 0; i < missing.place.size(); ++i) {
        if (!inside(i)) continue;
        canvas.pixels[missing.place[i]] = ratio * interpolate(piece, points[2 * i], points[2 * i + 1]);
        canvas.covered[missing.place[i]] = 1;
        --canvas.missing;
    }
}

}  // namespace astroclip::survey
