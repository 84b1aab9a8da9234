#include "store/columns.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.hpp"
#include "core/provenance.hpp"
#include "store/visit.hpp"

namespace astroclip::store {
namespace {

hid_t file_type(Type type)
{
    switch (type) {
        case Type::f32:
            return H5T_IEEE_F32LE;
        case Type::f64:
            return H5T_IEEE_F64LE;
        case Type::i64:
            return H5T_STD_I64LE;
        case Type::i32:
            return H5T_STD_I32LE;
        case Type::i16:
            return H5T_STD_I16LE;
        case Type::u8:
            return H5T_STD_U8LE;
        case Type::u32:
            return H5T_STD_U32LE;
    }
    throw InternalError("unknown column type");
}

hdf5::Handle create_rows(hid_t location, const std::string& name, hid_t type,
                         const std::vector<std::size_t>& shape, std::uint64_t rows, std::uint64_t chunk,
                         const std::string& path)
{
    std::vector<hsize_t> sizes{rows}, most{H5S_UNLIMITED}, chunks{chunk};
    for (const auto size : shape) {
        sizes.push_back(size);
        most.push_back(size);
        chunks.push_back(size);
    }
    const int rank = static_cast<int>(sizes.size());
    const hdf5::Handle space(H5Screate_simple(rank, sizes.data(), most.data()), H5Sclose);
    const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(creation, rank, chunks.data());
    H5Pset_fletcher32(creation);
    H5Pset_obj_track_times(creation, false);
    return {hdf5::checked(H5Dcreate2(location, name.c_str(), type, space, H5P_DEFAULT, creation, H5P_DEFAULT),
                          path, "create dataset"),
            H5Dclose};
}

hdf5::Handle text_type(std::uint64_t width)
{
    hdf5::Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(type, width);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

// All rows of a column of `rejects`; a rank without values takes part with an empty selection.
std::string write_reject_column(hid_t group, const char* name, hid_t type, std::uint64_t rows,
                                const char* description, const std::vector<char>& bytes, hid_t transfer,
                                const std::string& path)
{
    const auto dataset =
        create_rows(group, name, type, {}, rows, std::clamp<std::uint64_t>(rows, 1, 1024), path);
    hdf5::write_attribute(dataset, "unit", std::string());
    hdf5::write_attribute(dataset, "description", std::string(description));
    if (rows == 0) {
        return "";
    }
    const hdf5::Handle space(H5Dget_space(dataset), H5Sclose);
    if (bytes.empty()) {
        H5Sselect_none(space);
    }
    if (H5Dwrite(dataset, type, space, space, transfer, bytes.data()) < 0) {
        return fmt::format("write of rejects/{} ({} bytes) failed: {}", name, bytes.size(),
                           hdf5::last_error());
    }
    return "";
}

template <typename T>
std::vector<char> numbers(const std::vector<Reject>& rejects, T Reject::*member)
{
    std::vector<char> bytes;
    for (const auto& reject : rejects) {
        const auto value = reject.*member;
        const auto* begin = reinterpret_cast<const char*>(&value);
        bytes.insert(bytes.end(), begin, begin + sizeof value);
    }
    return bytes;
}

std::vector<char> texts(const std::vector<Reject>& rejects, std::string Reject::*member, std::uint64_t width)
{
    std::vector<char> bytes(rejects.size() * width, '\0');
    for (std::size_t i = 0; i < rejects.size(); ++i) {
        const auto& text = rejects[i].*member;
        std::copy_n(text.begin(), std::min<std::size_t>(text.size(), width), bytes.begin() + i * width);
    }
    return bytes;
}

}  // namespace

hid_t memory_type(Type type)
{
    return visit(type, []<typename T>(T) { return hdf5::memory_type<T>(); });
}

hdf5::Handle file_access()
{
    hdf5::Handle list(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
    H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_V110);
    H5Pset_file_locking(list, true, true);
    return list;
}

hdf5::Handle file_creation()
{
    hdf5::Handle list(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
    H5Pset_obj_track_times(list, false);
    return list;
}

std::uint64_t chunk_rows(const Column& column, std::uint64_t most)
{
    const std::uint64_t wanted = (256u << 10) / std::max<std::size_t>(column.row_bytes(), 1);
    return std::clamp<std::uint64_t>(std::min<std::uint64_t>(wanted, 16384), 1,
                                     std::max<std::uint64_t>(most, 1));
}

hdf5::Handle create_column(hid_t location, const Column& column, std::uint64_t rows, std::uint64_t chunk,
                           const std::string& path)
{
    auto dataset =
        create_rows(location, column.name, file_type(column.type), column.shape, rows, chunk, path);
    write_column_attributes(dataset, column);
    return dataset;
}

void write_column_attributes(hid_t dataset, const Column& column)
{
    hdf5::write_attribute(dataset, "unit", column.unit);
    hdf5::write_attribute(dataset, "ucd", column.ucd);
    hdf5::write_attribute(dataset, "description", column.description);
    hdf5::write_attribute(dataset, "fill", column.fill);
}

void write_axis(hid_t file, const Axis& axis, const std::string& path)
{
    const hsize_t size = axis.values.size();
    const hdf5::Handle space(H5Screate_simple(1, &size, nullptr), H5Sclose);
    const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, false);
    const hdf5::Handle dataset(hdf5::checked(H5Dcreate2(file, axis.name.c_str(), H5T_IEEE_F64LE, space,
                                                        H5P_DEFAULT, creation, H5P_DEFAULT),
                                             path, "create dataset"),
                               H5Dclose);
    hdf5::write_attribute(dataset, "unit", axis.unit);
    hdf5::write_attribute(dataset, "description", axis.description);
    // Every rank of a parallel file writes the same values: short enough.
    hdf5::checked(H5Dwrite(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, axis.values.data()),
                  path, "write axis");
}

void write_root_attributes(hid_t file, const Schema& schema, const Request& request)
{
    hdf5::write_attribute(file, "format", std::string("astroclip-store"));
    hdf5::write_attribute(file, "format_version", std::int64_t{1});
    hdf5::write_attribute(file, "kind", schema.kind);
    hdf5::write_attribute(file, "schema_version", std::int64_t{schema.version});
    hdf5::write_attribute(file, "creator", fmt::format("astroclip {} ({})", version(), revision()));
    hdf5::write_attribute(file, "stage", request.stage);
    hdf5::write_attribute(file, "configuration_digest", request.configuration_digest);
    hdf5::write_attribute(file, "inputs", request.inputs.dump());
    for (const auto& [name, value] : schema.attributes.items()) {
        if (value.is_number_integer()) {
            hdf5::write_attribute(file, name, value.get<std::int64_t>());
        } else if (value.is_number()) {
            hdf5::write_attribute(file, name, value.get<double>());
        } else {
            hdf5::write_attribute(file, name, value.is_string() ? value.get<std::string>() : value.dump());
        }
    }
}

void read_bytes(hid_t dataset, const Column& column, std::uint64_t first, std::uint64_t count, void* out,
                const std::string& path)
{
    visit(column.type,
          [&]<typename T>(T) { hdf5::read_rows(dataset, first, count, static_cast<T*>(out), path); });
}

void check_column(hid_t dataset, const Column& column, std::int64_t rows, const std::string& path)
{
    std::vector<std::uint64_t> expected{static_cast<std::uint64_t>(rows)};
    expected.insert(expected.end(), column.shape.begin(), column.shape.end());
    if (const auto found = hdf5::dims(dataset); found != expected) {
        throw DataError(path, fmt::format("dataset '{}' has shape {}, its manifest says {}", column.name,
                                          nlohmann::json(found).dump(), nlohmann::json(expected).dump()));
    }
    const hdf5::Handle type(H5Dget_type(dataset), H5Tclose);
    const hdf5::Handle native(H5Tget_native_type(type, H5T_DIR_ASCEND), H5Tclose);
    if (H5Tequal(native, memory_type(column.type)) <= 0) {
        throw DataError(path, fmt::format("dataset '{}' is not of type {}, as its manifest says", column.name,
                                          name_of(column.type)));
    }
}

RejectSizes sizes_of(const std::vector<Reject>& rejects)
{
    RejectSizes sizes{.rows = rejects.size()};
    for (const auto& reject : rejects) {
        sizes.source = std::max<std::uint64_t>(sizes.source, reject.source.size());
        sizes.reason = std::max<std::uint64_t>(sizes.reason, reject.reason.size());
        sizes.detail = std::max<std::uint64_t>(sizes.detail, reject.detail.size());
    }
    return sizes;
}

std::string write_rejects(hid_t location, const RejectSizes& sizes, const std::vector<Reject>& rejects,
                          hid_t transfer, const std::string& path)
{
    const hdf5::Handle creation(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, false);
    const hdf5::Handle group(
        hdf5::checked(H5Gcreate2(location, "rejects", H5P_DEFAULT, creation, H5P_DEFAULT), path,
                      "create group"),
        H5Gclose);
    hdf5::write_attribute(group, "description",
                          std::string("input objects that are not rows of this store, and why"));
    std::string failure;
    const auto keep = [&](const std::string& result) { failure += failure.empty() ? result : ""; };
    const auto text = [&](const char* name, std::string Reject::*member, std::uint64_t width,
                          const char* description) {
        keep(write_reject_column(group, name, text_type(width), sizes.rows, description,
                                 texts(rejects, member, width), transfer, path));
    };
    const auto number = [&](const char* name, auto member, hid_t type, const char* description) {
        keep(write_reject_column(group, name, type, sizes.rows, description, numbers(rejects, member),
                                 transfer, path));
    };
    text("source", &Reject::source, sizes.source, "input file");
    number("source_row", &Reject::source_row, H5T_STD_I64LE, "row in the input file");
    number("object_id", &Reject::object_id, H5T_STD_I64LE, "identifier; -1 if it has none");
    text("reason", &Reject::reason, sizes.reason, "why it was left out");
    number("damage", &Reject::damage, H5T_STD_U8LE, "1 damaged input, 0 selection");
    text("detail", &Reject::detail, sizes.detail, "what was found");
    return failure;
}

std::vector<Reject> read_rejects(hid_t file, const std::string& path)
{
    const auto open = [&](const char* name) {
        return hdf5::open_dataset(file, std::string("rejects/") + name, path);
    };
    const auto ids = hdf5::read<std::int64_t>(open("object_id"), path);
    const auto rows = hdf5::read<std::int64_t>(open("source_row"), path);
    const auto damage = hdf5::read<std::uint8_t>(open("damage"), path);
    const auto sources = hdf5::read_strings(open("source"), path);
    const auto reasons = hdf5::read_strings(open("reason"), path);
    const auto details = hdf5::read_strings(open("detail"), path);
    const auto count = ids.size();
    if (rows.size() != count || damage.size() != count || sources.size() != count ||
        reasons.size() != count || details.size() != count) {
        throw DataError(path, "the columns of 'rejects' differ in length");
    }
    std::vector<Reject> rejects;
    for (std::size_t i = 0; i < count; ++i) {
        rejects.push_back({sources[i], rows[i], ids[i], reasons[i], damage[i] != 0, details[i]});
    }
    return rejects;
}

std::string part_name(std::int64_t part) { return fmt::format("part-{:05d}", part); }

}  // namespace astroclip::store
