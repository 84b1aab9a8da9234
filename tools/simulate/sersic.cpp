#include "tools/simulate/sersic.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace astroclip::simulate {
namespace {

constexpr double first_n = 0.5, step_n = 0.25;
constexpr std::size_t prepared = 23;
constexpr std::size_t gaussians = 13, radii = 64;

double b_of(double n)
{
    const double inverse = 1 / n;
    return 2 * n - 1.0 / 3 + inverse * (4.0 / 405 + inverse * (46.0 / 25515 + inverse * 131.0 / 1148175));
}

// Non-negative least squares by the multiplicative rule of Lee & Seung (2001): A and b are non-negative here.
std::vector<MixturePart> fit(double n)
{
    const double narrowest = n < 1.5 ? 0.12 : 0.02, widest = n < 0.75 ? 1.2 : 3.5;
    std::array<double, gaussians> sigma, x;
    for (std::size_t j = 0; j < gaussians; ++j) {
        sigma[j] = narrowest * std::pow(widest / narrowest, static_cast<double>(j) / (gaussians - 1));
    }
    x.fill(1.0 / gaussians);
    std::array<std::array<double, gaussians>, gaussians> square{};
    std::array<double, gaussians> target{};
    for (std::size_t i = 0; i < radii; ++i) {
        const double r = 0.01 * std::pow(800, static_cast<double>(i) / (radii - 1));
        std::array<double, gaussians> row;
        for (std::size_t j = 0; j < gaussians; ++j) {
            const double u = r / sigma[j];
            row[j] = u * u * std::exp(-0.5 * u * u);
        }
        const double wanted = 2 * std::numbers::pi * r * r * sersic_brightness(n, r);
        for (std::size_t j = 0; j < gaussians; ++j) {
            target[j] += row[j] * wanted;
            for (std::size_t k = 0; k < gaussians; ++k) {
                square[j][k] += row[j] * row[k];
            }
        }
    }
    for (int iteration = 0; iteration < 20000; ++iteration) {
        for (std::size_t j = 0; j < gaussians; ++j) {
            double product = 0;
            for (std::size_t k = 0; k < gaussians; ++k) {
                product += square[j][k] * x[k];
            }
            x[j] *= target[j] / product;
        }
    }
    const double largest = *std::max_element(x.begin(), x.end());
    std::vector<MixturePart> mixture;
    double sum = 0;
    for (std::size_t j = 0; j < gaussians; ++j) {
        if (x[j] > 1e-4 * largest) {
            mixture.push_back({x[j], sigma[j]});
            sum += x[j];
        }
    }
    for (auto& part : mixture) {
        part.weight /= sum;
    }
    return mixture;
}

std::size_t nearest_index(double n)
{
    const double place = std::round((n - first_n) / step_n);
    return static_cast<std::size_t>(std::clamp(place, 0.0, static_cast<double>(prepared - 1)));
}

}  // namespace

double sersic_brightness(double n, double r)
{
    const double b = b_of(n);
    const double total = 2 * std::numbers::pi * n * std::pow(b, -2 * n) * std::tgamma(2 * n);
    return std::exp(-b * std::pow(r, 1 / n)) / total;
}

double nearest_prepared_sersic(double n) { return first_n + step_n * static_cast<double>(nearest_index(n)); }

std::span<const MixturePart> sersic_mixture(double n)
{
    static const auto mixtures = [] {
        std::array<std::vector<MixturePart>, prepared> all;
        for (std::size_t i = 0; i < prepared; ++i) {
            all[i] = fit(first_n + step_n * static_cast<double>(i));
        }
        return all;
    }();
    return mixtures[nearest_index(n)];
}

}  // namespace astroclip::simulate
