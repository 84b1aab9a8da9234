#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

#include "comm/communicator.hpp"
#include "config/options.hpp"
#include "ssl/contrast.hpp"

namespace astroclip::ssl {

// Where a pair's negatives come from:
//
//   grad  all ranks, exact gradient; each rank owns the rows and columns of its pairs (open_clip: local_loss,
//         gather_with_grad)
//
//   none  the rank's own pairs only (as AstroCLIP's code ran)
//
//   full  all ranks, and every rank computes the whole matrix: a cross-check of grad
enum class Gather { grad, none, full };
Gather gather_from_name(const std::string& name);  // throws ConfigError

inline constexpr int default_tile = 512;

struct InfoNceConfig {
    std::string gather = "grad";
    double logit_scale = 15.5;  // multiplies the cosines
    bool learn_scale = false;
    int tile = default_tile;  // rows and columns of logits that are in memory at once
};
void bind(config::Section options, InfoNceConfig& config);

// x / max(|x|, eps) along the last dimension; at least float32.
at::Tensor unit_rows(const at::Tensor& x, double eps = unit_eps);

struct GatheredState;

// The spectra's embeddings, on their way to all ranks: begun before the images are encoded, what is sent is
// sent meanwhile. Of one step; `ranks` outlives it.
class GatheredSpectra {
public:
    // Collective. spectrum  [n, E], the same n > 0 on every rank; may require a gradient
    GatheredSpectra(comm::Communicator& ranks, const at::Tensor& spectrum, Gather gather = Gather::grad);
    ~GatheredSpectra();

private:
    friend at::Tensor info_nce(const at::Tensor& image, const GatheredSpectra& spectra,
                               const at::Tensor& scale, std::int64_t tile);
    std::unique_ptr<GatheredState> state_;
};

// Symmetric InfoNCE (van den Oord et al. 2018; Radford et al. 2021) of matching rows:
//   L = ½ [CE(S, i) + CE(Sᵀ, i)],  S = scale · unit(image) unit(spectrum)ᵀ over the global batch.
//
//   image, spectrum  [n, E], the same n > 0 on every rank; any float type, computed in float32 (float64 is
//                    kept)
//
//   scale            0-dimensional; may require a gradient (learn_scale)
//
//   return           0-dimensional: this rank's share. The mean over ranks is the loss of the global batch,
//                    and the mean over ranks of parameter gradients is its gradient (gather none: the mean of
//                    the local losses).
//
// Collective, forward and backward; the upstream gradient must be the same on all ranks, and scale <= 100.
// The tiled form never holds more than tile x tile logits: it keeps the loss of each row and column and
// computes the logits again in the backward pass. On the CPU it multiplies as packed_contrast.hpp says. Each
// rank computes its own rows of S once; the column sums of all ranks are added up, so only the spectra are
// gathered and only their gradients scattered.
at::Tensor info_nce(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                    const at::Tensor& scale, Gather gather = Gather::grad, std::int64_t tile = default_tile);
at::Tensor info_nce(const at::Tensor& image, const GatheredSpectra& spectra, const at::Tensor& scale,
                    std::int64_t tile = default_tile);
at::Tensor info_nce(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                    double scale = 15.5, Gather gather = Gather::grad, std::int64_t tile = default_tile);

// The same by the formula, with all logits in memory: what the tiled form is tested against.
at::Tensor info_nce_plain(comm::Communicator& ranks, const at::Tensor& image, const at::Tensor& spectrum,
                          const at::Tensor& scale, Gather gather = Gather::grad);

}  // namespace astroclip::ssl
