#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <span>

#include "catalogue/metrics.hpp"
#include "catalogue/neighbours.hpp"
#include "catalogue/photometry.hpp"
#include "data/rows.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {
namespace {

constexpr std::array<std::int64_t, 3> recall_ks{1, 5, 10};

nlohmann::json recall_json(const std::vector<std::int64_t>& places, const std::string& prefix)
{
    nlohmann::json json;
    for (const auto k : recall_ks) {
        json[fmt::format("{}recall_at_{}", prefix, k)] = catalogue::recall_at_k(places, k);
    }
    json[prefix + "median_rank"] = catalogue::median({places.begin(), places.end()});
    return json;
}

}  // namespace

nlohmann::json retrieval(const std::string& from, const std::string& to, const Case& of,
                         const Measured& measured, const stage::Compute& compute)
{
    const auto& inputs = of.inputs;
    const auto& world = of.world();
    const auto& sample = inputs.sample;
    const auto count = sample.test();
    const auto test_rows = std::span(sample.embedding_row).subspan(static_cast<std::size_t>(sample.train));
    const auto queries =
        data::read_rows(inputs.embeddings, from + "_embedding", test_rows).to(compute.device);
    const auto first = count * world.rank() / world.size(), last = count * (world.rank() + 1) / world.size();
    const auto mine =
        test_rows.subspan(static_cast<std::size_t>(first), static_cast<std::size_t>(last - first));
    const auto shard =
        catalogue::CatalogueShard::of(data::read_rows(inputs.embeddings, to + "_embedding", mine), first);
    std::vector<std::int64_t> partners(static_cast<std::size_t>(count));
    std::iota(partners.begin(), partners.end(), 0);
    const auto places = catalogue::partner_places(*compute.ranks, shard, queries, partners);

    auto json = recall_json(places, "");
    const auto chance = std::min(1.0, 10.0 / static_cast<double>(count));
    json["n"] = count;
    json["chance"] = chance;
    json["times_chance"] = json["recall_at_10"].get<double>() / chance;
    if (measured.magnitudes.defined()) {
        const auto images = measured.magnitudes, spectra = measured.spectrum_mags;
        const bool image_asks = from == "image";
        const auto& one = image_asks ? images : spectra;
        const auto& other = image_asks ? spectra : images;
        const auto scale =
            catalogue::ColourScale::of(one.narrow(0, 0, sample.train), other.narrow(0, 0, sample.train));
        const auto known = catalogue::photometric_places(world, one.narrow(0, sample.train, count),
                                                         other.narrow(0, sample.train, count), scale);
        json.update(recall_json(known, "photometry_"));
        json["photometry"] = json["photometry_recall_at_10"];
    }
    return json;
}

}  // namespace astroclip::evaluate
