// astroclip-export-fits: a store (the catalogue of embeddings, or any other) as FITS binary tables, one a
// part, for TOPCAT and astropy.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <limits>
#include <map>
#include <optional>

#include "config/options.hpp"
#include "core/error.hpp"
#include "core/progress.hpp"
#include "core/provenance.hpp"
#include "store/publication.hpp"
#include "store/reader.hpp"
#include "store/visit.hpp"
#include "survey/fits.hpp"
#include "survey/fits_table.hpp"
#include "tools/program.hpp"

namespace astroclip::export_fits {
namespace {

namespace fits = survey::fits;

const program::Description description{
    "export-fits",
    "a store as FITS binary tables, one file a part: OUTPUT/catalog-00000.fits, ...\n"
    "Units, descriptions, UCDs and provenance stand in the headers. Files that are there already, of the "
    "same\n"
    "store and columns, are left as they are: the same command goes on after an interruption.\n\n"
    "  astroclip-export-fits --store run/embeddings --output run/catalog\n"
    "  astroclip-export-fits --store run/embeddings --predictions run/evaluation/predictions --output "
    "run/catalog\n"
    "  astroclip-export-fits --store run/embeddings --output positions --columns object_id,ra,dec,z_spec"};

struct Options {
    std::string store, predictions, output, columns, name = "catalog";
    bool trust = false;
};

void bind(config::Section options, Options& o)
{
    using config::runtime_only;
    options.option("store", o.store, "store to export", runtime_only())
        .option("predictions", o.predictions,
                "store of predictions that evaluate made of it, for more columns; empty: none",
                runtime_only())
        .option("output", o.output, "folder of the tables", runtime_only())
        .option("name", o.name, "the files are NAME-00000.fits, ...")
        .option("columns", o.columns, "columns to export, separated by commas; empty: all")
        .option("trust", o.trust, "believe the hashes of the store without computing them", runtime_only());
}

char fits_type(store::Type type)
{
    switch (type) {
        case store::Type::f32:
            return 'E';
        case store::Type::f64:
            return 'D';
        case store::Type::i64:
            return 'K';
        case store::Type::i32:
            return 'J';
        case store::Type::i16:
            return 'I';
        case store::Type::u8:
            return 'B';
        case store::Type::u32:
            return 'V';
    }
    throw InternalError("a column type without a FITS type");
}

fits::TableColumn fits_column(const store::Column& column)
{
    fits::TableColumn made{column.name, fits_type(column.type), std::int64_t(column.row_items()),
                           column.unit, column.description,     column.ucd};
    if (column.fill == "-1") made.null = -1;
    return made;
}

// Keywords of eight characters for the attributes that FITS has words for; others under their own names.
const std::map<std::string, std::string> keywords{
    {"radesys", "RADESYS"},   {"bands", "BANDS"},      {"pixel_scale", "PIXSCALE"},
    {"model", "MODEL"},       {"model_id", "MODELID"}, {"qflag_bits", "QFLAGBIT"},
    {"citation", "REFERENC"}, {"licence", "LICENCE"},  {"image_norm", "IMGNORM"}};

void add_key(std::vector<fits::TableKey>& keys, const std::string& attribute, const nlohmann::json& value)
{
    const auto known = keywords.find(attribute);
    auto name = known == keywords.end() ? attribute : known->second;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
    if (value.is_number_integer()) {
        keys.push_back({name, value.get<std::int64_t>()});
    } else if (value.is_number()) {
        keys.push_back({name, value.get<double>()});
    } else {
        keys.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
    }
}

// Provenance that is the same for every export of the store.
std::vector<fits::TableKey> header_keys(const store::Reader& store, std::int64_t part, std::int64_t parts)
{
    const auto& request = store.manifest().at("request");
    std::vector<fits::TableKey> keys{
        {"CREATOR", fmt::format("astroclip {} ({})", version(), revision()), "program that wrote this"},
        {"STOREID", store.content_id(), "content of the store"},
        {"STOREKND", store.schema().kind, "kind of store"},
        {"STOREVER", std::int64_t{store.schema().version}, "version of its schema"},
        {"CFGDIGST", request.at("configuration_digest").get<std::string>(), "digest of the configuration"},
        {"INPUTS", request.value("inputs", nlohmann::json::object()).dump(), ""},
        {"PART", part, "of the store, from 0"},
        {"PARTS", parts, "in the store"}};
    for (const auto& [name, value] : store.schema().attributes.items()) {
        add_key(keys, name, value);
    }
    return keys;
}

// What evaluate predicted for rows of a catalogue, brought to its rows from the first to the last. The
// predictions are in the catalogue's order, so that one pass over both suffices.
class Predictions {
public:
    Predictions(const std::string& path, const store::Reader& catalogue, bool trust)
        : store_(path, "predictions", trust)
    {
        const auto made_of = store_.manifest().at("request").at("inputs").value("embeddings", "");
        if (made_of != catalogue.content_id()) {
            throw DataError(path, fmt::format("was made of catalogue {}, not of {} ({})", made_of,
                                              catalogue.content_id(), catalogue.path()));
        }
    }

