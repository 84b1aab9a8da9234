#include "catalogue/metrics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/random.hpp"

namespace astroclip::catalogue {

namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double mean(std::span<const double> values)
{
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

std::vector<std::int64_t> all_rows(std::size_t n)
{
    std::vector<std::int64_t> rows(n);
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
}

}  // namespace

double r2(std::span<const double> truth, std::span<const double> predicted)
{
    return r2(truth, predicted, all_rows(truth.size()));
}

double r2(std::span<const double> truth, std::span<const double> predicted,
          std::span<const std::int64_t> rows)
{
    double sum = 0.0;
    for (const auto i : rows) {
        sum += truth[i];
    }
    const auto centre = sum / static_cast<double>(rows.size());
    double residual = 0.0;
    double total = 0.0;
    for (const auto i : rows) {
        residual += (truth[i] - predicted[i]) * (truth[i] - predicted[i]);
        total += (truth[i] - centre) * (truth[i] - centre);
    }
    return total > 0 ? 1.0 - residual / total : nan;
}

std::vector<double> redshift_errors(std::span<const double> truth, std::span<const double> predicted)
{
    std::vector<double> errors(truth.size());
    std::transform(truth.begin(), truth.end(), predicted.begin(), errors.begin(),
                   [](double z, double guess) { return (z - guess) / (1.0 + z); });
    return errors;
}

double bias(std::span<const double> errors) { return mean(errors); }

double sigma_nmad(std::span<const double> errors)
{
    const auto centre = median({errors.begin(), errors.end()});
    std::vector<double> deviations(errors.size());
    std::transform(errors.begin(), errors.end(), deviations.begin(),
                   [centre](double error) { return std::abs(error - centre); });
    return 1.4826 * median(std::move(deviations));
}

double outlier_fraction(std::span<const double> errors, double limit)
{
    const auto outliers = std::count_if(errors.begin(), errors.end(),
                                        [limit](double error) { return std::abs(error) > limit; });
    return static_cast<double>(outliers) / static_cast<double>(errors.size());
}

double median(std::vector<double> values)
{
    if (values.empty()) {
        return nan;
    }
    std::sort(values.begin(), values.end());
    const auto middle = values.size() / 2;
    return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

double recall_at_k(std::span<const std::int64_t> places, std::int64_t k)
{
    const auto found =
        std::count_if(places.begin(), places.end(), [k](std::int64_t place) { return place <= k; });
    return static_cast<double>(found) / static_cast<double>(places.size());
}

Interval bootstrap(std::int64_t n, const std::function<double(std::span<const std::int64_t>)>& statistic,
                   std::uint64_t seed, int draws, double level)
{
    std::vector<double> values;
    std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
    for (int draw = 0; draw < draws; ++draw) {
        Random random(seed, "bootstrap", 0, static_cast<std::uint64_t>(draw));
        std::generate(rows.begin(), rows.end(),
                      [&] { return static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(n))); });
        if (const auto value = statistic(rows); !std::isnan(value)) {
            values.push_back(value);
        }
    }
    if (values.empty()) {
        return {nan, nan};
    }
    std::sort(values.begin(), values.end());
    const auto quantile = [&](double fraction) {
        const auto position = fraction * static_cast<double>(values.size() - 1);
        const auto below = static_cast<std::size_t>(position);
        const auto above = std::min(below + 1, values.size() - 1);
        return std::lerp(values[below], values[above], position - static_cast<double>(below));
    };
    return {quantile(0.5 - level / 2), quantile(0.5 + level / 2)};
}

Interval bootstrap_r2(std::span<const double> truth, std::span<const double> predicted, std::uint64_t seed,
                      int draws)
{
    return bootstrap(
        static_cast<std::int64_t>(truth.size()),
        [&](std::span<const std::int64_t> rows) { return r2(truth, predicted, rows); }, seed, draws);
}

}  // namespace astroclip::catalogue
