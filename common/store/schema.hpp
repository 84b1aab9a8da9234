#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

// What each kind of store holds: the contract between stages. README.md beside this file has the tables for
// people.
namespace astroclip::store {

enum class Type { f32, f64, i64, i32, i16, u8, u32 };
std::size_t size_of(Type type);
const char* name_of(Type type);            // "float32", …
Type type_named(const std::string& name);  // InternalError for an unknown one

// One dataset of a store: [rows, shape…].
struct Column {
    std::string name;
    Type type = Type::f32;
    std::vector<std::size_t> shape{};  // of one row; empty: a scalar
    std::string unit;                  // FITS standard unit string; "" for none
    std::string description;
    std::string ucd{};   // IVOA UCD1+, where one fits
    std::string fill{};  // what stands where the input has no value: "NaN", "-1", "0"; "" if that cannot be
    std::size_t row_items() const;
    std::size_t row_bytes() const;
};

// Dataset without rows, the same in every part (the wavelength grid).
struct Axis {
    std::string name;
    std::string unit;
    std::string description;
    std::vector<double> values;
};

struct Schema {
    std::string kind;  // images, spectra, pairs, embeddings, search, predictions
    int version = 1;
    std::vector<Column> columns;  // the first is object_id
    std::vector<Axis> axes{};
    nlohmann::json attributes =
        nlohmann::json::object();  // root attributes: bands, pixel_scale, …; texts and numbers
    const Column& column(const std::string& name) const;  // throws InternalError if absent
    bool has(const std::string& name) const;
    std::size_t row_bytes() const;
};

// As in the manifest; of an axis without its values, which the files hold. from_json throws nlohmann's
// exceptions.
nlohmann::json to_json(const Schema& schema);
Schema schema_from_json(const nlohmann::json& json);

// Bits of the column qflag, as its attribute `qflag_bits` lists them.
namespace qflag {
inline constexpr std::uint32_t masked = 1;          // more than 5 % of the pixels or bins are masked
inline constexpr std::uint32_t zero_ivar = 2;       // more than 5 % of the bins have no inverse variance
inline constexpr std::uint32_t edge = 4;            // the cutout touches the edge of its brick: blank pixels
inline constexpr std::uint32_t clipped = 8;         // values were clipped
inline constexpr std::uint32_t replaced = 16;       // non-finite values were replaced by 0
inline constexpr std::uint32_t no_photometry = 32;  // a catalogue flux is missing or not positive
inline constexpr std::uint32_t bad_redshift = 64;   // the redshift fit warns (zwarn is not 0)
inline constexpr std::uint32_t no_position = 128;   // ra and dec are not known and stand at 0
}  // namespace qflag

// Codes of the column spectype.
namespace spectype {
inline constexpr std::uint8_t none = 0, galaxy = 1, qso = 2, star = 3;
}  // namespace spectype

// An input object that is not a row of the output, and why.
struct Reject {
    std::string source;  // file
    std::int64_t source_row = 0;
    std::int64_t object_id = -1;
    std::string reason;    // short and countable: "fibre status", "duplicate id", "non-finite pixels"
    bool damage = false;   // false: selection (sky fibre, not a target); only damage counts against the limit
    std::string detail{};  // for people: numbers found
};

// flux [bands, size, size] nanomaggy, centred on the object, with the columns of the survey. With the bands
// RGB these are display images, colours from 0 to 1 without a unit.
Schema images(const std::string& bands, int size, double pixel_scale_arcsec);
// flux, ivar, mask [bins] on the grid `wavelength` (Angstrom, vacuum, observed frame), with the redshift of
// its file.
Schema spectra(const std::vector<double>& wavelength);
// image_row, spectrum_row (row numbers in the two stores), split (0 train, 1 test), separation_arcsec.
Schema pairs();
// The catalogue (README.md); embedding width E.
Schema embeddings(int width);

}  // namespace astroclip::store
