#include "store/part_file.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "core/clock.hpp"
#include "core/error.hpp"
#include "core/fault_point.hpp"
#include "core/heartbeat.hpp"

namespace astroclip::store {
namespace {

// Keyed by the row's number, so that rows may be added in any order and by any rank, and two swapped rows are
// noticed.
std::uint64_t hash_rows(const char* bytes, std::size_t row_bytes, std::uint64_t first, std::uint64_t count)
{
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        sum += XXH3_64bits_withSeed(bytes + i * row_bytes, row_bytes, first + i);
    }
    return sum;
}

std::uint64_t sum_over_ranks(const comm::World& world, std::uint64_t value)
{
    std::uint64_t sum = 0;
    for (const auto part : world.all_gather(std::vector<std::uint64_t>{value})) {
        sum += part;  // modulo 2^64
    }
    return sum;
}

std::uintmax_t free_bytes(const std::string& path)
{
    std::error_code unknown;
    return std::filesystem::space(std::filesystem::path(path).parent_path(), unknown).available;
}

}  // namespace

PartFile::PartFile(const comm::World& world, const Schema& schema, const Request& request,
                   const std::string& final_path, std::uint64_t most_rows)
    : world_(world),
      schema_(schema),
      path_(final_path),
      temporary_(world.broadcast(world.is_root() ? temporary_name(final_path) : "")),
      transfer_(H5Pcreate(H5P_DATASET_XFER), H5Pclose)
{
    H5Pset_dxpl_mpio(transfer_, H5FD_MPIO_COLLECTIVE);
    std::string failure;
    try {
        create(request, most_rows);
    } catch (const Error& error) {
        failure = std::string("cannot be created: ") + error.what();
    }
    agree(failure);
}

PartFile::~PartFile()
{
    columns_.clear();
    file_ = hdf5::Handle();
    if (world_.is_root() && !temporary_.empty()) {
        unlink(temporary_.c_str());
    }
}

void PartFile::create(const Request& request, std::uint64_t most_rows)
{
    alive("creating a part");
    hdf5::silence();
    const auto access = file_access();
    H5Pset_fapl_mpio(access, world_.handle(), MPI_INFO_NULL);
    H5Pset_coll_metadata_write(access, true);
    file_ = {hdf5::checked(H5Fcreate(temporary_.c_str(), H5F_ACC_EXCL, file_creation(), access), temporary_,
                           "create file"),
             H5Fclose};
    write_root_attributes(file_, schema_, request);
    for (const auto& axis : schema_.axes) {
        write_axis(file_, axis, temporary_);
    }
    for (const auto& column : schema_.columns) {
        auto& pending = columns_[column.name];
        pending.chunk = chunk_rows(column, most_rows);
        pending.dataset = create_column(file_, column, 0, pending.chunk, temporary_);
    }
}

void PartFile::append(const Rows& rows, std::uint64_t first, std::uint64_t total)
{
    alive("writing rows");
    total_ = total;
    for (const auto& column : schema_.columns) {
        auto& pending = columns_.at(column.name);
        add_to(column, pending, rows.bytes(column.name), first, rows.size());
        write_up_to(column, pending, total_ / pending.chunk * pending.chunk);
    }
    agree("");
}

void PartFile::add_to(const Column& column, Pending& pending, const std::vector<char>& bytes,
                      std::uint64_t first, std::uint64_t count)
{
    if (count == 0) {
        return;
    }
    if (!pending.blocks.empty() && pending.blocks.back().first + pending.blocks.back().count == first) {
        pending.blocks.back().count += count;
    } else {
        pending.blocks.push_back({first, count});
    }
    pending.bytes.insert(pending.bytes.end(), bytes.begin(), bytes.end());
    pending.hash += hash_rows(bytes.data(), column.row_bytes(), first, count);
}

// Collective: all ranks call it with the same `end`.
void PartFile::write_up_to(const Column& column, Pending& pending, std::uint64_t end)
{
    if (end == pending.written) {
        return;
    }
    const auto check = [&](herr_t result, const char* action) {
        if (result < 0) {
            agree(fmt::format("{} of column '{}', rows {} to {} ({} bytes), failed: {}", action, column.name,
                              pending.written, end, (end - pending.written) * column.row_bytes(),
                              hdf5::last_error()));
        }
    };
    std::vector<hsize_t> sizes{end}, start(1 + column.shape.size(), 0);
    sizes.insert(sizes.end(), column.shape.begin(), column.shape.end());
    check(H5Dset_extent(pending.dataset, sizes.data()), "extension");

    const hdf5::Handle file_space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
                                  H5Sclose);
    H5Sselect_none(file_space);
    std::uint64_t rows = 0;
    std::vector<Block> rest;
    for (const auto& block : pending.blocks) {
        const auto here = block.first < end ? std::min(block.count, end - block.first) : 0;
        if (here > 0) {
            start[0] = block.first;
            sizes[0] = here;
            H5Sselect_hyperslab(file_space, H5S_SELECT_OR, start.data(), nullptr, sizes.data(), nullptr);
            rows += here;
        }
        if (here < block.count) {
            rest.push_back({block.first + here, block.count - here});
        }
    }
    sizes[0] = std::max<hsize_t>(rows, 1);
    const hdf5::Handle memory_space(H5Screate_simple(static_cast<int>(sizes.size()), sizes.data(), nullptr),
                                    H5Sclose);
    if (rows == 0) {
        H5Sselect_none(memory_space);
    }
    check(H5Dwrite(pending.dataset, memory_type(column.type), memory_space, file_space, transfer_,
                   pending.bytes.data()),
          "write");
    pending.bytes.erase(pending.bytes.begin(),
                        pending.bytes.begin() + static_cast<std::ptrdiff_t>(rows * column.row_bytes()));
    pending.blocks = std::move(rest);
    pending.written = end;
}

