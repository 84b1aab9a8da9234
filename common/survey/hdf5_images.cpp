#include "survey/hdf5_images.hpp"

#include <fmt/format.h>

#include <limits>

#include "core/error.hpp"
#include "survey/sky.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();

// No survey comes near these; the header of a damaged file does, and memory is asked for by it.
constexpr std::uint64_t max_rows = 1u << 25, max_side = 1u << 14, max_planes = 64;

}  // namespace

Hdf5Images::Hdf5Images(const std::string& path, const std::string& dataset, const CutoutOptions& options)
    : options_(options), dataset_(dataset), file_(path), images_(file_.dataset(dataset))
{
    shape_ = hdf5::dims(images_);
    if (shape_.size() != 4) {
        throw DataError(path, fmt::format("dataset '{}' has shape [{}], [n, bands, height, width] expected",
                                          dataset, fmt::join(shape_, ", ")));
    }
    if (shape_[0] > max_rows || shape_[1] > max_planes || shape_[2] > max_side || shape_[3] > max_side) {
        throw DataError(path, fmt::format("dataset '{}' claims an impossible shape: [{}]", dataset,
                                          fmt::join(shape_, ", ")));
    }
    entries_.resize(shape_[0]);
    read_ids();
    read_positions();
    read_fluxes();
    read_redshifts();
}

void Hdf5Images::set_bands(const std::string& letters)
{
    if (shape_[1] != letters.size()) {
        throw DataError(file_.path(),
                        fmt::format("dataset '{}' has shape [{}], [n, {}, height, width] expected "
                                    "(bands {})",
                                    dataset_, fmt::join(shape_, ", "), letters.size(), letters));
    }
    for (const auto band : options_.bands) {
        if (letters.find(band) == std::string::npos) {
            throw DataError(file_.path(), fmt::format("dataset '{}' has bands {}; '{}' is not among them",
                                                      dataset_, letters, band));
        }
    }
    bands_ = letters;
}

Refusal Hdf5Images::read(std::size_t i, Cutout& cutout) const
{
    const auto size = static_cast<std::size_t>(options_.size), height = shape_[2], width = shape_[3];
    if (height < size || width < size) {
        return {"wrong size", true,
                fmt::format("{} x {} pixels, at least {} a side expected", height, width, size)};
    }
    const auto& entry = entries_[i];
    if (!is_position(entry.ra, entry.dec)) {
        return {"no position", true, fmt::format("ra {}, dec {}", entry.ra, entry.dec)};
    }
    std::vector<float> all(shape_[1] * height * width);
    hdf5::read_rows(images_, i, 1, all.data(), file_.path());
    cutout = {.flux = {}, .ra = entry.ra, .dec = entry.dec};
    const auto y0 = (height - size) / 2, x0 = (width - size) / 2;
    for (const auto band : options_.bands) {
        const auto* plane = all.data() + bands_.find(band) * height * width;
        for (std::size_t y = 0; y < size; ++y) {
            const auto* row = plane + (y0 + y) * width + x0;
            cutout.flux.insert(cutout.flux.end(), row, row + size);
        }
    }
    return judge_pixels(cutout, static_cast<int>(options_.bands.size()), options_.size);
}

std::vector<std::int64_t> Hdf5Images::own_ids() const
{
    const hdf5::Handle type(H5Dget_type(file_.dataset("object_id")), H5Tclose);
    if (H5Tget_class(type) != H5T_STRING) return column<std::int64_t>("object_id");
    std::vector<std::int64_t> ids;
    for (const auto& text : file_.texts("object_id", entries_.size())) {
        const auto id = to_number<std::int64_t>(text);
        if (!id) {
            throw DataError(file_.path(),
                            fmt::format("object_id '{}' is not a number, and there are no columns "
                                        "release, brickid and objid",
                                        text));
        }
        ids.push_back(*id);
    }
    return ids;
}

void Hdf5Images::read_ids()
{
    if (file_.has("release") && file_.has("brickid") && file_.has("objid")) {
        const auto release = column<std::int64_t>("release"), brickid = column<std::int64_t>("brickid"),
                   objid = column<std::int64_t>("objid");
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            entries_[i].brick = {static_cast<std::int32_t>(release[i]), static_cast<std::int32_t>(brickid[i]),
                                 static_cast<std::int32_t>(objid[i])};
            entries_[i].object_id = pack_object_id(entries_[i].brick);
        }
    } else {
        const auto ids = own_ids();
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            entries_[i].object_id = ids[i];
            entries_[i].brick = unpack_object_id(ids[i]);
        }
    }
    for (auto& entry : entries_) {
        if (entry.object_id < 0) {
            entry.refusal = {"bad id", true, "release, brickid or objid does not fit"};
        }
    }
}

void Hdf5Images::read_positions()
{
    const auto ra = column<double>("ra"), dec = column<double>("dec");
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        entries_[i].ra = ra[i];
        entries_[i].dec = dec[i];
    }
}

void Hdf5Images::read_fluxes()
{
    if (file_.has("flux")) {
        const auto dataset = file_.dataset("flux");
        const auto shape = hdf5::dims(dataset);
        if (shape.size() == 2 && shape[0] == entries_.size() && shape[1] >= 3 && shape[1] <= max_side) {
            const auto flux = hdf5::read<float>(dataset, file_.path());
            for (std::size_t i = 0; i < entries_.size(); ++i) {
                const auto* row = flux.data() + i * shape[1];
                entries_[i].flux_g = row[0];
                entries_[i].flux_r = row[1];
                entries_[i].flux_z = row[2];
            }
        }
    }
    fill("flux_g", &CutoutEntry::flux_g);
    fill("flux_r", &CutoutEntry::flux_r);
    fill("flux_z", &CutoutEntry::flux_z);
    fill("ebv", &CutoutEntry::ebv);
}

void Hdf5Images::fill(const std::string& name, float CutoutEntry::*member)
{
    if (file_.has(name)) {
        const auto values = column<float>(name);
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            entries_[i].*member = values[i];
        }
    }
}

void Hdf5Images::read_redshifts()
{
    if (!file_.has("z_spec")) {
        return;
    }
    const auto z = column<double>("z_spec");
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        entries_[i].redshift = z[i] > -1 ? z[i] : nan64;  // -99 marks an object without a spectrum
    }
}

}  // namespace astroclip::survey
