#include "ssl/grouped_norm.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace astroclip::ssl {
namespace {

// All buffers of an encoder (running means and variances, counts of batches) in a row, [n] float64.
at::Tensor statistics_of(const nn::ResNet& encoder)
{
    std::vector<at::Tensor> all;
    for (const auto& buffer : encoder->buffers()) {
        all.push_back(buffer.flatten().to(at::kDouble));
    }
    return at::cat(all);
}

// Behind autograd's back: a backward pass that is still to come has saved these buffers, but in training mode
// does not read them.
void set_statistics(nn::ResNet& encoder, const at::Tensor& statistics)
{
    std::int64_t first = 0;
    for (const auto& buffer : encoder->buffers()) {
        buffer.variable_data().copy_(statistics.narrow(0, first, buffer.numel()).view(buffer.sizes()));
        first += buffer.numel();
    }
}

}  // namespace

at::Tensor GroupedNorm::forward(nn::ResNet& encoder, const at::Tensor& images, const Part& part,
                                std::int64_t first)
{
    const auto before = statistics_of(encoder);
    auto number = static_cast<std::size_t>(first / group_size_);
    std::vector<at::Tensor> parts;
    for (const auto& group : images.split(group_size_)) {
        parts.push_back(part(group));
        after_.resize(std::max(after_.size(), number + 1));
        after_[number++] = statistics_of(encoder);
        set_statistics(encoder, before);
    }
    return at::cat(parts);
}

void GroupedNorm::update(nn::ResNet& encoder, comm::Communicator& ranks)
{
    const auto groups = std::exchange(after_, {});
    auto sum = at::stack(groups).sum(0);
    ranks.all_reduce_sum(sum);
    set_statistics(encoder, sum / static_cast<double>(groups.size() * ranks.size()));
}

}  // namespace astroclip::ssl
