#include "stages/search_queries.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/log.hpp"
#include "data/rows.hpp"
#include "stages/embedding.hpp"
#include "survey/fits.hpp"
#include "survey/legacy_survey.hpp"
#include "survey/sky.hpp"
#include "survey/spectra.hpp"
#include "survey/table.hpp"
#include "survey/text.hpp"
#include "train/precision.hpp"

namespace astroclip::search {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::size_t most_of_a_file = 10000;

std::int64_t parse_id(std::string_view text, const std::string& where)
{
    const auto id = survey::to_number<std::int64_t>(text);
    if (!id) {
        throw ConfigError(fmt::format("{}: '{}' is not an object id (a whole number)", where, text));
    }
    return *id;
}

std::vector<std::int64_t> named_ids(const QueryOptions& o)
{
    std::vector<std::int64_t> ids;
    for (std::size_t begin = 0; begin < o.ids.size();) {
        const auto end = std::min(o.ids.find(',', begin), o.ids.size());
        ids.push_back(parse_id(o.ids.substr(begin, end - begin), "ids"));
        begin = end + 1;
    }
    if (!o.query_file.empty()) {
        std::ifstream file(o.query_file);
        if (!file) {
            throw MissingInput(o.query_file, "cannot be read (option query-file)");
        }
        for (std::string line; std::getline(file, line);) {
            if (line.ends_with('\r')) line.pop_back();
            if (const auto text = survey::trimmed(line); !text.empty() && text[0] != '#') {
                ids.push_back(parse_id(text, o.query_file));
            }
        }
    }
    return ids;
}

void read_positions(const QueryOptions& o, Wanted& wanted)
{
    const auto table = survey::Table::open(o.positions);
    const auto ra = table->first_of({"ra", "target_ra"}), dec = table->first_of({"dec", "target_dec"});
    if (ra.empty() || dec.empty()) {
        throw DataError(o.positions, "has no columns ra and dec (degrees ICRS)");
    }
    wanted.ra = table->numbers(ra);
    wanted.dec = table->numbers(dec);
    wanted.radius_arcsec = o.match_radius_arcsec;
    for (std::size_t i = 0; i < wanted.ra.size(); ++i) {
        if (!survey::is_position(wanted.ra[i], wanted.dec[i])) {
            throw DataError(o.positions, fmt::format("row {}: ra {}, dec {} is no position", i + 1,
                                                     wanted.ra[i], wanted.dec[i]));
        }
    }
}

std::vector<float> unit(const float* values, std::size_t width, const std::string& name)
{
    double square = 0;
    for (std::size_t i = 0; i < width; ++i) {
        square += static_cast<double>(values[i]) * values[i];
    }
    if (!(square > 0) || !std::isfinite(square)) {
        throw DataError(name, "has an embedding that is zero or not finite");
    }
    std::vector<float> vector(width);
    for (std::size_t i = 0; i < width; ++i) {
        vector[i] = static_cast<float>(values[i] / std::sqrt(square));
    }
    return vector;
}

// Galaxies of the catalogue as queries.
std::vector<Query> of_rows(const store::Reader& reader, const std::vector<std::int64_t>& rows)
{
    std::vector<Query> queries(rows.size());
    const auto ids = data::read_scalars<std::int64_t>(reader, "object_id", rows, -1);
    const auto ra = data::read_scalars<double>(reader, "ra", rows, nan),
               dec = data::read_scalars<double>(reader, "dec", rows, nan);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        queries[i] = {
            .name = std::to_string(ids[i]), .object_id = ids[i], .row = rows[i], .ra = ra[i], .dec = dec[i]};
    }
    for (const std::string modality : {"image", "spectrum"}) {
        const auto has = data::read_scalars<std::int64_t>(reader, "has_" + modality, rows, 0);
        const auto vectors = data::read_rows(reader, modality + "_embedding", rows);
        const auto width = static_cast<std::size_t>(vectors.size(1));
        for (std::size_t i = 0; i < rows.size(); ++i) {
            const auto* from = vectors.const_data_ptr<float>() + i * width;
            auto& to = modality == "image" ? queries[i].image : queries[i].spectrum;
            if (has[i]) to.assign(from, from + width);
        }
    }
    return queries;
}

std::string name_in(const std::string& path, std::size_t number)
{
    return fmt::format("{} #{}", std::filesystem::path(path).filename().string(), number);
}

// What a file holds beyond a query's own names, in compute batches.
struct OwnObjects {
    std::vector<Query> queries;
    std::vector<float> flux, ivar;  // row after row
};

