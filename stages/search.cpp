// search: embeddings/ + queries -> the most similar galaxies, within a modality and across (ii, ss, is, si).
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <fstream>
#include <numeric>
#include <optional>

#include "catalogue/neighbours.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"
#include "core/random.hpp"
#include "data/rows.hpp"
#include "stages/compute.hpp"
#include "stages/stage.hpp"
#include "store/reader.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string embeddings, pairs, output;
    std::string ids, query_file;
    std::int64_t random = 16;
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
        .option("ids", o.ids, "object ids to search for, separated by commas")
        .option("query-file", o.query_file, "text file with one object id a line")
        .option("random", o.random,
                "without ids: this many galaxies of the pool, chosen by a hash of their ids",
                config::at_least(1))
        .option("neighbours", o.neighbours, "neighbours of each query", config::between(1, 10000))
        .option(
            "pool", o.pool,
            "what is searched: test (galaxies held out by the pairs), all, or auto (test if pairs are given)",
            config::one_of({"auto", "test", "all"}))
        .option("trust", o.trust, "believe the hashes of the inputs without computing them", runtime_only());
}

const stage::Description description{
    "search", "the nearest galaxies of each query, image and spectrum to image and spectrum",
    "  astroclip-search --embeddings run/embeddings --ids 39633345008634465 --output found\n"
    "  mpirun -n 4 astroclip-search --embeddings run/embeddings --pairs run/pairs --random 16 --output "
    "run/search",
    true};

struct Mode {
    const char* name;
    const char* query;      // modality of the query
    const char* catalogue;  // modality of what is searched
};
constexpr std::array<Mode, 4> modes{{{"ii", "image", "image"},
                                     {"ss", "spectrum", "spectrum"},
                                     {"is", "image", "spectrum"},
                                     {"si", "spectrum", "image"}}};

// The small columns of the catalogue, on every rank.
struct Catalogue {
    store::Reader reader;
    std::vector<std::int64_t> object_id;
    std::vector<double> ra, dec, z_spec;
    std::vector<char> has_image, has_spectrum;
    std::vector<std::int64_t> by_id;  // rows in the order of object_id
    std::vector<char> in_pool;

    explicit Catalogue(const Options& o) : reader(o.embeddings, "embeddings", o.trust)
    {
        object_id = reader.column<std::int64_t>("object_id");
        ra = reader.column<double>("ra");
        dec = reader.column<double>("dec");
        z_spec = reader.column<double>("z_spec");
        for (const auto flag : reader.column<std::int64_t>("has_image")) has_image.push_back(flag != 0);
        for (const auto flag : reader.column<std::int64_t>("has_spectrum")) has_spectrum.push_back(flag != 0);
        by_id.resize(object_id.size());
        std::iota(by_id.begin(), by_id.end(), 0);
        std::sort(by_id.begin(), by_id.end(), [&](auto a, auto b) { return id(a) < id(b); });
        in_pool.assign(object_id.size(), 1);
    }

    std::int64_t rows() const { return static_cast<std::int64_t>(object_id.size()); }
    std::int64_t id(std::int64_t row) const { return object_id[static_cast<std::size_t>(row)]; }
    const std::vector<char>& has(const std::string& modality) const
    {
        return modality == "image" ? has_image : has_spectrum;
    }

    std::optional<std::int64_t> find(std::int64_t wanted) const
    {
        const auto found =
            std::lower_bound(by_id.begin(), by_id.end(), wanted,
                             [&](std::int64_t row, std::int64_t value) { return id(row) < value; });
        return found != by_id.end() && id(*found) == wanted ? std::optional(*found) : std::nullopt;
    }

    // Leaves the galaxies that the pairs hold out.
    void restrict_to_test(const store::Reader& pairs)
    {
        in_pool.assign(object_id.size(), 0);
        const auto ids = pairs.column<std::int64_t>("object_id");
        const auto split = pairs.column<std::int64_t>("split");
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const auto row = split[i] == 1 ? find(ids[i]) : std::nullopt;
            if (row) in_pool[static_cast<std::size_t>(*row)] = 1;
        }
    }
};

std::int64_t parse_id(const std::string& text, const std::string& where)
{
    std::int64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    if (error != std::errc{} || end != text.data() + text.size()) {
        throw ConfigError(fmt::format("{}: '{}' is not an object id (a whole number)", where, text));
    }
    return id;
}

