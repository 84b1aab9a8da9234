#include "stages/search_queries.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>

#include "core/log.hpp"
#include "data/rows.hpp"
#include "stages/embedding.hpp"
#include "survey/arms.hpp"
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
constexpr std::size_t most_shown = 1000;  // own objects of which the pixels are kept: 0.3 GB of images
constexpr std::int64_t random_by_default = 16;
constexpr std::size_t most_named = 5;

// What each query of the options comes from: its option and the value; empty values are options not set.
std::vector<std::pair<std::string, std::string>> set_options(const QueryOptions& o)
{
    std::vector<std::pair<std::string, std::string>> set{{"ids", o.ids},
                                                         {"query-file", o.query_file},
                                                         {"positions", o.positions},
                                                         {"cutouts", o.cutouts},
                                                         {"spectra", o.spectra}};
    std::erase_if(set, [](const auto& one) { return one.second.empty(); });
    return set;
}

// An empty list is a mistake on the way to it, not a wish for galaxies of our choice.
[[noreturn]] void throw_empty(const std::string& path, const std::string& found, const std::string& expected)
{
    throw DataError(path, fmt::format("{}: there is nothing to search for; expected {}", found, expected));
}

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
        const auto before = ids.size();
        std::size_t lines = 0;
        for (std::string line; std::getline(file, line); ++lines) {
            if (line.ends_with('\r')) line.pop_back();
            if (const auto text = survey::trimmed(line); !text.empty() && text[0] != '#') {
                ids.push_back(parse_id(text, o.query_file));
            }
        }
        if (ids.size() == before) {
            throw_empty(o.query_file, fmt::format("has {} lines and no object id in them", lines),
                        "one object id a line");
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
    if (wanted.ra.empty()) {
        throw_empty(o.positions, fmt::format("has the columns {} and {} and no rows", ra, dec),
                    "one row a position");
    }
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
            throw DataError(path, fmt::format("{}: {}{}{}", name, refusal.reason,
                                              refusal.detail.empty() ? "" : ": ", refusal.detail));
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
    if (file->entries().empty()) {
        throw_empty(path, "lists no cutouts", "one row or more");
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
    if (file->targets().empty()) {
        throw_empty(path, "holds no spectra", "one row or more");
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

// Their queries after those that there are, and what is kept of their pixels.
void add(OwnObjects own, const store::Schema& schema, Queries& queries, OwnPixels& pixels)
{
    const auto items = own.flux.size() / own.queries.size();
    pixels.schema = schema;
    pixels.query.resize(std::min(own.queries.size(), most_shown));
    std::iota(pixels.query.begin(), pixels.query.end(), std::ssize(queries.all));
    for (const auto& [from, to] : {std::pair{&own.flux, &pixels.flux}, {&own.ivar, &pixels.ivar}}) {
        if (from->empty()) continue;
        to->assign(from->begin(), from->begin() + static_cast<std::ptrdiff_t>(pixels.query.size() * items));
    }
    queries.all.insert(queries.all.end(), own.queries.begin(), own.queries.end());
}

void add_cutouts(const QueryOptions& o, const nlohmann::json& facts, const stage::EmbeddingModel& model,
                 Queries& queries)
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
    const auto schema = store::images(how.bands, static_cast<int>(how.size), how.pixel_scale_arcsec);
    add(std::move(own), schema, queries, queries.cutouts);
}

void add_spectra(const QueryOptions& o, const stage::EmbeddingModel& model, Queries& queries)
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
    add(std::move(own), store::spectra(survey::desi_wavelength()), queries, queries.spectra);
}

Queries of_files(const QueryOptions& o, const store::Reader& reader, at::Device device)
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
    Queries queries;
    if (!o.cutouts.empty()) add_cutouts(o, facts, model, queries);
    if (!o.spectra.empty()) add_spectra(o, model, queries);
    return queries;
}

// One query in the middle of them all: the mean of the unit vectors of those that have a modality, of length
// one again.
Query mean_of(const std::vector<Query>& queries)
{
    const auto count = std::ssize(queries);
    Examples examples;
    for (const auto& query : queries) {
        examples.image += query.image.empty() ? 0 : 1;
        examples.spectrum += query.spectrum.empty() ? 0 : 1;
    }
    Query mean{.name = fmt::format("mean of {}", count), .examples = examples};
    if (examples.image != count || examples.spectrum != count) {
        mean.name += fmt::format(": {} images and {} spectra", examples.image, examples.spectrum);
    }
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
                "without queries: this many galaxies of the pool, chosen by a hash of their ids (0: 16)",
                config::at_least(0));
}

Queries find_queries(const Catalogue& catalogue, const QueryOptions& o, std::uint64_t seed,
                     const stage::Compute& compute, const comm::World& world)
{
    const auto& reader = catalogue.reader();
    Wanted wanted;
    Queries queries;
    world.together([&] {
        const auto set = set_options(o);
        if (o.random > 0 && !set.empty()) {
            throw ConfigError(
                fmt::format("'random' = {} is for a search without queries, and '{}' = '{}' "
                            "names some: leave one of them out",
                            o.random, set[0].first, set[0].second));
        }
        wanted.ids = named_ids(o);
        if (!o.positions.empty()) read_positions(o, wanted);
        queries = of_files(o, reader, compute.device);
        wanted.seed = seed;
        if (set.empty()) wanted.random = o.random > 0 ? o.random : random_by_default;
    });
    const auto found = catalogue.find(wanted, world);
    queries.pool = found.pool;
    world.together([&] {
        auto rows = found.random;
        for (std::size_t i = 0; i < wanted.ids.size(); ++i) {
            if (found.of_ids[i] < 0) {
                queries.unmatched.push_back(std::to_string(wanted.ids[i]));
            } else {
                rows.push_back(found.of_ids[i]);
            }
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
                                : "holds nothing of what is searched for; " + describe_unmatched(queries, o));
        }
        if (o.mean) queries.all = {mean_of(queries.all)};
        for (auto* pixels : {&queries.cutouts, &queries.spectra}) {
            for (auto& number : pixels->query) number += std::ssize(known);
            if (o.mean) *pixels = {};
            if (!world.is_root()) pixels->flux = pixels->ivar = {};
        }
    });
    return queries;
}

std::string describe_unmatched(const Queries& queries, const QueryOptions& o)
{
    std::vector<std::string> ids, positions, parts;
    for (const auto& one : queries.unmatched) {
        (one.find(' ') == std::string::npos ? ids : positions).push_back(one);
    }
    const auto add_part = [&](const std::string& what, const std::vector<std::string>& all) {
        if (all.empty()) return;
        const auto named = static_cast<std::ptrdiff_t>(std::min(all.size(), most_named));
        parts.push_back(fmt::format("{}: {} ({}{})", what, all.size(),
                                    fmt::join(all.begin(), all.begin() + named, ", "),
                                    named < std::ssize(all) ? ", ..." : ""));
    };
    add_part("ids that are not in the catalogue", ids);
    add_part(fmt::format("positions without a galaxy within {} arcsec", o.match_radius_arcsec), positions);
    return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace astroclip::search
