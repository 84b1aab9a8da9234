#include "survey/plan.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::survey {
namespace {

// One rank's answer about one file.
nlohmann::json read_one(std::size_t index, const InputFile& input, bool skip_missing,
                        const std::function<FileContents(const InputFile&)>& contents,
                        std::vector<std::int64_t>& ids)
{
    alive("reading the ids of the input files");
    try {
        const auto file = contents(input);
        ids.insert(ids.end(), file.object_ids.begin(), file.object_ids.end());
        return {{"file", index},
                {"objects", file.object_ids.size()},
                {"fingerprint", file.fingerprint},
                {"error", file.error}};
    } catch (const MissingInput& error) {
        if (!skip_missing) {
            throw;
        }
        ids.push_back(no_id);
        return {
            {"file", index}, {"objects", 1}, {"fingerprint", ""}, {"error", error.what()}, {"missing", true}};
    } catch (const DataError& error) {
        ids.push_back(no_id);
        return {{"file", index},
                {"objects", 1},
                {"fingerprint", fingerprint_of(input.path)},
                {"error", error.what()}};
    }
}

std::vector<std::int64_t> find_duplicates(const std::vector<std::int64_t>& ids)
{
    std::vector<std::int64_t> order(ids.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](auto a, auto b) { return ids[a] != ids[b] ? ids[a] < ids[b] : a < b; });
    std::vector<std::int64_t> duplicates;
    for (std::size_t i = 1; i < order.size(); ++i) {
        if (ids[order[i]] == ids[order[i - 1]] && ids[order[i]] != no_id) {
            duplicates.push_back(order[i]);
        }
    }
    std::sort(duplicates.begin(), duplicates.end());
    return duplicates;
}

}  // namespace

Plan Plan::make(const comm::World& world, std::vector<InputFile> inputs, bool skip_missing,
                const std::function<FileContents(const InputFile&)>& contents)
{
    auto summaries = nlohmann::json::array();
    std::vector<std::int64_t> ids;
    world.together([&] {
        for (std::size_t i = world.rank(); i < inputs.size(); i += world.size()) {
            summaries.push_back(read_one(i, inputs[i], skip_missing, contents, ids));
        }
    });
    Plan plan;
    for (auto& input : inputs) {
        plan.files_.emplace_back().input = std::move(input);
    }
    plan.number(world.all_gather(summaries.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)),
                world.all_gather(ids));
    return plan;
}

// `summaries`: one JSON array a rank; `ids`: those of rank 0's files, then of rank 1's, …
void Plan::number(const std::vector<std::string>& summaries, const std::vector<std::int64_t>& ids)
{
    std::vector<std::int64_t> start(files_.size());
    std::vector<std::string> fingerprints(files_.size());
    std::int64_t at = 0;
    for (const auto& text : summaries) {
        for (const auto& summary : nlohmann::json::parse(text)) {
            const std::size_t index = summary.at("file");
            auto& file = files_[index];
            file.objects = summary.at("objects");
            file.error = summary.value("error", "");
            file.missing = summary.value("missing", false);
            fingerprints[index] = summary.at("fingerprint");
            start[index] = at;
            at += file.objects;
        }
    }
    std::vector<std::int64_t> ordered;
    ordered.reserve(ids.size());
    Digest digest;
    for (std::size_t i = 0; i < files_.size(); ++i) {
        auto& file = files_[i];
        file.first = static_cast<std::int64_t>(ordered.size());
        const auto own = ids.begin() + start[i];
        if (file.error.empty()) {
            ordered.insert(ordered.end(), own, own + file.objects);
        } else {  // what cannot be read must not stand in the way of a good copy
            file.lost_ids.assign(own, own + file.objects);
            ordered.insert(ordered.end(), static_cast<std::size_t>(file.objects), no_id);
        }
        digest.add(file.input.name).add(fingerprints[i]);
    }
    digest.add(ordered.data(), ordered.size() * sizeof(std::int64_t));
    size_ = static_cast<std::int64_t>(ordered.size());
    duplicates_ = find_duplicates(ordered);
    digest_ = digest.hex();
}

Plan::Item Plan::item(std::int64_t position) const
{
    const auto after =
        std::upper_bound(files_.begin(), files_.end(), position,
                         [](std::int64_t wanted, const File& file) { return wanted < file.first; });
    // Files without objects share their `first` with the next one; the last of them is the one that holds the
    // position.
    const auto index = static_cast<std::size_t>(after - files_.begin()) - 1;
    return {index, position - files_[index].first};
}

bool Plan::is_duplicate(std::int64_t position) const
{
    return std::binary_search(duplicates_.begin(), duplicates_.end(), position);
}

}  // namespace astroclip::survey
