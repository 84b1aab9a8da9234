#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "catalogue/principal_components.hpp"
#include "data/rows.hpp"
#include "stages/evaluate_tables.hpp"

namespace astroclip::evaluate {

std::string map_csv(const Case& of)
{
    constexpr std::int64_t most = 5000;
    const auto& sample = of.sample();
    const auto shown = std::min(most, sample.test());
    std::vector<std::int64_t> some, rows;  // of the sample, of the catalogue
    for (std::int64_t i = 0; i < shown; ++i) {
        some.push_back(sample.train + i * sample.test() / shown);
        rows.push_back(sample.embedding_row[static_cast<std::size_t>(some.back())]);
    }
    std::string csv = "object_id";
    std::vector<at::Tensor> planes;
    for (const auto& modality : sample.modalities) {
        const auto vectors = data::read_rows(of.inputs.embeddings, modality + "_embedding", rows);
        if (shown < 2 || vectors.size(1) < 2) continue;
        planes.push_back(catalogue::PrincipalComponents::of(vectors, 2).project(vectors));
        csv += fmt::format(",{0}_1,{0}_2", modality);
    }
    csv += "\n";
    for (std::int64_t i = 0; i < shown; ++i) {
        csv +=
            fmt::format("{}", sample.object_id[static_cast<std::size_t>(some[static_cast<std::size_t>(i)])]);
        for (const auto& plane : planes) {
            for (const auto axis : {0, 1}) csv += fmt::format(",{:.6f}", plane[i][axis].item<float>());
        }
        csv += "\n";
    }
    return csv;
}

}  // namespace astroclip::evaluate
