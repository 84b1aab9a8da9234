#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

// Figures of merit of predictions and retrievals, in double precision.
namespace astroclip::catalogue {

// 1 - Σ(truth - predicted)² / Σ(truth - mean truth)², of all rows or of those given (which may repeat); NaN
// if the truth does not vary.
double r2(std::span<const double> truth, std::span<const double> predicted);
double r2(std::span<const double> truth, std::span<const double> predicted,
          std::span<const std::int64_t> rows);

// (true - predicted)/(1 + true) of each redshift.
std::vector<double> redshift_errors(std::span<const double> truth, std::span<const double> predicted);

double bias(std::span<const double> errors);        // mean
double sigma_nmad(std::span<const double> errors);  // 1.4826 · median |Δ - median Δ|
double outlier_fraction(std::span<const double> errors, double limit = 0.05);  // share with |Δ| > limit

double median(std::vector<double> values);  // mean of the middle two for an even number; NaN for none

// Share of the queries whose partner is among the first k; `places` start at 1 (partner_places).
double recall_at_k(std::span<const std::int64_t> places, std::int64_t k);

struct Interval {
    double low, high;
};

// Percentile bootstrap (Efron 1979) of a statistic of n objects: it is called with `draws` resamples (n row
// numbers with repeats, drawn from (seed, draw)); the interval holds `level` of the values. NaN values are
// left out.
Interval bootstrap(std::int64_t n, const std::function<double(std::span<const std::int64_t>)>& statistic,
                   std::uint64_t seed, int draws = 1000, double level = 0.95);

// The bootstrap interval of R².
Interval bootstrap_r2(std::span<const double> truth, std::span<const double> predicted, std::uint64_t seed,
                      int draws = 1000);

}  // namespace astroclip::catalogue
