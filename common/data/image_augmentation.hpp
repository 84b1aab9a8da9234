#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <string>

// The single steps of the image transforms, batched, on any device. Random draws are arguments. Images are
// [B, C, H, W] float32 in nanomaggy until to_rgb, bands in the order g, r, z.
namespace astroclip::data {

// How fluxes become network inputs.
//   asinh  the arcsinh stretch of AstroDINO (Lupton et al. 2004 with the Legacy Survey's constants)
//   stein  as Stein et al. 2021 trained: nearly linear
//   none   raw nanomaggies, bands g, r, z
enum class Rgb { asinh, stein, none };
Rgb rgb_from_name(const std::string& name);  // throws ConfigError

// Fluxes [..., 3, H, W] of g, r, z in nanomaggy -> channels R, G, B = z, r, g in [0, 1] (`none`: the input
// itself).
at::Tensor to_rgb(const at::Tensor& flux, Rgb rule = Rgb::asinh);

// The middle size x size pixels of [..., H, W]; the offset (H - size)/2 is rounded half to even. Throws
// DataError if the image is smaller.
at::Tensor centre_crop(const at::Tensor& image, std::int64_t size);

// Where a crop lies in each image and how it is turned. All [B] int64; flips are 0 or 1.
struct CropDraws {
    at::Tensor top, left;     // pixel of the crop's corner
    at::Tensor flip_rows;     // vertical flip: row order reversed, after cropping
    at::Tensor flip_columns;  // horizontal flip
};

// Cuts size x size pixels at native resolution out of each image, then flips: [B, C, H, W] -> [B, C, size,
// size].
at::Tensor crop_and_flip(const at::Tensor& image, const CropDraws& draws, std::int64_t size);

// The widening that takes an image of width `sigma_true` to `sigma_final`: sqrt(max(0, final² - true²)), any
// shape.
at::Tensor added_sigma(const at::Tensor& sigma_true, const at::Tensor& sigma_final);

// Gaussian blur with its own width in every band of every image. Kernel radius int(4σ + 0.5), weights
// normalised, border half-sample symmetric (d c b a | a b c d | d c b a), repeatedly if the kernel is wider
// than the image.
//
//   image  [B, C, H, W]
//   sigma  [B, C] pixels; a band with sigma 0 is returned unchanged
at::Tensor gaussian_blur(const at::Tensor& image, const at::Tensor& sigma);

// Gaussian blur by a kernel of 3 x 3 pixels, however wide sigma is, weights normalised, border mirrored at
// the last pixel's centre (c b | a b c d | c b): torchvision's GaussianBlur(3).
//
//   image  [B, C, H, W], 2 pixels or more on a side    sigma  [B], or [1] for all, pixels, > 0
at::Tensor blur_by_three(const at::Tensor& image, const at::Tensor& sigma);

// image + sigma · unit_normals; sigma [B, C] nanomaggy per pixel, unit_normals like image.
at::Tensor add_noise(const at::Tensor& image, const at::Tensor& sigma, const at::Tensor& unit_normals);

// Exponents e of the Galactic transmission 10^(E(B-V)·e) in the bands g, r, z, W1, W2 (Stein et al. 2021).
inline constexpr std::array<double, 5> transmission_exponent{-1.2856, -0.866, -0.4844, -0.0736, -0.0452};

// What dust of colour excess ebv [B] mag lets through in each of the first C bands: [B, C], no unit.
at::Tensor transmission(const at::Tensor& ebv, std::int64_t bands);

// The galaxy behind other dust: image [B, C, H, W] · T(ebv_new)/T(ebv_old), both [B] mag; ebv_new 0 takes the
// dust away.
at::Tensor redden(const at::Tensor& image, const at::Tensor& ebv_old, const at::Tensor& ebv_new);

// Rotates each image counter-clockwise (rows downwards) about its centre by turns [B] of a full turn:
// bilinear, same size, 0 outside. [B, C, H, W] -> the same shape.
at::Tensor rotate(const at::Tensor& image, const at::Tensor& turns);

// Resizes each image to round(H·scale) x round(W·scale) pixels, bilinear without smoothing, as seen through a
// window: pixel n/2 of the resized axis of n pixels (whole division) lies at the middle w/2 of the window's
// w, what is larger than the window is cut, what is smaller continues as in a mirror at its last pixel's
// centre.
//
//   image   [B, C, H, W]    scale  [B, 2] of rows and columns
//   window  rows and columns; empty: H and W -> [B, C, rows, columns]
at::Tensor rescale(const at::Tensor& image, const at::Tensor& scale, at::IntArrayRef window = {});

// (x - mean)/std by channel with the constants of ImageNet; image [..., 3, H, W] in [0, 1].
at::Tensor imagenet_normalise(const at::Tensor& image);

// Lognormal priors of the bands g, r, z: exp(N(ln scale, shape)) + loc (Stein et al. 2021), and the range
// from `least` to `most` that stands for them where uniform draws are wanted.
struct LognormalBands {
    std::array<double, 3> shape, loc, scale, least, most;
};
inline constexpr LognormalBands psf_sigma_pixels{// width of the point-spread function
                                                 {0.2109966, 0.3008485, 0.3471172},
                                                 {1.0807153, 1.2394326, 1.1928363},
                                                 {1.3153171, 0.9164757, 0.8233702},
                                                 {1.3233109, 1.2667341, 1.2126263},
                                                 {5.0, 4.5, 4.25}};
inline constexpr LognormalBands noise_sigma_nanomaggy{// noise of a pixel
                                                      {0.2264926, 0.2431146, 0.1334844},
                                                      {-0.0006735, -0.0023663, -0.0143416},
                                                      {0.0037602, 0.0067417, 0.0260779},
                                                      {0.001094, 0.001094, 0.001094},
                                                      {0.013, 0.018, 0.061}};
// Lognormal prior of the Galactic colour excess E(B-V), mag.
inline constexpr double ebv_shape = 0.67306, ebv_loc = 0.001146, ebv_scale = 0.03338;

}  // namespace astroclip::data
