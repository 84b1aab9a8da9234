#include "store/schema.hpp"

#include <array>

#include "core/error.hpp"

namespace astroclip::store {
namespace {

struct TypeName {
    Type type;
    const char* name;
    std::size_t size;
};
constexpr std::array<TypeName, 7> types{{{Type::f32, "float32", 4},
                                         {Type::f64, "float64", 8},
                                         {Type::i64, "int64", 8},
                                         {Type::i32, "int32", 4},
                                         {Type::i16, "int16", 2},
                                         {Type::u8, "uint8", 1},
                                         {Type::u32, "uint32", 4}}};

const TypeName& entry(Type type) { return types[static_cast<std::size_t>(type)]; }

const char* const qflag_bits =
    "1 more than 5 % masked, 2 more than 5 % without inverse variance, 4 blank edge, 8 clipped values, "
    "16 non-finite values replaced by 0, 32 catalogue flux missing or not positive, 64 redshift fit warns, "
    "128 no position";
const char* const citation =
    "Parker et al. 2024, AstroCLIP: a cross-modal foundation model for galaxies, MNRAS 531, 4990";

Column object_id()
{
    return {"object_id",
            Type::i64,
            {},
            "",
            "identifier, unique in the store: DESI TARGETID or the same packing",
            "meta.id;meta.main"};
}

void add_survey_ids(std::vector<Column>& columns)
{
    columns.push_back({"release", Type::i16, {}, "", "Legacy Survey release", "meta.id", "-1"});
    columns.push_back({"brickid", Type::i32, {}, "", "Legacy Survey brick number", "meta.id", "-1"});
    columns.push_back({"objid", Type::i32, {}, "", "object number in the brick", "meta.id", "-1"});
}

void add_position(std::vector<Column>& columns)
{
    columns.push_back({"ra", Type::f64, {}, "deg", "right ascension, ICRS", "pos.eq.ra;meta.main"});
    columns.push_back({"dec", Type::f64, {}, "deg", "declination, ICRS", "pos.eq.dec;meta.main"});
}

void add_photometry(std::vector<Column>& columns)
{
    for (const auto* band : {"g", "r", "z"}) {
        columns.push_back({std::string("flux_") + band,
                           Type::f32,
                           {},
                           "nanomaggy",
                           std::string("catalogue flux, band ") + band + ", not corrected for extinction",
                           "phot.flux;em.opt",
                           "NaN"});
    }
    columns.push_back({"ebv", Type::f32, {}, "mag", "Galactic reddening E(B-V)", "phot.color.excess", "NaN"});
}

Column flags() { return {"qflag", Type::u32, {}, "", "quality flags, bits in qflag_bits", "meta.code.qual"}; }

}  // namespace

std::size_t size_of(Type type) { return entry(type).size; }
const char* name_of(Type type) { return entry(type).name; }

Type type_named(const std::string& name)
{
    for (const auto& known : types) {
        if (name == known.name) {
            return known.type;
        }
    }
    throw InternalError("unknown column type '" + name + "'");
}

std::size_t Column::row_items() const
{
    std::size_t items = 1;
    for (const auto size : shape) {
        items *= size;
    }
    return items;
}

std::size_t Column::row_bytes() const { return row_items() * size_of(type); }

const Column& Schema::column(const std::string& name) const
{
    for (const auto& candidate : columns) {
        if (candidate.name == name) {
            return candidate;
        }
    }
    throw InternalError("store of " + kind + " has no column '" + name + "'");
}

bool Schema::has(const std::string& name) const
{
    for (const auto& candidate : columns) {
        if (candidate.name == name) {
            return true;
        }
    }
    return false;
}

std::size_t Schema::row_bytes() const
{
    std::size_t bytes = 0;
    for (const auto& column : columns) {
        bytes += column.row_bytes();
    }
    return bytes;
}

nlohmann::json to_json(const Schema& schema)
{
    auto columns = nlohmann::json::array();
    for (const auto& c : schema.columns) {
        columns.push_back({{"name", c.name},
                           {"type", name_of(c.type)},
                           {"shape", c.shape},
                           {"unit", c.unit},
                           {"description", c.description},
                           {"ucd", c.ucd},
                           {"fill", c.fill}});
    }
    auto axes = nlohmann::json::array();
    for (const auto& a : schema.axes) {
        axes.push_back(
            {{"name", a.name}, {"unit", a.unit}, {"description", a.description}, {"size", a.values.size()}});
    }
    return {{"kind", schema.kind},
            {"version", schema.version},
            {"columns", columns},
            {"axes", axes},
            {"attributes", schema.attributes}};
}

Schema schema_from_json(const nlohmann::json& json)
{
    Schema schema;
    schema.kind = json.at("kind");
    schema.version = json.at("version");
    schema.attributes = json.at("attributes");
    for (const auto& c : json.at("columns")) {
        schema.columns.push_back({c.at("name"), type_named(c.at("type")), c.at("shape"), c.at("unit"),
                                  c.at("description"), c.at("ucd"), c.at("fill")});
    }
    for (const auto& a : json.at("axes")) {
        schema.axes.push_back({a.at("name"), a.at("unit"), a.at("description"),
                               std::vector<double>(a.at("size").get<std::size_t>())});
    }
    return schema;
}

Schema images(const std::string& bands, int size, double pixel_scale_arcsec)
{
    const auto side = static_cast<std::size_t>(size);
    const bool display = bands == "RGB";
    Schema schema{.kind = "images", .columns = {object_id()}};
    auto& columns = schema.columns;
    add_survey_ids(columns);
    add_position(columns);
    columns.push_back(
        {"flux",
         Type::f32,
         {bands.size(), side, side},
         display ? "" : "nanomaggy",
         display ? "display image [colour, y, x], centred on the object, colours from 0 to 1"
                 : "cutout [band, y, x], centred on the object, bands in the order of the attribute bands",
         display ? "" : "phot.flux.density;em.opt"});
    add_photometry(columns);
    columns.push_back(
        {"redshift", Type::f64, {}, "", "spectroscopic redshift of the input list", "src.redshift", "NaN"});
    columns.push_back(flags());
    schema.attributes = {{"bands", bands},
                         {"pixel_scale", pixel_scale_arcsec},
                         {"pixel_scale_unit", "arcsec"},
                         {"radesys", "ICRS"},
                         {"qflag_bits", qflag_bits}};
    return schema;
}

Schema spectra(const std::vector<double>& wavelength)
{
    const auto bins = wavelength.size();
    Schema schema{.kind = "spectra", .columns = {object_id()}};
    auto& columns = schema.columns;
    add_survey_ids(columns);
    add_position(columns);
    columns.push_back({"flux",
                       Type::f32,
                       {bins},
                       "10**-17 erg s-1 cm-2 Angstrom-1",
                       "flux density on the grid wavelength",
                       "phot.flux.density;em.wl"});
    columns.push_back({"ivar",
                       Type::f32,
                       {bins},
                       "10**34 erg-2 s2 cm4 Angstrom2",
                       "inverse variance of flux",
                       "stat.weight;phot.flux.density",
                       "0"});
    columns.push_back(
        {"mask", Type::u32, {bins}, "", "pixel mask of the survey; 0 is good", "meta.code.qual"});
    columns.push_back({"redshift", Type::f64, {}, "", "spectroscopic redshift", "src.redshift", "NaN"});
    columns.push_back(
        {"redshift_error", Type::f64, {}, "", "error of redshift", "stat.error;src.redshift", "NaN"});
    columns.push_back(
        {"zwarn", Type::i64, {}, "", "warning bits of the redshift fit; 0 is good", "meta.code.qual", "-1"});
    columns.push_back({"spectype",
                       Type::u8,
                       {},
                       "",
                       "class of the redshift fit, codes in spectype_codes",
                       "src.spType",
                       "0"});
    add_photometry(columns);
    columns.push_back(flags());
    schema.axes.push_back({"wavelength", "Angstrom", "vacuum wavelength, observed frame", wavelength});
    schema.attributes = {{"radesys", "ICRS"},
                         {"qflag_bits", qflag_bits},
                         {"spectype_codes", "0 none, 1 GALAXY, 2 QSO, 3 STAR"}};
    return schema;
}

Schema pairs()
{
    Schema schema{.kind = "pairs", .columns = {object_id()}};
    auto& columns = schema.columns;
    columns.push_back({"image_row", Type::i64, {}, "", "row in the store of images", "meta.record"});
    columns.push_back({"spectrum_row", Type::i64, {}, "", "row in the store of spectra", "meta.record"});
    columns.push_back({"split", Type::u8, {}, "", "0 training, 1 test; a hash of object_id", "meta.code"});
    columns.push_back({"separation_arcsec",
                       Type::f64,
                       {},
                       "arcsec",
                       "distance of the two positions on the sky",
                       "pos.angDistance",
                       "NaN"});
    return schema;
}

Schema embeddings(int width)
{
    const auto dimensions = static_cast<std::size_t>(width);
    Schema schema{.kind = "embeddings", .columns = {object_id()}};
    auto& columns = schema.columns;
    columns.push_back({"targetid", Type::i64, {}, "", "DESI TARGETID", "meta.id", "-1"});
    add_survey_ids(columns);
    add_position(columns);
    columns.push_back(
        {"healpix_29", Type::i64, {}, "", "HEALPix pixel of the position, order 29, nested", "pos.healpix"});
    for (const std::string modality : {"image", "spectrum"}) {
        columns.push_back({modality + "_embedding",
                           Type::f32,
                           {dimensions},
                           "",
                           "embedding of the " + modality + ", unit vector",
                           "",
                           "0"});
        columns.push_back({modality + "_embedding_norm",
                           Type::f32,
                           {},
                           "",
                           "length of the " + modality + " embedding before it was normalised",
                           "",
                           "0"});
        columns.push_back(
            {"has_" + modality, Type::u8, {}, "", "1 if the object has an " + modality, "meta.code"});
    }
    columns.back().description = "1 if the object has a spectrum";
    columns.push_back(
        {"z_spec", Type::f64, {}, "", "spectroscopic redshift, from the input", "src.redshift", "NaN"});
    columns.push_back(
        {"zwarn", Type::i64, {}, "", "warning bits of the redshift fit; 0 is good", "meta.code.qual", "-1"});
    columns.push_back(flags());
    schema.attributes = {{"radesys", "ICRS"},
                         {"qflag_bits", qflag_bits},
                         {"citation", citation},
                         {"licence", "that of the input surveys' data"}};
    return schema;
}

}  // namespace astroclip::store
