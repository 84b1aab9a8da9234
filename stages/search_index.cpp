#include "stages/search_index.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <vector>

#include "catalogue/inverted_lists.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "store/publication.hpp"

namespace astroclip::search {
namespace {

constexpr std::int64_t rows_of_file = 1 << 18;  // 1 GiB of 1024 numbers a row
constexpr std::array<const char*, 2> modalities{"image", "spectrum"};
constexpr std::array<std::int64_t, 4> tried_probes{1, 4, 16, 64};
constexpr std::int64_t asked_of_file = 64, nearest_asked = 10;

struct File {
    std::int64_t number, first, rows;
    const char* modality;

    std::string name() const { return fmt::format("{}-{:05}.faiss", modality, number); }
};

std::vector<File> files_of(std::int64_t rows)
{
    std::vector<File> all;
    for (std::int64_t number = 0; number * rows_of_file < rows; ++number) {
        for (const auto* modality : modalities) {
            const auto first = number * rows_of_file;
            all.push_back({number, first, std::min(rows_of_file, rows - first), modality});
        }
    }
    return all;
}

// Of how many true nearest of some of the rows the lists find how many, by number of probes.
std::vector<double> hits_of(const std::string& path, const at::Tensor& vectors,
                            const std::vector<std::int64_t>& rows)
{
    const auto asked = std::min(asked_of_file, vectors.size(0)), k = std::min(nearest_asked, vectors.size(0));
    const auto some = (at::arange(asked, at::kLong) * vectors.size(0)).floor_divide(asked);
    const auto queries = vectors.index_select(0, some);
    const auto exact = std::get<1>(queries.mm(vectors.t()).topk(k, 1));
    const auto truth = at::tensor(rows, at::kLong).index_select(0, exact.flatten()).view_as(exact);
    std::vector<double> figures{static_cast<double>(truth.numel())};
    for (const auto probes : tried_probes) {
        const auto found = catalogue::search_inverted_lists(path, queries, k, probes).row;
        figures.push_back(truth.unsqueeze(2).eq(found.unsqueeze(1)).any(2).sum().item<double>());
    }
    return figures;
}

}  // namespace

Index::Index(const std::string& folder, const Catalogue& catalogue, bool trust, stage::Context& context)
    : folder_(folder)
{
    const auto& world = context.world;
    world.together([] {
        if (!catalogue::has_inverted_lists()) {
            throw ConfigError(
                "'index': this build has no FAISS; configure with -DASTROCLIP_FAISS=ON, or leave it out");
        }
    });
    const nlohmann::json made_by = {{"rows", rows_of_file}, {"seed", context.run.seed}};
    store::Output output(world, folder,
                         {"search-index",
                          made_by,
                          digest_of(made_by.dump()),
                          {{"embeddings", catalogue.reader().content_id()}}},
                         false, {.remedy = "removing the folder"});
    if (!output.up_to_date()) {
        make(catalogue, output, context);
    }
    world.together([&] {
        const auto manifest = store::read_manifest(folder);
        content_id_ = store::content_id(folder);
        files_ = manifest.at("content").at("files");
        const auto& entries = manifest.at("files");
        for (auto i = static_cast<std::size_t>(world.rank()); i < entries.size(); i += world.size()) {
            alive("looking at a file of the index");
            store::verify_file(folder, entries[i], trust);
        }
    });
}

void Index::make(const Catalogue& catalogue, store::Output& output, stage::Context& context) const
{
    const auto& world = context.world;
    const auto all = files_of(catalogue.reader().rows());
    std::vector<double>
        own;  // of each file: number, rows, true nearest asked for, found by each number of probes
    constexpr std::size_t figures = 3 + tried_probes.size();
    context.progress.begin("making an index", std::ssize(all) / world.size(), "files");
    world.together([&] {
        for (auto i = static_cast<std::size_t>(world.rank()); i < all.size(); i += world.size()) {
            alive("making the lists of some rows");
            const auto& file = all[i];
            const auto piece = catalogue.rows(file.modality, file.first, file.rows);
            const auto usable = piece.usable.nonzero().flatten();
            if (usable.numel() == 0) continue;
            const auto vectors = piece.vectors.index_select(0, usable);
            const auto numbers = usable + file.first;
            const std::vector<std::int64_t> rows(numbers.const_data_ptr<std::int64_t>(),
                                                 numbers.const_data_ptr<std::int64_t>() + numbers.numel());
            const auto path = folder_ + "/" + file.name();
            if (!std::filesystem::exists(path)) {
                store::publish_file(path, [&](const std::string& temporary) {
                    catalogue::write_inverted_lists(temporary, vectors, rows,
                                                    catalogue::lists_for(std::ssize(rows)), context.run.seed);
                });
            }
            own.insert(own.end(), {static_cast<double>(i), static_cast<double>(rows.size())});
            const auto hits = hits_of(path, vectors, rows);
            own.insert(own.end(), hits.begin(), hits.end());
            context.progress.update(static_cast<std::int64_t>(i) / world.size() + 1);
        }
    });
    context.progress.end();
    const auto gathered = world.all_gather(own);
    std::map<std::size_t, nlohmann::json> by_number;
    for (auto at = gathered.begin(); at != gathered.end(); at += figures) {
        const auto number = static_cast<std::size_t>(at[0]);
        by_number[number] = {{"name", all[number].name()},
                             {"modality", all[number].modality},
                             {"rows", at[1]},
                             {"asked", at[2]},
                             {"found", std::vector<double>(at + 3, at + figures)}};
    }
    auto described = nlohmann::json::array();
    std::vector<std::string> names;
    for (const auto& [number, file] : by_number) {
        described.push_back(file);
        names.push_back(file.at("name"));
    }
    output.publish({{"kind", "search-index"}, {"files", described}, {"probes", tried_probes}}, names);
}

catalogue::Neighbours Index::nearest(comm::Communicator& ranks, const std::string& modality,
                                     const at::Tensor& queries, std::int64_t k, std::int64_t probes) const
{
    std::vector<catalogue::Neighbours> found;
    std::int64_t number = 0;
    for (const auto& file : files_) {
        if (file.at("modality") != modality || number++ % ranks.size() != ranks.rank() ||
            queries.size(0) == 0)
            continue;
        alive("searching a file of the index");
        found.push_back(catalogue::search_inverted_lists(folder_ + "/" + file.at("name").get<std::string>(),
                                                         queries.to(at::kCPU), k, probes));
    }
    return catalogue::merged(ranks, found, queries.size(0), k);
}

nlohmann::json Index::recall(std::int64_t probes) const
{
    const auto tried =
        std::upper_bound(tried_probes.begin(), tried_probes.end(), probes) - tried_probes.begin() - 1;
    nlohmann::json all = nlohmann::json::object();
    for (const auto* modality : modalities) {
        double asked = 0, hits = 0;
        for (const auto& file : files_) {
            if (file.at("modality") != modality) continue;
            asked += file.at("asked").get<double>();
            hits += file.at("found").at(static_cast<std::size_t>(tried)).get<double>();
        }
        if (asked > 0) all[modality] = hits / asked;
    }
    return all;
}

}  // namespace astroclip::search
