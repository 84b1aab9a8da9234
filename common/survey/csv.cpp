#include "survey/csv.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

std::string read_whole(const std::string& path)
{
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
        throw MissingInput(path, "no such file");
    }
    if (!std::filesystem::is_regular_file(path, error)) {
        throw DataError(path, "not a file");
    }
    std::ifstream file(path, std::ios::binary);
    std::string text(std::filesystem::file_size(path), '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (!file) {
        throw_errno(path, "read");
    }
    return text;
}

std::size_t start_of_header(const std::string& text)
{
    std::size_t at = text.starts_with("\xef\xbb\xbf") ? 3 : 0;
    while (at < text.size() && text[at] == '#') {
        const auto end = text.find('\n', at);
        at = end == std::string::npos ? text.size() : end + 1;
    }
    return at;
}

// One field from `at` on, moved to `to` without its quotes. Leaves `at` on the separator after it.
struct Scanner {
    std::string& text;
    std::size_t at, to = 0;
    std::int64_t line = 1;

    bool ended() const { return at >= text.size(); }
    void quoted(const std::string& path)
    {
        const auto opened = line;
        for (++at; !ended(); ++at) {
            if (text[at] == '"') {
                if (at + 1 >= text.size() || text[at + 1] != '"') {
                    ++at;
                    return;
                }
                ++at;  // a doubled quote stands for one
            }
            line += text[at] == '\n';
            text[to++] = text[at];
        }
        throw DataError(path, fmt::format("the quote opened in line {} is never closed", opened));
    }
    void field(const std::string& path)
    {
        if (!ended() && text[at] == '"') {
            quoted(path);
        }
        while (!ended() && text[at] != ',' && text[at] != '\n' && text[at] != '\r') {
            text[to++] = text[at++];
        }
    }
};

}  // namespace

Csv::Csv(const std::string& path)
{
    text_ = read_whole(path);
    split(path);
}

Csv Csv::parse(std::string text, const std::string& path)
{
    Csv csv;
    csv.text_ = std::move(text);
    csv.split(path);
    return csv;
}

void Csv::split(const std::string& path)
{
    Scanner scan{text_, start_of_header(text_)};
    while (!scan.ended()) {
        const auto line = scan.line;
        const auto before = ends_.size();
        for (;;) {
            begins_.push_back(scan.to);
            scan.field(path);
            ends_.push_back(scan.to);
            if (scan.ended() || text_[scan.at] != ',') {
                break;
            }
            ++scan.at;
        }
        while (!scan.ended() && text_[scan.at] == '\r') {
            ++scan.at;
        }
        if (!scan.ended() && text_[scan.at] == '\n') {
            ++scan.at;
            ++scan.line;
        }
        const auto fields = ends_.size() - before;
        if (fields == 1 && begins_.back() == ends_.back()) {  // an empty line
            begins_.pop_back();
            ends_.pop_back();
        } else if (names_.empty()) {
            for (std::size_t i = 0; i < fields; ++i) {
                names_.emplace_back(
                    trimmed(std::string_view(text_).substr(begins_[i], ends_[i] - begins_[i])));
            }
            begins_.clear();
            ends_.clear();
        } else if (fields != names_.size()) {
            throw DataError(path,
                            fmt::format("line {} has {} fields, the header {}", line, fields, names_.size()));
        } else {
            ++rows_;
        }
    }
    if (names_.empty()) {
        throw DataError(path, "empty: a header line with column names is expected");
    }
    text_.resize(scan.to);
}

std::string_view Csv::field(std::int64_t row, std::size_t column) const
{
    const auto i = static_cast<std::size_t>(row) * names_.size() + column;
    return std::string_view(text_).substr(begins_[i], ends_[i] - begins_[i]);
}

}  // namespace astroclip::survey
