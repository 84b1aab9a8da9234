#include "data/image_augmentation.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/error.hpp"

namespace astroclip::data {

namespace {

constexpr std::array<double, 3> rgb_scale{2.2, 3.4, 6.0};  // R, G, B = z, r, g
constexpr double rgb_offset = 0.03;                        // m
constexpr double rgb_softening = 20.0;                     // Q

// A constant per channel, shaped to be broadcast over [..., 3, H, W].
at::Tensor per_channel(const std::array<double, 3>& values, const at::Tensor& like)
{
    return at::tensor(at::ArrayRef<double>(values), like.options()).view({3, 1, 1});
}

// asinh for x >= 0, by functions that are vectorised where asinh is not.
at::Tensor asinh_of_positive(const at::Tensor& x)
{
    const auto square = x.square();
    return square.add(1.0).sqrt_().add_(1.0).reciprocal_().mul_(square).add_(x).log1p_();
}

}  // namespace

Rgb rgb_from_name(const std::string& name)
{
    if (name == "asinh") return Rgb::asinh;
    if (name == "stein") return Rgb::stein;
    if (name == "none") return Rgb::none;
    throw ConfigError(fmt::format("rgb = {}: asinh, stein or none expected", name));
}

at::Tensor to_rgb(const at::Tensor& flux, Rgb rule)
{
    if (rule == Rgb::none) {
        return flux;
    }
    const auto bands = flux.flip(-3);
    const auto scale = per_channel(rgb_scale, flux);
    auto scaled = (bands * scale).add_(rgb_offset);
    auto intensity = scaled.clamp_min(0.0).mean(-3, true);
    const auto stretched = asinh_of_positive(rgb_softening * intensity).div_(std::sqrt(rgb_softening));
    intensity.masked_fill_(intensity == 0, 1e-6);
    const auto ratio = stretched.div_(intensity);
    if (rule == Rgb::stein) {
        return (scale + rgb_offset * ratio).mul_(bands).clamp_(0.0, 1.0);
    }
    return scaled.mul_(ratio).clamp_(0.0, 1.0);
}

at::Tensor centre_crop(const at::Tensor& image, std::int64_t size)
{
    const auto height = image.size(-2);
    const auto width = image.size(-1);
    if (height < size || width < size) {
        throw DataError("image",
                        fmt::format("{}x{} pixels, at least {}x{} expected", height, width, size, size));
    }
    const auto offset = [size](std::int64_t n) { return std::lrint(static_cast<double>(n - size) / 2.0); };
    return image.narrow(-2, offset(height), size).narrow(-1, offset(width), size);
}

at::Tensor crop_and_flip(const at::Tensor& image, const CropDraws& draws, std::int64_t size)
{
    const auto count = image.size(0);
    const auto channels = image.size(1);
    const auto width = image.size(3);
    const auto step = at::arange(size, at::TensorOptions(at::kLong).device(image.device()));
    const auto positions = [&](const at::Tensor& corner, const at::Tensor& flip) {
        const auto turned = at::where(flip.to(image.device()).unsqueeze(1) != 0, size - 1 - step, step);
        return corner.to(image.device(), at::kLong).unsqueeze(1) + turned;  // [B, size]
    };
    const auto rows = positions(draws.top, draws.flip_rows);
    const auto columns = positions(draws.left, draws.flip_columns);
    const auto pixels = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).view({count, 1, size * size});
    return image.flatten(2)
        .gather(2, pixels.expand({count, channels, size * size}))
        .view({count, channels, size, size});
}

at::Tensor added_sigma(const at::Tensor& sigma_true, const at::Tensor& sigma_final)
{
    return (sigma_final.square() - sigma_true.square()).clamp_min(0.0).sqrt();
}

namespace {

// The blur along an axis of n pixels as a matrix for each width: [P, n, n], symmetric. Pixel j of the
// border-extended axis repeats at j + 2nk and -1 - j + 2nk, so element (i, j) sums the kernel at these
// distances from i.
at::Tensor blur_matrices(const at::Tensor& sigma, std::int64_t n)
{
    const auto width = sigma.to(at::kDouble).unsqueeze(1);  // [P, 1]
    const auto radius = (4.0 * width + 0.5).floor();
    const auto reach = radius.max().item<std::int64_t>();
    const auto distance = at::arange(reach + 2, width.options());  // the last entry is 0: beyond the kernel
    auto kernel = (-0.5 * (distance / width).square()).exp().masked_fill(distance > radius, 0.0);
    kernel = kernel / (2.0 * kernel.sum(1, true) - 1.0);
    const auto weights = kernel.to(sigma.scalar_type());

    const auto i = at::arange(n, sigma.options().dtype(at::kLong)).unsqueeze(1);
    const auto j = i.t();
    auto matrices = at::zeros({sigma.size(0), n * n}, sigma.options());
    for (std::int64_t k = -(reach / (2 * n)) - 1; k <= reach / (2 * n) + 1; ++k) {
        for (const auto& image_of_j : {j + 2 * n * k, -1 - j + 2 * n * k}) {
            const auto apart = (image_of_j - i).abs().clamp_max(reach + 1);
            if (apart.min().item<std::int64_t>() <= reach) {
                matrices += weights.index_select(1, apart.flatten());
            }
        }
    }
    return matrices.view({sigma.size(0), n, n});
}

}  // namespace

