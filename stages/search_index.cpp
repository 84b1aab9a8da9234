#include "stages/search_index.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "catalogue/inverted_lists.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "store/publication.hpp"

namespace astroclip::search {
namespace {

constexpr const char* stage_name = "search-index";
constexpr std::uint64_t seed = 42;  // of k-means: one index of a catalogue, whatever the seed of a run
constexpr std::array<const char*, 2> modalities{"image", "spectrum"};
constexpr std::array<std::int64_t, 4> tried_probes{1, 4, 16, 64};
constexpr std::int64_t asked_of_file = 64, nearest_asked = 10;

struct File {
    std::int64_t number, first, rows;
    const char* modality;

    std::string name() const { return fmt::format("{}-{:05}.faiss", modality, number); }
};

std::vector<File> files_of(std::int64_t rows, std::int64_t rows_of_file)
{
    std::vector<File> all;
    for (const auto* modality : modalities) {
        for (std::int64_t number = 0; number * rows_of_file < rows; ++number) {
            const auto first = number * rows_of_file;
            all.push_back({number, first, std::min(rows_of_file, rows - first), modality});
        }
    }
    return all;
}

// How many of the true nearest of some rows were asked for, and found by each number of probes.
struct Measured {
    double asked = 0;
    std::array<double, tried_probes.size()> found{};
};

// Of queries [Q, D], of which the rows `own` [Q] of `vectors` [n, D] are no neighbours; -1: none is.
Measured measure(const std::string& path, const at::Tensor& vectors, const at::Tensor& rows,
                 const at::Tensor& queries, const at::Tensor& own)
{
    Measured measured;
    auto scores = queries.mm(vectors.t());
    scores.masked_fill_(at::arange(vectors.size(0), at::kLong).unsqueeze(0).eq(own.unsqueeze(1)),
                        -std::numeric_limits<float>::infinity());
    const auto k = std::min(nearest_asked, vectors.size(0) - 1);
    if (k < 1 || queries.size(0) == 0) {
        return measured;
    }
    const auto exact = std::get<1>(scores.topk(k, 1));
    const auto truth = rows.index_select(0, exact.flatten()).view_as(exact);
    measured.asked = static_cast<double>(truth.numel());
    for (std::size_t i = 0; i < tried_probes.size(); ++i) {
        const auto found = catalogue::search_inverted_lists(path, queries, k + 1, tried_probes[i]).row;
        const auto not_own =
            found.ne(at::where(own.ge(0), rows.index_select(0, own.clamp_min(0)), own).unsqueeze(1));
        // The first k that are not the row itself.
        const auto counted = not_own.logical_and(not_own.cumsum(1).le(k));
        const auto hits = truth.unsqueeze(2).eq(found.unsqueeze(1)).logical_and(counted.unsqueeze(1)).any(2);
        measured.found[i] = hits.sum().item<double>();
    }
    return measured;
}

// Its lists, if they are not there yet; what is found in them from each modality, in the order of
// `modalities`. Nothing if no row has its modality.
std::optional<std::array<Measured, 2>> make_file(const std::string& folder, const File& file,
                                                 const Catalogue& catalogue, std::int64_t& usable_rows)
{
    alive("making the lists of some rows");
    const auto piece = catalogue.rows(file.modality, file.first, file.rows);
    const auto usable = piece.usable.nonzero().flatten();
    usable_rows = usable.numel();
    if (usable_rows == 0) {
        return std::nullopt;
    }
    const auto vectors = piece.vectors.index_select(0, usable);
    const auto rows = usable + file.first;
    const auto path = folder + "/" + file.name();
    if (!std::filesystem::exists(path)) {
        store::publish_file(path, [&](const std::string& temporary) {
            catalogue::write_inverted_lists(temporary, vectors, rows, catalogue::lists_for(usable_rows),
                                            seed);
        });
    }
    std::array<Measured, 2> measured;
    for (std::size_t i = 0; i < modalities.size(); ++i) {
        alive("measuring what an index finds");
        const bool same = std::string(modalities[i]) == file.modality;
        const auto others = same ? piece : catalogue.rows(modalities[i], file.first, file.rows);
        const auto both = others.usable.logical_and(piece.usable).nonzero().flatten();
        const auto asked = std::min(asked_of_file, both.numel());
        const auto some = both.index_select(
            0, (at::arange(asked, at::kLong) * both.numel()).floor_divide(std::max<std::int64_t>(1, asked)));
        const auto own = same ? at::searchsorted(usable, some) : at::full_like(some, -1);
        measured[i] = measure(path, vectors, rows, others.vectors.index_select(0, some), own);
    }
    return measured;
}

}  // namespace

void bind(config::Section options, IndexOptions& o)
{
    options
        .option("index", o.folder,
                "folder of an approximate index of the whole catalogue (FAISS), made there first if there is "
                "none; "
                "empty: exact search",
                config::runtime_only())
        .option("probes", o.probes, "with an index: lists of rows that are looked at in each of its files",
                config::at_least(1))
        .option("index-rows", o.rows,
                "catalogue rows of a file of an index that is made; one is in memory at a time",
                config::runtime_only(config::at_least(1)));
}

void Index::require_usable(const std::string& folder, const Catalogue& catalogue)
{
    catalogue::require_inverted_lists();
    if (!std::filesystem::exists(folder + "/manifest.json")) {
        return;
    }
    const auto request = store::read_manifest(folder).value("request", nlohmann::json::object());
    const auto found = request.value("stage", "?");
    if (found != stage_name) {
        throw OutputConflict(folder, fmt::format("holds an output of '{}', not a search index", found));
    }
    const auto of = request.at("inputs").value("embeddings", "?"), expected = catalogue.reader().content_id();
    if (of != expected) {
        throw OutputConflict(
            folder, fmt::format("is an index of catalogue {}, not of {} ({}); in another folder, or after "
                                "removing this one, one is made",
                                of, expected, catalogue.reader().path()));
    }
}

Index::Index(const IndexOptions& o, const Catalogue& catalogue, bool trust, stage::Context& context)
    : folder_(o.folder), probes_(o.probes)
{
    const auto& world = context.world;
    bool complete = false;
    world.together([&] {
        require_usable(folder_, catalogue);
        complete = std::filesystem::exists(folder_ + "/manifest.json");
    });
    if (world.sum(std::int64_t{complete}) < world.size()) {
        make(o, catalogue, context);
    }
    nlohmann::json entries;
    world.together([&] {
        const auto manifest = store::read_manifest(folder_);
        content_id_ = store::content_id(folder_);
        files_ = manifest.at("content").at("files");
        entries = manifest.at("files");
    });
    for (std::size_t first = 0; first < entries.size(); first += world.size()) {
        world.together([&] {
            alive("looking at a file of the index");
            const auto mine = first + static_cast<std::size_t>(world.rank());
            if (mine < entries.size()) store::verify_file(folder_, entries[mine], trust);
        });
    }
}

void Index::make(const IndexOptions& o, const Catalogue& catalogue, stage::Context& context) const
{
    const auto& world = context.world;
    const nlohmann::json made_by = {{"rows", o.rows}};
    store::Output output(
        world, folder_,
        {stage_name, made_by, digest_of(made_by.dump()), {{"embeddings", catalogue.reader().content_id()}}},
        false, {.break_lock = context.break_lock(), .remedy = "removing the folder"});
    if (output.up_to_date()) {  // made by another job meanwhile
        return;
    }
    const auto all = files_of(catalogue.reader().rows(), o.rows);
    const auto at_once = static_cast<std::size_t>(world.size());
    constexpr std::size_t figures = 2 + modalities.size() * (1 + tried_probes.size());
    std::vector<double> own;  // of each file: number, rows, and of each modality that asks: Measured
    context.progress.begin("making an index", std::ssize(all), "files");
    for (std::size_t first = 0; first < all.size(); first += at_once) {
        context.stop_if_requested("the index: the same command goes on with its next file");
        world.together([&] {
            const auto number = first + static_cast<std::size_t>(world.rank());
            if (number >= all.size()) return;
            std::int64_t rows = 0;
            const auto measured = make_file(folder_, all[number], catalogue, rows);
            if (!measured) return;
            own.insert(own.end(), {static_cast<double>(number), static_cast<double>(rows)});
            for (const auto& one : *measured) {
                own.push_back(one.asked);
                own.insert(own.end(), one.found.begin(), one.found.end());
            }
        });
        context.progress.update(static_cast<std::int64_t>(std::min(first + at_once, all.size())));
    }
    context.progress.end();

    const auto gathered = world.all_gather(own);
    std::map<std::size_t, nlohmann::json> by_number;
    for (auto at = gathered.begin(); at != gathered.end(); at += figures) {
        const auto& file = all[static_cast<std::size_t>(at[0])];
        auto& described = by_number[static_cast<std::size_t>(at[0])];
        described = {{"name", file.name()}, {"modality", file.modality}, {"rows", at[1]}};
        auto figure = at + 2;
        for (const auto* modality : modalities) {
            described["asked"][modality] = *figure++;
            described["found"][modality] = std::vector<double>(figure, figure + tried_probes.size());
            figure += tried_probes.size();
        }
    }
    auto described = nlohmann::json::array();
    std::vector<std::string> names;
    for (const auto& [number, file] : by_number) {
        described.push_back(file);
        names.push_back(file.at("name"));
    }
    output.publish({{"kind", stage_name}, {"files", described}, {"probes", tried_probes}}, names);
}

catalogue::Neighbours Index::nearest(comm::Communicator& ranks, const std::string& modality,
                                     const at::Tensor& queries, std::int64_t k) const
{
    const auto asked = queries.to(at::kCPU);
    auto best = catalogue::best_of({}, asked.size(0), k);
    std::int64_t number = 0;
    for (const auto& file : files_) {
        if (file.at("modality") != modality || number++ % ranks.size() != ranks.rank() || asked.size(0) == 0)
            continue;
        alive("searching a file of the index");
        const auto path = folder_ + "/" + file.at("name").get<std::string>();
        best = catalogue::best_of({best, catalogue::search_inverted_lists(path, asked, k, probes_)},
                                  asked.size(0), k);
    }
    return catalogue::merged(ranks, best);
}

nlohmann::json Index::facts() const
{
    const auto tried =
        std::upper_bound(tried_probes.begin(), tried_probes.end(), probes_) - tried_probes.begin() - 1;
    auto recall = nlohmann::json::object();
    for (const std::string from : modalities) {
        for (const std::string to : modalities) {
            double asked = 0, found = 0;
            for (const auto& file : files_) {
                if (file.at("modality") != to) continue;
                asked += file.at("asked").at(from).get<double>();
                found += file.at("found").at(from).at(static_cast<std::size_t>(tried)).get<double>();
            }
            if (asked > 0) recall[std::string{from.front(), to.front()}] = found / asked;
        }
    }
    return {{"probes", probes_}, {"recall_at_10", recall}};
}

}  // namespace astroclip::search