bool is_one_image(const std::string& path)
{
    if (path.ends_with(".csv") || path.ends_with(".h5") || path.ends_with(".hdf5")) {
        return false;
    }
    try {
        survey::fits::File(path).first_image();
        return true;
    } catch (const DataError&) {
        return false;
    }
}

OwnObjects read_cutouts(const std::string& path, const survey::CutoutOptions& how)
{
    OwnObjects own;
    survey::Cutout cutout;
    const auto take = [&](const survey::Refusal& refusal, std::int64_t id) {
        const auto name = name_in(path, own.queries.size());
        if (refusal) {
            throw DataError(path, fmt::format("{}: {} {}", name, refusal.reason, refusal.detail));
        }
        own.queries.push_back({.name = name, .object_id = id, .ra = cutout.ra, .dec = cutout.dec});
        own.flux.insert(own.flux.end(), cutout.flux.begin(), cutout.flux.end());
    };
    if (is_one_image(path)) {
        take(survey::read_fits_cutout(path, how, nan, nan, cutout), -1);
        return own;
    }
    const auto file = survey::CutoutFile::open(path, how);
    if (file->entries().size() > most_of_a_file) {
        throw DataError(path, fmt::format("lists {} cutouts; at most {} can be queries",
                                          file->entries().size(), most_of_a_file));
    }
    for (std::size_t i = 0; i < file->entries().size(); ++i) {
        const auto& entry = file->entries()[i];
        take(entry.refusal ? entry.refusal : file->read(i, cutout), entry.object_id);
    }
    return own;
}

OwnObjects read_spectra(const std::string& path)
{
    OwnObjects own;
    const auto file = survey::SpectrumFile::open(path, {.anonymous = true});
    if (file->targets().size() > most_of_a_file) {
        throw DataError(path, fmt::format("holds {} spectra; at most {} can be queries",
                                          file->targets().size(), most_of_a_file));
    }
    for (const auto& target : file->targets()) {
        const auto spectrum = file->read(target);
        own.queries.push_back({.name = name_in(path, own.queries.size()),
                               .object_id = target.object_id,
                               .ra = target.ra,
                               .dec = target.dec});
        own.flux.insert(own.flux.end(), spectrum.flux.begin(), spectrum.flux.end());
        own.ivar.insert(own.ivar.end(), spectrum.ivar.begin(), spectrum.ivar.end());
    }
    return own;
}

at::Tensor as_tensor(const std::vector<float>& values, std::size_t rows, std::vector<std::int64_t> shape)
{
    shape.insert(shape.begin(), static_cast<std::int64_t>(rows));
    return at::from_blob(const_cast<float*>(values.data()), shape, at::kFloat);
}

// Gives each object its unit vector, a compute batch at a time.
template <typename Embed>
void embed_all(std::vector<Query>& queries, std::vector<float> Query::*vector, const Embed& embed)
{
    const auto count = std::ssize(queries);
    for (std::int64_t first = 0; first < count; first += nn::compute_batch) {
        const auto some = std::min(nn::compute_batch, count - first);
        const auto z = embed(first, some).contiguous();
        const auto width = static_cast<std::size_t>(z.size(1));
        for (std::int64_t i = 0; i < some; ++i) {
            auto& query = queries[first + i];
            query.*vector = unit(z.template const_data_ptr<float>() + static_cast<std::size_t>(i) * width,
                                 width, query.name);
        }
    }
}

std::vector<Query> of_cutouts(const QueryOptions& o, const nlohmann::json& facts,
                              const stage::EmbeddingModel& model)
{
    if (model.network->image_width() == 0) {
        throw DataError(o.model, "embeds no images, so that 'cutouts' cannot be searched for");
    }
    survey::CutoutOptions how;
    how.bands = facts.value("bands", how.bands);
    how.size = model.view.crop;
    how.pixel_scale_arcsec = facts.value("pixel_scale", how.pixel_scale_arcsec);
    auto own = read_cutouts(o.cutouts, how);
    const auto flux = as_tensor(own.flux, own.queries.size(), {std::ssize(how.bands), how.size, how.size});
    embed_all(own.queries, &Query::image,
              [&](auto first, auto some) { return model.embed_images(flux.narrow(0, first, some)); });
    return own.queries;
}

std::vector<Query> of_spectra(const QueryOptions& o, const stage::EmbeddingModel& model)
{
    if (model.network->spectrum_width() == 0) {
        throw DataError(o.model, "embeds no spectra, so that 'spectra' cannot be searched for");
    }
    auto own = read_spectra(o.spectra);
    const auto bins = std::ssize(own.flux) / std::max<std::int64_t>(1, std::ssize(own.queries));
    const auto flux = as_tensor(own.flux, own.queries.size(), {bins}),
               ivar = as_tensor(own.ivar, own.queries.size(), {bins});
    embed_all(own.queries, &Query::spectrum, [&](auto first, auto some) {
        return model.embed_spectra(flux.narrow(0, first, some), ivar.narrow(0, first, some));
    });
    return own.queries;
}

