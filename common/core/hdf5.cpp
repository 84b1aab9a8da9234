#include "core/hdf5.hpp"

#include <fmt/format.h>

#include <fmt/ranges.h>
#include <utility>

#include <unistd.h>
#include <cerrno>
#include <cstring>

#include "core/error.hpp"

namespace astroclip::hdf5 {
namespace {

herr_t first_entry(unsigned, const H5E_error2_t* entry, void* text)
{
    auto& message = *static_cast<std::string*>(text);
    if (message.empty() && entry->desc) {
        message = entry->desc;
    }
    return 0;
}

std::string name_of(hid_t object)
{
    char name[256] = {};
    H5Iget_name(object, name, sizeof name - 1);
    return name[0] == '/' ? name + 1 : name;
}

Handle space_of(hid_t dataset, const std::string& path)
{
    return {checked(H5Dget_space(dataset), path, "dataspace"), H5Sclose};
}

// The memory type for texts: HDF5 allocates each one, and we free them.
Handle text_type()
{
    Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

void write_scalar(hid_t location, const std::string& name, hid_t type, const void* value)
{
    const Handle space(H5Screate(H5S_SCALAR), H5Sclose);
    const Handle attribute(checked(H5Acreate2(location, name.c_str(), type, space, H5P_DEFAULT, H5P_DEFAULT),
                                   name, "create attribute"),
                           H5Aclose);
    checked(H5Awrite(attribute, type, value), name, "write attribute");
}

std::string trimmed(const char* text, std::size_t size)
{
    std::string value(text, strnlen(text, size));
    value.erase(value.find_last_not_of(' ') + 1);
    return value;
}

}  // namespace

Handle::~Handle()
{
    if (id_ >= 0) {
        close_(id_);
    }
}

Handle& Handle::operator=(Handle&& other) noexcept
{
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
}

void Handle::reset()
{
    if (id_ < 0) {
        return;
    }
    const auto id = std::exchange(id_, -1);
    if (close_(id) < 0) {
        throw IoError("HDF5", "closing failed: " + last_error());
    }
}

void silence()
{
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);
    H5Lunregister(H5L_TYPE_EXTERNAL);
}

std::string last_error()
{
    std::string text;
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first_entry, &text);
    return text.empty() ? "no message from HDF5" : text;
}

Handle open_file(const std::string& path)
{
    silence();
    if (access(path.c_str(), R_OK) != 0) {
        throw MissingInput(path, fmt::format("cannot be read: {}", std::strerror(errno)));
    }
    const Handle access_list(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_file_locking(access_list, true, true);  // best effort: many file systems have no locks
    const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access_list);
    if (file < 0) {
        throw DataError(path, "not an HDF5 file, or a damaged one: " + last_error());
    }
    return {file, H5Fclose};
}

Handle open_dataset(hid_t file, const std::string& name, const std::string& path, hid_t access)
{
    if (!has_link(file, name)) {
        throw DataError(path, fmt::format("has no dataset '{}'; there are: {}", name,
                                          fmt::join(dataset_names(file), ", ")));
    }
    const hid_t dataset = H5Dopen2(file, name.c_str(), access);
    if (dataset < 0) {
        throw DataError(path, fmt::format("'{}' is not a readable dataset: {}", name, last_error()));
    }
    return {dataset, H5Dclose};
}

bool has_link(hid_t location, const std::string& name)
{
    // H5Lexists wants every group on the way to exist.
    for (auto slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1)) {
        if (H5Lexists(location, name.substr(0, slash).c_str(), H5P_DEFAULT) <= 0) {
            return false;
        }
    }
    return H5Lexists(location, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> dataset_names(hid_t location)
{
    std::vector<std::string> names;
    const auto add = [](hid_t group, const char* name, const H5L_info_t*, void* list) -> herr_t {
        const Handle object(H5Oopen(group, name, H5P_DEFAULT), H5Oclose);
        if (object >= 0 && H5Iget_type(object) == H5I_DATASET) {
            static_cast<std::vector<std::string>*>(list)->push_back(name);
        }
        return 0;
    };
    H5Literate(location, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names);
    return names;
}

std::vector<std::uint64_t> dims(hid_t dataset)
{
    const Handle space(H5Dget_space(dataset), H5Sclose);
    const int rank = H5Sget_simple_extent_ndims(space);
    std::vector<hsize_t> sizes(rank < 0 ? 0 : rank);
    H5Sget_simple_extent_dims(space, sizes.data(), nullptr);
    return {sizes.begin(), sizes.end()};
}

// clang-format off
template <> hid_t memory_type<float>() { return H5T_NATIVE_FLOAT; }
template <> hid_t memory_type<double>() { return H5T_NATIVE_DOUBLE; }
template <> hid_t memory_type<std::int8_t>() { return H5T_NATIVE_INT8; }
template <> hid_t memory_type<std::uint8_t>() { return H5T_NATIVE_UINT8; }
template <> hid_t memory_type<std::int16_t>() { return H5T_NATIVE_INT16; }
template <> hid_t memory_type<std::int32_t>() { return H5T_NATIVE_INT32; }
template <> hid_t memory_type<std::uint32_t>() { return H5T_NATIVE_UINT32; }
template <> hid_t memory_type<std::int64_t>() { return H5T_NATIVE_INT64; }
template <> hid_t memory_type<std::uint64_t>() { return H5T_NATIVE_UINT64; }
// clang-format on

template <typename T>
std::vector<T> read(hid_t dataset, const std::string& path)
{
    const auto space = space_of(dataset, path);
    std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
    if (H5Dread(dataset, memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) {
        throw DataError(path, fmt::format("dataset '{}' cannot be read: {}", name_of(dataset), last_error()));
    }
    return values;
}

template <typename T>
void read_rows(hid_t dataset, std::uint64_t first, std::uint64_t count, T* out, const std::string& path)
{
    const auto sizes = dims(dataset);
    if (sizes.empty() || first + count > sizes[0]) {
        throw DataError(
            path, fmt::format("dataset '{}' has {} rows; rows {} to {} were asked for", name_of(dataset),
                              sizes.empty() ? 0 : sizes[0], first, first + count));
    }
    std::vector<hsize_t> start(sizes.size(), 0), extent(sizes.begin(), sizes.end());
    start[0] = first;
    extent[0] = count;
    const auto file_space = space_of(dataset, path);
    const Handle memory_space(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr),
                              H5Sclose);
    checked(H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr),
            path, "select rows");
    if (H5Dread(dataset, memory_type<T>(), memory_space, file_space, H5P_DEFAULT, out) < 0) {
        throw DataError(path, fmt::format("dataset '{}', rows {} to {}, cannot be read: {}", name_of(dataset),
                                          first, first + count, last_error()));
    }
}

