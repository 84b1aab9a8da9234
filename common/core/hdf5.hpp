#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

// HDF5 handles that close themselves, with its errors as ours. Its C API stays visible: `H5Dread(dataset, …)`
// works. HDF5 of Debian is not thread-safe: one thread a rank calls it.
namespace astroclip::hdf5 {

class Handle {
public:
    Handle() = default;
    Handle(hid_t id, herr_t (*close)(hid_t)) : id_(id), close_(close) {}
    ~Handle();  // closes; an error of that is lost: call reset() where it matters
    Handle(Handle&& other) noexcept : id_(other.id_), close_(other.close_) { other.id_ = -1; }
    Handle& operator=(Handle&& other) noexcept;
    operator hid_t() const { return id_; }
    void reset();                 // closes now; IoError if that fails
    void abandon() { id_ = -1; }  // leaves it open: closing would wait for ranks that do not come

private:
    hid_t id_ = -1;
    herr_t (*close_)(hid_t) = nullptr;
};

// Turns off HDF5's own printing of errors, its filter plug-ins, and links to other files: a file must not
// choose which code we load nor what else we read. Called once at start.
void silence();
// The innermost message of HDF5's error stack, for our messages.
std::string last_error();

// Read-only, serial driver, file locking best-effort; a file that cannot be opened is MissingInput or
// DataError.
Handle open_file(const std::string& path);
Handle open_dataset(hid_t file, const std::string& name, const std::string& path,
                    hid_t access = H5P_DEFAULT);  // DataError with what is there
bool has_link(hid_t location, const std::string& name);
std::vector<std::string> dataset_names(hid_t location);
std::vector<std::uint64_t> dims(hid_t dataset);

// Whole dataset or rows [first, first + count) of it, converted by HDF5 to T (float, double, int8/16/32/64,
// uint8/32/64). DataError names file, dataset and rows, for a damaged chunk (Fletcher32) too.
template <typename T>
std::vector<T> read(hid_t dataset, const std::string& path);
template <typename T>
void read_rows(hid_t dataset, std::uint64_t first, std::uint64_t count, T* out, const std::string& path);
std::vector<std::string> read_strings(hid_t dataset, const std::string& path);

template <typename T>
hid_t memory_type();

void write_attribute(hid_t location, const std::string& name, const std::string& value);
void write_attribute(hid_t location, const std::string& name, double value);
void write_attribute(hid_t location, const std::string& name, std::int64_t value);
std::string read_text_attribute(hid_t location, const std::string& name);  // "" if absent

// Throws IoError naming `path` and `action` with HDF5's message if `result` is negative; returns it
// otherwise.
hid_t checked(hid_t result, const std::string& path, const char* action);

}  // namespace astroclip::hdf5
