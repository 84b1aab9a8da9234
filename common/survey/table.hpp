#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

// Catalogues and lists: named columns, whole in memory, from a CSV file, the first table of a FITS file, or
// an HDF5 file of columns or records (told apart by content). Names are found whatever their case. Errors are
// DataError with file, row and column.
namespace astroclip::survey {

class Table {
public:
    virtual ~Table() = default;

    // MissingInput if there is no such file.
    static std::unique_ptr<Table> open(const std::string& path);

    const std::string& path() const { return path_; }
    std::int64_t rows() const { return rows_; }
    const std::vector<std::string>& names() const { return names_; }
    bool has(const std::string& name) const;
    // The first of these that is there, or "".
    std::string first_of(std::initializer_list<const char*> names) const;

    // Whole columns. An empty CSV field is NaN among numbers, -1 among integers; integers may be texts of
    // digits.
    virtual std::vector<double> numbers(const std::string& name) const = 0;
    virtual std::vector<std::int64_t> integers(const std::string& name) const = 0;
    virtual std::vector<std::string> texts(const std::string& name) const = 0;

protected:
    Table(std::string path, std::int64_t rows, std::vector<std::string> names)
        : path_(std::move(path)), rows_(rows), names_(std::move(names))
    {
    }
    std::size_t index(const std::string& name) const;  // DataError with the names that are there
    // The numbers that texts of a column are.
    std::vector<std::int64_t> integers_of(const std::vector<std::string>& texts,
                                          const std::string& name) const;

    std::string path_;
    std::int64_t rows_ = 0;
    std::vector<std::string> names_;
};

// Table::open of an HDF5 file.
std::unique_ptr<Table> open_hdf5_table(const std::string& path);

}  // namespace astroclip::survey
