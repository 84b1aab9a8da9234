#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "config/options.hpp"
#include "survey/crossmatch.hpp"
#include "survey/table.hpp"

namespace astroclip::stage {

std::vector<std::string> split_list(const std::string& text);  // at commas
std::string digest_of_file(const std::string& path);           // of its contents

// Where the published code decides what a label is.
struct LabelRules {
    std::string selection = "published";  // published, all
    std::string ssfr = "physical";        // physical, head, hist
};
void bind(config::Section options, LabelRules& rules);

// A user's table of labels (FITS, CSV or HDF5) for some galaxies, by object_id or TARGETID or else by
// position. Of several rows for one galaxy the first counts. DataError if it has neither, or none of the
// galaxies.
//
// The published selection is that of PROVABGS alone (a table with PROVABGS_LOGMSTAR_BF, or with LOG_MSTAR
// and MAG_G, MAG_R, MAG_Z): a galaxy of which one of these is not above 0 has no best fit, and no label.
class Labels {
public:
    Labels(const std::string& path, const survey::Sources& galaxies, double radius_arcsec, LabelRules rules);

    bool has(const std::string& column) const { return table_->has(column); }
    bool has_row(std::size_t galaxy) const { return row_[galaxy] >= 0; }
    // A value a galaxy, NaN where there is none; not finite counts as none. Also LOG_SSFR from AVG_SFR and
    // LOG_MSTAR (or as the published code had it), and LOG_MSTAR under PROVABGS's own name. DataError with
    // the columns that are there.
    std::vector<double> of(const std::string& column) const;
    // What was found, for the output: rows of the table, galaxies matched, rows beyond the first, galaxies
    // that the selection leaves out.
    nlohmann::json facts() const;

private:
    void select();
    std::vector<double> log_ssfr() const;
    void match_by_id(const std::string& key, const survey::Sources& galaxies);
    void match_by_position(const survey::Sources& galaxies, double radius_arcsec);

    std::unique_ptr<survey::Table> table_;
    std::vector<std::int64_t> row_;  // of each galaxy, -1: none
    LabelRules rules_;
    std::int64_t repeated_ = 0, matched_ = 0;
    nlohmann::json selection_;  // what it left out; null: the table is not PROVABGS's, or all is taken
};

}  // namespace astroclip::stage
