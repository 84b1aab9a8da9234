#include "stages/search_results.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/hdf5.hpp"
#include "data/rows.hpp"
#include "store/columns.hpp"
#include "survey/fits_table.hpp"

namespace astroclip::search {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// What the results say of the rows that were found.
class Galaxies {
public:
    Galaxies(const store::Reader& reader, std::vector<std::int64_t> rows) : rows_(std::move(rows))
    {
        std::sort(rows_.begin(), rows_.end());
        rows_.erase(std::unique(rows_.begin(), rows_.end()), rows_.end());
        object_id_ = data::read_scalars<std::int64_t>(reader, "object_id", rows_, -1);
        ra_ = data::read_scalars<double>(reader, "ra", rows_, nan);
        dec_ = data::read_scalars<double>(reader, "dec", rows_, nan);
        z_ = data::read_scalars<double>(reader, "z_spec", rows_, nan);
    }

    std::size_t place(std::int64_t row) const
    {
        return static_cast<std::size_t>(std::lower_bound(rows_.begin(), rows_.end(), row) - rows_.begin());
    }
    std::int64_t object_id(std::int64_t row) const { return object_id_[place(row)]; }
    double ra(std::int64_t row) const { return ra_[place(row)]; }
    double dec(std::int64_t row) const { return dec_[place(row)]; }
    double z(std::int64_t row) const { return row < 0 ? nan : z_[place(row)]; }

private:
    std::vector<std::int64_t> rows_, object_id_;
    std::vector<double> ra_, dec_, z_;
};

nlohmann::json number_or_null(double value)
{
    return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json();
}

// One neighbour of one query in one mode.
struct Line {
    const Mode* mode;
    const Query* query;
    std::int64_t rank, row;
    float score;
};

// Neighbour i of a query's place in `found`, from 0; those that there are.
template <typename Work>
void for_each_neighbour(const Found& found, std::size_t place, Work work)
{
    const auto row = found.neighbours.row.accessor<std::int64_t, 2>()[static_cast<std::int64_t>(place)];
    const auto score = found.neighbours.score.accessor<float, 2>()[static_cast<std::int64_t>(place)];
    for (std::int64_t i = 0; i < row.size(0) && row[i] >= 0; ++i) {
        work(i, row[i], score[i]);
    }
}

std::vector<Line> lines_of(const Queries& queries, const std::vector<Found>& found)
{
    std::vector<Line> lines;
    for (std::size_t number = 0; number < queries.all.size(); ++number) {
        for (const auto& one : found) {
            const auto at = std::lower_bound(one.queries.begin(), one.queries.end(), number);
            if (at == one.queries.end() || *at != number) continue;
            for_each_neighbour(one, static_cast<std::size_t>(at - one.queries.begin()),
                               [&](auto i, auto row, auto score) {
                                   lines.push_back({&one.mode, &queries.all[number], i + 1, row, score});
                               });
        }
    }
    return lines;
}

std::string csv_of(const std::vector<Line>& lines, const Galaxies& galaxies)
{
    std::string csv = "mode,query,query_object_id,query_ra,query_dec,rank,object_id,ra,dec,z_spec,score\n";
    for (const auto& line : lines) {
        const auto& query = *line.query;
        auto name = query.name;
        std::replace_if(
            name.begin(), name.end(), [](char c) { return c == ',' || c == '"' || c == '\n'; }, '_');
        csv +=
            fmt::format("{},{},{},{:.8f},{:.8f},{},{},{:.8f},{:.8f},{:.6f},{:.6f}\n", line.mode->name, name,
                        query.object_id, query.ra, query.dec, line.rank, galaxies.object_id(line.row),
                        galaxies.ra(line.row), galaxies.dec(line.row), galaxies.z(line.row), line.score);
    }
    return csv;
}

template <typename T>
const char* bytes(const std::vector<T>& values)
{
    return reinterpret_cast<const char*>(values.data());
}

void write_fits(const std::string& path, const std::vector<Line>& lines, const Galaxies& galaxies,
                const std::string& catalogue_id)
{
    std::size_t width = 1;
    for (const auto& line : lines) width = std::max(width, line.query->name.size());
    std::string mode, name;
    std::vector<std::int64_t> query_id, id, rank;
    std::vector<double> query_ra, query_dec, ra, dec, z;
    std::vector<float> score;
    for (const auto& line : lines) {
        mode += line.mode->name;
        name += line.query->name + std::string(width - line.query->name.size(), ' ');
        query_id.push_back(line.query->object_id);
        query_ra.push_back(line.query->ra);
        query_dec.push_back(line.query->dec);
        rank.push_back(line.rank);
        id.push_back(galaxies.object_id(line.row));
        ra.push_back(galaxies.ra(line.row));
        dec.push_back(galaxies.dec(line.row));
        z.push_back(galaxies.z(line.row));
        score.push_back(line.score);
    }
    const std::vector<survey::fits::TableColumn> columns{
        {"mode", 'A', 2, "", "modality of the query and of what was searched: ii, ss, is, si", "meta.code"},
        {"query", 'A', std::int64_t(width), "", "name of the query", "meta.id"},
        {"query_object_id", 'K', 1, "", "identifier of the query", "meta.id", -1},
        {"query_ra", 'D', 1, "deg", "right ascension of the query, ICRS", "pos.eq.ra"},
        {"query_dec", 'D', 1, "deg", "declination of the query, ICRS", "pos.eq.dec"},
        {"rank", 'K', 1, "", "place among the neighbours, from 1", "meta.number"},
        {"object_id", 'K', 1, "", "identifier of the neighbour", "meta.id;meta.main"},
        {"ra", 'D', 1, "deg", "right ascension, ICRS", "pos.eq.ra;meta.main"},
        {"dec", 'D', 1, "deg", "declination, ICRS", "pos.eq.dec;meta.main"},
        {"z_spec", 'D', 1, "", "spectroscopic redshift, from the input", "src.redshift"},
        {"score", 'E', 1, "", "cosine of the two embeddings", "stat.value"}};
    store::publish_file(path, [&](const std::string& temporary) {
        survey::fits::TableWriter table(
            temporary, "neighbours", columns, std::ssize(lines),
            {{"STOREID", catalogue_id, "content of the catalogue"}, {"RADESYS", "ICRS"}});
        const std::vector<const char*> values{mode.data(),      name.data(), bytes(query_id), bytes(query_ra),
                                              bytes(query_dec), bytes(rank), bytes(id),       bytes(ra),
                                              bytes(dec),       bytes(z),    bytes(score)};
        table.append(values, std::ssize(lines));
        table.close();
    });
}

nlohmann::json json_of(const Queries& queries, const std::vector<Line>& lines, const Galaxies& galaxies)
{
    auto all = nlohmann::json::array();
    auto line = lines.begin();
    for (const auto& query : queries.all) {
        nlohmann::json one = {
            {"name", query.name},
            {"object_id", query.object_id < 0 ? nlohmann::json() : nlohmann::json(query.object_id)},
            {"row", query.row < 0 ? nlohmann::json() : nlohmann::json(query.row)},
            {"ra", number_or_null(query.ra)},
            {"dec", number_or_null(query.dec)},
            {"z_spec", number_or_null(galaxies.z(query.row))},
            {"examples", nlohmann::json()},
            {"neighbours", nlohmann::json::object()}};
        if (query.examples) {
            one["examples"] = {{"image", query.examples->image}, {"spectrum", query.examples->spectrum}};
        }
        for (; line != lines.end() && line->query == &query; ++line) {
            one["neighbours"][line->mode->name].push_back({{"object_id", galaxies.object_id(line->row)},
                                                           {"row", line->row},
                                                           {"ra", galaxies.ra(line->row)},
                                                           {"dec", galaxies.dec(line->row)},
                                                           {"z_spec", number_or_null(galaxies.z(line->row))},
                                                           {"score", line->score}});
        }
        all.push_back(one);
    }
    return all;
}

void write_column(hid_t group, const store::Column& column, std::size_t rows, const void* values,
                  const std::string& path)
{
    const auto dataset = store::create_column(group, column, rows, store::chunk_rows(column, rows), path);
    hdf5::checked(H5Dwrite(dataset, store::memory_type(column.type), H5S_ALL, H5S_ALL, H5P_DEFAULT, values),
                  path, "write");
}

void write_group(hid_t file, const std::string& name, const OwnPixels& pixels, const store::Request& request,
                 const std::string& path)
{
    const auto rows = pixels.query.size();
    if (rows == 0) return;
    const hdf5::Handle group(
        hdf5::checked(H5Gcreate2(file, name.c_str(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), path,
                      "create group"),
        H5Gclose);
    store::write_root_attributes(group, pixels.schema, request);
    for (const auto& axis : pixels.schema.axes) store::write_axis(group, axis, path);
    write_column(group,
                 {"query", store::Type::i64, {}, "", "place among the queries of results.json, from 0"}, rows,
                 pixels.query.data(), path);
    for (const auto& [column_name, values] : {std::pair{"flux", &pixels.flux}, {"ivar", &pixels.ivar}}) {
        if (values->empty()) continue;
        const auto& column = pixels.schema.column(column_name);
        if (values->size() != rows * column.row_items()) {
            throw InternalError(fmt::format("{} queries with {} values of {}", rows, values->size(), name));
        }
        write_column(group, column, rows, values->data(), path);
    }
}

void write_own_pixels(const std::string& final_path, const Queries& queries, const store::Request& request)
{
    store::publish_file(final_path, [&](const std::string& path) {
        hdf5::Handle file(hdf5::checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, store::file_creation(),
                                                  store::file_access()),
                                        path, "create file"),
                          H5Fclose);
        write_group(file, "images", queries.cutouts, request, path);
        write_group(file, "spectra", queries.spectra, request, path);
        file.reset();
    });
}

