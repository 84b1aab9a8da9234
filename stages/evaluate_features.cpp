#include "stages/evaluate_features.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <span>

#include "catalogue/photometry.hpp"
#include "catalogue/principal_components.hpp"
#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "data/image_augmentation.hpp"
#include "data/image_views.hpp"
#include "data/rows.hpp"

namespace astroclip::evaluate {
namespace {

constexpr std::int64_t component_sample =
    8192;  // training galaxies that the principal components are made of

at::Tensor gathered(const comm::World& world, const at::Tensor& local, std::int64_t width)
{
    const auto flat = local.to(at::kFloat).contiguous();
    const auto all =
        world.all_gather(std::span(flat.const_data_ptr<float>(), static_cast<std::size_t>(flat.numel())));
    const auto rows = static_cast<std::int64_t>(all.size()) / width;
    return at::from_blob(const_cast<float*>(all.data()), {rows, width}, at::kFloat).clone();
}

// The middle of the image in colours, averaged over 2 x 2 pixels. -> [B, 3 (crop/2)²]
at::Tensor centre_pixels(const at::Tensor& flux, std::int64_t crop)
{
    const auto even = std::min({crop, flux.size(2), flux.size(3)}) / 2 * 2;
    const auto colours = data::to_rgb(data::centre_crop(flux, even));
    return at::avg_pool2d(colours, {2, 2}).flatten(1);
}

// Principal components of a sample of the training galaxies, the same on all ranks, and every galaxy in them.
at::Tensor pixel_components(const at::Tensor& local, std::int64_t first, const Sample& sample,
                            const Options& o, const comm::World& world)
{
    const auto stride = (sample.train + component_sample - 1) / component_sample;
    std::vector<std::int64_t> chosen;
    for (std::int64_t i = 0; i < local.size(0); ++i) {
        if (first + i < sample.train && (first + i) % stride == 0) chosen.push_back(i);
    }
    const auto some = gathered(world, local.index_select(0, at::tensor(chosen, at::kLong)), local.size(1));
    const auto components = catalogue::PrincipalComponents::of(some, o.pixel_components);
    return gathered(world, components.project(local), components.directions.size(1));
}

// g, r, z of the images' catalogue; NaN where it has none. Undefined if it has none at all.
at::Tensor catalogue_magnitudes(const Inputs& inputs)
{
    const auto& sample = inputs.sample;
    const auto flux = at::full({3, sample.size()}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    const std::array<const char*, 3> names{"flux_g", "flux_r", "flux_z"};
    for (std::size_t band = 0; band < names.size(); ++band) {
        if (!inputs.images.schema().has(names[band])) {
            return {};
        }
        const auto values = data::read_scalars<double>(inputs.images, names[band], sample.image_row,
                                                       std::numeric_limits<double>::quiet_NaN());
        std::copy(values.begin(), values.end(),
                  flux.data_ptr<double>() + static_cast<std::int64_t>(band) * sample.size());
    }
    return flux.isfinite().any().item<bool>() ? catalogue::magnitudes(flux.t()) : at::Tensor();
}

}  // namespace

// Galaxies are cut into the model's compute batches on the sample's own numbers; a rank owns whole batches,
// so the bits do not depend on how many ranks there are.
Measured measure(const Inputs& inputs, const Options& o, stage::Context& context)
{
    const auto& sample = inputs.sample;
    const auto& world = context.world;
    const auto batches = (sample.size() + nn::compute_batch - 1) / nn::compute_batch;
    const auto first = batches * world.rank() / world.size(),
               last = batches * (world.rank() + 1) / world.size();
    const auto& recipe = inputs.embeddings.schema().attributes;
    data::CentreViewConfig view;
    view.rgb = recipe.value("rgb", view.rgb);
    view.image_norm = recipe.value("image_norm", view.image_norm);
    view.crop = recipe.value("crop", view.crop);

    const auto side = std::min<std::int64_t>({o.pixel_crop, inputs.galaxies.image_shape()[1],
                                              inputs.galaxies.image_shape()[2]}) /
                      2;
    const auto width = inputs.untrained ? inputs.untrained->image_width() : 0;
    std::vector<at::Tensor> untrained{at::empty({0, width})}, pixels{at::empty({0, 3 * side * side})},
        mags{at::empty({0, 3}, at::kDouble)};
    context.progress.begin("measuring images and spectra", last - first, "batches");
    for (auto batch = first; batch < last; ++batch) {
        alive("measuring a batch");
        const auto begin = static_cast<std::size_t>(batch * nn::compute_batch);
        const auto count =
            std::min(sample.number.size() - begin, static_cast<std::size_t>(nn::compute_batch));
        const auto galaxies = inputs.galaxies.read(std::span(sample.number).subspan(begin, count));
        pixels.push_back(centre_pixels(galaxies.images, o.pixel_crop));
        const auto ivar =
            data::read_rows(inputs.spectra, "ivar", std::span(sample.spectrum_row).subspan(begin, count));
        mags.push_back(catalogue::magnitudes(
            catalogue::synthetic_flux(galaxies.spectra, ivar, inputs.spectra.axis("wavelength"))));
        if (inputs.untrained) {
            const auto whole = data::padded(data::centre_view(galaxies.images, view), nn::compute_batch);
            untrained.push_back(
                inputs.untrained->embed_images(whole).narrow(0, 0, static_cast<std::int64_t>(count)));
        }
        context.progress.update(batch - first + 1);
    }
    context.progress.end();

    Measured measured;
    measured.pixels = pixel_components(at::cat(pixels), first * nn::compute_batch, sample, o, world);
    measured.spectrum_mags = gathered(world, at::cat(mags), 3);
    if (inputs.untrained) {
        measured.untrained = gathered(world, at::cat(untrained), width);
    }
    measured.magnitudes = catalogue_magnitudes(inputs);
    return measured;
}

at::Tensor raw_embedding(const store::Reader& embeddings, const std::vector<std::int64_t>& rows,
                         const std::string& modality)
{
    const auto unit = data::read_rows(embeddings, modality + "_embedding", rows);
    return unit * data::read_rows(embeddings, modality + "_embedding_norm", rows).unsqueeze(1);
}

std::vector<Features> all_features(const Inputs& inputs, const Measured& measured)
{
    const auto& rows = inputs.sample.embedding_row;
    std::vector<Features> all;
    for (const auto& modality : inputs.sample.modalities) {
        all.push_back({modality, raw_embedding(inputs.embeddings, rows, modality), modality, true});
    }
    for (const auto& other : inputs.comparisons) {
        for (const std::string modality : {"image", "spectrum"}) {
            const auto has =
                data::read_scalars<std::int64_t>(other.embeddings, "has_" + modality, other.row, 0);
            const auto lacking = std::count(has.begin(), has.end(), 0);
            if (lacking > 0 && lacking < std::ssize(has)) {
                throw DataError(other.embeddings.path(),
                                fmt::format("has no {} embedding of {} of the {} galaxies of the evaluation",
                                            modality, lacking, has.size()));
            }
            if (lacking == 0) {
                all.push_back({other.name + " " + modality,
                               raw_embedding(other.embeddings, other.row, modality), modality, true});
            }
        }
    }
    if (measured.untrained.defined()) {
        all.push_back({"untrained", measured.untrained, "image"});
    }
    if (measured.magnitudes.defined()) {
        all.push_back({"magnitudes", measured.magnitudes.nan_to_num(27.5), "photometry"});
    }
    // Distances in the components are distances of the pictures themselves, which standardising would undo.
    all.push_back({"pixels", measured.pixels, "image", false, false});
    return all;
}

}  // namespace astroclip::evaluate
