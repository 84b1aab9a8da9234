#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "comm/communicator.hpp"
#include "nn/resnet.hpp"

namespace astroclip::ssl {

// Batch normalisation by the statistics of fixed groups of the global batch, so that the ranks do not shape
// the result: a rank owns whole groups. The running statistics become the mean of what each group alone would
// make of them.
class GroupedNorm {
public:
    // `part`: what is to be computed of a group's images.
    using Part = std::function<at::Tensor(const at::Tensor& images)>;

    explicit GroupedNorm(std::int64_t group_size) : group_size_(group_size) {}

    // part(images) group by group, [b, …]; `encoder`, in training mode, leaves with the running statistics
    // with which it came. `images` begin at row `first` of this rank's; computing rows again changes nothing.
    at::Tensor forward(nn::ResNet& encoder, const at::Tensor& images, const Part& part,
                       std::int64_t first = 0);
    // Collective. Gives `encoder` the running statistics of the groups computed since the last update.
    void update(nn::ResNet& encoder, comm::Communicator& ranks);

private:
    std::int64_t group_size_;
    std::vector<at::Tensor> after_;  // of each of this rank's groups: the running statistics, float64
};

}  // namespace astroclip::ssl
