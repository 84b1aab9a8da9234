#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "core/hdf5.hpp"

namespace astroclip::survey {

// An HDF5 file that others made: datasets of its root, found whatever their case. It must not choose which
// other files we read nor which code we run: values lie in the file itself (links to other files are off
// everywhere, core/hdf5.hpp; no virtual datasets, no external storage), packed by no filter but shuffle,
// deflate, szip, Fletcher32 and LZF. DataError where a dataset is not there, against these rules, or of
// another shape; MissingInput if there is no such file.
class ForeignHdf5 {
public:
    explicit ForeignHdf5(const std::string& path);

    const std::string& path() const { return path_; }
    std::vector<std::string> names() const { return hdf5::dataset_names(file_); }
    bool has(const std::string& name) const { return !own_name(name).empty(); }
    std::string first_of(std::initializer_list<const char*> names) const;  // that is there; else the first

    hdf5::Handle dataset(const std::string& name) const;
    // One value a row: [rows] or [rows, 1, …].
    template <typename T>
    std::vector<T> column(const std::string& name, std::uint64_t rows) const
    {
        return hdf5::read<T>(dataset(name, rows), path_);
    }
    std::vector<std::string> texts(const std::string& name, std::uint64_t rows) const;  // blanks removed

private:
    std::string own_name(const std::string& name) const;  // "" if there is none
    hdf5::Handle dataset(const std::string& name, std::uint64_t rows) const;

    std::string path_;
    hdf5::Handle file_;
    std::vector<std::string> names_;
};

bool is_hdf5(const std::string& path);  // by its first bytes; false too if it cannot be read

}  // namespace astroclip::survey
