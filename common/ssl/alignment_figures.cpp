#include "ssl/alignment_figures.hpp"

#include <ATen/ATen.h>

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

double effective_rank(const at::Tensor& vectors)
{
    const auto centred = vectors.to(at::kDouble) - vectors.to(at::kDouble).mean(0, true);
    // The singular values by the smaller of the two products.
    const auto product =
        centred.size(0) < centred.size(1) ? centred.mm(centred.t()) : centred.t().mm(centred);
    const auto singular = at::linalg_eigvalsh(product).clamp_min(0).sqrt();
    const auto p = singular / singular.sum().clamp_min(1e-300);
    return at::exp(-at::xlogy(p, p).sum()).item<double>();
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
    figures["effective_rank_image"] = effective_rank(image);
    figures["effective_rank_spectrum"] = effective_rank(spectrum);
    figures["modality_gap"] = (image.mean(0) - spectrum.mean(0)).norm().item<double>();
    return figures;
}

}  // namespace astroclip::ssl
