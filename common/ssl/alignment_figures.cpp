#include "ssl/alignment_figures.hpp"

#include <ATen/ATen.h>

#include "ssl/effective_rank.hpp"

namespace astroclip::ssl {
namespace {

// Of each row, how many columns are nearer than its own; those as near as it count half, or vectors that are
// all the same would find everything.
at::Tensor nearer(const at::Tensor& cosines)
{
    const auto own = cosines.diagonal().unsqueeze(1);
    return cosines.gt(own).sum(1) + 0.5 * (cosines.eq(own).sum(1) - 1);
}

double share(const at::Tensor& which) { return which.to(at::kDouble).mean().item<double>(); }

double centred_rank(const at::Tensor& vectors)
{
    const auto exact = vectors.to(at::kDouble);
    return effective_rank(exact - exact.mean(0, true), exact.size(0));
}

}  // namespace

std::map<std::string, double> alignment_figures(const at::Tensor& image, const at::Tensor& spectrum)
{
    const auto cosines = image.matmul(spectrum.t());
    const auto of_images = nearer(cosines), of_spectra = nearer(cosines.t());
    std::map<std::string, double> figures;
    for (const int k : {1, 5, 10}) {
        const auto name = "recall_at_" + std::to_string(k);
        figures[name + "_is"] = share(of_images.lt(k));
        figures[name + "_si"] = share(of_spectra.lt(k));
    }
    figures["mutual_neighbours"] = share(of_images.eq(0).logical_and(of_spectra.eq(0)));
    figures["effective_rank_image"] = centred_rank(image);
    figures["effective_rank_spectrum"] = centred_rank(spectrum);
    figures["modality_gap"] = (image.mean(0) - spectrum.mean(0)).norm().item<double>();
    return figures;
}

}  // namespace astroclip::ssl
