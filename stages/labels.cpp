#include "stages/labels.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/log.hpp"

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

void bind(config::Section options, LabelRules& rules)
{
    options
        .option("label-selection", rules.selection,
                "of PROVABGS's galaxies: those whose mass and magnitudes are above 0, as published, or all",
                config::one_of({"published", "all"}))
        .option("ssfr-def", rules.ssfr,
                "LOG_SSFR: log10 AVG_SFR - LOG_MSTAR; or, to compare with published figures, of the "
                "published code now (head: ln AVG_SFR - ln Z_MW) or before (hist: ln AVG_SFR - LOG_MSTAR)",
                config::one_of({"physical", "head", "hist"}));
}

Labels::Labels(const std::string& path, const survey::Sources& galaxies, double radius_arcsec,
               LabelRules rules)
    : table_(survey::Table::open(path)), row_(galaxies.object_id.size(), -1), rules_(std::move(rules))
{
    if (const auto key = table_->first_of({"object_id", "TARGETID"}); !key.empty()) {
        match_by_id(key, galaxies);
    } else {
        match_by_position(galaxies, radius_arcsec);
    }
    matched_ = std::count_if(row_.begin(), row_.end(), [](auto row) { return row >= 0; });
    if (matched_ == 0) {
        throw DataError(path, fmt::format("none of its {} rows is one of the {} galaxies that labels are "
                                          "looked for: another survey, or other ids?",
                                          table_->rows(), row_.size()));
    }
    if (rules_.selection == "published") select();
}

void Labels::select()
{
    std::vector<std::string> columns;
    for (const auto* name : {"MAG_G", "MAG_R", "MAG_Z"}) {
        if (has(name)) columns.emplace_back(name);
    }
    const auto mass = table_->first_of({"PROVABGS_LOGMSTAR_BF", "LOG_MSTAR"});
    if (mass.empty() || (mass == "LOG_MSTAR" && columns.size() < 3)) {
        return;
    }
    columns.insert(columns.begin(), mass);
    std::vector<char> fails(row_.size(), 0);
    selection_["above_0"] = columns;
    for (const auto& column : columns) {
        const auto all = table_->numbers(column);
        std::int64_t failed = 0;
        for (std::size_t i = 0; i < row_.size(); ++i) {
            if (row_[i] >= 0 && !(all[static_cast<std::size_t>(row_[i])] > 0)) failed += fails[i] = 1;
        }
        selection_["failed"][column] = failed;
    }
    for (std::size_t i = 0; i < row_.size(); ++i) {
        if (fails[i]) row_[i] = -1;
    }
    const auto left_out = std::count(fails.begin(), fails.end(), 1);
    selection_["left_out"] = left_out;
    if (left_out > 0) {
        const auto text = fmt::format(
            "labels: {} of {} galaxies are left out, as published: not all of {} are above 0, so that "
            "PROVABGS has no fit of them",
            left_out, matched_, fmt::join(columns, ", "));
        if (2 * left_out < matched_) {
            log::info("{}", text);
        } else {
            log::warn("{}; of a table that is not PROVABGS's, label-selection = all keeps them", text);
        }
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
    const bool physical = rules_.ssfr == "physical";
    if (column == "LOG_SSFR" && (!physical || (!has(column) && has("AVG_SFR")))) {
        return log_ssfr();
    }
    const bool own_name = column == "LOG_MSTAR" && !has(column) && has("PROVABGS_LOGMSTAR_BF");
    const auto all = table_->numbers(own_name ? "PROVABGS_LOGMSTAR_BF" : column);
    std::vector<double> values;
    for (const auto row : row_) {
        values.push_back(row >= 0 && std::isfinite(all[row]) ? all[row] : nan);
    }
    return values;
}

std::vector<double> Labels::log_ssfr() const
{
    if (!has("AVG_SFR")) {
        throw DataError(table_->path(), fmt::format("'ssfr-def' = {} makes LOG_SSFR from a column AVG_SFR, "
                                                    "which is not there",
                                                    rules_.ssfr));
    }
    auto values = of("AVG_SFR");
    const auto per = of(rules_.ssfr == "head" ? "Z_MW" : "LOG_MSTAR");
    for (std::size_t i = 0; i < values.size(); ++i) {
        const auto rate = values[i] > 0 ? values[i] : nan;
        if (rules_.ssfr == "head") {  // a metallicity is below 1: what is not above 0 is a logarithm already
            values[i] = std::log(rate) - (per[i] > 0 ? std::log(per[i]) : per[i]);
        } else {
            values[i] = (rules_.ssfr == "hist" ? std::log(rate) : std::log10(rate)) - per[i];
        }
    }
    return values;
}

nlohmann::json Labels::facts() const
{
    nlohmann::json facts = {{"rows", table_->rows()}, {"matched", matched_}, {"repeated_rows", repeated_}};
    if (!selection_.is_null()) facts["selection"] = selection_;
    return facts;
}

}  // namespace astroclip::stage
