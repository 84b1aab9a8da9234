#include "survey/fits.hpp"

#include <fitsio.h>
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <filesystem>
#include <type_traits>

#include "core/error.hpp"

namespace astroclip::survey::fits {
namespace {

// No image or table of a survey comes near this; a damaged header does.
constexpr std::int64_t max_elements = std::int64_t{1} << 31;
constexpr int max_hdus = 10000;

fitsfile* file_of(void* handle) { return static_cast<fitsfile*>(handle); }

template <typename T>
constexpr int cfitsio_type();
template <>
constexpr int cfitsio_type<float>()
{
    return TFLOAT;
}
template <>
constexpr int cfitsio_type<double>()
{
    return TDOUBLE;
}
template <>
constexpr int cfitsio_type<std::int64_t>()
{
    return TLONGLONG;
}

std::string trimmed(const std::string& text)
{
    const auto end = text.find_last_not_of(' ');
    return end == std::string::npos ? "" : text.substr(0, end + 1);
}

// As a whole, by gzip or bzip2.
bool is_packed(const std::string& path)
{
    auto* file = std::fopen(path.c_str(), "rb");
    unsigned char magic[3] = {};
    const bool read = file && std::fread(magic, 1, 3, file) == 3;
    if (file) {
        std::fclose(file);
    }
    return read && ((magic[0] == 0x1f && magic[1] == 0x8b) || std::memcmp(magic, "BZh", 3) == 0);
}

}  // namespace

bool same_name(const std::string& a, const std::string& b)
{
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

const Column* find_column(const std::vector<Column>& columns, const std::string& name)
{
    const auto found = std::find_if(columns.begin(), columns.end(),
                                    [&](const Column& c) { return same_name(c.name, name); });
    return found == columns.end() ? nullptr : &*found;
}

File::File(const std::string& path, bool what_is_left) : path_(path)
{
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
        throw MissingInput(path, "no such file");
    }
    if (!std::filesystem::is_regular_file(path, error)) {
        throw DataError(path, "not a file");
    }
    int status = 0;
    fitsfile* file = nullptr;
    fits_open_diskfile(&file, path.c_str(), READONLY, &status);
    if (status) {
        fail(status, "is not a FITS file, or its first header is damaged");
    }
    handle_ = file;
    try {
        scan(what_is_left);
    } catch (...) {
        int ignored = 0;
        fits_close_file(file, &ignored);
        throw;
    }
}

File::~File()
{
    int ignored = 0;
    fits_close_file(file_of(handle_), &ignored);
}

void File::fail(int status, const std::string& action) const
{
    char text[FLEN_STATUS] = {};
    fits_get_errstatus(status, text);
    char detail[FLEN_ERRMSG] = {};
    std::string first_detail;
    while (fits_read_errmsg(detail)) {
        if (first_detail.empty()) {
            first_detail = detail;
        }
    }
    throw DataError(path_, fmt::format("{} (CFITSIO {}: {}{}{})", action, status, text,
                                       first_detail.empty() ? "" : "; ", first_detail));
}

void File::scan(bool what_is_left)
{
    auto* file = file_of(handle_);
    // The bytes on disk say nothing about those of a packed file; CFITSIO has unpacked it, or failed.
    const auto bytes = is_packed(path_) ? -1 : static_cast<std::int64_t>(std::filesystem::file_size(path_));
    for (int number = 1; number <= max_hdus; ++number) {
        int status = 0, type = 0;
        fits_movabs_hdu(file, number, &type, &status);
        if ((status == END_OF_FILE || (status && what_is_left)) && number > 1) {
            fits_clear_errmsg();
            return;
        }
        if (status) {
            fail(status, fmt::format("truncated or damaged: HDU {} cannot be read", number - 1));
        }
        char name[FLEN_VALUE] = {};
        fits_read_key(file, TSTRING, "EXTNAME", name, nullptr, &status);
        if (status) {
            fits_clear_errmsg();
            status = 0;
        }
        Hdu hdu{*name ? trimmed(name) : number == 1 ? "PRIMARY" : fmt::format("#{}", number - 1)};
        hdu.image = type == IMAGE_HDU || fits_is_compressed_image(file, &status);
        status = 0;
        int axes = 0;
        hdu.pixels = hdu.image && fits_get_img_dim(file, &axes, &status) == 0 && axes > 0;
        LONGLONG header = 0, data = 0, end = 0;
        fits_get_hduaddrll(file, &header, &data, &end, &status);
        if (status) {
            fail(status, fmt::format("HDU '{}' cannot be read", hdu.name));
        }
        // Some writers leave out the padding of the last block.
        if (bytes >= 0 && end - data > 0 && end - 2879 > bytes) {
            if (what_is_left) {
                return;
            }
            throw DataError(path_, fmt::format("truncated: HDU '{}' should end at byte {}, the file has {}",
                                               hdu.name, end, bytes));
        }
        hdus_.push_back(hdu);
    }
    throw DataError(path_, fmt::format("more than {} HDUs", max_hdus));
}

void File::select(int hdu) const
{
    int status = 0;
    fits_movabs_hdu(file_of(handle_), hdu + 1, nullptr, &status);
    if (status) {
        fail(status, fmt::format("HDU {} cannot be read", hdu));
    }
}

bool File::has(const std::string& extname) const
{
    return std::any_of(hdus_.begin(), hdus_.end(),
                       [&](const Hdu& hdu) { return same_name(hdu.name, extname); });
}

int File::find(const std::string& extname) const
{
    for (int i = 0; i < hdus(); ++i) {
        if (same_name(hdus_[i].name, extname)) {
            return i;
        }
    }
    throw DataError(path_, fmt::format("no HDU '{}'; there are: {}", extname, hdu_names()));
}

int File::first_image() const
{
    for (int i = 0; i < hdus(); ++i) {
        if (hdus_[i].pixels) {
            return i;
        }
    }
    throw DataError(path_, fmt::format("no image; HDUs: {}", hdu_names()));
}

int File::first_table() const
{
    for (int i = 0; i < hdus(); ++i) {
        if (!hdus_[i].image) {
            return i;
        }
    }
    throw DataError(path_, fmt::format("no table; HDUs: {}", hdu_names()));
}

std::string File::hdu_names() const
{
    std::string names;
    for (const auto& hdu : hdus_) {
        names += (names.empty() ? "" : ", ") + hdu.name;
    }
    return names;
}

void File::verify_checksum(int hdu) const
{
    select(hdu);
    int status = 0, data = 0, whole = 0;
    fits_verify_chksum(file_of(handle_), &data, &whole, &status);
    if (status) {
        fail(status, fmt::format("the checksum of HDU '{}' cannot be computed", hdus_[hdu].name));
    }
    if (data < 0 || whole < 0) {
        throw DataError(path_, fmt::format("HDU '{}' does not match its {}: damaged", hdus_[hdu].name,
                                           data < 0 ? "DATASUM" : "CHECKSUM"));
    }
}

std::string File::text(int hdu, const std::string& keyword, const std::string& fallback) const
{
    select(hdu);
    int status = 0;
    char* value = nullptr;
    fits_read_key_longstr(file_of(handle_), keyword.c_str(), &value, nullptr, &status);
    if (status) {
        fits_clear_errmsg();
        return fallback;
    }
    const auto text = trimmed(value);
    fits_free_memory(value, &status);
    return text;
}

double File::number(int hdu, const std::string& keyword, double fallback) const
{
    select(hdu);
    int status = 0;
    double value = 0;
    fits_read_key(file_of(handle_), TDOUBLE, keyword.c_str(), &value, nullptr, &status);
    if (status) {
        fits_clear_errmsg();
        return fallback;
    }
    return value;
}

std::string File::header_cards(int hdu) const
{
    select(hdu);
    int status = 0, cards = 0;
    char* text = nullptr;
    fits_convert_hdr2str(file_of(handle_), 1, nullptr, 0, &text, &cards, &status);  // 1: without comments
    if (status) {
        fail(status, fmt::format("the header of HDU '{}' cannot be read", hdus_[hdu].name));
    }
    const std::string header(text, 80 * static_cast<std::size_t>(cards));
    fits_free_memory(text, &status);
    return header;
}

std::vector<std::int64_t> File::image_shape(int hdu) const
{
    select(hdu);
    const auto& name = hdus_[hdu].name;
    int status = 0, dimensions = 0;
    fits_get_img_dim(file_of(handle_), &dimensions, &status);
    if (status || !hdus_[hdu].image || dimensions < 0 || dimensions > 10) {
        throw DataError(path_, fmt::format("HDU '{}' is not an image", name));
    }
    std::vector<LONGLONG> axes(static_cast<std::size_t>(dimensions));
    fits_get_img_sizell(file_of(handle_), dimensions, axes.data(), &status);
    if (status) {
        fail(status, fmt::format("HDU '{}' has no readable size", name));
    }
    std::int64_t elements = 1;
    for (const auto axis : axes) {
        if (axis < 0 || axis > max_elements || (axis > 0 && elements > max_elements / axis)) {
            throw DataError(
                path_, fmt::format("HDU '{}' claims an impossible size: {}", name, fmt::join(axes, " x ")));
        }
        elements *= std::max<std::int64_t>(axis, 1);
    }
    return {axes.rbegin(), axes.rend()};
}

template <typename T>
std::vector<T> File::read_box(int hdu, const std::vector<std::int64_t>& first,
                              const std::vector<std::int64_t>& count) const
{
    const auto shape = image_shape(hdu);
    const auto& name = hdus_[hdu].name;
    if (shape.size() != first.size() || shape.size() != count.size()) {
        throw DataError(path_,
                        fmt::format("HDU '{}' has {} axes, {} expected", name, shape.size(), first.size()));
    }
    const auto axes = static_cast<int>(shape.size());
    std::vector<long> low(shape.size()), high(shape.size()), step(shape.size(), 1);
    std::size_t elements = 1;
    for (int i = 0; i < axes; ++i) {
        if (first[i] < 0 || count[i] < 1 || first[i] + count[i] > shape[i]) {
            throw DataError(path_,
                            fmt::format("HDU '{}' has shape [{}]: elements {} to {} of axis {} are not there",
                                        name, fmt::join(shape, ", "), first[i], first[i] + count[i], i));
        }
        low[axes - 1 - i] = first[i] + 1;  // CFITSIO counts from 1, fastest axis first
        high[axes - 1 - i] = first[i] + count[i];
        elements *= static_cast<std::size_t>(count[i]);
    }
    int status = 0;
    const auto read = [&]<typename V>(std::vector<V>& values) {
        fits_read_subset(file_of(handle_), cfitsio_type<V>(), low.data(), high.data(), step.data(), nullptr,
                         values.data(), nullptr, &status);
        if (status) {
            fail(status,
                 fmt::format("pixels of HDU '{}' from [{}] cannot be read", name, fmt::join(first, ", ")));
        }
    };
    std::vector<T> values(elements);
    if constexpr (std::is_same_v<T, std::int64_t>) {
        // CFITSIO unpacks compressed images to every type but this one. Doubles hold their 32-bit integers
        // exactly.
        if (fits_is_compressed_image(file_of(handle_), &status)) {
            std::vector<double> unpacked(elements);
            read(unpacked);
            std::copy(unpacked.begin(), unpacked.end(), values.begin());
            return values;
        }
    }
    read(values);
    return values;
}

template <typename T>
std::vector<T> File::read_image(int hdu) const
{
    const auto shape = image_shape(hdu);
    return read_box<T>(hdu, std::vector<std::int64_t>(shape.size(), 0), shape);
}

std::int64_t File::rows(int hdu) const
{
    select(hdu);
    int status = 0;
    LONGLONG rows = 0;
    fits_get_num_rowsll(file_of(handle_), &rows, &status);
    if (status || hdus_[hdu].image) {
        fail(status, fmt::format("HDU '{}' is not a table", hdus_[hdu].name));
    }
    return rows;
}

std::vector<Column> File::columns(int hdu) const
{
    select(hdu);
    auto* file = file_of(handle_);
    int status = 0, number = 0;
    fits_get_num_cols(file, &number, &status);
    if (status || hdus_[hdu].image) {
        fail(status, fmt::format("HDU '{}' is not a table", hdus_[hdu].name));
    }
    std::vector<Column> columns(static_cast<std::size_t>(number));
    for (int i = 0; i < number; ++i) {
        LONGLONG repeat = 0, width = 0;
        fits_get_eqcoltypell(file, i + 1, &columns[i].type, &repeat, &width, &status);
        if (status) {
            fail(status, fmt::format("column {} of HDU '{}' has no readable format", i + 1, hdus_[hdu].name));
        }
        columns[i].number = i + 1;
        columns[i].repeat = repeat;
        columns[i].width = width;
        columns[i].name = text(hdu, fmt::format("TTYPE{}", i + 1));
    }
    return columns;
}

template <typename T>
std::vector<T> File::read_column(int hdu, const Column& column) const
{
    const auto count = rows(hdu) * column.repeat;
    if (column.type == TSTRING || column.type < 0 || column.repeat < 1 || count > max_elements) {
        throw DataError(path_, fmt::format("column '{}' of HDU '{}' does not hold numbers", column.name,
                                           hdus_[hdu].name));
    }
    std::vector<T> values(static_cast<std::size_t>(count));
    int status = 0;
    if (column.type == TLOGICAL) {
        std::vector<char> flags(values.size());
        fits_read_col(file_of(handle_), TLOGICAL, column.number, 1, 1, count, nullptr, flags.data(), nullptr,
                      &status);
        std::copy(flags.begin(), flags.end(), values.begin());
    } else if (count > 0) {
        fits_read_col(file_of(handle_), cfitsio_type<T>(), column.number, 1, 1, count, nullptr, values.data(),
                      nullptr, &status);
    }
    if (status) {
        fail(status, fmt::format("column '{}' of HDU '{}' cannot be read", column.name, hdus_[hdu].name));
    }
    return values;
}

std::vector<std::string> File::read_texts(int hdu, const Column& column) const
{
    const auto count = static_cast<std::size_t>(rows(hdu));
    if (column.type != TSTRING) {
        throw DataError(
            path_, fmt::format("column '{}' of HDU '{}' does not hold text", column.name, hdus_[hdu].name));
    }
    const auto width = static_cast<std::size_t>(std::max<std::int64_t>(column.repeat, column.width)) + 1;
    std::vector<char> letters(count * width);
    std::vector<char*> texts(count);
    for (std::size_t i = 0; i < count; ++i) {
        texts[i] = letters.data() + i * width;
    }
    int status = 0;
    char blank[] = "";
    if (count > 0) {
        fits_read_col(file_of(handle_), TSTRING, column.number, 1, 1, static_cast<LONGLONG>(count), blank,
                      texts.data(), nullptr, &status);
    }
    if (status) {
        fail(status, fmt::format("column '{}' of HDU '{}' cannot be read", column.name, hdus_[hdu].name));
    }
    std::vector<std::string> values;
    std::transform(texts.begin(), texts.end(), std::back_inserter(values),
                   [](const char* t) { return trimmed(t); });
    return values;
}

template std::vector<float> File::read_box(int, const std::vector<std::int64_t>&,
                                           const std::vector<std::int64_t>&) const;
template std::vector<double> File::read_box(int, const std::vector<std::int64_t>&,
                                            const std::vector<std::int64_t>&) const;
template std::vector<std::int64_t> File::read_box(int, const std::vector<std::int64_t>&,
                                                  const std::vector<std::int64_t>&) const;
template std::vector<float> File::read_image(int) const;
template std::vector<double> File::read_image(int) const;
template std::vector<std::int64_t> File::read_image(int) const;
template std::vector<float> File::read_column(int, const Column&) const;
template std::vector<double> File::read_column(int, const Column&) const;
template std::vector<std::int64_t> File::read_column(int, const Column&) const;

}  // namespace astroclip::survey::fits
