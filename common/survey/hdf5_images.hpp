#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "survey/cutouts.hpp"
#include "survey/foreign_hdf5.hpp"

namespace astroclip::survey {

// What the HDF5 forms of cutouts share: one dataset of images [n, planes, height, width] float32 in
// nanomaggy, and columns of n values, names whatever their case: release, brickid, objid, or else object_id
// (integers, or texts of them); ra, dec (degrees ICRS); flux [n, >= 3] (g, r, z first) or flux_g, flux_r,
// flux_z; ebv; z_spec (-99: none). The last three are optional.
class Hdf5Images : public CutoutFile {
public:
    std::string fingerprint(std::size_t) const override { return ""; }
    Refusal read(std::size_t i, Cutout& cutout) const override;

protected:
    // Reads the columns. DataError if the dataset is not there or claims an impossible shape.
    Hdf5Images(const std::string& path, const std::string& dataset, const CutoutOptions& options);
    // The letter of each plane; DataError if there are not as many planes, or a band wanted is not among
    // them.
    void set_bands(const std::string& letters);

    const ForeignHdf5& file() const { return file_; }
    const std::vector<std::uint64_t>& shape() const { return shape_; }

private:
    template <typename T>
    std::vector<T> column(const std::string& name) const
    {
        return file_.column<T>(name, entries_.size());
    }
    std::vector<std::int64_t> own_ids() const;
    void read_ids();
    void read_positions();
    void read_fluxes();
    void read_redshifts();
    void fill(const std::string& name, float CutoutEntry::*member);

    CutoutOptions options_;
    std::string dataset_, bands_;
    ForeignHdf5 file_;
    hdf5::Handle images_;
    std::vector<std::uint64_t> shape_;  // [n, planes, height, width]
};

}  // namespace astroclip::survey
