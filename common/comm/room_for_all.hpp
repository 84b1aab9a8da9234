#pragma once

#include <ATen/core/Tensor.h>

namespace astroclip::comm {

// Uninitialised space for what `ranks` ranks have of a tensor like this, one after the other: [ranks · n, …].
at::Tensor room_for_all(const at::Tensor& tensor, int ranks);

}  // namespace astroclip::comm
