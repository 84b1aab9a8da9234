#include "train/gradient_sync.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace astroclip::train {

struct GradientSync::Bucket {
    at::Tensor flat;                     // the gradients, one after the other
    std::vector<at::Tensor> parameters;  // whose .grad() are views of it
    std::vector<at::Tensor> views;
    std::size_t missing = 0;  // gradients that have not come yet
    std::unique_ptr<comm::Work> sum;
};

class GradientSync::Arrival : public torch::autograd::PostAccumulateGradHook {
public:
    Arrival(GradientSync& sync, Bucket& bucket) : sync_(sync), bucket_(bucket) {}
    void operator()(const at::Tensor&) override
    {
        if (bucket_.missing > 0 && --bucket_.missing == 0) {
            sync_.start_full_buckets();
        }
    }

private:
    GradientSync& sync_;
    Bucket& bucket_;
};

GradientSync::GradientSync(const std::vector<at::Tensor>& parameters, comm::Communicator& ranks,
                           std::int64_t bucket_bytes)
    : parameters_(parameters), ranks_(ranks)
{
    if (ranks.size() > 1) {
        make_buckets(bucket_bytes);
    }
}

GradientSync::~GradientSync()
{
    for (const auto& bucket : buckets_) {
        for (const auto& parameter : bucket->parameters) {
            torch::autograd::impl::set_post_acc_grad_hooks(parameter, nullptr);
            at::Tensor(parameter).mutable_grad().reset();
        }
    }
}

void GradientSync::make_buckets(std::int64_t bucket_bytes)
{
    std::int64_t bytes = 0;
    for (auto parameter = parameters_.rbegin(); parameter != parameters_.rend(); ++parameter) {
        const bool other_type =
            !buckets_.empty() && buckets_.back()->parameters[0].scalar_type() != parameter->scalar_type();
        const auto size = static_cast<std::int64_t>(parameter->nbytes());
        if (buckets_.empty() || other_type || bytes + size > bucket_bytes) {
            buckets_.push_back(std::make_unique<Bucket>());
            bytes = 0;
        }
        buckets_.back()->parameters.push_back(*parameter);
        bytes += size;
    }
    for (const auto& bucket : buckets_) {
        std::int64_t values = 0;
        for (const auto& parameter : bucket->parameters) {
            values += parameter.numel();
        }
        bucket->flat = at::zeros({values}, bucket->parameters[0].options().requires_grad(false));
        std::int64_t at = 0;
        for (const auto& parameter : bucket->parameters) {
            bucket->views.push_back(bucket->flat.narrow(0, at, parameter.numel()).view(parameter.sizes()));
            at += parameter.numel();
            torch::autograd::impl::set_post_acc_grad_hooks(parameter,
                                                           std::make_unique<Arrival>(*this, *bucket));
        }
    }
}

void GradientSync::begin(std::int64_t parts)
{
    if (ranks_.size() == 1) {
        for (auto& parameter : parameters_) {
            parameter.mutable_grad().reset();
        }
        return;
    }
    started_ = 0;
    for (const auto& bucket : buckets_) {
        bucket->flat.zero_();
        bucket->missing = bucket->parameters.size() * static_cast<std::size_t>(parts);
        for (std::size_t i = 0; i < bucket->parameters.size(); ++i) {
            bucket->parameters[i].mutable_grad() = bucket->views[i];  // autograd adds in place
        }
    }
}

void GradientSync::start_full_buckets()
{
    while (started_ < buckets_.size() && buckets_[started_]->missing == 0) {
        auto& bucket = *buckets_[started_++];
        bucket.sum = ranks_.all_reduce_sum_async(bucket.flat);
    }
}

void GradientSync::finish()
{
    for (const auto& bucket : buckets_) {
        bucket->missing = 0;  // what has not come is 0
    }
    start_full_buckets();
    for (const auto& bucket : buckets_) {
        bucket->sum->wait();
        bucket->sum.reset();
        bucket->flat.div_(ranks_.size());
    }
}

}  // namespace astroclip::train