    const store::Reader& store() const { return store_; }

    // Goes to the next rows of the catalogue, which have these ids.
    void go_to(const std::vector<std::int64_t>& ids)
    {
        first_ += matched_;
        std::vector<std::int64_t> ours(
            static_cast<std::size_t>(std::min(std::ssize(ids), store_.rows() - first_)));
        store_.read("object_id", first_, std::ssize(ours), ours.data());
        matched_ = 0;
        place_.clear();
        for (const auto id : ids) {
            const bool same = matched_ < std::ssize(ours) && ours[static_cast<std::size_t>(matched_)] == id;
            place_.push_back(same ? matched_++ : -1);
        }
    }

    // Throws InternalError if rows before were passed over, so that what stands beside them is not theirs.
    void require_all_found() const
    {
        if (first_ + matched_ != store_.rows()) {
            throw InternalError(fmt::format("{}: of its {} rows {} were found in the catalogue's order",
                                            store_.path(), store_.rows(), first_ + matched_));
        }
    }

    // Of those rows; NaN where nothing was predicted. All columns but object_id are float32.
    std::vector<char> read_bytes(const store::Column& column) const
    {
        const auto items = column.row_items();
        std::vector<float> found(static_cast<std::size_t>(matched_) * items);
        store_.read(column.name, first_, matched_, found.data());
        std::vector<char> bytes(place_.size() * column.row_bytes());
        auto* out = reinterpret_cast<float*>(bytes.data());
        for (const auto place : place_) {
            out = place < 0 ? std::fill_n(out, items, std::numeric_limits<float>::quiet_NaN())
                            : std::copy_n(found.data() + static_cast<std::size_t>(place) * items, items, out);
        }
        return bytes;
    }

private:
    store::Reader store_;
    std::int64_t first_ = 0, matched_ = 0;  // rows of the predictions
    std::vector<std::int64_t> place_;       // of each row asked for among the matched, -1: none
};

struct ExportedColumn {
    store::Column column;
    bool predicted = false;
};

std::vector<ExportedColumn> all_columns(const store::Reader& store,
                                        const std::optional<Predictions>& predictions)
{
    std::vector<ExportedColumn> columns;
    for (const auto& column : store.schema().columns) columns.push_back({column});
    if (predictions) {
        const auto& others = predictions->store().schema().columns;
        for (auto column = others.begin() + 1; column != others.end(); ++column) {
            if (store.schema().has(column->name)) {
                throw DataError(predictions->store().path(),
                                fmt::format("has a column '{}', and so has {}", column->name, store.path()));
            }
            columns.push_back({*column, true});
        }
    }
    return columns;
}

std::vector<ExportedColumn> chosen_columns(const std::vector<ExportedColumn>& all, const std::string& names,
                                           const std::string& path)
{
    if (names.empty()) {
        return all;
    }
    std::vector<ExportedColumn> columns;
    for (std::size_t begin = 0; begin < names.size();) {
        const auto end = std::min(names.find(',', begin), names.size());
        const auto name = names.substr(begin, end - begin);
        const auto found =
            std::find_if(all.begin(), all.end(), [&](const auto& each) { return each.column.name == name; });
        if (found == all.end()) {
            throw ConfigError(fmt::format("'columns': {} has no column '{}'", path, name));
        }
        columns.push_back(*found);
        begin = end + 1;
    }
    return columns;
}

// Rows [first, first + count) of a column, as their bytes.
std::vector<char> read_bytes(const store::Reader& store, const store::Column& column, std::int64_t first,
                             std::int64_t count)
{
    std::vector<char> bytes(static_cast<std::size_t>(count) * column.row_bytes());
    store::visit(column.type, [&]<typename T>(T) {
        store.read(column.name, first, count, reinterpret_cast<T*>(bytes.data()));
    });
    return bytes;
}

struct Part {
    std::int64_t first, rows, number, of;
};

class Export {
public:
    Export(const Options& o, bool force) : o_(o), force_(force), store_(o.store, "", o.trust)
    {
        if (!o.predictions.empty()) predictions_.emplace(o.predictions, store_, o.trust);
        columns_ = chosen_columns(all_columns(store_, predictions_), o.columns, store_.path());
        std::size_t row_bytes = sizeof(std::int64_t);
        for (const auto& each : columns_) row_bytes += each.column.row_bytes();
        constexpr std::size_t bytes_at_once = 32U << 20;
        rows_at_once_ = static_cast<std::int64_t>(std::max<std::size_t>(1, bytes_at_once / row_bytes));
    }

