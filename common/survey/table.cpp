#include "survey/table.hpp"

#include <fitsio.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <limits>

#include "core/error.hpp"
#include "survey/csv.hpp"
#include "survey/fits.hpp"
#include "survey/foreign_hdf5.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

class CsvTable : public Table {
public:
    CsvTable(const std::string& path, Csv csv) : Table(path, csv.rows(), csv.names()), csv_(std::move(csv)) {}

    std::vector<double> numbers(const std::string& name) const override
    {
        return parsed<double>(name, std::numeric_limits<double>::quiet_NaN(), "number");
    }
    std::vector<std::int64_t> integers(const std::string& name) const override
    {
        return parsed<std::int64_t>(name, -1, "whole number");
    }
    std::vector<std::string> texts(const std::string& name) const override
    {
        const auto column = index(name);
        std::vector<std::string> values;
        for (std::int64_t row = 0; row < rows(); ++row) {
            values.emplace_back(trimmed(csv_.field(row, column)));
        }
        return values;
    }

private:
    template <typename T>
    std::vector<T> parsed(const std::string& name, T if_empty, const char* wanted) const
    {
        const auto column = index(name);
        std::vector<T> values(static_cast<std::size_t>(rows()), if_empty);
        for (std::int64_t row = 0; row < rows(); ++row) {
            const auto text = trimmed(csv_.field(row, column));
            if (text.empty()) {
                continue;
            }
            const auto value = to_number<T>(text);
            if (!value) {
                throw DataError(path(), fmt::format("row {}, column '{}': '{}' is not a {}", row + 1, name,
                                                    text, wanted));
            }
            values[row] = *value;
        }
        return values;
    }

    Csv csv_;
};

class FitsTable : public Table {
public:
    explicit FitsTable(const std::string& path) : Table(path, 0, {}), file_(path), hdu_(file_.first_table())
    {
        file_.verify_checksum(hdu_);
        columns_ = file_.columns(hdu_);
        rows_ = file_.rows(hdu_);
        std::transform(columns_.begin(), columns_.end(), std::back_inserter(names_),
                       [](const auto& c) { return c.name; });
    }

    std::vector<double> numbers(const std::string& name) const override { return read<double>(name); }
    std::vector<std::int64_t> integers(const std::string& name) const override
    {
        const auto& column = columns_[index(name)];
        if (column.type == TFLOAT || column.type == TDOUBLE) {
            throw DataError(
                path(), fmt::format("column '{}' holds floating-point numbers, whole ones expected", name));
        }
        if (column.type == TSTRING) {
            return integers_of(texts(name), name);
        }
        return read<std::int64_t>(name);
    }
    std::vector<std::string> texts(const std::string& name) const override
    {
        return file_.read_texts(hdu_, columns_[index(name)]);
    }

private:
    template <typename T>
    std::vector<T> read(const std::string& name) const
    {
        const auto& column = columns_[index(name)];
        if (column.repeat != 1) {
            throw DataError(
                path(), fmt::format("column '{}' has {} elements a row, 1 expected", name, column.repeat));
        }
        return file_.read_column<T>(hdu_, column);
    }

    fits::File file_;
    int hdu_;
    std::vector<fits::Column> columns_;
};

bool is_fits(const std::string& path)
{
    auto* file = std::fopen(path.c_str(), "rb");
    if (!file) {
        throw_errno(path, "open");
    }
    unsigned char start[6] = {};
    const auto bytes = std::fread(start, 1, sizeof start, file);
    std::fclose(file);
    return bytes == sizeof start &&
           (std::memcmp(start, "SIMPLE", 6) == 0 || (start[0] == 0x1f && start[1] == 0x8b));
}

}  // namespace

std::unique_ptr<Table> Table::open(const std::string& path)
{
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
        throw MissingInput(path, "no such file");
    }
    if (is_hdf5(path)) {
        return open_hdf5_table(path);
    }
    if (is_fits(path)) {
        return std::make_unique<FitsTable>(path);
    }
    return std::make_unique<CsvTable>(path, Csv(path));
}

bool Table::has(const std::string& name) const
{
    return std::any_of(names_.begin(), names_.end(), [&](const auto& n) { return fits::same_name(n, name); });
}

std::string Table::first_of(std::initializer_list<const char*> names) const
{
    for (const auto* name : names) {
        if (has(name)) {
            return name;
        }
    }
    return "";
}

std::vector<std::int64_t> Table::integers_of(const std::vector<std::string>& texts,
                                             const std::string& name) const
{
    std::vector<std::int64_t> values;
    for (const auto& text : texts) {
        const auto value = trimmed(text).empty() ? -1 : to_number<std::int64_t>(text);
        if (!value) {
            throw DataError(path_, fmt::format("row {}, column '{}': '{}' is not a whole number",
                                               values.size() + 1, name, text));
        }
        values.push_back(*value);
    }
    return values;
}

std::size_t Table::index(const std::string& name) const
{
    for (std::size_t i = 0; i < names_.size(); ++i) {
        if (fits::same_name(names_[i], name)) {
            return i;
        }
    }
    throw DataError(path_, fmt::format("no column '{}'; there are: {}", name, fmt::join(names_, ", ")));
}

}  // namespace astroclip::survey
