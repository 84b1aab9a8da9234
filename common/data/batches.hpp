#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace astroclip::data {

// Galaxies [first, last) by number.
struct Range {
    std::int64_t first = 0, last = 0;
    std::int64_t size() const { return last - first; }
};

// Some galaxies with what the stores hold of them, on the CPU. Of a modality that was not asked for the
// tensor is undefined; a galaxy that lacks a modality has zeros there, and has_… is 0.
struct Batch {
    std::vector<std::int64_t> object_ids;  // B
    at::Tensor images;                     // [B, bands, H, W] float32, nanomaggy
    at::Tensor spectra;                    // [B, L] float32, 1e-17 erg s-1 cm-2 Angstrom-1
    at::Tensor ivar;  // [B, L] float32, inverse variance of the spectra, 0 where masked; if it was asked for
    at::Tensor wavelength;                     // [L] float64, Angstrom, of the spectra
    at::Tensor image_tokens, spectrum_tokens;  // [B, N, D] float16, of a token cache, which gives these alone
    std::vector<std::uint8_t> has_image, has_spectrum;
    std::int64_t size() const { return static_cast<std::int64_t>(object_ids.size()); }
};

// Galaxies [first, first + count) of a batch, as views.
Batch narrowed(const Batch& batch, std::int64_t first, std::int64_t count);

// Copies of the first dimension padded with zeros to `rows`: a batch of the size that a model computes with.
at::Tensor padded(const at::Tensor& tensor, std::int64_t rows);

// One galaxy without its pixels.
struct Galaxy {
    std::int64_t object_id = 0;
    std::int64_t image_row = -1, spectrum_row = -1;  // -1: it has none
    bool test = false;                               // held out: never trained on
};

// Paths of complete stores; "" for none.
struct Stores {
    std::string images{}, spectra{}, pairs{};
    bool trust = false;  // believe the files' hashes
};

// How the survey is split where no pairs say it: survey::split_of.
struct SplitRule {
    std::uint64_t seed = 42;
    double test_fraction = 0.2;
};

// The galaxies of up to two stores, in store order: every row of images, then every row of spectra whose
// galaxy has no image. `pairs` says which rows are one galaxy (it then bears the id of the pair) and on which
// side of the split it is; galaxies that it does not list are split by the same hash, with the seed and
// fraction of the pairs, so that what is held out there is never seen in pretraining.
//
// Errors: MissingInput, DataError from the stores; ConfigError if two stores come without pairs or none is
// given; DataError if the pairs were made from other stores. Reading takes a lock: a thread that reads ahead
// and the one that trains may both call read(), while nobody else is inside HDF5.
class Galaxies {
public:
    explicit Galaxies(const Stores& stores, const SplitRule& split = {});
    ~Galaxies();
    Galaxies(Galaxies&&) noexcept;

    std::int64_t size() const;
    const Galaxy& operator[](std::int64_t number) const;

    std::vector<std::int64_t> all() const;               // 0, 1, 2, …
    std::vector<std::int64_t> members(bool test) const;  // of one side of the split
    std::vector<std::int64_t> paired(bool test) const;   // of those, with both modalities

    // Batches have the spectra's inverse variance from now on. To be called before anything is read.
    void read_ivar();

    // In the order of `numbers`; each store is read in runs of neighbouring rows.
    Batch read(std::span<const std::int64_t> numbers) const;
    Batch read(Range range) const;
    // One scalar column of the store that has it (images first), as float64: "redshift". NaN where a galaxy
    // has none.
    std::vector<double> column(const std::string& name) const;

    bool has_images() const;
    bool has_spectra() const;
    std::vector<std::int64_t> image_shape() const;  // [bands, H, W]
    bool display_images() const;                    // colours from 0 to 1, not fluxes (bands RGB)
    std::int64_t bins() const;                      // L of a spectrum
    std::int64_t row_bytes() const;                 // pixels and fluxes of one galaxy
    nlohmann::json content_ids() const;  // {"images": id, …} of the stores given: the inputs of an output

private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace astroclip::data
