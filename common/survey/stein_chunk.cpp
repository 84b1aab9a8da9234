#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.hpp"
#include "survey/foreign_hdf5.hpp"
#include "survey/legacy_survey.hpp"
#include "survey/sky.hpp"

namespace astroclip::survey {
namespace {

constexpr double nan64 = std::numeric_limits<double>::quiet_NaN();
const std::string chunk_bands = "grz";  // the format's own order

// No chunk comes near these; the header of a damaged one does, and memory is asked for by it.
constexpr std::uint64_t max_rows = 1u << 25, max_side = 1u << 14;

class SteinChunk : public CutoutFile {
public:
    SteinChunk(const std::string& path, const CutoutOptions& options)
        : options_(options), file_(path), images_(file_.dataset("images"))
    {
        shape_ = hdf5::dims(images_);
        if (shape_.size() != 4 || shape_[1] != chunk_bands.size()) {
            throw DataError(path,
                            fmt::format("dataset 'images' has shape [{}], [n, 3, height, width] expected",
                                        fmt::join(shape_, ", ")));
        }
        if (shape_[0] > max_rows || shape_[2] > max_side || shape_[3] > max_side) {
            throw DataError(path, fmt::format("dataset 'images' claims an impossible shape: [{}]",
                                              fmt::join(shape_, ", ")));
        }
        entries_.resize(shape_[0]);
        for (const auto band : options.bands) {
            if (chunk_bands.find(band) == std::string::npos) {
                throw DataError(
                    path, fmt::format("dataset 'images' has bands g, r, z; '{}' is not among them", band));
            }
        }
        read_ids();
        const auto ra = column<double>("ra"), dec = column<double>("dec");
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            entries_[i].ra = ra[i];
            entries_[i].dec = dec[i];
        }
        read_fluxes();
        read_redshifts();
    }

    std::string fingerprint(std::size_t) const override { return ""; }

    Refusal read(std::size_t i, Cutout& cutout) const override
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
        std::vector<float> all(chunk_bands.size() * height * width);
        hdf5::read_rows(images_, i, 1, all.data(), file_.path());
        cutout = {.flux = {}, .ra = entry.ra, .dec = entry.dec};
        const auto y0 = (height - size) / 2, x0 = (width - size) / 2;
        for (const auto band : options_.bands) {
            const auto* plane = all.data() + chunk_bands.find(band) * height * width;
            for (std::size_t y = 0; y < size; ++y) {
                const auto* row = plane + (y0 + y) * width + x0;
                cutout.flux.insert(cutout.flux.end(), row, row + size);
            }
        }
        return judge_pixels(cutout, static_cast<int>(options_.bands.size()), options_.size);
    }

private:
    template <typename T>
    std::vector<T> column(const std::string& name) const
    {
        return file_.column<T>(name, entries_.size());
    }

    void read_ids()
    {
        if (file_.has("release")) {
            const auto release = column<std::int64_t>("release"), brickid = column<std::int64_t>("brickid"),
                       objid = column<std::int64_t>("objid");
            for (std::size_t i = 0; i < entries_.size(); ++i) {
                entries_[i].brick = {static_cast<std::int32_t>(release[i]),
                                     static_cast<std::int32_t>(brickid[i]),
                                     static_cast<std::int32_t>(objid[i])};
                entries_[i].object_id = pack_object_id(entries_[i].brick);
            }
        } else {
            const auto ids = column<std::int64_t>("object_id");
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

    void read_fluxes()
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

    void fill(const std::string& name, float CutoutEntry::*member)
    {
        if (file_.has(name)) {
            const auto values = column<float>(name);
            for (std::size_t i = 0; i < entries_.size(); ++i) {
                entries_[i].*member = values[i];
            }
        }
    }

    void read_redshifts()
    {
        if (!file_.has("z_spec")) {
            return;
        }
        const auto z = column<double>("z_spec");
        for (std::size_t i = 0; i < entries_.size(); ++i) {
            entries_[i].redshift = z[i] > -1 ? z[i] : nan64;  // -99 marks an object without a spectrum
        }
    }

    CutoutOptions options_;
    ForeignHdf5 file_;
    hdf5::Handle images_;
    std::vector<std::uint64_t> shape_;  // [n, bands, height, width]
};

}  // namespace

std::unique_ptr<CutoutFile> open_stein_chunk(const std::string& path, const CutoutOptions& options)
{
    return std::make_unique<SteinChunk>(path, options);
}

}  // namespace astroclip::survey
