#include "survey/legacy_survey.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>

#include "core/error.hpp"
#include "survey/display_image.hpp"
#include "survey/fits.hpp"
#include "survey/inputs.hpp"
#include "survey/multimodal_universe_images.hpp"
#include "survey/sky.hpp"
#include "survey/sky_image.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
constexpr float nan32 = std::numeric_limits<float>::quiet_NaN();

std::vector<double> numbers_or_nan(const Table& table, std::initializer_list<const char*> names)
{
    const auto name = table.first_of(names);
    return name.empty() ? std::vector<double>(static_cast<std::size_t>(table.rows()), nan64)
                        : table.numbers(name);
}

std::vector<std::int64_t> ids_or(const Table& table, std::initializer_list<const char*> names,
                                 std::int64_t otherwise)
{
    const auto name = table.first_of(names);
    return name.empty() ? std::vector<std::int64_t>(static_cast<std::size_t>(table.rows()), otherwise)
                        : table.integers(name);
}

void replace_all(std::string& text, const std::string& from, const std::string& to)
{
    for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}

std::string file_name(const std::string& pattern, const CutoutEntry& entry)
{
    auto name = pattern;
    replace_all(name, "{object_id}", std::to_string(entry.object_id));
    replace_all(name, "{release}", std::to_string(entry.brick.release));
    replace_all(name, "{brickid}", std::to_string(entry.brick.brickid));
    replace_all(name, "{objid}", std::to_string(entry.brick.objid));
    return name;
}

// The ids of a list: its own, or packed from the brick's.
void fill_ids(const Table& table, const CutoutOptions& options, std::vector<CutoutEntry>& entries)
{
    const auto own = table.first_of({"object_id", "targetid"});
    const auto objid_name = table.first_of({"objid", "brick_objid"});
    const bool bricks =
        table.has("brickid") && !objid_name.empty() && (table.has("release") || options.release > 0);
    if (own.empty() && !bricks) {
        throw DataError(
            table.path(),
            fmt::format(
                "no ids: column object_id, or release, brickid and objid expected{}; there are: {}",
                table.has("brickid") && !objid_name.empty() ? " (release may be given as an option)" : "",
                fmt::join(table.names(), ", ")));
    }
    const auto ids = ids_or(table, {"object_id", "targetid"}, -1),
               release = ids_or(table, {"release"}, options.release),
               brickid = ids_or(table, {"brickid"}, -1), objid = ids_or(table, {"objid", "brick_objid"}, -1);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        auto& entry = entries[i];
        if (bricks) {
            entry.brick = {static_cast<std::int32_t>(release[i]), static_cast<std::int32_t>(brickid[i]),
                           static_cast<std::int32_t>(objid[i])};
        }
        entry.object_id = own.empty() ? pack_object_id(entry.brick) : ids[i];
        if (!bricks) {
            entry.brick = unpack_object_id(entry.object_id);
        }
        if (entry.object_id < 0) {
            entry.refusal = {"bad id", true,
                             own.empty() ? fmt::format("release {}, brickid {}, objid {}", release[i],
                                                       brickid[i], objid[i])
                                         : std::to_string(ids[i])};
        }
    }
}

void fill_files(const Table& table, const CutoutOptions& options, std::vector<CutoutEntry>& entries)
{
    const auto column = table.first_of({"file", "path", "filename", "file_name", "cutout"});
    if (column.empty() && options.name_pattern.empty()) {
        throw DataError(
            table.path(),
            fmt::format("names no cutouts: a column 'file' is expected, or the option cutout-name "
                        "(such as {{object_id}}.fits); there are: {}",
                        fmt::join(table.names(), ", ")));
    }
    const std::filesystem::path folder = options.folder.empty()
                                             ? std::filesystem::path(table.path()).parent_path()
                                             : std::filesystem::path(options.folder);
    const auto files = column.empty() ? std::vector<std::string>() : table.texts(column);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto name = column.empty() ? file_name(options.name_pattern, entries[i]) : files[i];
        entries[i].file = (folder / name).string();
    }
}

// Where the bands wanted are in the file: header BANDS = 'grz', one letter a plane.
Refusal band_planes(const fits::File& file, int hdu, std::int64_t planes, const std::string& wanted,
                    std::vector<std::int64_t>& found)
{
    const auto bands = file.text(hdu, "BANDS");
    if (static_cast<std::int64_t>(bands.size()) != planes) {
        return {"wrong bands", true, fmt::format("header BANDS = '{}', {} planes", bands, planes)};
    }
    for (const auto band : wanted) {
        const auto at = bands.find(band);
        if (at == std::string::npos) {
            return {"missing band", true, fmt::format("band {} is not in BANDS = '{}'", band, bands)};
        }
        found.push_back(static_cast<std::int64_t>(at));
    }
    return {};
}

// A position for the cutout: the listed one, which its WCS must not contradict; else that of the WCS.
Refusal settle_position(const std::optional<std::array<double, 2>>& centre, const CutoutOptions& options,
                        Cutout& cutout)
{
    if (!is_position(cutout.ra, cutout.dec)) {
        if (!centre) {
            return {"no position", true, "neither in the list nor by the cutout's WCS"};
        }
        cutout.ra = wrapped_ra((*centre)[0]);
        cutout.dec = (*centre)[1];
    } else if (centre && options.max_offset_arcsec > 0) {
        const double offset = separation_arcsec((*centre)[0], (*centre)[1], cutout.ra, cutout.dec);
        if (offset > options.max_offset_arcsec) {
            return {"wrong position", true,
                    fmt::format("centre of the cutout is {:.1f} arcsec from the listed position", offset)};
        }
    }
    return {};
}

