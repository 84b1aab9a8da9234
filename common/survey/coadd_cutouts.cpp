#include "survey/coadd_cutouts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "survey/legacy_survey.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {

CoaddCutouts::CoaddCutouts(const std::string& path, const CutoutOptions& options, const Coadds& coadds)
    : options_(options), coadds_(coadds)
{
    entries_ = read_catalogue(*Table::open(path), options);
}

std::vector<CoaddCutouts::Candidate> CoaddCutouts::candidates(double ra, double dec) const
{
    const double half_diagonal = options_.size * options_.pixel_scale_arcsec * std::numbers::sqrt2 / 2;
    std::vector<Candidate> candidates;
    for (const auto* field : coadds_.near(ra, dec, half_diagonal)) {
        const auto first = std::find_if(field->files.begin(), field->files.end(),
                                        [](const std::string& file) { return !file.empty(); });
        const auto image = coadds_.image(*first);
        const auto place = image->wcs().to_pixels({ra, dec});
        const auto depth = image->depth(place[0], place[1]);
        if (!std::isnan(depth)) candidates.push_back({field, depth});
    }
    std::stable_sort(candidates.begin(), candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.depth > b.depth; });
    return candidates;
}

PixelBox CoaddCutouts::box_around(const SkyImage& reference, double ra, double dec) const
{
    const auto place = reference.wcs().to_pixels({ra, dec});
    const auto first = [&](double middle) {
        return static_cast<std::int64_t>(std::floor(middle - (options_.size - 1) / 2.0 + 0.5));
    };
    return {first(place[0]), first(place[1]), options_.size};
}

Refusal CoaddCutouts::check_coverage(const Cutout& cutout) const
{
    const auto pixels = std::ptrdiff_t{options_.size} * options_.size;
    for (std::size_t band = 0; band < options_.bands.size(); ++band) {
        const auto* first = cutout.flux.data() + static_cast<std::ptrdiff_t>(band) * pixels;
        const auto empty = std::count(first, first + pixels, 0.0F);
        if (static_cast<double>(pixels - empty) < options_.min_coverage * static_cast<double>(pixels) ||
            empty == pixels) {
            return {"no data in a band", false,
                    fmt::format("band {}: {} of {} pixels have data", options_.bands[band], pixels - empty,
                                pixels)};
        }
    }
    return {};
}

Refusal CoaddCutouts::read(std::size_t i, Cutout& cutout) const
{
    const auto& entry = entries_[i];
    if (!is_position(entry.ra, entry.dec)) {
        return {"no position", true, fmt::format("ra {}, dec {}", entry.ra, entry.dec)};
    }
    const auto fields = candidates(entry.ra, entry.dec);
    if (fields.empty() || fields.front().depth < 0) {
        return {"outside the coadds", false, fmt::format("ra {:.6f}, dec {:.6f}", entry.ra, entry.dec)};
    }
    const auto& own = *fields.front().field;
    for (std::size_t band = 0; band < options_.bands.size(); ++band) {
        if (own.files[band].empty()) {
            return {"missing band", true,
                    fmt::format("no image of band {} of the field '{}'", options_.bands[band], own.name)};
        }
    }
    const auto reference = coadds_.image(own.files.front());
    const auto box = box_around(*reference, entry.ra, entry.dec);
    cutout = {.flux = {}, .ra = entry.ra, .dec = entry.dec};
    for (std::size_t band = 0; band < options_.bands.size(); ++band) {
        Canvas canvas(options_.size);
        for (const auto& [field, depth] : fields) {
            if (canvas.missing == 0) break;
            if (!field->files[band].empty()) {
                coadds_.image(field->files[band])->fill(canvas, *reference, box);
            }
        }
        if (canvas.missing > 0) {
            return {"cut by the border", false,
                    fmt::format("{} of {} pixels are on no image of band {}; field '{}'", canvas.missing,
                                canvas.pixels.size(), options_.bands[band], own.name)};
        }
        cutout.flux.insert(cutout.flux.end(), canvas.pixels.begin(), canvas.pixels.end());
    }
    if (const auto refusal = check_coverage(cutout)) return refusal;
    return judge_pixels(cutout, static_cast<int>(options_.bands.size()), options_.size);
}

}  // namespace astroclip::survey
