#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/hdf5.hpp"
#include "store/publication.hpp"
#include "store/schema.hpp"

// Columns as datasets: what parts and index have in common.
namespace astroclip::store {

hid_t memory_type(Type type);

// Access and creation lists of our files: format fixed to that of HDF5 1.10 and no times, so that equal
// contents are equal bytes.
hdf5::Handle file_access();
hdf5::Handle file_creation();

// [rows, shape…], extendible, in chunks of `chunk_rows` with Fletcher32, and the column's attributes.
hdf5::Handle create_column(hid_t location, const Column& column, std::uint64_t rows, std::uint64_t chunk_rows,
                           const std::string& path);
// Rows of a chunk: about 256 KiB, so that reading one row at random does not read much else.
std::uint64_t chunk_rows(const Column& column, std::uint64_t most);
void write_column_attributes(hid_t dataset, const Column& column);
void write_axis(hid_t file, const Axis& axis, const std::string& path);
// Format, kind, program version, digests of configuration and inputs, and the schema's own attributes.
void write_root_attributes(hid_t file, const Schema& schema, const Request& request);

// Row-major bytes of rows [first, first + count).
void read_bytes(hid_t dataset, const Column& column, std::uint64_t first, std::uint64_t count, void* out,
                const std::string& path);

// DataError unless the dataset is [rows, shape…] of the column's type.
void check_column(hid_t dataset, const Column& column, std::int64_t rows, const std::string& path);

// The group `rejects`: source, source_row, object_id, reason, damage, detail, a row each. `location` may
// belong to a parallel file: then all ranks call it, with the same sizes, and `rejects` is empty but on the
// rank that writes. A failed write does not keep a rank from the calls that follow: the first failure is
// returned, "" if there was none.
struct RejectSizes {
    std::uint64_t rows = 0, source = 1, reason = 1, detail = 1;  // widths of the texts in bytes
};
RejectSizes sizes_of(const std::vector<Reject>& rejects);
std::string write_rejects(hid_t location, const RejectSizes& sizes, const std::vector<Reject>& rejects,
                          hid_t transfer, const std::string& path);
std::vector<Reject> read_rejects(hid_t file, const std::string& path);

std::string part_name(std::int64_t part);  // "part-00000"

}  // namespace astroclip::store
