#include "tools/simulate/fits_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/error.hpp"

namespace astroclip::simulate {
namespace {

std::string fits_message(int status)
{
    char text[FLEN_STATUS] = {};
    fits_get_errstatus(status, text);
    return text;
}

template <typename T>
struct FitsType;
template <>
struct FitsType<float> {
    static constexpr int code = TFLOAT;
    static constexpr char letter = 'E';
};
template <>
struct FitsType<double> {
    static constexpr int code = TDOUBLE;
    static constexpr char letter = 'D';
};
template <>
struct FitsType<std::int16_t> {
    static constexpr int code = TSHORT;
    static constexpr char letter = 'I';
};
template <>
struct FitsType<std::int32_t> {
    static constexpr int code = TINT;
    static constexpr char letter = 'J';
};
template <>
struct FitsType<std::int64_t> {
    static constexpr int code = TLONGLONG;
    static constexpr char letter = 'K';
};

std::string format_of(const TableColumn& column)
{
    return std::visit(
        [&](const auto& values) {
            using T = typename std::decay_t<decltype(values)>::value_type;
            if constexpr (std::is_same_v<T, std::string>) {
                return fmt::format("{}A", column.text_width);
            } else {
                return fmt::format("{}{}", column.values_a_row, FitsType<T>::letter);
            }
        },
        column.values);
}

long rows_of(const TableColumn& column)
{
    const auto count =
        std::visit([](const auto& values) { return static_cast<long>(values.size()); }, column.values);
    return count / column.values_a_row;
}

int write_values(fitsfile* file, int number, const TableColumn& column)
{
    int status = 0;
    std::visit(
        [&](const auto& values) {
            using T = typename std::decay_t<decltype(values)>::value_type;
            if (values.empty()) {
                return;
            }
            const auto count = static_cast<LONGLONG>(values.size());
            if constexpr (std::is_same_v<T, std::string>) {
                std::vector<char*> texts;
                for (const auto& text : values) {
                    texts.push_back(const_cast<char*>(text.c_str()));
                }
                fits_write_col_str(file, number, 1, 1, count, texts.data(), &status);
            } else {
                fits_write_col(file, FitsType<T>::code, number, 1, 1, count, const_cast<T*>(values.data()),
                               &status);
            }
        },
        column.values);
    return status;
}

}  // namespace

FitsFile FitsFile::open(const std::string& path)
{
    if (!std::filesystem::exists(path)) {
        throw MissingInput(path, "no such file");
    }
    fitsfile* file = nullptr;
    int status = 0;
    if (fits_open_diskfile(&file, path.c_str(), READONLY, &status)) {
        throw DataError(path, "cannot be opened as FITS: " + fits_message(status));
    }
    return FitsFile(file, path);
}

FitsFile FitsFile::create(const std::string& path)
{
    fitsfile* file = nullptr;
    int status = 0;
    if (fits_create_diskfile(&file, path.c_str(), &status)) {
        throw IoError(path, "cannot be created: " + fits_message(status));
    }
    return FitsFile(file, path);
}

FitsFile::FitsFile(FitsFile&& other) noexcept : file_(other.file_), path_(std::move(other.path_))
{
    other.file_ = nullptr;
}

FitsFile::~FitsFile()
{
    if (file_) {
        int status = 0;
        fits_close_file(file_, &status);
    }
}

void FitsFile::close()
{
    int status = 0;
    fits_close_file(std::exchange(file_, nullptr), &status);
    check_written(status, "close");
}

void FitsFile::check_read(int status, const std::string& what) const
{
    if (status) {
        throw DataError(path_, what + ": " + fits_message(status));
    }
}

void FitsFile::check_written(int status, const std::string& what) const
{
    if (status) {
        throw IoError(path_, what + ": " + fits_message(status));
    }
}

void FitsFile::move_to(const std::string& extension)
{
    int status = 0;
    fits_movnam_hdu(file_, ANY_HDU, const_cast<char*>(extension.c_str()), 0, &status);
    check_read(status, "extension " + extension);
}

std::vector<long> FitsFile::image_dims()
{
    int status = 0, axes = 0;
    fits_get_img_dim(file_, &axes, &status);
    std::vector<long> dims(static_cast<std::size_t>(std::max(axes, 0)));
    fits_get_img_size(file_, axes, dims.data(), &status);
    check_read(status, "image size");
    return dims;
}

std::vector<double> FitsFile::read_image()
{
    const auto dims = image_dims();
    const auto count = std::accumulate(dims.begin(), dims.end(), 1L, std::multiplies<>());
    std::vector<double> pixels(static_cast<std::size_t>(count));
    int status = 0;
    fits_read_img(file_, TDOUBLE, 1, count, nullptr, pixels.data(), nullptr, &status);
    check_read(status, "image");
    return pixels;
}

std::vector<double> FitsFile::read_column(const std::string& name)
{
    int status = 0, number = 0, type = 0;
    long rows = 0, repeat = 0, width = 0;
    fits_get_colnum(file_, CASEINSEN, const_cast<char*>(name.c_str()), &number, &status);
    fits_get_num_rows(file_, &rows, &status);
    fits_get_coltype(file_, number, &type, &repeat, &width, &status);
    check_read(status, "column " + name);
    std::vector<double> values(static_cast<std::size_t>(rows * repeat));
    fits_read_col(file_, TDOUBLE, number, 1, 1, rows * repeat, nullptr, values.data(), nullptr, &status);
    check_read(status, "column " + name);
    return values;
}

std::vector<std::string> FitsFile::read_text_column(const std::string& name)
{
    int status = 0, number = 0, type = 0;
    long rows = 0, repeat = 0, width = 0;
    fits_get_colnum(file_, CASEINSEN, const_cast<char*>(name.c_str()), &number, &status);
    fits_get_num_rows(file_, &rows, &status);
    fits_get_coltype(file_, number, &type, &repeat, &width, &status);
    check_read(status, "column " + name);
    std::vector<std::string> values;
    std::vector<char> buffer(static_cast<std::size_t>(repeat) + 1);
    for (long row = 1; row <= rows; ++row) {
        char* text = buffer.data();
        fits_read_col_str(file_, number, row, 1, 1, nullptr, &text, nullptr, &status);
        check_read(status, "column " + name);
        values.emplace_back(text);
    }
    return values;
}

void FitsFile::write_keys(const std::vector<TextKey>& keys)
{
    int status = 0;
    for (const auto& [name, value] : keys) {
        fits_write_key(file_, TSTRING, name.c_str(), const_cast<char*>(value.c_str()), nullptr, &status);
    }
    check_written(status, "header");
}

void FitsFile::write_key(const std::string& name, double value, const std::string& comment)
{
    int status = 0;
    fits_write_key(file_, TDOUBLE, name.c_str(), &value, comment.c_str(), &status);
    check_written(status, "key " + name);
}

void FitsFile::write_key(const std::string& name, std::int64_t value, const std::string& comment)
{
    int status = 0;
    long long number = value;
    fits_write_key(file_, TLONGLONG, name.c_str(), &number, comment.c_str(), &status);
    check_written(status, "key " + name);
}

void FitsFile::write_empty_primary(const std::vector<TextKey>& keys)
{
    int status = 0;
    fits_create_img(file_, BYTE_IMG, 0, nullptr, &status);
    check_written(status, "primary header");
    write_keys(keys);
}

template <typename T>
void FitsFile::write_image(const std::string& name, int bitpix, std::vector<long> dims,
                           const std::vector<T>& pixels, const std::vector<TextKey>& keys)
{
    int status = 0;
    fits_create_img(file_, bitpix, static_cast<int>(dims.size()), dims.data(), &status);
    check_written(status, "image " + name);
    if (!name.empty()) {
        write_keys({{"EXTNAME", name}});
    }
    write_keys(keys);
    if (!pixels.empty()) {
        fits_write_img(file_, FitsType<T>::code, 1, static_cast<LONGLONG>(pixels.size()),
                       const_cast<T*>(pixels.data()), &status);
    }
    check_written(status, "image " + name);
}

template void FitsFile::write_image(const std::string&, int, std::vector<long>, const std::vector<float>&,
                                    const std::vector<TextKey>&);
template void FitsFile::write_image(const std::string&, int, std::vector<long>, const std::vector<double>&,
                                    const std::vector<TextKey>&);
template void FitsFile::write_image(const std::string&, int, std::vector<long>,
                                    const std::vector<std::int32_t>&, const std::vector<TextKey>&);

void FitsFile::write_table(const std::string& name, const std::vector<TableColumn>& columns)
{
    std::vector<std::string> formats;
    std::vector<char*> names, types, units;
    formats.reserve(columns.size());
    for (const auto& column : columns) {
        formats.push_back(format_of(column));
        names.push_back(const_cast<char*>(column.name.c_str()));
        types.push_back(formats.back().data());
        units.push_back(const_cast<char*>(column.unit.c_str()));
    }
    int status = 0;
    fits_create_tbl(file_, BINARY_TBL, rows_of(columns.front()), static_cast<int>(columns.size()),
                    names.data(), types.data(), units.data(), name.c_str(), &status);
    check_written(status, "table " + name);
    for (std::size_t i = 0; i < columns.size(); ++i) {
        if (rows_of(columns[i]) != rows_of(columns.front())) {
            throw InternalError(fmt::format("column {} of table {} has {} rows, {} expected", columns[i].name,
                                            name, rows_of(columns[i]), rows_of(columns.front())));
        }
        check_written(write_values(file_, static_cast<int>(i) + 1, columns[i]), "column " + columns[i].name);
    }
}

}  // namespace astroclip::simulate
