#include "stages/evaluate_case.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>
#include <numeric>
#include <span>

#include "catalogue/metrics.hpp"

namespace astroclip::evaluate {
namespace {

at::Tensor numbers(const std::vector<std::int64_t>& rows)
{
    return at::tensor(at::ArrayRef<std::int64_t>(rows), at::kLong);
}

std::vector<std::int64_t> all_rows(std::int64_t n)
{
    std::vector<std::int64_t> rows(static_cast<std::size_t>(n));
    std::iota(rows.begin(), rows.end(), 0);
    return rows;
}

// Truth and prediction of several properties.
struct Predicted {
    std::vector<std::vector<double>> truth, predicted;

    Predicted(const at::Tensor& y, const at::Tensor& guess)
    {
        for (std::int64_t number = 0; number < y.size(1); ++number) {
            truth.push_back(column(y, number));
            predicted.push_back(column(guess, number));
        }
    }
    double mean_r2(std::span<const std::int64_t> rows) const
    {
        double sum = 0;
        for (std::size_t i = 0; i < truth.size(); ++i) sum += catalogue::r2(truth[i], predicted[i], rows);
        return sum / static_cast<double>(truth.size());
    }
};

}  // namespace

Rows known_rows(const std::vector<Target>& targets, const Sample& sample)
{
    Rows rows;
    for (std::int64_t i = 0; i < sample.size(); ++i) {
        const bool known = std::all_of(targets.begin(), targets.end(), [&](const auto& target) {
            return std::isfinite(target.truth[static_cast<std::size_t>(i)]);
        });
        if (known) (i < sample.train ? rows.train : rows.test).push_back(i);
    }
    return rows;
}

std::map<std::string, std::string> unscored(const std::vector<Target>& targets, const Sample& sample)
{
    std::map<std::string, std::string> reasons;
    const auto rest = [&] {
        std::vector<Target> some;
        for (const auto& target : targets) {
            if (!reasons.contains(target.name)) some.push_back(target);
        }
        return some;
    };
    for (const auto& target : targets) {
        const auto rows = known_rows({target}, sample);
        if (!rows.any()) {
            reasons[target.name] = fmt::format("known of {} galaxies for training and of {} held out",
                                               rows.train.size(), rows.test.size());
        }
    }
    // R² is that of the held-out galaxies that have all properties. Of those that do not vary there the label
    // goes that the fewest have: without it there may be more galaxies, among which the others vary.
    for (;;) {
        const auto some = rest();
        const auto test = known_rows(some, sample).test;
        const Target* least = nullptr;
        std::size_t fewest = 0;
        for (const auto& target : targets) {
            const auto truth = chosen(target.truth, test);
            const auto own = known_rows({target}, sample).test.size();
            const bool varies =
                std::adjacent_find(truth.begin(), truth.end(), std::not_equal_to<>()) != truth.end();
            if (!varies && !reasons.contains(target.name) && (least == nullptr || own < fewest)) {
                least = &target;
                fewest = own;
            }
        }
        if (least == nullptr) break;
        reasons[least->name] =
            test.empty()
                ? fmt::format("known of {} held-out galaxies, none of which has every label", fewest)
                : fmt::format("{:.6g} for all {} held-out galaxies that have every label: it does not vary",
                              chosen(least->truth, test).front(), test.size());
    }
    return reasons;
}

std::vector<Target> scored(const std::vector<Target>& targets, const Sample& sample)
{
    const auto reasons = unscored(targets, sample);
    std::vector<Target> some;
    std::copy_if(targets.begin(), targets.end(), std::back_inserter(some),
                 [&](const auto& target) { return !reasons.contains(target.name); });
    return some;
}

at::Tensor chosen(const at::Tensor& values, const std::vector<std::int64_t>& rows)
{
    return values.index_select(0, numbers(rows));
}
std::vector<double> chosen(const std::vector<double>& values, const std::vector<std::int64_t>& rows)
{
    std::vector<double> some;
    for (const auto row : rows) some.push_back(values[static_cast<std::size_t>(row)]);
    return some;
}

at::Tensor truth_of(const std::vector<Target>& targets, const std::vector<std::int64_t>& rows)
{
    std::vector<at::Tensor> columns;
    for (const auto& target : targets) columns.push_back(at::tensor(chosen(target.truth, rows), at::kDouble));
    return at::stack(columns, 1);
}

std::vector<double> flat(const at::Tensor& values)
{
    const auto all = values.to(at::kDouble).contiguous();
    return {all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel()};
}

std::vector<double> column(const at::Tensor& table, std::int64_t number)
{
    const auto values = table.select(1, number).to(at::kDouble).contiguous();
    return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

std::vector<double> Learned::of(const std::string& target, const std::vector<std::int64_t>& rows) const
{
    const auto found = std::find(targets.begin(), targets.end(), target);
    return found == targets.end() ? std::vector<double>()
                                  : column(chosen(predicted, rows), found - targets.begin());
}

std::vector<std::vector<double>> shared_out(const comm::World& world, std::size_t jobs,
                                            const std::function<std::vector<double>(std::size_t)>& work)
{
    std::vector<double> own;  // of each job: number, length, values
    world.together([&] {
        for (auto job = static_cast<std::size_t>(world.rank()); job < jobs; job += world.size()) {
            const auto values = work(job);
            own.insert(own.end(), {static_cast<double>(job), static_cast<double>(values.size())});
            own.insert(own.end(), values.begin(), values.end());
        }
    });
    std::vector<std::vector<double>> results(jobs);
    const auto all = world.all_gather(own);
    for (auto at = all.begin(); at != all.end();) {
        const auto job = static_cast<std::size_t>(at[0]);
        const auto length = static_cast<std::ptrdiff_t>(at[1]);
        results[job].assign(at + 2, at + 2 + length);
        at += 2 + length;
    }
    return results;
}

nlohmann::json score(const std::vector<double>& truth, const std::vector<double>& predicted, bool redshift,
                     const Case& of)
{
    const auto interval = catalogue::bootstrap_r2(truth, predicted, of.seed(), of.o.bootstraps);
    nlohmann::json scores = {{"r2", catalogue::r2(truth, predicted)},
                             {"r2_low", interval.low},
                             {"r2_high", interval.high},
                             {"n", truth.size()}};
    if (redshift) {
        const auto errors = catalogue::redshift_errors(truth, predicted);
        scores["bias"] = catalogue::bias(errors);
        scores["sigma_nmad"] = catalogue::sigma_nmad(errors);
        scores["outlier_fraction"] = catalogue::outlier_fraction(errors);
    }
    return scores;
}

double mean_r2(const at::Tensor& truth, const at::Tensor& predicted)
{
    return Predicted(truth, predicted).mean_r2(all_rows(truth.size(0)));
}

nlohmann::json mean_score(const at::Tensor& truth, const at::Tensor& predicted, const Case& of)
{
    const Predicted columns(truth, predicted);
    const auto interval = catalogue::bootstrap(
        truth.size(0), [&](std::span<const std::int64_t> rows) { return columns.mean_r2(rows); }, of.seed(),
        of.o.bootstraps);
    std::vector<std::string> names;
    for (const auto& target : of.properties) names.push_back(target.name);
    return {{"of", names},
            {"r2", columns.mean_r2(all_rows(truth.size(0)))},
            {"r2_low", interval.low},
            {"r2_high", interval.high},
            {"n", truth.size(0)}};
}

}  // namespace astroclip::evaluate
