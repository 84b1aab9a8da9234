#include "survey/foreign_hdf5.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "core/error.hpp"
#include "survey/fits.hpp"
#include "survey/lzf.hpp"
#include "survey/text.hpp"

namespace astroclip::survey {
namespace {

constexpr std::size_t chunk_cache_bytes = 32 << 20;  // rows of a chunk are read one after another
constexpr std::uint64_t max_chunk_bytes = 1u << 30;  // memory that a damaged header could ask for

// 0 if the dataset is not in chunks.
std::uint64_t chunk_bytes(hid_t dataset, hid_t layout)
{
    std::array<hsize_t, H5S_MAX_RANK> sides{};
    const auto rank =
        H5Pget_layout(layout) == H5D_CHUNKED ? H5Pget_chunk(layout, sides.size(), sides.data()) : 0;
    const hdf5::Handle type(H5Dget_type(dataset), H5Tclose);
    auto bytes = rank > 0 ? static_cast<std::uint64_t>(H5Tget_size(type)) : 0;
    for (int i = 0; i < rank; ++i) {
        bytes = bytes > max_chunk_bytes ? bytes : bytes * sides[i];  // sides are below 2^32
    }
    return bytes;
}

// The filters of a dataset are ours to run; LZF must make whole chunks, whose size HDF5 does not check.
void check_filters(hid_t layout, std::uint64_t chunk, const std::string& name, const std::string& path)
{
    for (int i = 0; i < H5Pget_nfilters(layout); ++i) {
        std::array<unsigned, 8> values{};
        std::size_t count = values.size();
        unsigned flags = 0, how = 0;
        char filter_name[64] = {};
        const auto filter = H5Pget_filter2(layout, static_cast<unsigned>(i), &flags, &count, values.data(),
                                           sizeof filter_name - 1, filter_name, &how);
        const bool lzf = filter == lzf_filter;
        if (!lzf && filter != H5Z_FILTER_SHUFFLE && filter != H5Z_FILTER_DEFLATE &&
            filter != H5Z_FILTER_SZIP && filter != H5Z_FILTER_FLETCHER32) {
            throw DataError(path,
                            fmt::format("dataset '{}' is packed by filter {} ({}); shuffle, deflate, szip, "
                                        "fletcher32 and lzf are allowed",
                                        name, static_cast<int>(filter), filter_name));
        }
        if (lzf && (count < 3 || values[2] != chunk)) {
            throw DataError(
                path, fmt::format("dataset '{}': its lzf filter says chunks of {} bytes, they have {}", name,
                                  values[2], chunk));
        }
    }
}

herr_t add_link(hid_t, const char* name, const H5L_info_t* link, void* list)
{
    static_cast<std::vector<std::string>*>(list)->push_back(name);
    return link->type == H5L_TYPE_EXTERNAL ? 1 : 0;  // 1 ends the iteration
}

}  // namespace

ForeignHdf5::ForeignHdf5(const std::string& path) : path_(path), file_(hdf5::open_file(path))
{
    register_lzf();
    if (H5Literate(file_, H5_INDEX_NAME, H5_ITER_INC, nullptr, add_link, &names_) != 0) {
        throw DataError(path, names_.empty() ? "its root cannot be read: " + hdf5::last_error()
                                             : fmt::format("'{}' is a link to another file", names_.back()));
    }
}

std::string ForeignHdf5::own_name(const std::string& name) const
{
    const auto found = std::find_if(names_.begin(), names_.end(),
                                    [&](const auto& own) { return fits::same_name(own, name); });
    return found == names_.end() ? "" : *found;
}

std::string ForeignHdf5::first_of(std::initializer_list<const char*> names) const
{
    const auto found = std::find_if(names.begin(), names.end(), [&](const auto* name) { return has(name); });
    return found == names.end() ? *names.begin() : *found;
}

hdf5::Handle ForeignHdf5::dataset(const std::string& name) const
{
    const hdf5::Handle access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
    H5Pset_chunk_cache(access, H5D_CHUNK_CACHE_NSLOTS_DEFAULT, chunk_cache_bytes, H5D_CHUNK_CACHE_W0_DEFAULT);
    auto dataset = hdf5::open_dataset(file_, has(name) ? own_name(name) : name, path_, access);
    const hdf5::Handle layout(H5Dget_create_plist(dataset), H5Pclose);
    if (H5Pget_layout(layout) == H5D_VIRTUAL || H5Pget_external_count(layout) > 0) {
        throw DataError(path_, fmt::format("dataset '{}' lies in other files", name));
    }
    const auto chunk = chunk_bytes(dataset, layout);
    if (chunk > max_chunk_bytes) {
        throw DataError(path_,
                        fmt::format("dataset '{}' claims chunks of over {} bytes", name, max_chunk_bytes));
    }
    check_filters(layout, chunk, name, path_);
    return dataset;
}

hdf5::Handle ForeignHdf5::dataset(const std::string& name, std::uint64_t rows) const
{
    auto column = dataset(name);
    const auto shape = hdf5::dims(column);
    const bool one_each = !shape.empty() && shape[0] == rows &&
                          std::all_of(shape.begin() + 1, shape.end(), [](auto n) { return n == 1; });
    if (!one_each) {
        throw DataError(
            path_, fmt::format("dataset '{}' has shape [{}], one value for each of {} rows expected", name,
                               fmt::join(shape, ", "), rows));
    }
    return column;
}

std::vector<std::string> ForeignHdf5::texts(const std::string& name, std::uint64_t rows) const
{
    auto texts = hdf5::read_strings(dataset(name, rows), path_);
    for (auto& text : texts) {
        text = trimmed(text);
    }
    return texts;
}

bool is_hdf5(const std::string& path)
{
    static constexpr std::array<char, 8> signature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
    std::ifstream file(path, std::ios::binary);
    std::array<char, 8> start{};
    return file.read(start.data(), start.size()) && start == signature;
}

}  // namespace astroclip::survey
