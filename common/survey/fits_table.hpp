#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

// Writing FITS binary tables: what TOPCAT and astropy open.
namespace astroclip::survey::fits {

struct TableColumn {
    std::string name;
    char type;  // of FITS: B uint8, I int16, J int32, K int64, E float, D double, A characters; V for uint32,
                // which is J with an offset of 2^31
    std::int64_t repeat = 1;  // values a row
    std::string unit{};       // FITS unit string; "" for none
    std::string description{};
    std::string ucd{};
    std::optional<std::int64_t> null{};  // of integers: stands where there is no value
};

struct TableKey {
    std::string name;  // longer than eight characters: HIERARCH
    std::variant<std::string, double, std::int64_t> value;
    std::string comment{};
};

// One binary table behind an empty primary HDU, of a fixed number of rows, written in order and in one pass,
// so that memory does not depend on its length. Columns carry TUNIT, TCOMM (the description), TUCD and TNULL;
// the HDU CHECKSUM and DATASUM. No dates: equal content is equal bytes. Every error is an IoError.
class TableWriter {
public:
    TableWriter(const std::string& path, const std::string& extname, std::vector<TableColumn> columns,
                std::int64_t rows, const std::vector<TableKey>& keys);
    ~TableWriter();
    TableWriter(const TableWriter&) = delete;
    TableWriter& operator=(const TableWriter&) = delete;

    // The next `count` rows. values[i]: those of column i, one row after the other, in the machine's order.
    void append(std::span<const char* const> values, std::int64_t count);

    // Fills in the checksums, which reads the file back, and compares them with the sum of what was appended.
    void close();

private:
    void write_header(const std::string& extname, const std::vector<TableKey>& keys);
    void add_to_sum(const std::vector<unsigned char>& bytes);
    void check(int status, const std::string& action) const;

    std::string path_;
    std::vector<TableColumn> columns_;
    std::int64_t rows_ = 0, row_bytes_ = 0, written_ = 0;
    void* handle_ = nullptr;  // fitsfile*
    std::uint64_t sum_ = 0;   // of the big-endian 32-bit words so far, not folded yet
    std::uint64_t bytes_ = 0;
};

}  // namespace astroclip::survey::fits
