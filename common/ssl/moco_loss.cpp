#include "ssl/moco_loss.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <fmt/format.h>

#include "core/error.hpp"
#include "core/random.hpp"
#include "ssl/info_nce.hpp"

namespace astroclip::ssl {

namespace {

constexpr double norm_floor = 1e-12;

}  // namespace

MocoQueue::MocoQueue(std::int64_t width, std::int64_t size, std::uint64_t seed, at::TensorOptions options,
                     const std::string& name)
{
    const auto rows = at::empty({size, width}, at::kFloat);
    auto* out = rows.data_ptr<float>();
    for (std::int64_t key = 0; key < size; ++key) {
        Random random(seed, name, 0, static_cast<std::uint64_t>(key));
        for (std::int64_t i = 0; i < width; ++i) {
            *out++ = static_cast<float>(random.normal());
        }
    }
    keys_ = unit_rows(rows, norm_floor).t().contiguous().to(options);
}

void MocoQueue::push(comm::Communicator& ranks, const at::Tensor& keys)
{
    const at::NoGradGuard no_grad;
    const auto all = ranks.all_gather(keys.detach().to(keys_.scalar_type()).contiguous());
    const auto count = all.size(0), size = keys_.size(1);
    if (count == 0 || size % count != 0) {
        throw ConfigError(
            fmt::format("a queue of {} keys is not a multiple of the global batch of {}", size, count));
    }
    keys_.narrow(1, next_, count).copy_(all.t());
    next_ = (next_ + count) % size;
}

std::map<std::string, at::Tensor> MocoQueue::state() const
{
    return {{"queue", keys_}, {"queue_ptr", at::full({1}, next_, at::kLong)}};
}

void MocoQueue::load_state(const std::map<std::string, at::Tensor>& state)
{
    const auto keys = state.find("queue"), pointer = state.find("queue_ptr");
    if (keys == state.end() || keys->second.sizes() != keys_.sizes() || pointer == state.end() ||
        pointer->second.numel() != 1) {
        throw DataError(
            "MoCo queue",
            fmt::format("'queue' is missing or not of shape [{}, {}], or 'queue_ptr' not one number",
                        keys_.size(0), keys_.size(1)));
    }
    const auto next = pointer->second.item<std::int64_t>();
    if (next < 0 || next >= keys_.size(1)) {
        throw DataError("MoCo queue",
                        fmt::format("'queue_ptr' = {} is not within 0 to {}", next, keys_.size(1) - 1));
    }
    keys_ = keys->second.to(keys_.options()).clone();
    next_ = next;
}

at::Tensor moco_logits(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& queue,
                       double temperature)
{
    return at::cat({(queries * keys).sum(1, true), queries.matmul(queue)}, 1) / temperature;
}

at::Tensor moco_loss(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& queue,
                     double temperature)
{
    const c10::impl::ExcludeDispatchKeyGuard full_precision(c10::autocast_dispatch_keyset);
    const auto q = unit_rows(queries, norm_floor);
    const auto logits =
        moco_logits(q, unit_rows(keys.detach(), norm_floor), queue.detach().to(q.scalar_type()), temperature);
    return at::cross_entropy_loss(logits, at::zeros({logits.size(0)}, logits.options().dtype(at::kLong)));
}

}  // namespace astroclip::ssl
