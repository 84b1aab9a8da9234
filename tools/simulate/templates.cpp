#include "tools/simulate/templates.hpp"

#include <fmt/format.h>

#include "core/error.hpp"
#include "tools/simulate/fits_file.hpp"

namespace astroclip::simulate {
namespace {

Mix read_mix(FitsFile& file, const std::string& column, const std::string& path)
{
    const auto values = file.read_column(column);
    if (values.size() != template_count) {
        throw DataError(
            path, fmt::format("column {} has {} rows, {} expected", column, values.size(), template_count));
    }
    Mix mix;
    std::copy(values.begin(), values.end(), mix.begin());
    return mix;
}

}  // namespace

Templates Templates::read(const std::string& path, const Filter& r)
{
    Templates templates;
    auto file = FitsFile::open(path);
    file.move_to("WAVELENGTH");
    templates.wavelength = file.read_image();
    const auto bins = templates.wavelength.size();

    file.move_to("CONTINUUM");
    const auto flux = file.read_image();
    if (flux.size() != bins * template_count) {
        throw DataError(path, fmt::format("CONTINUUM has {} values, {} × {} expected", flux.size(),
                                          template_count, bins));
    }
    file.move_to("LINES");
    const auto names = file.read_text_column("NAME");
    const auto wavelengths = file.read_column("WAVELENGTH");
    const auto strengths = file.read_column("FLUX");
    if (names.size() != line_count || strengths.size() != line_count * template_count) {
        throw DataError(path, fmt::format("LINES has {} rows, {} expected", names.size(), line_count));
    }
    for (std::size_t l = 0; l < line_count; ++l) {
        templates.lines[l] = {names[l], wavelengths[l], {}};
        std::copy_n(strengths.begin() + static_cast<long>(l * template_count), template_count,
                    templates.lines[l].flux.begin());
    }
    file.move_to("MASS");
    templates.surviving = read_mix(file, "MREMAIN", path);
    templates.metallicity = read_mix(file, "METS", path);
    templates.young_300 = read_mix(file, "M300", path);
    templates.young_1000 = read_mix(file, "M1000", path);

    for (std::size_t k = 0; k < template_count; ++k) {
        const auto first = flux.begin() + static_cast<long>(k * bins);
        templates.continuum[k].assign(first, first + static_cast<long>(bins));
        auto scaled = templates.continuum[k];
        for (auto& value : scaled) {
            value *= 1e17;
        }
        templates.r_magnitude[k] = magnitude(r.flux_nanomaggy(templates.wavelength, scaled));
    }
    return templates;
}

}  // namespace astroclip::simulate
