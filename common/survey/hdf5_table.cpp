#include <fmt/format.h>

#include <cstring>

#include "core/error.hpp"
#include "survey/fits.hpp"
#include "survey/foreign_hdf5.hpp"
#include "survey/table.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

// What of an HDF5 table holds one number a row, read as T.
template <typename T>
hdf5::Handle member_as(const std::string& name)
{
    hdf5::Handle type(H5Tcreate(H5T_COMPOUND, sizeof(T)), H5Tclose);
    H5Tinsert(type, name.c_str(), 0, hdf5::memory_type<T>());
    return type;
}

std::vector<std::string> members_of(hid_t dataset)
{
    const hdf5::Handle type(H5Dget_type(dataset), H5Tclose);
    std::vector<std::string> names;
    for (int i = 0; H5Tget_class(type) == H5T_COMPOUND && i < H5Tget_nmembers(type); ++i) {
        auto* name = H5Tget_member_name(type, static_cast<unsigned>(i));
        names.emplace_back(name);
        H5free_memory(name);
    }
    return names;
}

// Columns as datasets of the root, or as the members of the only dataset there (as astropy writes a table).
class Hdf5Table : public Table {
public:
    explicit Hdf5Table(const std::string& path) : Table(path, 0, {}), file_(path)
    {
        for (const auto& name : file_.names()) {
            const auto dataset = file_.dataset(name);
            const auto members = members_of(dataset);
            const auto dims = hdf5::dims(dataset);
            if (!members.empty() && dims.size() == 1) {
                compound_ = name;
                names_ = members;
                rows_ = static_cast<std::int64_t>(dims[0]);
                return;
            }
            if (dims.size() == 1 && (names_.empty() || static_cast<std::int64_t>(dims[0]) == rows_)) {
                names_.push_back(name);
                rows_ = static_cast<std::int64_t>(dims[0]);
            }
        }
        if (names_.empty()) {
            throw DataError(path, "holds no table: neither columns in its root nor one dataset of records");
        }
    }

    std::vector<double> numbers(const std::string& name) const override { return read<double>(name); }
    std::vector<std::int64_t> integers(const std::string& name) const override
    {
        return H5Tget_class(type_of(name)) == H5T_STRING ? integers_of(texts(name), name)
                                                         : read<std::int64_t>(name);
    }
    std::vector<std::string> texts(const std::string& name) const override
    {
        const auto& own = names_[index(name)];
        return compound_.empty() ? file_.texts(own, static_cast<std::uint64_t>(rows_)) : member_texts(own);
    }

private:
    hdf5::Handle type_of(const std::string& name) const
    {
        const auto& own = names_[index(name)];
        hdf5::Handle type(H5Dget_type(file_.dataset(compound_.empty() ? own : compound_)), H5Tclose);
        if (compound_.empty()) {
            return type;
        }
        const auto number = static_cast<unsigned>(H5Tget_member_index(type, own.c_str()));
        return {H5Tget_member_type(type, number), H5Tclose};
    }

    std::vector<std::string> member_texts(const std::string& own) const
    {
        const auto text = type_of(own);
        if (H5Tget_class(text) != H5T_STRING) {
            throw DataError(path(), fmt::format("column '{}' does not hold texts", own));
        }
        const auto width = H5Tget_size(text);
        const hdf5::Handle record(H5Tcreate(H5T_COMPOUND, width), H5Tclose);
        H5Tinsert(record, own.c_str(), 0, text);
        const auto dataset = file_.dataset(compound_);
        std::vector<char> bytes(static_cast<std::size_t>(rows_) * width);
        if (H5Dread(dataset, record, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0) {
            throw DataError(path(), fmt::format("column '{}' cannot be read as one text a row: {}", own,
                                                hdf5::last_error()));
        }
        const bool elsewhere = H5Tis_variable_str(text) > 0;  // then the record holds a pointer
        std::vector<std::string> texts;
        for (std::size_t row = 0; row < static_cast<std::size_t>(rows_); ++row) {
            const auto* begin = bytes.data() + row * width;
            auto size = width;
            if (elsewhere) {
                std::memcpy(&begin, begin, sizeof begin);
                size = begin ? std::strlen(begin) : 0;
            }
            const std::string_view whole(begin ? begin : "", size);
            texts.emplace_back(trimmed(whole.substr(0, whole.find('\0'))));
        }
        if (elsewhere) {
            const hdf5::Handle space(H5Dget_space(dataset), H5Sclose);
            H5Dvlen_reclaim(record, space, H5P_DEFAULT, bytes.data());
        }
        return texts;
    }

    template <typename T>
    std::vector<T> read(const std::string& name) const
    {
        const auto& own = names_[index(name)];
        if (compound_.empty()) {
            return file_.column<T>(own, static_cast<std::uint64_t>(rows_));
        }
        std::vector<T> values(static_cast<std::size_t>(rows_));
        const auto dataset = file_.dataset(compound_);
        if (H5Dread(dataset, member_as<T>(own), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
            throw DataError(path(), fmt::format("column '{}' cannot be read as one number a row: {}", name,
                                                hdf5::last_error()));
        }
        return values;
    }

    ForeignHdf5 file_;
    std::string compound_;  // the dataset of records; "": columns are datasets
};

}  // namespace

std::unique_ptr<Table> open_hdf5_table(const std::string& path) { return std::make_unique<Hdf5Table>(path); }

}  // namespace astroclip::survey
