#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace astroclip::ssl {

// How well two sets of unit vectors [n, E] of matching rows are aligned:
//   recall_at_{1,5,10}_{is,si}  share of images whose own spectrum is among the nearest (is), and back (si)
//   mutual_neighbours           share of pairs that are each other's nearest
//   effective_rank_{image,spectrum}  exp of the entropy of the normalised singular values of the centred
//                               vectors (Roy & Vetterli 2007): the dimensions that are in use
//   modality_gap                distance of the two centroids (Liang et al. 2022, arXiv 2203.02053)
std::map<std::string, double> alignment_figures(const at::Tensor& image, const at::Tensor& spectrum);

}  // namespace astroclip::ssl
