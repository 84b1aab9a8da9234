// astroclip-probe-spectra: what has a spectrum encoder learned? Masked spectra of the held-out side of the
// split are reconstructed, and redshifts, which it was never trained on, are read from its tokens by nearest
// neighbours.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>

#include "catalogue/metrics.hpp"
#include "catalogue/regression.hpp"
#include "config/options.hpp"
#include "core/log.hpp"
#include "data/batches.hpp"
#include "data/rows.hpp"
#include "data/spectrum_gaps.hpp"
#include "nn/encoder.hpp"
#include "store/publication.hpp"
#include "store/reader.hpp"
#include "tools/program.hpp"

namespace astroclip::probe {
namespace {

constexpr std::size_t page_spectra = 12;
const program::Description description{
    "probe-spectra",
    "reconstruction of masked spectra and redshifts from a spectrum encoder, beside what needs no learning; "
    "prints JSON"};

struct Options {
    std::string model, spectra, pairs, noiseless, real, output;
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
        .option("output", o.output,
                "file for all of it, with a page of spectra, as JSON (tools/report draws it)")
        .option("trust", o.trust, "do not check the hashes of the stores' files");
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
        sum += data::standardised(batch.spectra, tokens, batch.ivar).values.sum(0, true, at::kDouble);
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

// Squared errors over the samples that no visible token shows, in standardised units.
class Errors {
public:
    explicit Errors(std::int64_t bins) : count_(at::zeros({bins}, at::kDouble)) {}

    // values, truth [B, L]; hidden [B, L] bool
    void add(const std::string& name, const at::Tensor& values, const at::Tensor& truth,
             const at::Tensor& hidden)
    {
        const auto squares = at::where(hidden, (values - truth).square(), at::zeros({})).to(at::kDouble);
        auto& [by_bin, by_spectrum] = of_[name];
        by_bin = by_bin.defined() ? by_bin + squares.sum(0) : squares.sum(0);
        by_spectrum.push_back(squares.sum(1));
    }
    void count(const at::Tensor& hidden)
    {
        count_ += hidden.sum(0);
        counts_.push_back(hidden.sum(1).to(at::kDouble));
    }

    nlohmann::json means() const
    {
        nlohmann::json json = {{"samples", count_.sum().item<double>()}};
        for (const auto& [name, sums] : of_) {
            json[name] = (sums.first.sum() / count_.sum()).item<double>();
        }
        return json;
    }
    // Where the errors lie: means over groups of `bins` or of spectra. group [L] or [spectra] int64 from 0.
    nlohmann::json by_wavelength(const at::Tensor& group) const { return grouped(group, count_, false); }
    nlohmann::json by_spectrum(const at::Tensor& group) const
    {
        return grouped(group, at::cat(counts_), true);
    }

private:
    nlohmann::json grouped(const at::Tensor& group, const at::Tensor& count, bool of_spectra) const
    {
        const auto groups = group.max().item<std::int64_t>() + 1;
        const auto total = [&](const at::Tensor& values) {
            return at::zeros({groups}, at::kDouble).index_add(0, group, values);
        };
        nlohmann::json json;
        for (const auto& [name, sums] : of_) {
            const auto mean = total(of_spectra ? at::cat(sums.second) : sums.first) / total(count);
            json[name] =
                std::vector<double>(mean.const_data_ptr<double>(), mean.const_data_ptr<double>() + groups);
        }
        return json;
    }

    at::Tensor count_;                // [L]
    std::vector<at::Tensor> counts_;  // [B] each
    std::map<std::string, std::pair<at::Tensor, std::vector<at::Tensor>>> of_;
};

// The held-out spectra with what hides parts of them, and what is predicted there.
class Reconstruction {
public:
    Reconstruction(const std::string& model, const Options& o, std::uint64_t seed,
                   const data::Galaxies& galaxies)
        : o_(o),
          seed_(seed),
          galaxies_(galaxies),
          store_(o.spectra, "spectra", true),  // its hashes are looked at by `galaxies`
          model_(nn::load_specformer(model)),
          tokens_(data::spectrum_tokens_config(nn::WeightsFile(model).metadata(), "")),
          masks_(data::spectrum_masks_config(nn::WeightsFile(model).metadata())),
          errors_(galaxies.bins())
    {
        if (!o.noiseless.empty()) {
            noiseless_.emplace(data::Stores{.spectra = o.noiseless, .trust = o.trust});
            noiseless_rows_ = rows_of(*noiseless_);
        }
    }

