#include "data/image_draws.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace astroclip::data {

double draw_sigma(Random& random, const LognormalBands& prior, std::size_t band)
{
    return prior.scale[band] * std::exp(prior.shape[band] * random.normal()) + prior.loc[band];
}

std::array<float, 3> draw_widening(Random& random, const LognormalBands& prior, bool uniform)
{
    std::array<float, 3> added{};
    for (std::size_t band = 0; band < 3; ++band) {
        const auto from = draw_sigma(random, prior, band);
        const auto to =
            uniform ? random.uniform(prior.least[band], prior.most[band]) : draw_sigma(random, prior, band);
        added[band] = static_cast<float>(std::sqrt(std::max(0.0, to * to - from * from)));
    }
    return added;
}

at::Tensor unit_normals(std::span<const std::int64_t> object_ids, at::IntArrayRef shape, std::uint64_t seed,
                        const std::string& purpose, std::uint32_t epoch)
{
    std::vector<std::int64_t> sizes{static_cast<std::int64_t>(object_ids.size())};
    sizes.insert(sizes.end(), shape.begin(), shape.end());
    const auto wanted = c10::multiply_integers(shape);
    const auto blocks = (wanted + 3) / 4;
    // Box-Muller: each Philox block gives two radii and two angles, hence four numbers.
    const auto radius = at::empty({sizes[0], 2 * blocks}, at::kFloat);
    const auto angle = at::empty_like(radius);
    const auto key64 = stream_key(seed, purpose);
    const std::array key{static_cast<std::uint32_t>(key64), static_cast<std::uint32_t>(key64 >> 32)};
    at::parallel_for(0, sizes[0], 1, [&](std::int64_t begin, std::int64_t end) {
        for (auto i = begin; i < end; ++i) {
            const auto id = static_cast<std::uint64_t>(object_ids[i]);
            auto* r = radius.data_ptr<float>() + 2 * blocks * i;
            auto* a = angle.data_ptr<float>() + 2 * blocks * i;
            for (std::int64_t block = 0; block < blocks; ++block) {
                const auto bits =
                    philox4x32({static_cast<std::uint32_t>(id), static_cast<std::uint32_t>(id >> 32),
                                static_cast<std::uint32_t>(block), epoch},
                               key);
                for (int half = 0; half < 2; ++half) {
                    // Middles of 2^24 equal cells of (0, 1): never 0, whose logarithm is infinite.
                    *r++ = (static_cast<float>(bits[2 * half] >> 8) + 0.5f) * 0x1p-24f;
                    *a++ = (static_cast<float>(bits[2 * half + 1] >> 8) + 0.5f) * 0x1p-24f;
                }
            }
        }
    });
    radius.log_().mul_(-2.0).sqrt_();
    angle.mul_(6.283185307179586);
    const auto normals = at::cat({radius * angle.cos(), radius * angle.sin()}, 1);
    return normals.narrow(1, 0, wanted).reshape(sizes);
}

at::Tensor with_noise(const at::Tensor& images, const at::Tensor& sigma,
                      std::span<const std::int64_t> object_ids, std::uint64_t seed,
                      const std::string& purpose, std::uint32_t epoch)
{
    const auto noisy = sigma.amax(1).nonzero().squeeze(1);
    if (noisy.size(0) == 0) {
        return images;
    }
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < noisy.size(0); ++i) {
        ids.push_back(object_ids[noisy.data_ptr<std::int64_t>()[i]]);
    }
    const auto normals = unit_normals(ids, images.sizes().slice(1), seed, purpose, epoch);
    const auto rows = noisy.to(images.device());
    const auto with =
        add_noise(images.index_select(0, rows), sigma.index_select(0, noisy), normals.to(images.options()));
    return images.index_copy(0, rows, with);
}

}  // namespace astroclip::data
