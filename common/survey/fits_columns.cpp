#include "survey/fits_columns.hpp"

#include <fmt/format.h>

#include "core/error.hpp"

namespace astroclip::survey::fits {

std::vector<std::string> Columns::texts(std::initializer_list<const char*> names,
                                        const std::string& otherwise) const
{
    for (const auto* name : names) {
        if (const auto* column = find_column(columns_, name)) {
            return file_.read_texts(hdu_, *column);
        }
    }
    return std::vector<std::string>(static_cast<std::size_t>(rows_), otherwise);
}

const Column& Columns::scalar(const std::string& name) const
{
    const auto* column = find_column(columns_, name);
    if (!column) {
        throw DataError(file_.path(), fmt::format("no column '{}' in the table of HDU {}", name, hdu_));
    }
    if (column->repeat != 1) {
        throw DataError(file_.path(),
                        fmt::format("column '{}' has {} elements a row, 1 expected", name, column->repeat));
    }
    return *column;
}

}  // namespace astroclip::survey::fits
