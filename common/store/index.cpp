#include "store/index.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "store/columns.hpp"

namespace astroclip::store {
namespace {

constexpr std::uint64_t rows_at_once = 1u << 20;

std::vector<hsize_t> sizes_of_rows(const Column& column, std::uint64_t rows)
{
    std::vector<hsize_t> sizes{rows};
    sizes.insert(sizes.end(), column.shape.begin(), column.shape.end());
    return sizes;
}

hdf5::Handle row_block(const Column& column, std::uint64_t all, std::uint64_t first, std::uint64_t count)
{
    const auto sizes = sizes_of_rows(column, all), extent = sizes_of_rows(column, count);
    std::vector<hsize_t> start(sizes.size(), 0);
    start[0] = first;
    hdf5::Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr), H5Sclose);
    H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
    return space;
}

// A small column of the index, which is filled part by part.
struct Target {
    const Column* column;
    hdf5::Handle dataset;
};

// The rows of one part into the index's rows from `at` on; their ids are added to `ids` if there is such.
void copy_rows(const Target& target, const std::string& path, hid_t part, const std::string& name,
               std::uint64_t rows, std::uint64_t at, std::uint64_t total, std::vector<std::int64_t>* ids)
{
    const auto& column = *target.column;
    const auto source = hdf5::open_dataset(part, column.name, name);
    std::vector<char> bytes(std::min(rows, rows_at_once) * column.row_bytes());
    for (std::uint64_t first = 0; first < rows; first += rows_at_once) {
        const auto count = std::min(rows_at_once, rows - first);
        read_bytes(source, column, first, count, bytes.data(), name);
        const auto space = row_block(column, total, at + first, count);
        const auto memory = row_block(column, count, 0, count);
        hdf5::checked(
            H5Dwrite(target.dataset, memory_type(column.type), memory, space, H5P_DEFAULT, bytes.data()),
            path, "write");
        if (ids) {
            const auto* values = reinterpret_cast<const std::int64_t*>(bytes.data());
            ids->insert(ids->end(), values, values + count);
        }
    }
}

void link_column(hid_t index, const std::string& path, const Column& column,
                 const std::vector<std::int64_t>& part_rows)
{
    const auto total =
        static_cast<std::uint64_t>(std::accumulate(part_rows.begin(), part_rows.end(), std::int64_t{0}));
    const hdf5::Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(creation, false);
    std::uint64_t at = 0;
    for (std::size_t part = 0; part < part_rows.size(); ++part) {
        const auto rows = static_cast<std::uint64_t>(part_rows[part]);
        if (rows == 0) {
            continue;
        }
        const auto here = row_block(column, total, at, rows), there = row_block(column, rows, 0, rows);
        hdf5::checked(
            H5Pset_virtual(creation, here, (part_name(static_cast<std::int64_t>(part)) + ".h5").c_str(),
                           column.name.c_str(), there),
            path, "map a part");
        at += rows;
    }
    if (column.type == Type::f32 || column.type == Type::f64) {
        // What a part that is missing reads as.
        const double nothing = std::numeric_limits<double>::quiet_NaN();
        H5Pset_fill_value(creation, H5T_NATIVE_DOUBLE, &nothing);
    }
    const auto sizes = sizes_of_rows(column, total);
    const hdf5::Handle space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
                             H5Sclose);
    const hdf5::Handle dataset(hdf5::checked(H5Dcreate2(index, column.name.c_str(), memory_type(column.type),
                                                        space, H5P_DEFAULT, creation, H5P_DEFAULT),
                                             path, "create virtual dataset"),
                               H5Dclose);
    write_column_attributes(dataset, column);
}

}  // namespace

const std::int64_t* duplicate_in(std::vector<std::int64_t>& ids)
{
    std::sort(ids.begin(), ids.end());
    const auto twice = std::adjacent_find(ids.begin(), ids.end());
    return twice == ids.end() ? nullptr : &*twice;
}

void write_index(const std::string& path, const std::string& folder, const Schema& schema,
                 const Request& request, const std::vector<std::int64_t>& part_rows, bool unique_ids)
{
    const auto total =
        static_cast<std::uint64_t>(std::accumulate(part_rows.begin(), part_rows.end(), std::int64_t{0}));
    hdf5::Handle index(hdf5::checked(H5Fcreate(path.c_str(), H5F_ACC_EXCL, file_creation(), file_access()),
                                     path, "create file"),
                       H5Fclose);
    write_root_attributes(index, schema, request);
    for (const auto& axis : schema.axes) {
        write_axis(index, axis, path);
    }
    std::vector<Target> targets;
    for (const auto& column : schema.columns) {
        if (column.shape.empty()) {
            targets.push_back(
                {&column, create_column(index, column, total, chunk_rows(column, total), path)});
        } else {
            link_column(index, path, column, part_rows);
        }
    }
    std::vector<std::int64_t> ids;
    std::vector<Reject> rejects;
    std::uint64_t at = 0;
    // One part is open at a time: thousands would not fit into memory, nor into the files a process may open.
    for (std::size_t number = 0; number < part_rows.size(); ++number) {
        alive("writing the index");
        const auto name = part_name(static_cast<std::int64_t>(number));
        const auto file = folder + "/" + name + ".h5";
        const auto part = hdf5::open_file(file);
        const auto rows = static_cast<std::uint64_t>(part_rows[number]);
        for (const auto& target : targets) {
            const bool wanted = target.column->name == "object_id" && unique_ids;
            copy_rows(target, path, part, file, rows, at, total, wanted ? &ids : nullptr);
        }
        const auto some = read_rejects(part, name);
        rejects.insert(rejects.end(), some.begin(), some.end());
        at += rows;
    }
    if (const auto* twice = duplicate_in(ids)) {
        throw InternalError(fmt::format("object_id {} occurs twice in {}", *twice, folder));
    }
    if (const auto failure = write_rejects(index, sizes_of(rejects), rejects, H5P_DEFAULT, path);
        !failure.empty()) {
        throw IoError(path, failure);
    }
    for (auto& target : targets) target.dataset.reset();
    index.reset();
}

}  // namespace astroclip::store
