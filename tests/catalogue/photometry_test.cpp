#include "catalogue/photometry.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "support/deterministic_fill.hpp"

namespace astroclip::catalogue {
namespace {

std::vector<double> desi_grid()
{
    std::vector<double> wavelength(7781);
    for (std::size_t i = 0; i < wavelength.size(); ++i) {
        wavelength[i] = 3600 + 0.8 * static_cast<double>(i);
    }
    return wavelength;
}

// 1 nanomaggy at every frequency, as flux density per wavelength.
at::Tensor flat_spectrum(const std::vector<double>& wavelength)
{
    const auto lambda = at::tensor(wavelength, at::kDouble);
    return (3.631e-29 * 2.99792458e18 / lambda.square() / 1e-17).unsqueeze(0);
}

TEST(Photometry, SpectrumOfConstantFrequencyDensityHasThatFluxInEveryBand)
{
    const auto grid = desi_grid();
    const auto flux = synthetic_flux(flat_spectrum(grid), at::ones({1, 7781}), grid);
    EXPECT_TRUE(
        at::allclose(flux, at::ones({1, 3}, at::kDouble), 1e-12, 0));  // an identity, to float64 rounding
}

TEST(Photometry, BinsWithoutInverseVarianceDoNotCount)
{
    const auto grid = desi_grid();
    const auto flux = flat_spectrum(grid);
    auto ivar = at::ones({1, 7781});
    flux.narrow(1, 1000, 200).fill_(1e6);
    ivar.narrow(1, 1000, 200).zero_();
    EXPECT_TRUE(at::allclose(synthetic_flux(flux, ivar, grid), at::ones({1, 3}, at::kDouble), 1e-12, 0));
    EXPECT_TRUE(synthetic_flux(flux, at::zeros({1, 7781}), grid).isnan().all().item<bool>());
}

TEST(Photometry, MagnitudesAreThoseOfNanomaggiesAndEndAtTheFaintest)
{
    const auto magnitude = magnitudes(at::tensor({1.0, 100.0, -3.0}, at::kDouble));
    EXPECT_TRUE(at::allclose(magnitude, at::tensor({22.5, 17.5, 27.5}, at::kDouble)));
}

TEST(Photometry, PartnersAreFoundThroughAChangeOfZeroPointOnAnyNumberOfRanks)
{
    const comm::World world(MPI_COMM_WORLD);
    const auto one = 20 + 2 * test::fill_tensor(1, {50, 3}).to(at::kDouble);
    const auto other = one + at::tensor({0.3, 0.5, -0.2}, at::kDouble) + 1e-3 * test::fill_tensor(2, {50, 3});
    const auto places = photometric_places(world, one, other, ColourScale::of(one, other));
    EXPECT_EQ(places, std::vector<std::int64_t>(50, 1));
}

TEST(Photometry, GalaxyWithoutAMagnitudeComesLast)
{
    const comm::World world(MPI_COMM_WORLD);
    const auto one = 20 + 2 * test::fill_tensor(1, {5, 3}).to(at::kDouble);
    auto other = one + 0.01 * test::fill_tensor(2, {5, 3});
    other[2][1] = NAN;
    const auto places = photometric_places(world, one, other, ColourScale::of(one, other));
    EXPECT_EQ(places[2], 5);
    EXPECT_EQ(places[1], 1);
}

}  // namespace
}  // namespace astroclip::catalogue
