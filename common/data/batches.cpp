#include "data/batches.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <optional>

#include "core/error.hpp"
#include "data/rows.hpp"
#include "store/reader.hpp"
#include "survey/split.hpp"

namespace astroclip::data {
namespace {

std::vector<std::int64_t> flux_shape(const store::Reader& reader)
{
    const auto& shape = reader.schema().column("flux").shape;
    return {shape.begin(), shape.end()};
}

// In the order of `rows`, read in the order of the store, so that neighbours are read together.
at::Tensor read_column(const store::Reader& reader, const std::string& name,
                       const std::vector<std::int64_t>& rows)
{
    auto sorted = rows;
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::int64_t> places;
    for (const auto row : rows) {
        places.push_back(std::lower_bound(sorted.begin(), sorted.end(), row) - sorted.begin());
    }
    const auto values = read_rows(reader, name, sorted);
    return sorted == rows ? values : values.index_select(0, at::tensor(places, at::kLong));
}

// What a store of pairs says of how it was made: the stores whose rows it numbers, the seed and fraction of
// its split.
struct PairsRequest {
    nlohmann::json inputs, configuration;

    explicit PairsRequest(const store::Reader& pairs)
    {
        const auto request = pairs.manifest().value("request", nlohmann::json::object());
        inputs = request.value("inputs", nlohmann::json::object());
        configuration = request.value("configuration", nlohmann::json::object());
    }

    void check_made_from(const store::Reader& pairs, const char* name, const store::Reader& reader) const
    {
        if (inputs.contains(name) && inputs[name] != reader.content_id()) {
            throw DataError(
                pairs.path(),
                fmt::format("numbers the rows of other {} than those of {}; run astroclip-match again", name,
                            reader.path()));
        }
    }

    SplitRule split(SplitRule rule) const
    {
        rule.seed = configuration.value("seed", rule.seed);
        rule.test_fraction = configuration.value("test-fraction", rule.test_fraction);
        return rule;
    }
};

}  // namespace

Batch narrowed(const Batch& batch, std::int64_t first, std::int64_t count)
{
    const auto rows = [&](const at::Tensor& x) { return x.defined() ? x.narrow(0, first, count) : x; };
    const auto some = [&](const auto& all) {
        return std::decay_t<decltype(all)>(all.begin() + first, all.begin() + first + count);
    };
    return {
        some(batch.object_ids),  rows(batch.images),       rows(batch.spectra),         rows(batch.ivar),
        batch.wavelength,        rows(batch.image_tokens), rows(batch.spectrum_tokens), some(batch.has_image),
        some(batch.has_spectrum)};
}

at::Tensor padded(const at::Tensor& tensor, std::int64_t rows)
{
    if (tensor.size(0) == rows) {
        return tensor;
    }
    auto shape = tensor.sizes().vec();
    shape[0] = rows - tensor.size(0);
    return at::cat({tensor, at::zeros(shape, tensor.options())});
}

struct Galaxies::State {
    std::optional<store::Reader> images, spectra, pairs;
    std::vector<Galaxy> galaxies;
    at::Tensor wavelength;
    bool reads_ivar = false;
    mutable std::mutex reading;

    explicit State(const Stores& stores)
    {
        if (stores.images.empty() && stores.spectra.empty()) {
            throw ConfigError("neither 'images' nor 'spectra' is set: there is nothing to read");
        }
        if (!stores.images.empty() && !stores.spectra.empty() && stores.pairs.empty()) {
            throw ConfigError(
                "'images' and 'spectra' together need 'pairs', which says which rows are one galaxy");
        }
        const auto open = [&](const std::string& path, const char* kind,
                              std::optional<store::Reader>& reader) {
            if (!path.empty()) {
                reader.emplace(path, kind, stores.trust);
            }
        };
        open(stores.images, "images", images);
        open(stores.spectra, "spectra", spectra);
        if (spectra) {
            wavelength = at::tensor(spectra->axis("wavelength"), at::kDouble);
        }
        open(stores.pairs, "pairs", pairs);
    }

