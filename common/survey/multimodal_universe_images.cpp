#include "survey/multimodal_universe_images.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>

#include "core/error.hpp"
#include "survey/hdf5_images.hpp"

namespace astroclip::survey {
namespace {

class MultimodalUniverseImages : public Hdf5Images {
public:
    MultimodalUniverseImages(const std::string& path, const CutoutOptions& options)
        : Hdf5Images(path, "image_array", options)
    {
        set_bands(file().has("image_band") ? written_bands() : shape()[1] == 4 ? "griz" : "grz");
        check_scale(options.pixel_scale_arcsec);
    }

private:
    // [n, bands] like the images.
    hdf5::Handle of_every_plane(const std::string& name) const
    {
        auto found = file().dataset(name);
        const auto shape_found = hdf5::dims(found);
        if (shape_found.size() != 2 || shape_found[0] != shape()[0] || shape_found[1] != shape()[1]) {
            throw DataError(file().path(), fmt::format("dataset '{}' has shape [{}], [{}, {}] expected", name,
                                                       fmt::join(shape_found, ", "), shape()[0], shape()[1]));
        }
        return found;
    }

    std::string written_bands() const
    {
        const auto names = hdf5::read_strings(of_every_plane("image_band"), file().path());
        const auto planes = static_cast<std::size_t>(shape()[1]);
        std::string letters;
        for (std::size_t i = 0; i < names.size(); ++i) {
            if (i < planes && !names[i].empty()) {
                letters += static_cast<char>(std::tolower(static_cast<unsigned char>(names[i].back())));
            }
            if (names[i].empty() || names[i] != names[i % planes]) {
                throw DataError(file().path(),
                                fmt::format("image_band, row {}: '{}', '{}' expected as in row 0", i / planes,
                                            names[i], names[i % planes]));
            }
        }
        return letters;
    }

    void check_scale(double expected) const
    {
        if (!file().has("image_scale")) return;
        for (const auto scale : hdf5::read<double>(of_every_plane("image_scale"), file().path())) {
            if (!(std::abs(scale / expected - 1) <= 0.01)) {
                throw DataError(file().path(), fmt::format("image_scale: {:.4f} arcsec a pixel, {} expected "
                                                           "(option pixel-scale)",
                                                           scale, expected));
            }
        }
    }
};

}  // namespace

std::unique_ptr<CutoutFile> open_multimodal_universe_images(const std::string& path,
                                                            const CutoutOptions& options)
{
    return std::make_unique<MultimodalUniverseImages>(path, options);
}

bool holds_multimodal_universe_images(const std::string& path)
{
    try {
        return ForeignHdf5(path).has("image_array");
    } catch (const Error&) {
        return false;
    }
}

}  // namespace astroclip::survey
