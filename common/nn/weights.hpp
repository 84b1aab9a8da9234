#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

// Weights on disk: safetensors (8 bytes little-endian length, JSON header, raw little-endian data). The
// reader trusts nothing: header size, names, dtypes, shapes and offsets are checked before any data is read.
namespace astroclip::nn {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;
using Metadata = std::map<std::string, std::string>;

// A safetensors file, open for reading; tensors are read one at a time, so that a file of any size costs the
// memory of its largest tensor. dtypes F64, F32, F16, BF16, I64, U8.
class WeightsFile {
public:
    // Throws MissingInput if there is no such file, DataError if it is not a valid safetensors file.
    explicit WeightsFile(const std::string& path);
    ~WeightsFile();
    WeightsFile(const WeightsFile&) = delete;
    WeightsFile& operator=(const WeightsFile&) = delete;

    const std::string& path() const { return path_; }
    const Metadata& metadata() const { return metadata_; }
    const std::vector<std::string>& names() const { return names_; }  // in the order of the header
    bool has(const std::string& name) const { return entries_.count(name) > 0; }
    const std::vector<std::int64_t>& shape(
        const std::string& name) const;  // DataError if there is no such tensor
    at::Tensor tensor(
        const std::string& name) const;  // its own copy on the CPU; DataError if there is no such tensor

private:
    struct Entry {
        at::ScalarType type;
        std::vector<std::int64_t> shape;
        std::uint64_t begin, end;  // bytes from the end of the header
    };
    const Entry& entry(const std::string& name) const;
    void parse_header(const std::string& text, std::uint64_t data_bytes);

    std::string path_;
    int descriptor_ = -1;
    std::uint64_t data_start_ = 0;
    Metadata metadata_;
    std::vector<std::string> names_;
    std::map<std::string, Entry> entries_;
};

// Writes a safetensors file; the bytes depend on the arguments alone. Tensors keep their
// order (larger element types first, so that all data is aligned). Not atomic: publish
// through store::publish_file. Throws IoError.
void save_weights(const std::string& path, const NamedTensors& tensors, const Metadata& metadata);

// Parameters and buffers of a module under their full names, in registration
// order (PyTorch's state_dict order).
NamedTensors published_state(const torch::nn::Module& module);

// Copies the file's tensors PREFIX + name into the module's parameters and buffers. Strict: every tensor of
// the module must be there with its shape, and nothing else under the prefix, except names that begin with
// one of `ignore` (after the prefix). float16 and bfloat16 are widened. Throws DataError that lists what is
// missing, unexpected or misshaped.
void load_strict(torch::nn::Module& module, const WeightsFile& file, const std::string& prefix = "",
                 const std::vector<std::string>& ignore = {});

}  // namespace astroclip::nn
