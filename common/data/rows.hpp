#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/reader.hpp"

// Chosen rows of a store's column, read in runs of neighbouring rows.
namespace astroclip::data {

// In the order of `rows`; a row -1 gives zeros. -> [rows, shape of the column] float32
at::Tensor read_rows(const store::Reader& reader, const std::string& column,
                     std::span<const std::int64_t> rows);

// Long rows of int16, none of them -1: one at a time in the order of the file, each to its place in `rows`.
// -> [rows, shape of the column] int16
at::Tensor read_words(const store::Reader& reader, const std::string& column,
                      std::span<const std::int64_t> rows);

// The same for a column of scalars; a row -1 gives `fill`. T: double, int64.
template <typename T>
std::vector<T> read_scalars(const store::Reader& reader, const std::string& column,
                            std::span<const std::int64_t> rows, T fill);

}  // namespace astroclip::data
