#include "data/galaxies.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "core/error.hpp"

namespace astroclip::data {
namespace {

void require_input(const store::Reader& pairs, const char* name, const store::Reader* store)
{
    const auto& request = pairs.manifest().value("request", nlohmann::json::object());
    const auto inputs = request.value("inputs", nlohmann::json::object());
    if (store && inputs.contains(name) && inputs.at(name) != store->content_id()) {
        throw DataError(pairs.path(), fmt::format("was made from another store of {} than {}; run match again", name,
                                                  store->path()));
    }
}

std::int64_t checked_row(std::int64_t row, const store::Reader& store, const store::Reader& pairs)
{
    if (row < 0 || row >= store.rows()) {
        throw DataError(pairs.path(), fmt::format("names row {} of {}, which has {} rows", row, store.path(), store.rows()));
    }
    return row;
}

// The image row of each spectrum by the pairs, and which images are taken.
void join_by_pairs(const store::Reader& images, const store::Reader& spectra, const store::Reader& pairs,
                   std::vector<std::int64_t>& image_of, std::vector<char>& taken)
{
    const auto image_rows = pairs.column<std::int64_t>("image_row");
    const auto spectrum_rows = pairs.column<std::int64_t>("spectrum_row");
    for (std::size_t i = 0; i < image_rows.size(); ++i) {
        const auto image = checked_row(image_rows[i], images, pairs);
        image_of[static_cast<std::size_t>(checked_row(spectrum_rows[i], spectra, pairs))] = image;
        taken[static_cast<std::size_t>(image)] = 1;
    }
}

void join_by_id(const std::vector<std::int64_t>& image_ids, const std::vector<std::int64_t>& spectrum_ids,
                std::vector<std::int64_t>& image_of, std::vector<char>& taken)
{
    std::vector<std::int64_t> order(image_ids.size());
    std::iota(order.begin(), order.end(), 0);
    const auto id_of = [&](std::int64_t row) { return image_ids[static_cast<std::size_t>(row)]; };
    std::sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) { return id_of(a) < id_of(b); });
    for (std::size_t spectrum = 0; spectrum < spectrum_ids.size(); ++spectrum) {
        const auto found = std::lower_bound(order.begin(), order.end(), spectrum_ids[spectrum],
                                            [&](std::int64_t row, std::int64_t id) { return id_of(row) < id; });
        if (image_of[spectrum] < 0 && found != order.end() && id_of(*found) == spectrum_ids[spectrum] &&
            !taken[static_cast<std::size_t>(*found)]) {
            image_of[spectrum] = *found;
            taken[static_cast<std::size_t>(*found)] = 1;
        }
    }
}

// Calls read(place, first row, count) for each run of consecutive rows.
template <typename Read>
void for_each_run(std::span<const std::int64_t> rows, const Read& read)
{
    for (std::size_t begin = 0; begin < rows.size();) {
        auto end = begin + 1;
        while (end < rows.size() && rows[end] == rows[end - 1] + 1 && rows[begin] >= 0) {
            ++end;
        }
        if (rows[begin] >= 0) {
            read(begin, rows[begin], static_cast<std::int64_t>(end - begin));
        }
        begin = end;
    }
}

}  // namespace

void require_pairs_of(const store::Reader& pairs, const store::Reader* images, const store::Reader* spectra)
{
    require_input(pairs, "images", images);
    require_input(pairs, "spectra", spectra);
}

std::vector<Galaxy> join_galaxies(const store::Reader* images, const store::Reader* spectra, const store::Reader* pairs)
{
    const auto image_ids = images ? images->column<std::int64_t>("object_id") : std::vector<std::int64_t>{};
    const auto spectrum_ids = spectra ? spectra->column<std::int64_t>("object_id") : std::vector<std::int64_t>{};
    std::vector<std::int64_t> image_of(spectrum_ids.size(), -1);
    std::vector<char> taken(image_ids.size(), 0);
    if (pairs) {
        require_pairs_of(*pairs, images, spectra);
        if (images && spectra) {
            join_by_pairs(*images, *spectra, *pairs, image_of, taken);
        }
    }
    join_by_id(image_ids, spectrum_ids, image_of, taken);

    std::vector<Galaxy> galaxies;
    for (std::size_t row = 0; row < spectrum_ids.size(); ++row) {
        galaxies.push_back({spectrum_ids[row], image_of[row], static_cast<std::int64_t>(row)});
    }
    for (std::size_t row = 0; row < image_ids.size(); ++row) {
        if (!taken[row]) {
            galaxies.push_back({image_ids[row], static_cast<std::int64_t>(row), -1});
        }
    }
    return galaxies;
}

at::Tensor read_rows(const store::Reader& reader, const std::string& column, std::span<const std::int64_t> rows)
{
    const auto& of = reader.schema().column(column);
    std::vector<std::int64_t> sizes{static_cast<std::int64_t>(rows.size())};
    sizes.insert(sizes.end(), of.shape.begin(), of.shape.end());
    const auto values = at::zeros(sizes, at::kFloat);
    for_each_run(rows, [&](std::size_t place, std::int64_t first, std::int64_t count) {
        reader.read(column, first, count, values.data_ptr<float>() + place * of.row_items());
    });
    return values;
}

template <typename T>
std::vector<T> read_scalars(const store::Reader& reader, const std::string& column, std::span<const std::int64_t> rows,
                            T fill)
{
    std::vector<T> values(rows.size(), fill);
    for_each_run(rows, [&](std::size_t place, std::int64_t first, std::int64_t count) {
        reader.read(column, first, count, values.data() + place);
    });
    return values;
}

template std::vector<double> read_scalars(const store::Reader&, const std::string&, std::span<const std::int64_t>, double);
template std::vector<float> read_scalars(const store::Reader&, const std::string&, std::span<const std::int64_t>, float);
template std::vector<std::int64_t> read_scalars(const store::Reader&, const std::string&, std::span<const std::int64_t>,
                                                std::int64_t);
template std::vector<std::int32_t> read_scalars(const store::Reader&, const std::string&, std::span<const std::int64_t>,
                                                std::int32_t);
template std::vector<std::uint32_t> read_scalars(const store::Reader&, const std::string&, std::span<const std::int64_t>,
                                                 std::uint32_t);

}  // namespace astroclip::data
