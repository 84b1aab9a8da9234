// search: embeddings/ + queries -> the most similar galaxies, within a modality and across (ii, ss, is, si).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <array>
#include <functional>
#include <optional>

#include "catalogue/neighbours.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "stages/compute.hpp"
#include "stages/search_index.hpp"
#include "stages/search_results.hpp"
#include "stages/stage.hpp"

namespace astroclip::search {
namespace {

struct Options {
    std::string embeddings, pairs, output;
    IndexOptions index;
    QueryOptions queries;
    std::int64_t neighbours = 8;
    std::string pool = "auto";
    bool trust = false;
};

void bind(config::Section options, Options& o)
{
    using config::runtime_only;
    options.option("embeddings", o.embeddings, "store of embeddings to search", runtime_only())
        .option("pairs", o.pairs, "store of pairs, which knows the test galaxies", runtime_only())
        .option("output", o.output, "folder to publish", runtime_only())
        .option("neighbours", o.neighbours, "neighbours of each query", config::between(1, 10000))
        .option(
            "pool", o.pool,
            "what is searched: test (galaxies held out by the pairs), all, or auto (test if pairs are given)",
            config::one_of({"auto", "test", "all"}))
        .option("trust", o.trust, "believe the hashes of the inputs without computing them", runtime_only());
    bind(options, o.index);
    bind(options, o.queries);
}

const stage::Description description{
    "search", "the nearest galaxies of each query, image and spectrum to image and spectrum",
    "  astroclip-search --embeddings run/embeddings --ids 39633345008634465 --output found\n"
    "  mpirun -n 4 astroclip-search --embeddings run/embeddings --positions lenses.csv --mean --neighbours "
    "100 "
    "\\\n"
    "      --output found\n"
    "  astroclip-search --embeddings run/embeddings --model run/aligned --cutouts mine.fits --output found",
    true};

constexpr std::array<Mode, 4> modes{{{"ii", "image", "image"},
                                     {"ss", "spectrum", "spectrum"},
                                     {"is", "image", "spectrum"},
                                     {"si", "spectrum", "image"}}};

at::Tensor stacked(const std::vector<Query>& queries, const std::vector<std::size_t>& numbers,
                   const std::string& modality, std::int64_t width)
{
    const auto vectors = at::empty({std::ssize(numbers), width});
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        const auto& vector = queries[numbers[i]].vector(modality);
        std::copy(vector.begin(), vector.end(), vectors.data_ptr<float>() + i * vector.size());
    }
    return vectors;
}

using Nearest = std::function<catalogue::Neighbours(const std::string& searched, const at::Tensor& queries)>;

// The two modes that search one modality of the catalogue, in one pass over it.
std::vector<Found> search_modality(const std::string& searched, const Catalogue& catalogue,
                                   const Queries& queries, const Nearest& nearest)
{
    const auto width =
        static_cast<std::int64_t>(catalogue.reader().schema().column(searched + "_embedding").row_items());
    std::vector<Found> found;
    std::vector<at::Tensor> vectors;
    for (const auto& mode : modes) {
        if (mode.catalogue != searched) continue;
        Found one{mode, {}, {}};
        for (std::size_t i = 0; i < queries.all.size(); ++i) {
            if (!queries.all[i].vector(mode.query).empty()) one.queries.push_back(i);
        }
        vectors.push_back(stacked(queries.all, one.queries, mode.query, width));
        found.push_back(std::move(one));
    }
    const auto all = nearest(searched, at::cat(vectors));
    std::int64_t first = 0;
    for (auto& one : found) {
        const auto count = std::ssize(one.queries);
        one.neighbours = {all.row.narrow(0, first, count), all.score.narrow(0, first, count)};
        first += count;
    }
    return found;
}

// In the order of `modes`.
std::vector<Found> search_all(const Catalogue& catalogue, const Queries& queries, const Nearest& nearest,
                              stage::Context& context)
{
    context.progress.begin("searching", 2, "modalities");
    auto images = search_modality("image", catalogue, queries, nearest);
    context.progress.update(1);
    auto spectra = search_modality("spectrum", catalogue, queries, nearest);
    context.progress.update(2);
    context.progress.end();
    return {images[0], spectra[0], spectra[1], images[1]};
}

std::string file_digest(const std::string& path)
{
    Digest digest;
    for (const auto& hash : file_block_hashes(path)) digest.add(hash);
    return digest.hex();
}

// What is asked for, by content: names, vectors, and the files that they come from.
std::string digest_of_queries(const Queries& queries, const QueryOptions& o)
{
    Digest digest;
    for (const auto& query : queries.all) {
        digest.add(query.name);
        digest.add(query.image.data(), query.image.size() * sizeof(float));
        digest.add(query.spectrum.data(), query.spectrum.size() * sizeof(float));
    }
    for (const auto& one : queries.unmatched) digest.add(one);
    for (const auto* path : {&o.positions, &o.cutouts, &o.spectra}) {
        if (!path->empty()) digest.add(file_digest(*path));
    }
    return digest.hex();
}

void run(const Options& o, stage::Context& context)
{
    const at::NoGradGuard no_grad;
    const auto compute = stage::start_compute(context);
    std::optional<Catalogue> catalogue;
    nlohmann::json inputs;
    context.world.together([&] {
        if (o.embeddings.empty()) {
            throw ConfigError("'embeddings' is not set: the store to search");
        }
        catalogue.emplace(o.embeddings, o.trust);
        inputs["embeddings"] = catalogue->reader().content_id();
        if (o.pool == "test" && o.pairs.empty()) {
            throw ConfigError("pool = test needs 'pairs', which say what is held out");
        }
        if (!o.index.folder.empty()) Index::require_usable(o.index.folder, *catalogue);
        if (!o.index.folder.empty() && !o.pairs.empty() && o.pool != "all") {
            throw ConfigError("'index' is of the whole catalogue: it needs pool = all");
        }
        if (!o.pairs.empty() && o.pool != "all") {
            const store::Reader pairs(o.pairs, "pairs", o.trust);
            catalogue->restrict_to_test(pairs);
            inputs["pairs"] = pairs.content_id();
        }
    });
    auto how = o.queries;
    how.trust = o.trust;
    const auto queries = find_queries(*catalogue, how, context.run.seed, compute, context.world);
    context.world.together([&] { inputs["queries"] = digest_of_queries(queries, how); });
    if (!queries.unmatched.empty() && context.world.is_root()) {
        log::warn("{}; results.json lists them all", describe_unmatched(queries, how));
    }
    if (context.dry_run()) {
        context.print(fmt::format("search: {} queries among {} of {} galaxies", queries.all.size(),
                                  queries.pool, catalogue->reader().rows()));
        return;
    }
    std::optional<Index> index;
    if (!o.index.folder.empty()) {
        index.emplace(o.index, *catalogue, o.trust, context);
        inputs["index"] = index->content_id();
    }
    auto& output = context.open_output(o.output, inputs);
    const Nearest nearest = [&](const std::string& searched, const at::Tensor& vectors) {
        return index ? index->nearest(*compute.ranks, searched, vectors, o.neighbours)
                     : catalogue::nearest(*compute.ranks, catalogue->shard(searched, context.world),
                                          vectors.to(compute.device), o.neighbours);
    };
    const auto found = search_all(*catalogue, queries, nearest, context);
    context.world.on_root([&] {
        write_results(output, catalogue->reader(), queries, found, o.neighbours,
                      index ? index->facts() : nlohmann::json());
    });
    output.publish({{"kind", "search"}, {"queries", queries.all.size()}, {"pool", queries.pool}},
                   result_files(queries));
    if (index && context.world.is_root()) {
        log::info("approximate: of the true ten nearest an index finds {}", index->facts().dump());
    }
    log::info("{} queries among {} galaxies, in {} modes", queries.all.size(), queries.pool, modes.size());
    context.print(output.path());
}

}  // namespace
}  // namespace astroclip::search

int main(int argc, char** argv)
{
    using namespace astroclip::search;
    return astroclip::stage::run<Options>(argc, argv, description, bind, run);
}