    void run()
    {
        auto held_out = galaxies_.members(true);
        held_out.resize(std::min(held_out.size(), static_cast<std::size_t>(o_.limit)));
        if (held_out.empty()) {
            throw DataError(o_.spectra, "has no held-out spectra");
        }
        spectra_ = held_out.size();
        const auto mean = mean_spectrum(galaxies_, tokens_);
        in_batches(galaxies_, held_out, [&](const data::Batch& batch) { add(batch, mean); });
        measure_snr(held_out);
    }

    nlohmann::json scores() const
    {
        auto json = errors_.means();
        json["spectra"] = spectra_;
        json["against"] = noiseless_ ? "noiseless" : "noisy";
        return json;
    }
    nlohmann::json page() const { return page_; }
    nlohmann::json errors_by_wavelength() const
    {
        const auto wavelength = store_.axis("wavelength");
        constexpr std::int64_t groups = 40;
        const auto bins = static_cast<std::int64_t>(wavelength.size());
        const auto group = at::arange(bins, at::kLong).mul(groups).floor_divide(bins);
        auto json = errors_.by_wavelength(group);
        for (std::int64_t i = 0; i < groups; ++i) {
            json["wavelength"].push_back(
                wavelength[static_cast<std::size_t>((2 * i + 1) * bins / (2 * groups))]);
        }
        return json;
    }
    nlohmann::json errors_by_snr() const
    {
        constexpr std::int64_t groups = 8;
        const auto order = at::argsort(snr_);
        const auto count = snr_.size(0);
        const auto group = at::empty_like(order).index_copy_(
            0, order, at::arange(count, at::kLong).mul(groups).floor_divide(count));
        auto json = errors_.by_spectrum(group);
        for (std::int64_t i = 0; i < groups; ++i) {
            const auto some = snr_.masked_select(group == i);
            json["snr"].push_back(some.numel() > 0 ? some.median().item<double>() : 0.0);
        }
        return json;
    }

private:
    void add(const data::Batch& batch, const at::Tensor& mean)
    {
        const auto own = data::standardised(batch.spectra, tokens_, batch.ivar);
        const auto truth =
            noiseless_ ? (fluxes_of(*noiseless_, noiseless_rows_, batch.object_ids) - own.mean) / own.divisor
                       : own.values;
        const auto tokens = data::spectrum_tokens(batch.spectra, tokens_, batch.ivar);
        const auto starts = data::mask_starts(batch.object_ids, tokens.size(1), seed_, std::nullopt, masks_);
        const auto hidden = data::hidden_samples(starts, masks_.width, galaxies_.bins(), tokens_);
        const auto predicted = data::samples_of_tokens(
            model_->reconstruct(data::mask_tokens(tokens, starts, masks_.width)), galaxies_.bins(), tokens_);
        errors_.count(hidden);
        errors_.add("model", predicted, truth, hidden);
        errors_.add("interpolation", data::interpolated(own.values, hidden, o_.reach), truth, hidden);
        errors_.add("mean_spectrum", mean.expand_as(truth), truth, hidden);
        if (noiseless_) {
            errors_.add("noisy_flux", own.values, truth, hidden);
        }
        for (std::int64_t i = 0; i < batch.size() && page_.size() < page_spectra; ++i) {
            page_.push_back(page_entry(batch, i, own, predicted, hidden));
        }
    }

    nlohmann::json page_entry(const data::Batch& batch, std::int64_t i, const data::Standardised& own,
                              const at::Tensor& predicted, const at::Tensor& hidden) const
    {
        const auto row = [&](const at::Tensor& values) {
            const auto one = values[i].to(at::kDouble).mul(1e4).round().div(1e4).contiguous();
            return std::vector<double>(one.const_data_ptr<double>(),
                                       one.const_data_ptr<double>() + one.numel());
        };
        nlohmann::json entry = {{"object_id", batch.object_ids[static_cast<std::size_t>(i)]},
                                {"flux", row(batch.spectra)},
                                {"prediction", row(predicted * own.divisor + own.mean)}};
        auto& runs = entry["hidden"] = nlohmann::json::array();  // [first, last) samples
        const auto flags = hidden[i].contiguous();
        const bool* begin = flags.const_data_ptr<bool>();
        const bool* end = begin + flags.numel();
        for (const bool* first = std::find(begin, end, true); first != end;) {
            const bool* last = std::find(first, end, false);
            runs.push_back({first - begin, last - begin});
            first = std::find(last, end, true);
        }
        return entry;
    }

