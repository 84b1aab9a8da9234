// astroclip-export-fits: a store (the catalogue of embeddings, or any other) as FITS binary tables, one a
// part, for TOPCAT and astropy.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>

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
    "  astroclip-export-fits --store run/embeddings --output positions --columns object_id,ra,dec,z_spec"};

struct Options {
    std::string store, output, columns, name = "catalog";
    bool trust = false;
};

void bind(config::Section options, Options& o)
{
    using config::runtime_only;
    options.option("store", o.store, "store to export", runtime_only())
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

std::vector<store::Column> chosen_columns(const store::Reader& store, const std::string& names)
{
    if (names.empty()) {
        return store.schema().columns;
    }
    std::vector<store::Column> columns;
    for (std::size_t begin = 0; begin < names.size();) {
        const auto end = std::min(names.find(',', begin), names.size());
        const auto name = names.substr(begin, end - begin);
        if (!store.schema().has(name)) {
            throw ConfigError(fmt::format("'columns': {} has no column '{}'", store.path(), name));
        }
        columns.push_back(store.schema().column(name));
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
    Export(const Options& o, bool force)
        : o_(o), force_(force), store_(o.store, "", o.trust), columns_(chosen_columns(store_, o.columns))
    {
        std::size_t row_bytes = 0;
        for (const auto& column : columns_) row_bytes += column.row_bytes();
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
    }

private:
    void export_part(const Part& part)
    {
        const auto path = fmt::format("{}/{}-{:05}.fits", o_.output, o_.name, part.number);
        if (!is_there(path, part)) {
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
        const bool same_columns = std::equal(there.begin(), there.end(), columns_.begin(), columns_.end(),
                                             [](const auto& a, const auto& b) { return a.name == b.name; });
        if (!same_columns || file.text(table, "STOREID") != store_.content_id() ||
            file.rows(table) != part.rows) {
            throw OutputConflict(path,
                                 "is another export, of another store or with other columns; --force "
                                 "replaces it");
        }
        return true;
    }

    void write_table(const std::string& path, const Part& part)
    {
        std::vector<fits::TableColumn> described;
        for (const auto& column : columns_) described.push_back(fits_column(column));
        fits::TableWriter table(path, store_.schema().kind, described, part.rows,
                                header_keys(store_, part.number, part.of));
        for (std::int64_t row = 0; row < part.rows; row += rows_at_once_) {
            const auto count = std::min(rows_at_once_, part.rows - row);
            std::vector<std::vector<char>> bytes;
            std::vector<const char*> values;
            for (const auto& column : columns_) {
                bytes.push_back(read_bytes(store_, column, part.first + row, count));
                values.push_back(bytes.back().data());
            }
            table.append(values, count);
            progress_.update(part.first + row + count);
        }
        table.close();
    }

    const Options& o_;
    bool force_;
    store::Reader store_;
    std::vector<store::Column> columns_;
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