    void list(SplitRule split)
    {
        const auto image_ids =
            images ? images->column<std::int64_t>("object_id") : std::vector<std::int64_t>();
        const auto spectrum_ids =
            spectra ? spectra->column<std::int64_t>("object_id") : std::vector<std::int64_t>();
        galaxies.resize(image_ids.size());
        std::vector<std::int64_t> galaxy_of_spectrum(spectrum_ids.size(), -1);
        std::vector<std::int8_t> side_of_image(image_ids.size(), -1),
            side_of_spectrum(spectrum_ids.size(), -1);
        for (std::size_t row = 0; row < image_ids.size(); ++row) {
            galaxies[row] = {image_ids[row], static_cast<std::int64_t>(row)};
        }
        if (pairs) {
            split = join(split, galaxy_of_spectrum, side_of_image, side_of_spectrum);
        }
        for (std::size_t row = 0; row < spectrum_ids.size(); ++row) {
            if (galaxy_of_spectrum[row] < 0) {
                galaxies.push_back({spectrum_ids[row], -1, static_cast<std::int64_t>(row)});
            }
        }
        for (auto& galaxy : galaxies) {
            const auto told = galaxy.image_row >= 0
                                  ? side_of_image[static_cast<std::size_t>(galaxy.image_row)]
                                  : side_of_spectrum[static_cast<std::size_t>(galaxy.spectrum_row)];
            galaxy.test = told >= 0 ? told == 1
                                    : survey::split_of(galaxy.object_id, split.seed, split.test_fraction) ==
                                          survey::Split::test;
        }
    }

    // Joins the two modalities of each pair; gives the rule by which the pairs were split.
    SplitRule join(const SplitRule& split, std::vector<std::int64_t>& galaxy_of_spectrum,
                   std::vector<std::int8_t>& side_of_image, std::vector<std::int8_t>& side_of_spectrum)
    {
        const PairsRequest request(*pairs);
        if (images) {
            request.check_made_from(*pairs, "images", *images);
        }
        if (spectra) {
            request.check_made_from(*pairs, "spectra", *spectra);
        }
        const auto ids = pairs->column<std::int64_t>("object_id");
        const auto image_rows = pairs->column<std::int64_t>("image_row");
        const auto spectrum_rows = pairs->column<std::int64_t>("spectrum_row");
        const auto sides = pairs->column<std::uint8_t>("split");
        for (std::size_t i = 0; i < ids.size(); ++i) {
            const auto side = static_cast<std::int8_t>(sides[i]);
            if (images) {
                auto& galaxy = galaxies.at(checked(image_rows[i], images->rows(), "image_row"));
                galaxy.object_id = ids[i];
                side_of_image[static_cast<std::size_t>(image_rows[i])] = side;
                galaxy.spectrum_row = spectra ? spectrum_rows[i] : -1;
            }
            if (spectra) {
                const auto row = checked(spectrum_rows[i], spectra->rows(), "spectrum_row");
                side_of_spectrum[row] = side;
                galaxy_of_spectrum[row] = images ? image_rows[i] : -1;
            }
        }
        return request.split(split);
    }

