#include "stages/labels.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace astroclip::stage {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

std::vector<std::string> split_list(const std::string& text)
{
    std::vector<std::string> parts;
    for (std::size_t begin = 0; begin < text.size();) {
        const auto end = std::min(text.find(',', begin), text.size());
        parts.push_back(text.substr(begin, end - begin));
        begin = end + 1;
    }
    return parts;
}

std::string digest_of_file(const std::string& path)
{
    Digest digest;
    for (const auto& hash : file_block_hashes(path)) digest.add(hash);
    return digest.hex();
}

Labels::Labels(const std::string& path, const survey::Sources& galaxies, double radius_arcsec)
    : table_(survey::Table::open(path)), row_(galaxies.object_id.size(), -1)
{
    if (const auto key = table_->first_of({"object_id", "TARGETID"}); !key.empty()) {
        match_by_id(key, galaxies);
    } else {
        match_by_position(galaxies, radius_arcsec);
    }
    const auto matched = std::count_if(row_.begin(), row_.end(), [](auto row) { return row >= 0; });
    if (matched == 0) {
        throw DataError(path, fmt::format("none of its {} rows is one of the {} galaxies that labels are "
                                          "looked for: another survey, or other ids?",
                                          table_->rows(), row_.size()));
    }
}

void Labels::match_by_id(const std::string& key, const survey::Sources& galaxies)
{
    const auto ids = table_->integers(key);
    std::map<std::int64_t, std::int64_t> row_of;
    for (std::size_t row = 0; row < ids.size(); ++row) {
        repeated_ += !row_of.emplace(ids[row], static_cast<std::int64_t>(row)).second;
    }
    for (std::size_t i = 0; i < row_.size(); ++i) {
        const auto found = row_of.find(galaxies.object_id[i]);
        if (found != row_of.end()) row_[i] = found->second;
    }
}

void Labels::match_by_position(const survey::Sources& galaxies, double radius_arcsec)
{
    const auto ra = table_->first_of({"ra", "target_ra"}), dec = table_->first_of({"dec", "target_dec"});
    if (ra.empty() || dec.empty()) {
        throw DataError(table_->path(),
                        "has neither a column object_id or TARGETID, nor ra and dec (degrees ICRS)");
    }
    survey::Sources theirs;
    theirs.ra = table_->numbers(ra);
    theirs.dec = table_->numbers(dec);
    for (std::int64_t row = 0; row < table_->rows(); ++row) theirs.object_id.push_back(row);
    for (const auto& match : survey::match_on_sky(galaxies, theirs, radius_arcsec)) {
        row_[static_cast<std::size_t>(match.first)] = match.second;
    }
}

std::vector<double> Labels::of(const std::string& column) const
{
    const bool derived = column == "LOG_SSFR" && !has(column) && has("AVG_SFR");
    if (derived) {
        auto values = of("AVG_SFR");
        const auto mass = of("LOG_MSTAR");
        for (std::size_t i = 0; i < values.size(); ++i) {
            values[i] = values[i] > 0 ? std::log10(values[i]) - mass[i] : nan;
        }
        return values;
    }
    const bool own_name = column == "LOG_MSTAR" && !has(column) && has("PROVABGS_LOGMSTAR_BF");
    const auto all = table_->numbers(own_name ? "PROVABGS_LOGMSTAR_BF" : column);
    std::vector<double> values;
    for (const auto row : row_) {
        values.push_back(row >= 0 && std::isfinite(all[row]) ? all[row] : nan);
    }
    return values;
}

nlohmann::json Labels::facts() const
{
    return {{"rows", table_->rows()},
            {"matched", std::count_if(row_.begin(), row_.end(), [](auto row) { return row >= 0; })},
            {"repeated_rows", repeated_}};
}

}  // namespace astroclip::stage
