#include "survey/fits_table.hpp"

#include <fitsio.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.hpp"

namespace astroclip::survey::fits {
namespace {

fitsfile* file_of(void* handle) { return static_cast<fitsfile*>(handle); }

std::size_t bytes_of(char type)
{
    switch (type) {
        case 'A':
        case 'B':
            return 1;
        case 'I':
            return 2;
        case 'J':
        case 'V':
        case 'E':
            return 4;
        case 'K':
        case 'D':
            return 8;
        default:
            throw InternalError(fmt::format("no FITS column is of type '{}'", type));
    }
}

// One value in the order of FITS, big-endian; an unsigned one less its offset of 2^31, which turns its first
// bit.
void store_value(const char* value, char type, std::size_t size, unsigned char* out)
{
    std::reverse_copy(value, value + size, out);
    if (type == 'V') {
        out[0] ^= 0x80;
    }
}

void write_text(fitsfile* file, const std::string& name, const std::string& text, const std::string& comment,
                int* status)
{
    fits_write_key_longstr(file, name.c_str(), text.c_str(), comment.empty() ? nullptr : comment.c_str(),
                           status);
}

void write_key(fitsfile* file, const TableKey& key, int* status)
{
    const auto* comment = key.comment.empty() ? nullptr : key.comment.c_str();
    if (const auto* text = std::get_if<std::string>(&key.value)) {
        write_text(file, key.name, *text, key.comment, status);
    } else if (const auto* number = std::get_if<double>(&key.value)) {
        fits_write_key_dbl(file, key.name.c_str(), *number, -15, comment, status);
    } else {
        fits_write_key_lng(file, key.name.c_str(), std::get<std::int64_t>(key.value), comment, status);
    }
}

}  // namespace

TableWriter::TableWriter(const std::string& path, const std::string& extname,
                         std::vector<TableColumn> columns, std::int64_t rows,
                         const std::vector<TableKey>& keys)
    : path_(path), columns_(std::move(columns)), rows_(rows)
{
    for (const auto& column : columns_) {
        row_bytes_ += column.repeat * static_cast<std::int64_t>(bytes_of(column.type));
    }
    fitsfile* file = nullptr;
    int status = 0;
    fits_create_diskfile(&file, path.c_str(), &status);
    handle_ = file;
    check(status, "create");
    try {
        write_header(extname, keys);
    } catch (...) {
        int ignored = 0;
        fits_close_file(file, &ignored);
        throw;
    }
}

TableWriter::~TableWriter()
{
    if (handle_) {
        int status = 0;
        fits_close_file(file_of(handle_), &status);
    }
}

void TableWriter::write_header(const std::string& extname, const std::vector<TableKey>& keys)
{
    std::vector<std::string> formats;
    std::vector<char*> names, types, units;
    for (const auto& column : columns_) {
        formats.push_back(fmt::format("{}{}", column.repeat, column.type));
    }
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        names.push_back(columns_[i].name.data());
        types.push_back(formats[i].data());
        units.push_back(columns_[i].unit.data());
    }
    auto* file = file_of(handle_);
    int status = 0;
    fits_create_tbl(file, BINARY_TBL, rows_, static_cast<int>(columns_.size()), names.data(), types.data(),
                    units.data(), extname.c_str(), &status);
    fits_write_key_longwarn(file, &status);
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        const auto& column = columns_[i];
        const auto number = std::to_string(i + 1);
        if (!column.description.empty()) write_text(file, "TCOMM" + number, column.description, "", &status);
        if (!column.ucd.empty()) write_text(file, "TUCD" + number, column.ucd, "", &status);
        if (column.null) fits_write_key_lng(file, ("TNULL" + number).c_str(), *column.null, nullptr, &status);
    }
    for (const auto& key : keys) {
        write_key(file, key, &status);
    }
    fits_set_hdustruc(file, &status);  // the null values and offsets are known from here on
    check(status, "write the header");
}

void TableWriter::append(std::span<const char* const> values, std::int64_t count)
{
    if (values.size() != columns_.size() || written_ + count > rows_) {
        throw InternalError(fmt::format("{}: {} columns and {} rows were appended to a table of {} and {}",
                                        path_, values.size(), written_ + count, columns_.size(), rows_));
    }
    std::vector<unsigned char> bytes(static_cast<std::size_t>(count * row_bytes_));
    std::size_t offset = 0;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        const auto size = bytes_of(columns_[i].type);
        const auto repeat = static_cast<std::size_t>(columns_[i].repeat);
        const auto* from = values[i];
        for (std::int64_t row = 0; row < count; ++row) {
            auto* to = bytes.data() + row * row_bytes_ + offset;
            for (std::size_t item = 0; item < repeat; ++item, from += size, to += size) {
                store_value(from, columns_[i].type, size, to);
            }
        }
        offset += repeat * size;
    }
    int status = 0;
    if (count > 0) {
        fits_write_tblbytes(file_of(handle_), written_ + 1, 1, std::ssize(bytes), bytes.data(), &status);
    }
    check(status, fmt::format("write rows {} to {}", written_, written_ + count));
    add_to_sum(bytes);
    written_ += count;
}

// As DATASUM adds: the data as big-endian 32-bit words, in ones' complement (folded at the end).
void TableWriter::add_to_sum(const std::vector<unsigned char>& bytes)
{
    for (const auto byte : bytes) {
        sum_ += static_cast<std::uint64_t>(byte) << (8 * (3 - bytes_++ % 4));
    }
    sum_ = (sum_ & 0xffffffffU) + (sum_ >> 32);
}

// CFITSIO's own checksum keywords carry the date; these do not. One pass over the file.
void TableWriter::close()
{
    if (written_ != rows_) {
        throw InternalError(fmt::format("{}: {} of {} rows were written", path_, written_, rows_));
    }
    sum_ = (sum_ & 0xffffffffU) + (sum_ >> 32);
    auto* file = file_of(handle_);
    int status = 0;
    unsigned long data = 0, hdu = 0;
    write_text(file, "DATASUM", std::to_string(sum_), "data unit checksum", &status);
    write_text(file, "CHECKSUM", "0000000000000000", "HDU checksum", &status);
    fits_flush_file(file, &status);
    fits_get_chksum(file, &data, &hdu, &status);
    std::array<char, 17> encoded{};
    fits_encode_chksum(hdu, 1, encoded.data());
    fits_modify_key_str(file, "CHECKSUM", encoded.data(), "&", &status);
    fits_close_file(file_of(std::exchange(handle_, nullptr)), &status);
    check(status, "close");
    if (sum_ != data) {
        throw IoError(path_, "the rows read back are not those that were written");
    }
}

void TableWriter::check(int status, const std::string& action) const
{
    if (status) {
        std::array<char, FLEN_STATUS> text{};
        fits_get_errstatus(status, text.data());
        fits_clear_errmsg();
        throw IoError(path_, fmt::format("{}: {}", action, text.data()));
    }
}

}  // namespace astroclip::survey::fits