    std::size_t checked(std::int64_t row, std::int64_t rows, const char* column) const
    {
        if (row < 0 || row >= rows) {
            throw DataError(pairs->path(),
                            fmt::format("{} {} is outside the store's {} rows", column, row, rows));
        }
        return static_cast<std::size_t>(row);
    }
};

Galaxies::Galaxies(const Stores& stores, const SplitRule& split) : state_(std::make_unique<State>(stores))
{
    state_->list(split);
}
Galaxies::~Galaxies() = default;
Galaxies::Galaxies(Galaxies&&) noexcept = default;

std::int64_t Galaxies::size() const { return static_cast<std::int64_t>(state_->galaxies.size()); }
const Galaxy& Galaxies::operator[](std::int64_t number) const
{
    return state_->galaxies[static_cast<std::size_t>(number)];
}

std::vector<std::int64_t> Galaxies::all() const
{
    std::vector<std::int64_t> numbers(state_->galaxies.size());
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
}

std::vector<std::int64_t> Galaxies::members(bool test) const
{
    auto numbers = all();
    std::erase_if(numbers, [&](std::int64_t i) { return (*this)[i].test != test; });
    return numbers;
}

std::vector<std::int64_t> Galaxies::paired(bool test) const
{
    auto numbers = members(test);
    std::erase_if(numbers,
                  [&](std::int64_t i) { return (*this)[i].image_row < 0 || (*this)[i].spectrum_row < 0; });
    return numbers;
}

void Galaxies::read_ivar() { state_->reads_ivar = true; }

Batch Galaxies::read(std::span<const std::int64_t> numbers) const
{
    Batch batch;
    std::vector<std::int64_t> image_rows, spectrum_rows;
    for (const auto number : numbers) {
        const auto& galaxy = (*this)[number];
        batch.object_ids.push_back(galaxy.object_id);
        image_rows.push_back(galaxy.image_row);
        spectrum_rows.push_back(galaxy.spectrum_row);
        batch.has_image.push_back(galaxy.image_row >= 0);
        batch.has_spectrum.push_back(galaxy.spectrum_row >= 0);
    }
    const std::lock_guard lock(state_->reading);
    if (state_->images) {
        batch.images = read_column(*state_->images, "flux", image_rows);
    }
    if (state_->spectra) {
        batch.spectra = read_column(*state_->spectra, "flux", spectrum_rows);
        batch.wavelength = state_->wavelength;
        if (state_->reads_ivar) {
            const auto good = read_column(*state_->spectra, "mask", spectrum_rows) == 0;
            batch.ivar = read_column(*state_->spectra, "ivar", spectrum_rows) * good;
        }
    }
    return batch;
}

Batch Galaxies::read(Range range) const
{
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(range.size()));
    std::iota(numbers.begin(), numbers.end(), range.first);
    return read(numbers);
}

std::vector<double> Galaxies::column(const std::string& name) const
{
    const std::lock_guard lock(state_->reading);
    const auto values_of = [&](const std::optional<store::Reader>& reader) {
        return reader && reader->schema().has(name) ? reader->column<double>(name) : std::vector<double>();
    };
    const auto of_images = values_of(state_->images), of_spectra = values_of(state_->spectra);
    std::vector<double> values;
    for (const auto& galaxy : state_->galaxies) {
        const bool image = galaxy.image_row >= 0 && !of_images.empty();
        const bool spectrum = galaxy.spectrum_row >= 0 && !of_spectra.empty();
        values.push_back(image      ? of_images[static_cast<std::size_t>(galaxy.image_row)]
                         : spectrum ? of_spectra[static_cast<std::size_t>(galaxy.spectrum_row)]
                                    : std::numeric_limits<double>::quiet_NaN());
    }
    return values;
}

bool Galaxies::has_images() const { return state_->images.has_value(); }
bool Galaxies::has_spectra() const { return state_->spectra.has_value(); }
bool Galaxies::display_images() const
{
    return state_->images && state_->images->schema().attributes.value("bands", "") == "RGB";
}

std::vector<std::int64_t> Galaxies::image_shape() const { return flux_shape(state_->images.value()); }
std::int64_t Galaxies::bins() const { return flux_shape(state_->spectra.value()).at(0); }

std::int64_t Galaxies::row_bytes() const
{
    std::int64_t bytes = 0;
    for (const auto* reader : {&state_->images, &state_->spectra}) {
        bytes += *reader ? static_cast<std::int64_t>((*reader)->schema().column("flux").row_bytes()) : 0;
    }
    return bytes;
}

nlohmann::json Galaxies::content_ids() const
{
    nlohmann::json ids = nlohmann::json::object();
    const auto add = [&](const char* name, const std::optional<store::Reader>& reader) {
        if (reader) {
            ids[name] = reader->content_id();
        }
    };
    add("images", state_->images);
    add("spectra", state_->spectra);
    add("pairs", state_->pairs);
    return ids;
}

}  // namespace astroclip::data