bool has_own(const Queries& queries)
{
    return !queries.cutouts.query.empty() || !queries.spectra.query.empty();
}

}  // namespace

std::vector<std::string> result_files(const Queries& queries)
{
    std::vector<std::string> files{"results.csv", "results.fits", "results.json"};
    if (has_own(queries)) files.push_back("queries.h5");
    return files;
}

void write_results(const store::Output& output, const store::Reader& catalogue, const Queries& queries,
                   const std::vector<Found>& found, std::int64_t neighbours,
                   const nlohmann::json& approximate)
{
    const auto& folder = output.path();
    const auto lines = lines_of(queries, found);
    std::vector<std::int64_t> rows;
    for (const auto& line : lines) rows.push_back(line.row);
    for (const auto& query : queries.all) {
        if (query.row >= 0) rows.push_back(query.row);
    }
    const Galaxies galaxies(catalogue, std::move(rows));
    const nlohmann::json all = {{"pool", queries.pool},
                                {"neighbours", neighbours},
                                {"approximate", approximate},
                                {"unmatched", queries.unmatched},
                                {"queries", json_of(queries, lines, galaxies)}};
    store::publish_text(folder + "/results.csv", csv_of(lines, galaxies));
    write_fits(folder + "/results.fits", lines, galaxies, catalogue.content_id());
    if (has_own(queries)) write_own_pixels(folder + "/queries.h5", queries, output.request());
    store::publish_text(folder + "/results.json",
                        all.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace astroclip::search