    // Median of flux · sqrt(ivar) of each spectrum, 0 where a sample has no inverse variance.
    void measure_snr(const std::vector<std::int64_t>& held_out)
    {
        const auto redshift = galaxies_.column("redshift");
        for (std::size_t i = 0; i < page_.size(); ++i) {
            page_[i]["redshift"] = redshift[static_cast<std::size_t>(held_out[i])];
        }
        std::vector<std::int64_t> rows;
        for (const auto number : held_out) {
            rows.push_back(galaxies_[number].spectrum_row);
        }
        const auto ratio =
            data::read_rows(store_, "flux", rows) * data::read_rows(store_, "ivar", rows).sqrt();
        snr_ = std::get<0>(ratio.median(1)).to(at::kDouble);
    }

    const Options& o_;
    std::uint64_t seed_;
    const data::Galaxies& galaxies_;
    store::Reader store_;
    nn::SpecFormer model_;
    data::SpectrumTokensConfig tokens_;
    data::SpectrumMasksConfig masks_;
    std::optional<data::Galaxies> noiseless_;
    std::map<std::int64_t, std::int64_t> noiseless_rows_;
    Errors errors_;
    at::Tensor snr_;  // [spectra]
    std::size_t spectra_ = 0;
    nlohmann::json page_ = nlohmann::json::array();
};

struct Described {
    at::Tensor vectors;            // [n, width]
    std::vector<double> redshift;  // n; NaN where it is not known for sure, and of quasars and stars
};

Described describe_all(const data::Galaxies& galaxies, const std::vector<std::int64_t>& numbers,
                       nn::Embedder& embedder, const data::SpectrumTokensConfig& config)
{
    std::vector<at::Tensor> vectors;
    in_batches(galaxies, numbers, [&](const data::Batch& batch) {
        const auto tokens =
            data::padded(data::spectrum_tokens(batch.spectra, config, batch.ivar), nn::compute_batch);
        vectors.push_back(embedder.embed_spectra(tokens).narrow(0, 0, batch.size()).clone());
    });
    Described described{at::cat(vectors), {}};
    const auto redshift = galaxies.column("redshift"), warning = galaxies.column("zwarn"),
               type = galaxies.column("spectype");
    for (const auto number : numbers) {
        const auto n = static_cast<std::size_t>(number);
        const bool sure = warning[n] == 0 || warning[n] == -1;  // -1: a survey without such warnings
        const bool galaxy = type[n] == store::spectype::galaxy || type[n] == store::spectype::none;
        described.redshift.push_back(sure && galaxy ? redshift[n] : std::nan(""));
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
        data::Galaxies real(data::Stores{.spectra = o.real, .trust = o.trust});
        if (config.leaves_out_bad_bins()) {
            real.read_ivar();
        }
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
    store::read_manifest(required("model", o.model));
    const auto path = o.model + "/model.safetensors";
    data::Galaxies galaxies(
        data::Stores{.spectra = required("spectra", o.spectra), .pairs = o.pairs, .trust = o.trust});
    const auto tokens = data::spectrum_tokens_config(nn::WeightsFile(path).metadata(), "");
    if (tokens.leaves_out_bad_bins()) {
        galaxies.read_ivar();
    }
    log::info("reconstructing masked spectra");
    Reconstruction reconstruction(path, o, run.seed, galaxies);
    reconstruction.run();
    nlohmann::json result = {{"reconstruction", reconstruction.scores()}};
    log::info("redshifts by nearest neighbours");
    const auto trained = nn::load_embedder(path, at::kCPU),
               untrained = nn::untrained_embedder(path, run.seed, at::kCPU);
    result["redshift"] = {{"trained", redshifts(world, galaxies, *trained, tokens, o, run.seed)},
                          {"untrained", redshifts(world, galaxies, *untrained, tokens, o, run.seed)}};
    if (!o.output.empty()) {
        auto all = result;
        all["by_wavelength"] = reconstruction.errors_by_wavelength();
        all["by_snr"] = reconstruction.errors_by_snr();
        all["page"] = reconstruction.page();
        store::publish_text(o.output, all.dump() + "\n");
    }
    return result;
}

}  // namespace
}  // namespace astroclip::probe

int main(int argc, char** argv)
{
    using namespace astroclip;
    config::Options options(probe::description.name);
    probe::Options o;
    probe::bind(options.section(), o);
    return program::run_ranks(argc, argv, probe::description, options,
                              [&] { std::cout << probe::probe(o, options.run()).dump(1) << std::endl; });
}