at::Tensor gaussian_blur(const at::Tensor& image, const at::Tensor& sigma)
{
    constexpr std::int64_t planes_at_once = 256;  // bounds the matrices to 20 MiB at 144 pixels
    const auto height = image.size(2);
    const auto width = image.size(3);
    const auto planes = image.reshape({-1, height, width});
    const auto sigmas = sigma.to(image.options()).reshape({-1});
    const auto widened = (sigmas > 0).nonzero().squeeze(1);
    if (widened.size(0) == 0) {
        return image;
    }
    auto out = planes.clone();
    for (const auto& some : widened.split(planes_at_once)) {
        const auto sigma_of = sigmas.index_select(0, some);
        const auto along_rows = blur_matrices(sigma_of, width);
        const auto along_columns = height == width ? along_rows : blur_matrices(sigma_of, height);
        out.index_copy_(0, some, along_columns.bmm(planes.index_select(0, some)).bmm(along_rows));
    }
    return out.view(image.sizes());
}

at::Tensor blur_by_three(const at::Tensor& image, const at::Tensor& sigma)
{
    const auto beside = (-0.5 / sigma.square()).exp().to(image.options()).view({-1, 1, 1, 1});
    const auto sum = 1 + 2 * beside;
    auto blurred = at::reflection_pad2d(image, {1, 1, 1, 1});
    for (const auto axis : {2, 3}) {
        const auto part = [&](std::int64_t from) { return blurred.narrow(axis, from, image.size(axis)); };
        blurred = (part(1) + beside * (part(0) + part(2))) / sum;
    }
    return blurred;
}

at::Tensor add_noise(const at::Tensor& image, const at::Tensor& sigma, const at::Tensor& unit_normals)
{
    return image + sigma.to(image.options()).unsqueeze(2).unsqueeze(3) * unit_normals;
}

at::Tensor transmission(const at::Tensor& ebv, std::int64_t bands)
{
    if (bands < 1 || bands > std::int64_t(transmission_exponent.size())) {
        throw DataError("image", fmt::format("{} bands, 1 to 5 (g, r, z, W1, W2) expected", bands));
    }
    const auto exponent = at::tensor(at::ArrayRef<double>(transmission_exponent), ebv.options());
    return at::pow(10.0, ebv.unsqueeze(1) * exponent.narrow(0, 0, bands));
}

at::Tensor redden(const at::Tensor& image, const at::Tensor& ebv_old, const at::Tensor& ebv_new)
{
    const auto factor = transmission((ebv_new - ebv_old).to(image.options()), image.size(1));
    return image * factor.unsqueeze(2).unsqueeze(3);
}

namespace {

// Places along an axis of n pixels at which the window's pixels are read, from -1 to 1 between the outermost
// pixels' centres: [B, window]. Edges of pixels correspond to edges of pixels.
at::Tensor resized_places(const at::Tensor& scale, std::int64_t n, std::int64_t window)
{
    const auto pixels = (scale * static_cast<double>(n)).round().clamp_min(1).unsqueeze(1);
    const auto pixel = at::arange(window, scale.options()) - window / 2 + (pixels / 2).floor();
    const auto place = (pixel + 0.5) * static_cast<double>(n) / pixels - 0.5;
    return place * (2.0 / static_cast<double>(std::max<std::int64_t>(n - 1, 1))) - 1.0;
}

at::Tensor sample_bilinear(const at::Tensor& image, const at::Tensor& y, const at::Tensor& x, bool mirror)
{
    constexpr std::int64_t bilinear = 0, zeros = 0, reflection = 2;
    return at::grid_sampler(image, at::stack({x, y}, 3), bilinear, mirror ? reflection : zeros, true);
}

}  // namespace

at::Tensor rescale(const at::Tensor& image, const at::Tensor& scale, at::IntArrayRef window)
{
    const auto wide = scale.to(image.device(), at::kDouble);
    const auto places = [&](std::int64_t axis) {
        const auto n = image.size(2 + axis);
        return resized_places(wide.select(1, axis), n, window.empty() ? n : window[axis])
            .to(image.scalar_type());
    };
    const auto rows = places(0), columns = places(1);
    const std::vector<std::int64_t> grid{image.size(0), rows.size(1), columns.size(1)};
    return sample_bilinear(image, rows.unsqueeze(2).expand(grid), columns.unsqueeze(1).expand(grid), true);
}

at::Tensor rotate(const at::Tensor& image, const at::Tensor& turns)
{
    const auto angle = turns.to(image.options()).view({-1, 1, 1}) * (2 * std::acos(-1.0));
    const auto height = image.size(2), width = image.size(3);
    const auto from_centre = [&](std::int64_t n) {
        return at::arange(n, image.options()) - 0.5 * static_cast<double>(n - 1);
    };
    const auto y = from_centre(height).unsqueeze(1), x = from_centre(width);
    // Where each pixel of the result lies in the image, from -1 to 1 between the outermost pixels' centres.
    const auto unit = [](const at::Tensor& offset, std::int64_t n) {
        return offset * (2.0 / static_cast<double>(std::max<std::int64_t>(n - 1, 1)));
    };
    return sample_bilinear(image, unit(angle.sin() * x + angle.cos() * y, height),
                           unit(angle.cos() * x - angle.sin() * y, width), false);
}

at::Tensor imagenet_normalise(const at::Tensor& image)
{
    return (image - per_channel({0.485, 0.456, 0.406}, image)) / per_channel({0.229, 0.224, 0.225}, image);
}

}  // namespace astroclip::data