    void run()
    {
        std::filesystem::create_directories(o_.output);
        const auto& parts = store_.manifest().at("content").at("parts");
        progress_.begin("exporting", store_.rows(), "rows");
        Part part{0, 0, 0, std::ssize(parts)};
        for (const auto& entry : parts) {
            part.rows = entry.at("rows");
            export_part(part);
            part.first += part.rows;
            ++part.number;
            progress_.update(part.first);
        }
        progress_.end();
        if (predictions_) predictions_->require_all_found();
    }

private:
    void export_part(const Part& part)
    {
        const auto path = fmt::format("{}/{}-{:05}.fits", o_.output, o_.name, part.number);
        if (is_there(path, part)) {
            for (auto row = part.first; row < part.first + part.rows; row += rows_at_once_) {
                go_to(row, std::min(rows_at_once_, part.first + part.rows - row));
            }
        } else {
            store::publish_file(path, [&](const std::string& temporary) { write_table(temporary, part); });
        }
        std::cout << path << '\n';
    }

    // Complete, for a published file is; of this store, and with these columns.
    bool is_there(const std::string& path, const Part& part) const
    {
        if (force_ || !std::filesystem::exists(path)) {
            return false;
        }
        const fits::File file(path);
        const auto table = file.first_table();
        const auto there = file.columns(table);
        const bool same_columns =
            std::equal(there.begin(), there.end(), columns_.begin(), columns_.end(),
                       [](const auto& a, const auto& b) { return a.name == b.column.name; });
        if (!same_columns || file.text(table, "STOREID") != store_.content_id() ||
            file.text(table, "PREDID") != predictions_id() || file.rows(table) != part.rows) {
            throw OutputConflict(path,
                                 "is another export, of another store or with other columns; --force "
                                 "replaces it");
        }
        return true;
    }

    void write_table(const std::string& path, const Part& part)
    {
        std::vector<fits::TableColumn> described;
        for (const auto& each : columns_) described.push_back(fits_column(each.column));
        auto keys = header_keys(store_, part.number, part.of);
        if (predictions_) {
            keys.push_back({"PREDID", predictions_id(), "content of the predictions"});
            keys.push_back(
                {"PREDMETH", predictions_->store().schema().attributes.value("method", ""), "of them"});
        }
        fits::TableWriter table(path, store_.schema().kind, described, part.rows, keys);
        for (std::int64_t row = 0; row < part.rows; row += rows_at_once_) {
            const auto count = std::min(rows_at_once_, part.rows - row);
            std::vector<std::vector<char>> bytes;
            std::vector<const char*> values;
            go_to(part.first + row, count);
            for (const auto& [column, predicted] : columns_) {
                bytes.push_back(predicted ? predictions_->read_bytes(column)
                                          : read_bytes(store_, column, part.first + row, count));
                values.push_back(bytes.back().data());
            }
            table.append(values, count);
            progress_.update(part.first + row + count);
        }
        table.close();
    }

    void go_to(std::int64_t first, std::int64_t count)
    {
        if (predictions_) {
            std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
            store_.read("object_id", first, count, ids.data());
            predictions_->go_to(ids);
        }
    }

    std::string predictions_id() const { return predictions_ ? predictions_->store().content_id() : ""; }

    const Options& o_;
    bool force_;
    store::Reader store_;
    std::optional<Predictions> predictions_;
    std::vector<ExportedColumn> columns_;
    std::int64_t rows_at_once_ = 1;
    Progress progress_{true};
};

}  // namespace
}  // namespace astroclip::export_fits

int main(int argc, char** argv)
{
    using namespace astroclip;
    config::Options options(export_fits::description.name);
    export_fits::Options o;
    export_fits::bind(options.section(), o);
    return program::run(argc, argv, export_fits::description, options, [&] {
        if (o.store.empty() || o.output.empty()) {
            throw ConfigError("'store' and 'output' must be set; --help tells of both");
        }
        export_fits::Export(o, options.invocation().force).run();
    });
}
