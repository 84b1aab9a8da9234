#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// Reference tensors (tests/data/README.md): safetensors files of float32 tensors, and how close ours must
// come.
namespace astroclip::test {

inline std::map<std::string, at::Tensor> read_reference(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    std::uint64_t header_size = 0;
    file.read(reinterpret_cast<char*>(&header_size), sizeof header_size);
    if (!file) {
        throw std::runtime_error(path + ": cannot be read");
    }
    std::string text(header_size, ' ');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));

    std::map<std::string, at::Tensor> tensors;
    const auto header = nlohmann::json::parse(text);
    for (const auto& [name, entry] : header.items()) {
        if (name == "__metadata__") {
            continue;
        }
        const auto tensor = at::empty(entry.at("shape").get<std::vector<std::int64_t>>(), at::kFloat);
        file.seekg(static_cast<std::streamoff>(8 + header_size +
                                               entry.at("data_offsets").at(0).get<std::uint64_t>()));
        file.read(static_cast<char*>(tensor.data_ptr()), static_cast<std::streamsize>(tensor.nbytes()));
        tensors.emplace(name, tensor);
    }
    return tensors;
}

// max|a - b| / max|b|, in double precision; infinity if the shapes differ.
inline double relative_difference(const at::Tensor& ours, const at::Tensor& reference)
{
    if (ours.sizes() != reference.sizes()) {
        return std::numeric_limits<double>::infinity();
    }
    const auto b = reference.to(at::kDouble);
    return ((ours.detach().to(at::kDouble) - b).abs().max() / b.abs().max()).item<double>();
}

}  // namespace astroclip::test
