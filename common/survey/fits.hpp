#pragma once

#include <cstdint>
#include <string>
#include <vector>

// FITS files through CFITSIO, by its …_diskfile calls only (a name from data is never an expression to
// CFITSIO). HDUs are found by EXTNAME and columns by name, both whatever their case. Tile compression,
// BSCALE/BZERO, unsigned integers, .fits.gz and .fits.bz2 are CFITSIO's work. Every error is a DataError that
// names file, HDU and what was expected; a file that is not there is MissingInput. Not for use by several
// threads.
namespace astroclip::survey::fits {

struct Column {
    std::string name;
    int number = 0;           // 1-based, as CFITSIO counts
    int type = 0;             // CFITSIO's type code of the values after scaling
    std::int64_t repeat = 1;  // elements a row (characters, for text)
    std::int64_t width = 1;   // characters of one text
};

class File {
public:
    // Checks that every HDU lies wholly inside the file; with `what_is_left` those of a truncated file that
    // do are listed, and the others are not there.
    explicit File(const std::string& path, bool what_is_left = false);
    ~File();
    File(const File&) = delete;
    File& operator=(const File&) = delete;

    const std::string& path() const { return path_; }
    int hdus() const { return static_cast<int>(hdus_.size()); }
    bool has(const std::string& extname) const;
    int find(const std::string& extname)
        const;                // 0-based number of the HDU; DataError with the names that are there
    int first_image() const;  // that holds pixels; DataError if there is none
    int first_table() const;
    std::string hdu_names() const;  // "PRIMARY, FIBERMAP, …" for messages

    // Compares CHECKSUM and DATASUM with the bytes, where the HDU has them.
    void verify_checksum(int hdu) const;

    // Header values; `fallback` if the keyword is absent.
    std::string text(int hdu, const std::string& keyword, const std::string& fallback = "") const;
    double number(int hdu, const std::string& keyword, double fallback) const;
    // All cards of 80 characters one after another, as those of a plain image where it is tile-compressed.
    std::string header_cards(int hdu) const;

    // Images: shape slowest axis first ([bands, H, W]), as numpy has it.
    std::vector<std::int64_t> image_shape(int hdu) const;
    // The box [first, first + count) of each axis, slowest first, row-major. T: float, double, int64.
    template <typename T>
    std::vector<T> read_box(int hdu, const std::vector<std::int64_t>& first,
                            const std::vector<std::int64_t>& count) const;
    template <typename T>
    std::vector<T> read_image(int hdu) const;

    // Tables.
    std::int64_t rows(int hdu) const;
    std::vector<Column> columns(int hdu) const;
    // All rows of a column, [rows * repeat]. T: float, double, int64 (logicals: 0 or 1).
    template <typename T>
    std::vector<T> read_column(int hdu, const Column& column) const;
    std::vector<std::string> read_texts(int hdu, const Column& column) const;  // trailing blanks removed

private:
    struct Hdu {
        std::string name;
        bool image = false, pixels = false;
    };
    void select(int hdu) const;
    void scan(bool what_is_left);
    [[noreturn]] void fail(int status, const std::string& action) const;

    std::string path_;
    void* handle_ = nullptr;  // fitsfile*
    std::vector<Hdu> hdus_;
};

// The column of that name, whatever its case; nullptr if there is none.
const Column* find_column(const std::vector<Column>& columns, const std::string& name);

bool same_name(const std::string& a, const std::string& b);  // ASCII, whatever the case

}  // namespace astroclip::survey::fits