std::vector<Query> of_files(const QueryOptions& o, const store::Reader& reader, at::Device device)
{
    if (o.cutouts.empty() && o.spectra.empty()) {
        return {};
    }
    const stage::EmbeddingModel model(o.model, o.trust, device);
    const auto& facts = reader.schema().attributes;
    if (const auto made_with = facts.value("model_id", ""); made_with != model.content_id) {
        throw DataError(o.model, fmt::format("is not the model that {} was made with ({}, not {})",
                                             reader.path(), model.content_id, made_with));
    }
    const train::Autocast autocast(facts.value("precision", "fp32"), device.type());
    std::vector<Query> queries;
    if (!o.cutouts.empty()) queries = of_cutouts(o, facts, model);
    if (!o.spectra.empty()) {
        const auto more = of_spectra(o, model);
        queries.insert(queries.end(), more.begin(), more.end());
    }
    return queries;
}

// One query in the middle of them all: the mean of the unit vectors of those that have a modality, of length
// one again.
Query mean_of(const std::vector<Query>& queries)
{
    Query mean{.name = fmt::format("mean of {}", queries.size())};
    for (const auto modality : {&Query::image, &Query::spectrum}) {
        std::vector<float> sum;
        for (const auto& query : queries) {
            const auto& vector = query.*modality;
            if (sum.empty()) sum.assign(vector.size(), 0.0F);
            for (std::size_t i = 0; i < vector.size(); ++i) sum[i] += vector[i];
        }
        if (!sum.empty()) mean.*modality = unit(sum.data(), sum.size(), mean.name);
    }
    return mean;
}

}  // namespace

void bind(config::Section options, QueryOptions& o)
{
    using config::runtime_only;
    options.option("ids", o.ids, "object ids to search for, separated by commas")
        .option("query-file", o.query_file, "text file with one object id a line")
        .option("positions", o.positions,
                "CSV or FITS table with ra and dec [deg]: the galaxy nearest to each is a query")
        .option("match-radius", o.match_radius_arcsec, "of such a galaxy [arcsec]",
                config::between(0.001, 3600))
        .option("cutouts", o.cutouts, "own images: a FITS cutout, a list of them (CSV), or an HDF5 chunk")
        .option("spectra", o.spectra, "own spectra: a file as ingest-spectra takes it")
        .option("model", o.model, "for own files: the model that the catalogue was made with", runtime_only())
        .option("mean", o.mean, "search for the mean of all queries instead of each: 'more like these'")
        .option("random", o.random,
                "without queries: this many galaxies of the pool, chosen by a hash of their ids",
                config::at_least(1));
}

Queries find_queries(const Catalogue& catalogue, const QueryOptions& o, std::uint64_t seed,
                     const stage::Compute& compute, const comm::World& world)
{
    const auto& reader = catalogue.reader();
    Wanted wanted;
    Queries queries;
    world.together([&] {
        wanted.ids = named_ids(o);
        if (!o.positions.empty()) read_positions(o, wanted);
        queries.all = of_files(o, reader, compute.device);
        wanted.seed = seed;
        wanted.random = wanted.ids.empty() && wanted.ra.empty() && queries.all.empty() ? o.random : 0;
    });
    const auto found = catalogue.find(wanted, world);
    queries.pool = found.pool;
    world.together([&] {
        auto rows = found.random;
        for (std::size_t i = 0; i < wanted.ids.size(); ++i) {
            if (found.of_ids[i] < 0) {
                throw DataError(reader.path(), fmt::format("holds no object {}", wanted.ids[i]));
            }
            rows.push_back(found.of_ids[i]);
        }
        for (std::size_t i = 0; i < wanted.ra.size(); ++i) {
            if (found.of_positions[i] < 0) {
                queries.unmatched.push_back(fmt::format("{:.8f} {:.8f}", wanted.ra[i], wanted.dec[i]));
            } else {
                rows.push_back(found.of_positions[i]);
            }
        }
        const auto known = of_rows(reader, rows);
        queries.all.insert(queries.all.begin(), known.begin(), known.end());
        if (queries.all.empty()) {
            throw DataError(reader.path(),
                            queries.unmatched.empty()
                                ? "holds no galaxy of the pool that is searched"
                                : fmt::format("has no galaxy within {} arcsec of any of {} positions",
                                              wanted.radius_arcsec, queries.unmatched.size()));
        }
        if (o.mean) queries.all = {mean_of(queries.all)};
    });
    return queries;
}

}  // namespace astroclip::search
