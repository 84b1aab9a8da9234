#pragma once

#include <fitsio.h>

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace astroclip::simulate {

// One column of a binary table; the values' type gives the FITS type (E, D, I, J, K, nA).
struct TableColumn {
    std::string name;
    std::string unit;  // FITS unit string, or ""
    std::variant<std::vector<float>, std::vector<double>, std::vector<std::int16_t>,
                 std::vector<std::int32_t>, std::vector<std::int64_t>, std::vector<std::string>>
        values;
    int text_width = 0;    // of text columns
    int values_a_row = 1;  // of numeric columns; values.size() is a multiple of it
};

using TextKey = std::pair<std::string, std::string>;

// A FITS file that closes itself. Extensions by name; without dates or checksums, so that equal content is
// equal bytes. Errors: MissingInput or DataError when reading, IoError when writing, with CFITSIO's message.
class FitsFile {
public:
    static FitsFile open(const std::string& path);
    static FitsFile create(const std::string& path);
    ~FitsFile();
    FitsFile(FitsFile&& other) noexcept;
    FitsFile(const FitsFile&) = delete;
    FitsFile& operator=(const FitsFile&) = delete;
    FitsFile& operator=(FitsFile&&) = delete;

    void move_to(const std::string& extension);
    std::vector<long> image_dims();  // in FITS order: x first
    std::vector<double> read_image();
    std::vector<double> read_column(const std::string& name);
    std::vector<std::string> read_text_column(const std::string& name);

    // An empty name writes the primary HDU; a missing `dims` one without data. `bitpix` as in CFITSIO:
    // FLOAT_IMG, DOUBLE_IMG, LONG_IMG (int32), ULONG_IMG (the same values, stored unsigned by BZERO).
    void write_empty_primary(const std::vector<TextKey>& keys);
    template <typename T>
    void write_image(const std::string& name, int bitpix, std::vector<long> dims,
                     const std::vector<T>& pixels, const std::vector<TextKey>& keys);
    void write_key(const std::string& name, double value, const std::string& comment);
    void write_key(const std::string& name, std::int64_t value, const std::string& comment);
    void write_table(const std::string& name, const std::vector<TableColumn>& columns);
    void close();  // checks what a destructor cannot

private:
    FitsFile(fitsfile* file, std::string path) : file_(file), path_(std::move(path)) {}
    void check_read(int status, const std::string& what) const;
    void check_written(int status, const std::string& what) const;
    void write_keys(const std::vector<TextKey>& keys);

    fitsfile* file_ = nullptr;
    std::string path_;
};

}  // namespace astroclip::simulate
