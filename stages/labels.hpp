#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "survey/crossmatch.hpp"
#include "survey/table.hpp"

namespace astroclip::stage {

std::vector<std::string> split_list(const std::string& text);  // at commas
std::string digest_of_file(const std::string& path);           // of its contents

// A user's table of labels (FITS, CSV or HDF5) for some galaxies, by object_id or TARGETID or else by
// position. Of several rows for one galaxy the first counts. DataError if it has neither, or none of the
// galaxies.
class Labels {
public:
    Labels(const std::string& path, const survey::Sources& galaxies, double radius_arcsec);

    bool has(const std::string& column) const { return table_->has(column); }
    // A value a galaxy, NaN where there is none; not finite counts as none. Also LOG_SSFR from AVG_SFR and
    // LOG_MSTAR, and LOG_MSTAR under PROVABGS's own name. DataError with the columns that are there.
    std::vector<double> of(const std::string& column) const;
    // What was found, for the output: rows of the table, galaxies matched, rows beyond the first.
    nlohmann::json facts() const;

private:
    void match_by_id(const std::string& key, const survey::Sources& galaxies);
    void match_by_position(const survey::Sources& galaxies, double radius_arcsec);

    std::unique_ptr<survey::Table> table_;
    std::vector<std::int64_t> row_;  // of each galaxy, -1: none
    std::int64_t repeated_ = 0;
};

}  // namespace astroclip::stage
