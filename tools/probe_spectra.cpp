// astroclip-probe-spectra: what has a spectrum encoder learned? Masked spectra of the held-out side of the
// split are reconstructed, and redshifts, which it was never trained on, are read from its tokens by nearest
// neighbours.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "catalogue/metrics.hpp"
#include "catalogue/regression.hpp"
#include "config/options.hpp"
#include "core/log.hpp"
#include "core/provenance.hpp"
#include "data/batches.hpp"
#include "data/spectrum_gaps.hpp"
#include "nn/encoder.hpp"

namespace astroclip::probe {
namespace {

constexpr const char* purpose =
    "astroclip-probe-spectra: reconstruction of masked spectra and redshifts from a spectrum encoder, beside "
    "what needs "
    "no learning; prints JSON\n\n";

struct Options {
    std::string model, spectra, pairs, noiseless, real, output;
    data::SpectrumMasksConfig masks;
    int reach = 20;
    int neighbours = 64;
    int limit = 1000;
    bool trust = false;
};

void bind(config::Section options, Options& o)
{
    options.option("model", o.model, "folder of a spectrum encoder")
        .option("spectra", o.spectra, "store of spectra: of their split, one side trained the encoder")
        .option("pairs", o.pairs, "store of pairs, if the split was theirs")
        .option("noiseless", o.noiseless,
                "store of the same spectra without noise (simulated); empty: compare with the "
                "noisy flux")
        .option("real", o.real, "store of other spectra whose redshifts are to be found; empty: none")
        .option("reach", o.reach, "samples on each side of a gap that the interpolation is drawn through",
                config::at_least(1))
        .option("neighbours", o.neighbours, "k of the redshift regression", config::at_least(1))
        .option("limit", o.limit, "held-out spectra to reconstruct, at most", config::at_least(1))
        .option("trust", o.trust, "do not check the hashes of the stores' files");
    data::bind(options, o.masks);
}

// Calls body(batch) for the galaxies in batches of the embedders' size.
template <typename Body>
void in_batches(const data::Galaxies& galaxies, const std::vector<std::int64_t>& numbers, Body body)
{
    const auto size = static_cast<std::size_t>(nn::compute_batch);
    for (std::size_t begin = 0; begin < numbers.size(); begin += size) {
        body(galaxies.read(std::span(numbers).subspan(begin, std::min(size, numbers.size() - begin))));
    }
}

// Mean over spectra of the standardised flux: the prediction that looks at wavelength alone. [1, L]
at::Tensor mean_spectrum(const data::Galaxies& galaxies, const data::SpectrumTokensConfig& tokens)
{
    auto sum = at::zeros({1, galaxies.bins()}, at::kDouble);
    const auto training = galaxies.members(false);
    in_batches(galaxies, training, [&](const data::Batch& batch) {
        sum += data::standardised(batch.spectra, tokens).values.sum(0, true, at::kDouble);
    });
    return (sum / static_cast<double>(training.size())).to(at::kFloat);
}

// Rows of `store` by object id.
std::map<std::int64_t, std::int64_t> rows_of(const data::Galaxies& galaxies)
{
    std::map<std::int64_t, std::int64_t> rows;
    for (const auto number : galaxies.all()) {
        rows.emplace(galaxies[number].object_id, number);
    }
    return rows;
}

at::Tensor fluxes_of(const data::Galaxies& galaxies, const std::map<std::int64_t, std::int64_t>& rows,
                     const std::vector<std::int64_t>& ids)
{
    std::vector<std::int64_t> numbers;
    for (const auto id : ids) {
        const auto found = rows.find(id);
        if (found == rows.end()) {
            throw DataError("noiseless", fmt::format("has no object {}, which the spectra have", id));
        }
        numbers.push_back(found->second);
    }
    return galaxies.read(numbers).spectra;
}

// Mean squared errors over the samples that no visible token shows, in standardised units.
nlohmann::json reconstruction(nn::SpecFormer& model, const data::SpectrumTokensConfig& config,
                              const Options& o, std::uint64_t seed, const data::Galaxies& galaxies)
{
    std::optional<data::Galaxies> noiseless;
    std::map<std::int64_t, std::int64_t> rows;
    if (!o.noiseless.empty()) {
        noiseless.emplace(data::Stores{.spectra = o.noiseless, .trust = o.trust});
        rows = rows_of(*noiseless);
    }
    auto held_out = galaxies.members(true);
    held_out.resize(std::min(held_out.size(), static_cast<std::size_t>(o.limit)));
    const auto mean = mean_spectrum(galaxies, config);
    std::map<std::string, double> error;
    double count = 0;
    in_batches(galaxies, held_out, [&](const data::Batch& batch) {
        const auto own = data::standardised(batch.spectra, config);
        const auto truth =
            noiseless ? (fluxes_of(*noiseless, rows, batch.object_ids) - own.mean) / own.std : own.values;
        const auto tokens = data::spectrum_tokens(batch.spectra, config);
        const auto starts = data::mask_starts(batch.object_ids, tokens.size(1), seed, std::nullopt, o.masks);
        const auto hidden = data::hidden_samples(starts, o.masks.width, galaxies.bins(), config);
        const auto predicted = data::samples_of_tokens(
            model->reconstruct(data::mask_tokens(tokens, starts, o.masks.width)), galaxies.bins(), config);
        const auto add = [&](const char* name, const at::Tensor& values) {
            error[name] +=
                at::where(hidden, (values - truth).square(), at::zeros({})).sum(at::kDouble).item<double>();
        };
        add("model", predicted);
        add("interpolation", data::interpolated(own.values, hidden, o.reach));
        add("mean_spectrum", mean.expand_as(truth));
        if (noiseless) {
            add("noisy_flux", own.values);
        }
        count += hidden.sum().item<double>();
    });
    nlohmann::json result = {
        {"spectra", held_out.size()}, {"samples", count}, {"against", noiseless ? "noiseless" : "noisy"}};
    for (const auto& [name, sum] : error) {
        result[name] = sum / count;
    }
    return result;
}

struct Described {
    at::Tensor vectors;            // [n, width]
    std::vector<double> redshift;  // n; NaN where it is not known for sure
};

Described describe_all(const data::Galaxies& galaxies, const std::vector<std::int64_t>& numbers,
                       nn::Embedder& embedder, const data::SpectrumTokensConfig& config)
{
    std::vector<at::Tensor> vectors;
    in_batches(galaxies, numbers, [&](const data::Batch& batch) {
        const auto tokens = data::spectrum_tokens(data::padded(batch.spectra, nn::compute_batch), config);
        vectors.push_back(embedder.embed_spectra(tokens).narrow(0, 0, batch.size()).clone());
    });
    Described described{at::cat(vectors), {}};
    const auto redshift = galaxies.column("redshift"), warning = galaxies.column("zwarn");
    for (const auto number : numbers) {
        const auto n = static_cast<std::size_t>(number);
        described.redshift.push_back(warning[n] == 0 ? redshift[n] : std::nan(""));
    }
    return described;
}

Described known(const Described& all)
{
    std::vector<std::int64_t> rows;
    Described some;
    for (std::size_t i = 0; i < all.redshift.size(); ++i) {
        if (std::isfinite(all.redshift[i])) {
            rows.push_back(static_cast<std::int64_t>(i));
            some.redshift.push_back(all.redshift[i]);
        }
    }
    some.vectors = all.vectors.index_select(0, at::tensor(rows, at::kLong));
    return some;
}

std::vector<double> predicted_redshifts(const comm::World& world, const Described& training,
                                        const Described& query, int neighbours)
{
    const auto result =
        catalogue::knn_regression(world, training.vectors, at::tensor(training.redshift, at::kDouble),
                                  query.vectors, {neighbours, true});
    const auto flat = result.predicted.flatten().contiguous();
    return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// How many are right to 0.005 (1 + z), the usual limit of a failed redshift of galaxies' spectra being less.
std::int64_t right(const std::vector<double>& truth, const std::vector<double>& found)
{
    std::int64_t count = 0;
    for (std::size_t i = 0; i < truth.size(); ++i) {
        count += std::abs(found[i] - truth[i]) <= 0.005 * (1 + truth[i]);
    }
    return count;
}

nlohmann::json redshifts(const comm::World& world, const data::Galaxies& galaxies, nn::Embedder& embedder,
                         const data::SpectrumTokensConfig& config, const Options& o, std::uint64_t seed)
{
    const auto training = known(describe_all(galaxies, galaxies.members(false), embedder, config));
    const auto held_out = known(describe_all(galaxies, galaxies.members(true), embedder, config));
    const auto found = predicted_redshifts(world, training, held_out, o.neighbours);
    const auto interval = catalogue::bootstrap_r2(held_out.redshift, found, seed);
    nlohmann::json result = {{"n", held_out.redshift.size()},
                             {"r2", catalogue::r2(held_out.redshift, found)},
                             {"r2_low", interval.low},
                             {"r2_high", interval.high}};
    if (!o.real.empty()) {
        const data::Galaxies real(data::Stores{.spectra = o.real, .trust = o.trust});
        const auto others = known(describe_all(real, real.all(), embedder, config));
        const auto many = predicted_redshifts(world, training, others, o.neighbours);
        const auto nearest = predicted_redshifts(world, training, others, 1);
        result["real"] = {{"n", others.redshift.size()},
                          {"right", right(others.redshift, many)},
                          {"right_by_nearest", right(others.redshift, nearest)}};
    }
    return result;
}

const std::string& required(const std::string& option, const std::string& path)
{
    if (path.empty()) {
        throw ConfigError(fmt::format("'{}' is not set", option));
    }
    return path;
}

nlohmann::json probe(const Options& o, const config::RunOptions& run)
{
    const at::NoGradGuard no_grad;
    at::set_num_threads(run.threads);
    const comm::World world(MPI_COMM_WORLD);
    const auto path = required("model", o.model) + "/model.safetensors";
    auto model = nn::load_specformer(path);
    const auto tokens = data::spectrum_tokens_config(nn::WeightsFile(path).metadata(), "");
    const data::Galaxies galaxies(
        data::Stores{.spectra = required("spectra", o.spectra), .pairs = o.pairs, .trust = o.trust});
    log::info("reconstructing masked spectra");
    nlohmann::json result = {{"reconstruction", reconstruction(model, tokens, o, run.seed, galaxies)}};
    log::info("redshifts by nearest neighbours");
    const auto trained = nn::load_embedder(path, at::kCPU),
               untrained = nn::untrained_embedder(path, run.seed, at::kCPU);
    result["redshift"] = {{"trained", redshifts(world, galaxies, *trained, tokens, o, run.seed)},
                          {"untrained", redshifts(world, galaxies, *untrained, tokens, o, run.seed)}};
    return result;
}

int run(int argc, char** argv)
{
    config::Options options("probe-spectra");
    Options o;
    bind(options.section(), o);
    try {
        options.parse(argc, argv);
        if (options.invocation().help) {
            std::cout << purpose << options.help();
        } else if (options.invocation().version) {
            std::cout << "astroclip-probe-spectra " << version() << " (" << revision() << ")\n";
        } else {
            std::cout << probe(o, options.run()).dump(1) << std::endl;
        }
        return 0;
    } catch (const Error& error) {
        log::error("astroclip-probe-spectra failed (exit code {}): {}", error.exit_code, error.what());
        return error.exit_code;
    } catch (const std::exception& error) {
        log::error("astroclip-probe-spectra failed (exit code 70): {}", error.what());
        return 70;
    }
}

}  // namespace
}  // namespace astroclip::probe

int main(int argc, char** argv)
{
    setenv("MKL_CBWR", "AUTO,STRICT", 0);  // as the stages run
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    const int code = astroclip::probe::run(argc, argv);
    MPI_Finalize();
    return code;
}
