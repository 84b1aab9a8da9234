#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "store/reader.hpp"

namespace astroclip::data {

// One object of the sky: its rows in the two stores, -1 where it has none.
struct Galaxy {
    std::int64_t object_id = -1;
    std::int64_t image_row = -1;
    std::int64_t spectrum_row = -1;
};

// The objects of a store of images and a store of spectra, each of them once. First all spectra in their order, with their
// image where they have one, then the images that belong to no spectrum, in theirs. Image and spectrum are one object if
// `pairs` says so, or else if they have the same object_id; the object then has the spectrum's.
//
// Any of the three may be null, but not both stores. Throws DataError if `pairs` was made from other stores.
std::vector<Galaxy> join_galaxies(const store::Reader* images, const store::Reader* spectra, const store::Reader* pairs);

// Throws DataError unless the store `pairs` was made from these two (null: not looked at).
void require_pairs_of(const store::Reader& pairs, const store::Reader* images, const store::Reader* spectra);

// The given rows of a column, in that order; a row -1 gives zeros. -> [rows, shape of the column] float32
at::Tensor read_rows(const store::Reader& reader, const std::string& column, std::span<const std::int64_t> rows);

// The same for a column of scalars; a row -1 gives `fill`.
template <typename T>
std::vector<T> read_scalars(const store::Reader& reader, const std::string& column, std::span<const std::int64_t> rows,
                            T fill);

}  // namespace astroclip::data
