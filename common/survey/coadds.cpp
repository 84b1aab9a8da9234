#include "survey/coadds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::survey {
namespace {

constexpr std::size_t most_open = 12;  // three bands of four bricks that meet in a corner

// What all ranks must know of an image.
nlohmann::json summary_of(std::size_t index, const InputFile& input, double pixel_scale_arcsec)
{
    alive("reading the headers of coadds");
    const SkyImage image(input.path);
    image.verify_checksum();
    const double x = static_cast<double>(image.width() - 1) / 2,
                 y = static_cast<double>(image.height() - 1) / 2;
    const double scale = image.wcs().pixel_scale_arcsec(x, y);
    if (!(std::abs(scale / pixel_scale_arcsec - 1) <= 0.01)) {
        throw DataError(input.path, fmt::format("{:.4f} arcsec a pixel, {} expected (option pixel-scale)",
                                                scale, pixel_scale_arcsec));
    }
    const auto centre = image.wcs().to_sky({x, y});
    double radius = 0;
    for (const auto& corner :
         {std::array{-0.5, -0.5}, {2 * x + 0.5, -0.5}, {-0.5, 2 * y + 0.5}, {2 * x + 0.5, 2 * y + 0.5}}) {
        const auto sky = image.wcs().to_sky({corner[0], corner[1]});
        radius = std::max(radius, separation_arcsec(centre[0], centre[1], sky[0], sky[1]));
    }
    if (!is_position(centre[0], centre[1]) || !std::isfinite(radius)) {
        throw DataError(input.path, "its centre or a corner is not on the sky by its world coordinates");
    }
    return {index, centre[0], centre[1], radius, fingerprint_of(input.path)};
}

}  // namespace

CoaddName::CoaddName(std::string pattern, std::string bands)
    : pattern_(std::move(pattern)), bands_(std::move(bands))
{
    static const std::regex special(R"([.^$|()\[\]{}*+?\\])");
    auto expression = std::regex_replace(pattern_, special, R"(\$&)");
    const auto insert = [&](const std::string& word, const std::string& group) {
        const auto at = expression.find(word);
        if (at != std::string::npos) expression.replace(at, word.size(), group);
        return at;
    };
    const auto band = insert(R"(\{band\})", "(.)"), field = insert(R"(\{field\})", "(.+)");
    if (band == std::string::npos || pattern_.find('/') != std::string::npos) {
        throw ConfigError(
            fmt::format("'coadd-name' = {}: a file name with {{band}} in it expected", pattern_));
    }
    if (field != std::string::npos) {
        field_group_ = field < band ? 1 : 2;
        band_group_ = 3 - field_group_;
    }
    expression_ = expression;
}

CoaddName::Parts CoaddName::parts(const std::string& file_name) const
{
    std::smatch match;
    if (!std::regex_match(file_name, match, expression_)) return {};
    const char band = match[band_group_].str()[0];
    if (bands_.find(band) == std::string::npos) return {};
    return {field_group_ > 0 ? match[field_group_].str() : "", band};
}

Coadds Coadds::make(const comm::World& world, const std::vector<InputFile>& files, const CoaddName& name,
                    double pixel_scale_arcsec)
{
    std::vector<CoaddName::Parts> parts;
    auto summaries = nlohmann::json::array();
    world.together([&] {
        for (const auto& file : files) {
            parts.push_back(name.parts(std::filesystem::path(file.path).filename().string()));
            if (parts.back().band == 0) {
                throw DataError(file.path,
                                fmt::format("is not named as 'coadd-name' = {} says, with a band of {}",
                                            name.pattern(), name.bands()));
            }
        }
        for (std::size_t i = world.rank(); i < files.size(); i += world.size()) {
            summaries.push_back(summary_of(i, files[i], pixel_scale_arcsec));
        }
    });
    std::vector<nlohmann::json> of_file(files.size());
    for (const auto& text : world.all_gather(summaries.dump())) {
        for (const auto& summary : nlohmann::json::parse(text)) {
            of_file[summary[0].get<std::size_t>()] = summary;
        }
    }
    Coadds coadds;
    coadds.list_fields(files, parts, name.bands());
    Digest digest;
    for (std::size_t i = 0; i < files.size(); ++i) {
        const auto& summary = of_file[i];
        auto& circle = coadds.circles_[i];
        circle.dec = summary[2];
        circle.centre = unit_vector(summary[1], circle.dec);
        circle.radius_arcsec = summary[3];
        coadds.largest_radius_ = std::max(coadds.largest_radius_, circle.radius_arcsec);
        digest.add(files[i].name).add(summary[4].get<std::string>());
    }
    coadds.digest_ = digest.hex();
    std::sort(coadds.circles_.begin(), coadds.circles_.end(),
              [](const Circle& a, const Circle& b) { return a.dec < b.dec; });
    return coadds;
}

void Coadds::list_fields(const std::vector<InputFile>& files, const std::vector<CoaddName::Parts>& parts,
                         const std::string& bands)
{
    std::map<std::string, std::size_t> numbers;
    for (std::size_t i = 0; i < files.size(); ++i) {
        const auto number = numbers.emplace(parts[i].field, fields_.size()).first->second;
        if (number == fields_.size())
            fields_.push_back({parts[i].field, std::vector<std::string>(bands.size())});
        auto& own = fields_[number].files[bands.find(parts[i].band)];
        if (!own.empty()) {
            throw DataError(files[i].path, fmt::format("band {} of the field '{}' is also {}", parts[i].band,
                                                       parts[i].field, own));
        }
        own = files[i].path;
        circles_.push_back({{}, 0, 0, number});
    }
}

std::vector<const Coadds::Field*> Coadds::near(double ra, double dec, double reach_arcsec) const
{
    const double window_deg = (largest_radius_ + reach_arcsec) / 3600;
    auto circle = std::lower_bound(circles_.begin(), circles_.end(), dec - window_deg,
                                   [](const Circle& c, double low) { return c.dec < low; });
    const auto place = unit_vector(ra, dec);
    std::vector<const Field*> found;
    for (; circle != circles_.end() && circle->dec <= dec + window_deg; ++circle) {
        const auto* field = &fields_[circle->field];
        if (separation_arcsec(place, circle->centre) <= circle->radius_arcsec + reach_arcsec &&
            std::find(found.begin(), found.end(), field) == found.end()) {
            found.push_back(field);
        }
    }
    std::sort(found.begin(), found.end(), [](const Field* a, const Field* b) { return a->name < b->name; });
    return found;
}

std::shared_ptr<const SkyImage> Coadds::image(const std::string& file) const
{
    const auto found =
        std::find_if(open_.begin(), open_.end(), [&](const auto& image) { return image->path() == file; });
    if (found != open_.end()) {
        open_.splice(open_.begin(), open_, found);
    } else {
        open_.push_front(std::make_shared<SkyImage>(file));
        if (open_.size() > most_open) open_.pop_back();
    }
    return open_.front();
}

}  // namespace astroclip::survey