// clang-format off
#define ASTROCLIP_READ(T)                                       \
    template std::vector<T> read<T>(hid_t, const std::string&); \
    template void read_rows<T>(hid_t, std::uint64_t, std::uint64_t, T*, const std::string&);
ASTROCLIP_READ(float)
ASTROCLIP_READ(double)
ASTROCLIP_READ(std::int8_t)
ASTROCLIP_READ(std::uint8_t)
ASTROCLIP_READ(std::int16_t)
ASTROCLIP_READ(std::int32_t)
ASTROCLIP_READ(std::uint32_t)
ASTROCLIP_READ(std::int64_t)
ASTROCLIP_READ(std::uint64_t)
#undef ASTROCLIP_READ
// clang-format on

std::vector<std::string> read_strings(hid_t dataset, const std::string& path)
{
    const Handle type(H5Dget_type(dataset), H5Tclose);
    if (H5Tget_class(type) != H5T_STRING) {
        throw DataError(path, fmt::format("dataset '{}' does not hold texts", name_of(dataset)));
    }
    const auto space = space_of(dataset, path);
    const auto count = static_cast<std::size_t>(H5Sget_simple_extent_npoints(space));
    const auto fail = [&] {
        throw DataError(path, fmt::format("dataset '{}' cannot be read: {}", name_of(dataset), last_error()));
    };
    std::vector<std::string> texts;
    if (H5Tis_variable_str(type) > 0) {
        std::vector<char*> pointers(count, nullptr);
        const Handle memory(H5Tcopy(type), H5Tclose);
        if (H5Dread(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0) fail();
        for (const auto* text : pointers) {
            texts.push_back(text ? text : "");
        }
        H5Dvlen_reclaim(memory, space, H5P_DEFAULT, pointers.data());
        return texts;
    }
    const auto width = H5Tget_size(type);
    std::vector<char> bytes(count * width);
    if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes.data()) < 0) fail();
    for (std::size_t i = 0; i < count; ++i) {
        texts.push_back(trimmed(bytes.data() + i * width, width));
    }
    return texts;
}

void write_attribute(hid_t location, const std::string& name, const std::string& value)
{
    const char* text = value.c_str();
    write_scalar(location, name, text_type(), &text);
}

void write_attribute(hid_t location, const std::string& name, double value)
{
    write_scalar(location, name, H5T_NATIVE_DOUBLE, &value);
}

void write_attribute(hid_t location, const std::string& name, std::int64_t value)
{
    write_scalar(location, name, H5T_NATIVE_INT64, &value);
}

std::string read_text_attribute(hid_t location, const std::string& name)
{
    if (H5Aexists(location, name.c_str()) <= 0) {
        return "";
    }
    const Handle attribute(checked(H5Aopen(location, name.c_str(), H5P_DEFAULT), name, "open attribute"),
                           H5Aclose);
    const Handle type(H5Aget_type(attribute), H5Tclose);
    const Handle space(H5Aget_space(attribute), H5Sclose);
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) {
        throw DataError(name, "attribute is not a text");
    }
    if (H5Tis_variable_str(type) > 0) {
        char* text = nullptr;
        checked(H5Aread(attribute, type, &text), name, "read attribute");
        const std::string value = text ? text : "";
        H5free_memory(text);
        return value;
    }
    std::string bytes(H5Tget_size(type), '\0');
    checked(H5Aread(attribute, type, bytes.data()), name, "read attribute");
    return trimmed(bytes.data(), bytes.size());
}

hid_t checked(hid_t result, const std::string& path, const char* action)
{
    if (result < 0) {
        throw IoError(path, fmt::format("{}: {}", action, last_error()));
    }
    return result;
}

}  // namespace astroclip::hdf5
