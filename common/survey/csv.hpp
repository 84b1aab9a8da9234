#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace astroclip::survey {

// A CSV file as RFC 4180 has it: quoted fields may hold commas, line breaks and doubled quotes; lines end
// with LF or CRLF; a byte order mark and lines that begin with # before the header are skipped. The first
// line names the columns.
class Csv {
public:
    explicit Csv(const std::string& path);  // MissingInput, IoError or DataError (ragged rows, open quote)
    static Csv parse(std::string text, const std::string& path);  // `path` for messages

    std::int64_t rows() const { return rows_; }
    const std::vector<std::string>& names() const { return names_; }
    std::string_view field(std::int64_t row, std::size_t column) const;

private:
    Csv() = default;
    void split(const std::string& path);

    std::string text_;               // the fields one after another, unquoted in place
    std::vector<std::size_t> ends_;  // of each field in text_
    std::vector<std::size_t> begins_;
    std::vector<std::string> names_;
    std::int64_t rows_ = 0;
};

}  // namespace astroclip::survey
