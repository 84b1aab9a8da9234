#include "survey/hdf5_images.hpp"
#include "survey/legacy_survey.hpp"

namespace astroclip::survey {
namespace {

class SteinChunk : public Hdf5Images {
public:
    SteinChunk(const std::string& path, const CutoutOptions& options) : Hdf5Images(path, "images", options)
    {
        set_bands("grz");  // the format's own order
    }
};

}  // namespace

std::unique_ptr<CutoutFile> open_stein_chunk(const std::string& path, const CutoutOptions& options)
{
    return std::make_unique<SteinChunk>(path, options);
}

}  // namespace astroclip::survey