std::string trimmed(const std::string& text)
{
    const auto first = text.find_first_not_of(" \t\r"), last = text.find_last_not_of(" \t\r");
    return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::vector<std::int64_t> named_ids(const Options& o)
{
    std::vector<std::int64_t> ids;
    for (std::size_t begin = 0; begin < o.ids.size();) {
        const auto end = std::min(o.ids.find(',', begin), o.ids.size());
        ids.push_back(parse_id(trimmed(o.ids.substr(begin, end - begin)), "ids"));
        begin = end + 1;
    }
    if (!o.query_file.empty()) {
        std::ifstream file(o.query_file);
        if (!file) {
            throw MissingInput(o.query_file, "cannot be read (option query-file)");
        }
        for (std::string line; std::getline(file, line);) {
            if (const auto text = trimmed(line); !text.empty() && text[0] != '#') {
                ids.push_back(parse_id(text, o.query_file));
            }
        }
    }
    return ids;
}

// Rows of the queries: those named, else `random` galaxies of the pool with both modalities if there are
// such.
std::vector<std::int64_t> query_rows(const Catalogue& catalogue, const Options& o, std::uint64_t seed)
{
    std::vector<std::int64_t> rows;
    for (const auto id : named_ids(o)) {
        const auto row = catalogue.find(id);
        if (!row) {
            throw DataError(o.embeddings, fmt::format("holds no object {}", id));
        }
        rows.push_back(*row);
    }
    if (!rows.empty()) {
        return rows;
    }
    const auto hash = [&](std::int64_t row) {
        return mix64(static_cast<std::uint64_t>(catalogue.id(row)) ^ stream_key(seed, "search-queries"));
    };
    for (std::int64_t row = 0; row < catalogue.rows(); ++row) {
        if (catalogue.in_pool[static_cast<std::size_t>(row)]) rows.push_back(row);
    }
    const auto complete = [&](std::int64_t row) {
        return catalogue.has_image[static_cast<std::size_t>(row)] &&
               catalogue.has_spectrum[static_cast<std::size_t>(row)];
    };
    std::sort(rows.begin(), rows.end(), [&](auto a, auto b) {
        return std::tuple(!complete(a), hash(a), a) < std::tuple(!complete(b), hash(b), b);
    });
    rows.resize(std::min(rows.size(), static_cast<std::size_t>(o.random)));
    if (rows.empty()) {
        throw DataError(o.embeddings, "holds no galaxy of the pool that is searched");
    }
    return rows;
}

// This rank's share of the catalogue in one modality.
catalogue::CatalogueShard shard_of(const Catalogue& all, const std::string& modality,
                                   const stage::Compute& compute, const comm::World& world)
{
    const auto first = all.rows() * world.rank() / world.size(),
               last = all.rows() * (world.rank() + 1) / world.size();
    std::vector<std::int64_t> rows(static_cast<std::size_t>(last - first));
    std::iota(rows.begin(), rows.end(), first);
    const auto usable = at::zeros({last - first}, at::kBool);
    for (auto row = first; row < last; ++row) {
        const auto at = static_cast<std::size_t>(row);
        usable.data_ptr<bool>()[row - first] = all.has(modality)[at] && all.in_pool[at];
    }
    const auto vectors = data::read_rows(all.reader, modality + "_embedding", rows);
    return {vectors.to(compute.device), first, usable.to(compute.device)};
}

struct Found {
    Mode mode;
    std::vector<std::int64_t> queries;  // rows
    catalogue::Neighbours neighbours;
};

Found search_mode(const Mode& mode, const Catalogue& catalogue, const std::vector<std::int64_t>& queries,
                  const Options& o, const stage::Compute& compute, const comm::World& world)
{
    Found found{mode, {}, {}};
    for (const auto row : queries) {
        if (catalogue.has(mode.query)[static_cast<std::size_t>(row)]) found.queries.push_back(row);
    }
    const auto shard = shard_of(catalogue, mode.catalogue, compute, world);
    const auto vectors =
        data::read_rows(catalogue.reader, fmt::format("{}_embedding", mode.query), found.queries)
            .to(compute.device);
    found.neighbours = catalogue::nearest(*compute.ranks, shard, vectors, o.neighbours);
    return found;
}

nlohmann::json object_json(const Catalogue& catalogue, std::int64_t row)
{
    const auto at = static_cast<std::size_t>(row);
    const auto z = catalogue.z_spec[at];
    return {{"object_id", catalogue.object_id[at]},
            {"row", row},
            {"ra", catalogue.ra[at]},
            {"dec", catalogue.dec[at]},
            {"z_spec", std::isnan(z) ? nlohmann::json() : nlohmann::json(z)}};
}

// The table for spreadsheets and TOPCAT, and the same for programs.
struct Results {
    std::string csv = "mode,query_object_id,query_ra,query_dec,rank,object_id,ra,dec,z_spec,score\n";
    nlohmann::json queries = nlohmann::json::array();

    Results(const Catalogue& catalogue, const std::vector<std::int64_t>& rows, const std::vector<Found>& all)
    {
        for (const auto row : rows) {
            auto query = object_json(catalogue, row);
            query["neighbours"] = nlohmann::json::object();
            for (const auto& found : all) {
                const auto place = std::find(found.queries.begin(), found.queries.end(), row);
                if (place != found.queries.end()) {
                    query["neighbours"][found.mode.name] =
                        add(catalogue, found, place - found.queries.begin());
                }
            }
            queries.push_back(query);
        }
    }

private:
    nlohmann::json add(const Catalogue& catalogue, const Found& found, std::int64_t query)
    {
        auto list = nlohmann::json::array();
        const auto from = static_cast<std::size_t>(found.queries[static_cast<std::size_t>(query)]);
        const auto row = found.neighbours.row.accessor<std::int64_t, 2>()[query];
        const auto score = found.neighbours.score.accessor<float, 2>()[query];
        for (std::int64_t i = 0; i < row.size(0) && row[i] >= 0; ++i) {
            auto object = object_json(catalogue, row[i]);
            object["score"] = score[i];
            list.push_back(object);
            const auto to = static_cast<std::size_t>(row[i]);
            csv += fmt::format("{},{},{:.8f},{:.8f},{},{},{:.8f},{:.8f},{:.6f},{:.6f}\n", found.mode.name,
                               catalogue.object_id[from], catalogue.ra[from], catalogue.dec[from], i + 1,
                               catalogue.object_id[to], catalogue.ra[to], catalogue.dec[to],
                               catalogue.z_spec[to], score[i]);
        }
        return list;
    }
};

void search(const Options& o, stage::Context& context)
{
    const at::NoGradGuard no_grad;
    const auto compute = stage::start_compute(context);
    std::optional<Catalogue> catalogue;
    std::vector<std::int64_t> queries;
    nlohmann::json inputs;
    context.world.together([&] {
        catalogue.emplace(o);
        inputs["embeddings"] = catalogue->reader.content_id();
        if (o.pool == "test" && o.pairs.empty()) {
            throw ConfigError("pool = test needs 'pairs', which say what is held out");
        }
        if (!o.pairs.empty() && o.pool != "all") {
            const store::Reader pairs(o.pairs, "pairs", o.trust);
            catalogue->restrict_to_test(pairs);
            inputs["pairs"] = pairs.content_id();
        }
        queries = query_rows(*catalogue, o, context.run.seed);
        inputs["queries"] = digest_of(nlohmann::json(queries).dump());
    });
    const auto pool = std::count(catalogue->in_pool.begin(), catalogue->in_pool.end(), 1);
    if (context.dry_run()) {
        context.print(fmt::format("search: {} queries among {} of {} galaxies", queries.size(), pool,
                                  catalogue->rows()));
        return;
    }
    auto& output = context.open_output(o.output, inputs);
    context.progress.begin("searching", std::ssize(modes), "modes");
    std::vector<Found> found;
    for (const auto& mode : modes) {
        found.push_back(search_mode(mode, *catalogue, queries, o, compute, context.world));
        context.progress.update(std::ssize(found));
    }
    context.progress.end();
    context.world.on_root([&] {
        const Results results(*catalogue, queries, found);
        const nlohmann::json all = {
            {"pool", pool}, {"neighbours", o.neighbours}, {"queries", results.queries}};
        store::publish_text(output.path() + "/results.csv", results.csv);
        store::publish_text(output.path() + "/results.json", all.dump(1) + "\n");
    });
    output.publish({{"kind", "search"}, {"queries", queries.size()}, {"pool", pool}},
                   {"results.csv", "results.json"});
    log::info("{} queries among {} galaxies, in {} modes", queries.size(), pool, modes.size());
    context.print(output.path());
}

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::search);
}
