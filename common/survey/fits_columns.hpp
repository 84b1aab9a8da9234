#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "survey/fits.hpp"

namespace astroclip::survey::fits {

// The columns of one table of a file (which must outlive this), by name whatever the case; those that it may
// lack are read as a default.
class Columns {
public:
    Columns(const File& file, int hdu)
        : file_(file), hdu_(hdu), columns_(file.columns(hdu)), rows_(file.rows(hdu))
    {
    }

    std::int64_t rows() const { return rows_; }
    bool has(const std::string& name) const { return find_column(columns_, name) != nullptr; }

    // One number a row; DataError if the column is not there or has several.
    template <typename T>
    std::vector<T> required(const std::string& name) const
    {
        return file_.read_column<T>(hdu_, scalar(name));
    }
    // The first of the columns that is there.
    template <typename T>
    std::vector<T> optional(std::initializer_list<const char*> names, T otherwise) const
    {
        for (const auto* name : names) {
            if (has(name)) {
                return required<T>(name);
            }
        }
        return std::vector<T>(static_cast<std::size_t>(rows_), otherwise);
    }
    std::vector<std::string> texts(std::initializer_list<const char*> names,
                                   const std::string& otherwise) const;

private:
    const Column& scalar(const std::string& name) const;

    const File& file_;
    int hdu_;
    std::vector<Column> columns_;
    std::int64_t rows_;
};

}  // namespace astroclip::survey::fits