nlohmann::json PartFile::publish(const std::vector<Reject>& rejects, bool verify)
{
    close(rejects);
    for (const auto& column : schema_.columns) {
        if (verify) {
            compare_with_written(column, columns_.at(column.name));
        }
    }
    const auto folder = std::filesystem::path(path_).parent_path().string();
    auto entry = file_entry(world_, folder, std::filesystem::path(path_).filename().string(), temporary_);
    world_.on_root([&] { publish_written(temporary_, path_); });
    temporary_.clear();
    return entry;
}

void PartFile::close(const std::vector<Reject>& rejects)
{
    alive("closing a part");
    for (const auto& column : schema_.columns) {
        write_up_to(column, columns_.at(column.name), total_);
    }
    const auto own = sizes_of(rejects);
    const RejectSizes sizes{
        .rows = static_cast<std::uint64_t>(world_.max(static_cast<std::int64_t>(own.rows))),
        .source = static_cast<std::uint64_t>(world_.max(static_cast<std::int64_t>(own.source))),
        .reason = static_cast<std::uint64_t>(world_.max(static_cast<std::int64_t>(own.reason))),
        .detail = static_cast<std::uint64_t>(world_.max(static_cast<std::int64_t>(own.detail)))};
    agree(write_rejects(file_, sizes, rejects, transfer_, temporary_));
    fault_point("publish.before-close");
    for (auto& [name, pending] : columns_) {
        pending.dataset = hdf5::Handle();
    }
    agree(H5Fflush(file_, H5F_SCOPE_GLOBAL) < 0 ? "flush failed: " + hdf5::last_error() : "");
    std::string failure;
    try {
        file_.reset();
    } catch (const Error& error) {
        failure = error.what();
    }
    agree(failure);
}

// Collective: an error of one rank becomes the error of all. But when HDF5 fails on one rank only (a full
// disk, say), the others may wait for it inside HDF5 and never come here. Then this rank throws alone, and
// whoever catches that must end the job.
void PartFile::agree(const std::string& failure)
{
    MPI_Request all_here = MPI_REQUEST_NULL;
    comm::check(MPI_Ibarrier(world_.handle(), &all_here), "MPI_Ibarrier");
    int done = 0;
    if (failure.empty()) {
        comm::check(MPI_Wait(&all_here, MPI_STATUS_IGNORE), "MPI_Wait");
        done = 1;
    }
    for (const auto deadline = seconds() + 2; !done && seconds() < deadline;) {
        comm::check(MPI_Test(&all_here, &done, MPI_STATUS_IGNORE), "MPI_Test");
    }
    const IoError error(temporary_,
                        fmt::format("{}; {} bytes are free there", failure, free_bytes(temporary_)));
    if (!done) {
        abandon();
        throw error;
    }
    try {
        world_.together([&] {
            if (!failure.empty()) {
                throw error;
            }
        });
    } catch (...) {
        abandon();
        throw;
    }
}

// After a failure with several ranks the collective close might never return; the job is about to end anyway.
void PartFile::abandon()
{
    if (world_.size() == 1) {
        return;
    }
    for (auto& [name, pending] : columns_) {
        pending.dataset.abandon();
    }
    file_.abandon();
}

// Collective. Other ranks than those that wrote read the rows; together they must hash to what was handed in.
void PartFile::compare_with_written(const Column& column, const Pending& pending) const
{
    alive("reading a part back");
    std::uint64_t own = 0;
    world_.together([&] { own = read_back(column, pending.chunk); });
    const auto found = sum_over_ranks(world_, own), written = sum_over_ranks(world_, pending.hash);
    world_.together([&] {
        if (found != written) {
            throw IoError(temporary_, fmt::format("column '{}' reads back differently from what was written",
                                                  column.name));
        }
    });
}

std::uint64_t PartFile::read_back(const Column& column, std::uint64_t chunk) const
try {
    const auto file = hdf5::open_file(temporary_);
    const auto dataset = hdf5::open_dataset(file, column.name, temporary_);
    if (const auto found = hdf5::dims(dataset); found.empty() || found[0] != total_) {
        throw IoError(temporary_,
                      fmt::format("column '{}' reads back with another number of rows than the {} written",
                                  column.name, total_));
    }
    const auto size = static_cast<std::uint64_t>(world_.size());
    const auto share = static_cast<std::uint64_t>(world_.rank() + 1) % size;
    const auto end = total_ * (share + 1) / size;
    const auto step =
        std::max<std::uint64_t>(chunk, (8u << 20) / std::max<std::size_t>(column.row_bytes(), 1));
    std::vector<char> bytes(std::min(step, total_) * column.row_bytes());
    std::uint64_t hash = 0;
    for (auto first = total_ * share / size; first < end; first += step) {
        const auto count = std::min(step, end - first);
        read_bytes(dataset, column, first, count, bytes.data(), temporary_);
        hash += hash_rows(bytes.data(), column.row_bytes(), first, count);
    }
    return hash;
} catch (const Error& error) {
    throw IoError(temporary_, std::string("cannot be read back as it was written: ") + error.what());
}

nlohmann::json PartFile::column_hashes() const
{
    auto hashes = nlohmann::json::object();
    for (const auto& column : schema_.columns) {
        hashes[column.name] = fmt::format("{:016x}", sum_over_ranks(world_, columns_.at(column.name).hash));
    }
    return hashes;
}

}  // namespace astroclip::store