// What the cutout's WCS says, if it has one: of its pixels and where its centre is.
Refusal check_place(const fits::File& file, int hdu, std::int64_t height, std::int64_t width,
                    const CutoutOptions& options, Cutout& cutout)
{
    std::optional<std::array<double, 2>> centre;
    if (const auto wcs = Wcs::of(file, hdu)) {
        const double x = static_cast<double>(width - 1) / 2, y = static_cast<double>(height - 1) / 2;
        const double scale = wcs->pixel_scale_arcsec(x, y);
        if (!(std::abs(scale / options.pixel_scale_arcsec - 1) <= 0.01)) {
            return {"wrong pixel scale", true,
                    fmt::format("{:.4f} arcsec, {} expected", scale, options.pixel_scale_arcsec)};
        }
        const auto sky = wcs->to_sky({x, y});
        if (is_position(sky[0], sky[1])) centre = {sky[0], sky[1]};
    }
    return settle_position(centre, options, cutout);
}

}  // namespace

CutoutEntry::CutoutEntry()
    : ra(nan64), dec(nan64), flux_g(nan32), flux_r(nan32), flux_z(nan32), ebv(nan32), redshift(nan64)
{
}

std::unique_ptr<CutoutFile> CutoutFile::open(const std::string& path, const CutoutOptions& options)
{
    const auto ending = std::filesystem::path(path).extension();
    if (ending == ".h5" || ending == ".hdf5") {
        return holds_multimodal_universe_images(path) ? open_multimodal_universe_images(path, options)
                                                      : open_stein_chunk(path, options);
    }
    return std::make_unique<CutoutList>(path, options);
}

CutoutList::CutoutList(const std::string& path, const CutoutOptions& options) : options_(options)
{
    const auto table = Table::open(path);
    entries_ = read_catalogue(*table, options);
    fill_files(*table, options, entries_);
}

std::vector<CutoutEntry> read_catalogue(const Table& table, const CutoutOptions& options)
{
    std::vector<CutoutEntry> entries(static_cast<std::size_t>(table.rows()));
    fill_ids(table, options, entries);
    const auto ra = numbers_or_nan(table, {"ra", "target_ra"}),
               dec = numbers_or_nan(table, {"dec", "target_dec"});
    const auto g = numbers_or_nan(table, {"flux_g"}), r = numbers_or_nan(table, {"flux_r"}),
               z = numbers_or_nan(table, {"flux_z"}), ebv = numbers_or_nan(table, {"ebv"}),
               redshift = numbers_or_nan(table, {"redshift", "z_spec"});
    const auto primary = ids_or(table, {"brick_primary"}, 1);
    for (std::size_t i = 0; i < entries.size(); ++i) {
        auto& entry = entries[i];
        entry.ra = ra[i];
        entry.dec = dec[i];
        entry.flux_g = static_cast<float>(g[i]);
        entry.flux_r = static_cast<float>(r[i]);
        entry.flux_z = static_cast<float>(z[i]);
        entry.ebv = static_cast<float>(ebv[i]);
        entry.redshift = redshift[i];
        if (primary[i] == 0 && !entry.refusal) {
            entry.refusal = {"not primary", false, "brick_primary is false"};
        }
    }
    return entries;
}

std::string CutoutList::fingerprint(std::size_t i) const { return fingerprint_of(entries_[i].file); }

Refusal CutoutList::read(std::size_t i, Cutout& cutout) const
{
    const auto& entry = entries_[i];
    if (options_.bands == display_bands) {
        return read_display_image(entry.file, options_.size, entry.ra, entry.dec, cutout);
    }
    return read_fits_cutout(entry.file, options_, entry.ra, entry.dec, cutout);
}

Refusal read_fits_cutout(const std::string& path, const CutoutOptions& options, double ra, double dec,
                         Cutout& cutout)
{
    const fits::File file(path);
    const auto hdu = file.first_image();
    file.verify_checksum(hdu);
    auto shape = file.image_shape(hdu);
    const bool one_plane = shape.size() == 2;
    if (one_plane) {
        shape.insert(shape.begin(), 1);
    }
    const std::int64_t size = options.size;
    if (shape.size() != 3 || shape[1] < size || shape[2] < size) {
        return {
            "wrong size", true,
            fmt::format("shape [{}], [bands, >= {}, >= {}] expected", fmt::join(shape, ", "), size, size)};
    }
    // The cutout service writes no unit.
    if (const auto unit = file.text(hdu, "BUNIT"); !unit.empty() && !is_nanomaggy(unit)) {
        return {"wrong unit", true, fmt::format("BUNIT = '{}', nanomaggy expected", unit)};
    }
    std::vector<std::int64_t> planes;
    if (const auto refusal = band_planes(file, hdu, shape[0], options.bands, planes)) {
        return refusal;
    }
    cutout = {.flux = {}, .ra = ra, .dec = dec};
    if (const auto refusal = check_place(file, hdu, shape[1], shape[2], options, cutout)) {
        return refusal;
    }
    const auto y = (shape[1] - size) / 2, x = (shape[2] - size) / 2;
    for (const auto plane : planes) {
        const auto pixels = one_plane ? file.read_box<float>(hdu, {y, x}, {size, size})
                                      : file.read_box<float>(hdu, {plane, y, x}, {1, size, size});
        cutout.flux.insert(cutout.flux.end(), pixels.begin(), pixels.end());
    }
    return judge_pixels(cutout, static_cast<int>(options.bands.size()), options.size);
}

}  // namespace astroclip::survey
