#pragma once

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "core/random.hpp"
#include "store/publication.hpp"
#include "store/writer.hpp"
#include "survey/split.hpp"

// A few dozen synthetic galaxies in stores, written as the stages write them. Everything is a function of the
// object's id, so a test knows what it should read. Collective.
namespace astroclip::test {

struct TinySurvey {
    std::string folder;
    std::int64_t galaxies = 48;
    std::int64_t bins = 7781;  // of a spectrum
    int image_size = 16;       // pixels
    std::int64_t part_rows = 20;
    std::uint64_t split_seed = 42;
    double test_fraction = 0.25;

    std::string images() const { return folder + "/images"; }
    std::string spectra() const { return folder + "/spectra"; }
    std::string pairs() const { return folder + "/pairs"; }
    // Spectra are stored in another order than images, so that row numbers differ.
    std::int64_t image_id(std::int64_t row) const { return 1000 + row; }
    std::int64_t spectrum_id(std::int64_t row) const { return 1000 + (row * 5 + 3) % galaxies; }
    std::int64_t spectrum_row(std::int64_t id) const
    {
        std::int64_t row = 0;
        while (spectrum_id(row) != id) {
            ++row;
        }
        return row;
    }
};

// A smooth continuum with one line at a place of its own and noise.
inline std::vector<float> tiny_spectrum(std::int64_t id, std::int64_t bins)
{
    Random random(7, "tiny-spectrum", 0, static_cast<std::uint64_t>(id));
    const auto level = random.uniform(1, 4), slope = random.uniform(-1, 1), line = random.uniform(0.1, 0.9);
    std::vector<float> flux;
    for (std::int64_t j = 0; j < bins; ++j) {
        const auto x = static_cast<double>(j) / static_cast<double>(bins);
        const auto from_line = (x - line) * 200;
        flux.push_back(static_cast<float>(level + slope * x + 5 * std::exp(-from_line * from_line) +
                                          0.3 * random.normal()));
    }
    return flux;
}

// Its inverse variance: better in the middle, and nothing measured in a tenth of the bins.
inline std::vector<float> tiny_ivar(std::int64_t id, std::int64_t bins)
{
    std::vector<float> ivar;
    for (std::int64_t j = 0; j < bins; ++j) {
        const auto x = static_cast<double>(j) / static_cast<double>(bins);
        ivar.push_back((j + id) % 10 == 0 ? 0 : static_cast<float>(11 * (0.5 + x * (1 - x))));
    }
    return ivar;
}

inline std::vector<float> tiny_image(std::int64_t id, int size)
{
    Random random(7, "tiny-image", 0, static_cast<std::uint64_t>(id));
    const auto width = random.uniform(1, 4);
    std::vector<float> flux;
    for (int band = 0; band < 3; ++band) {
        const auto peak = random.uniform(0.5, 3);
        for (int pixel = 0; pixel < size * size; ++pixel) {
            const auto y = pixel / size - size / 2, x = pixel % size - size / 2;
            flux.push_back(static_cast<float>(peak * std::exp(-(x * x + y * y) / (2 * width * width)) +
                                              0.02 * random.normal()));
        }
    }
    return flux;
}

namespace detail {

// Fills the columns that the test does not care about with zeros.
inline void add_zeros(store::Rows& rows, const store::Schema& schema, const std::vector<std::string>& but)
{
    for (const auto& column : schema.columns) {
        if (std::find(but.begin(), but.end(), column.name) == but.end()) {
            const std::vector<double> zeros(column.row_items(), 0.0);
            rows.add(column.name, zeros.data(), 1);
        }
    }
}

template <typename AddRow>
void write_store(const comm::World& world, const std::string& path, const store::Request& request,
                 const store::Schema& schema, std::int64_t plan, std::int64_t part_rows, AddRow add_row)
{
    store::Output output(world, path, request, false);
    store::Writer writer(output, schema, plan, "tiny", {.part_rows = part_rows});
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            for (auto i = turn.first; i < turn.last; ++i) {
                add_row(rows, i);
            }
            writer.append(rows, {});
        }
        writer.publish_part();
    }
    writer.publish();
}

}  // namespace detail

inline void write_images(const comm::World& world, const TinySurvey& survey)
{
    const auto schema = store::images("grz", survey.image_size, 0.262);
    detail::write_store(world, survey.images(), {"ingest-images", {}, "tiny", {}}, schema, survey.galaxies,
                        survey.part_rows, [&](store::Rows& rows, std::int64_t row) {
                            const auto id = survey.image_id(row);
                            const auto flux = tiny_image(id, survey.image_size);
                            rows.add("object_id", id);
                            rows.add("flux", flux.data(), 1);
                            detail::add_zeros(rows, schema, {"object_id", "flux"});
                        });
}

inline void write_spectra(const comm::World& world, const TinySurvey& survey)
{
    std::vector<double> wavelength;
    for (std::int64_t j = 0; j < survey.bins; ++j) {
        wavelength.push_back(3600 + 0.8 * static_cast<double>(j));
    }
    const auto schema = store::spectra(wavelength);
    detail::write_store(world, survey.spectra(), {"ingest-spectra", {}, "tiny", {}}, schema, survey.galaxies,
                        survey.part_rows, [&](store::Rows& rows, std::int64_t row) {
                            const auto id = survey.spectrum_id(row);
                            const auto flux = tiny_spectrum(id, survey.bins);
                            rows.add("object_id", id);
                            const auto ivar = tiny_ivar(id, survey.bins);
                            rows.add("flux", flux.data(), 1);
                            rows.add("ivar", ivar.data(), 1);
                            rows.add("redshift", 0.001 * static_cast<double>(id - 1000));
                            detail::add_zeros(rows, schema, {"object_id", "flux", "ivar", "redshift"});
                        });
}

// All galaxies but the last four are paired.
inline void write_pairs(const comm::World& world, const TinySurvey& survey)
{
    const auto schema = store::pairs();
    const store::Request request{
        "match",
        {{"seed", survey.split_seed}, {"test-fraction", survey.test_fraction}},
        "tiny",
        {{"images", store::content_id(survey.images())}, {"spectra", store::content_id(survey.spectra())}}};
    detail::write_store(world, survey.pairs(), request, schema, survey.galaxies - 4, survey.part_rows,
                        [&](store::Rows& rows, std::int64_t row) {
                            const auto id = survey.image_id(row);
                            const auto side = survey::split_of(id, survey.split_seed, survey.test_fraction);
                            rows.add("object_id", id);
                            rows.add("image_row", row);
                            rows.add("spectrum_row", survey.spectrum_row(id));
                            rows.add("split", static_cast<std::uint8_t>(side));
                            rows.add("separation_arcsec", 0.1);
                        });
}

// A folder for this test alone, the same on all ranks. Collective.
inline std::string scratch_folder(const comm::World& world, const std::string& name)
{
    const auto folder = world.broadcast(std::filesystem::temp_directory_path().string() + "/astroclip-" +
                                        name + "-" + std::to_string(getpid()));
    world.on_root([&] {
        std::filesystem::remove_all(folder);
        std::filesystem::create_directories(folder);
    });
    return folder;
}

inline void remove_scratch(const comm::World& world, const std::string& folder)
{
    world.barrier();  // nobody looks into it any more
    world.on_root([&] { std::filesystem::remove_all(folder); });
}

}  // namespace astroclip::test
