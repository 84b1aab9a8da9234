#include "tools/simulate/survey_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <numeric>

#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "tools/simulate/fits_file.hpp"
#include "tools/simulate/votes.hpp"

namespace astroclip::simulate {
namespace {

constexpr auto flux_unit = "nanomaggy";
constexpr auto ivar_unit = "nanomaggy^-2";
constexpr std::array<const char*, 3> letters = {"G", "R", "Z"};

// A table column: one value of type T from each row.
template <typename T, typename Row, typename Get>
TableColumn column(const std::vector<Row>& rows, const std::string& name, const std::string& unit, Get get)
{
    std::vector<T> values;
    values.reserve(rows.size());
    for (const auto& row : rows) {
        values.push_back(static_cast<T>(get(row)));
    }
    return {name, unit, std::move(values)};
}

template <typename Row, typename Get>
TableColumn text_column(const std::vector<Row>& rows, const std::string& name, int width, Get get)
{
    std::vector<std::string> values;
    for (const auto& row : rows) {
        values.emplace_back(get(row));
    }
    return {name, "", std::move(values), width};
}

// A value of the fibre's galaxy, or 0 on sky.
template <typename Get>
auto of_galaxy(Get get)
{
    return [get](const Fibre& fibre) { return fibre.galaxy ? get(fibre) : decltype(get(fibre)){}; };
}

std::vector<TableColumn> fibermap(const std::vector<Fibre>& fibres, std::int32_t tile)
{
    using F = const Fibre&;
    const auto number = [&](F f) { return &f - fibres.data(); };
    std::vector<TableColumn> columns = {
        column<std::int64_t>(fibres, "TARGETID", "", [](F f) { return f.targetid; }),
        column<std::int16_t>(fibres, "PETAL_LOC", "", [&](F f) { return number(f) / 500 % 10; }),
        column<std::int32_t>(fibres, "DEVICE_LOC", "", [&](F f) { return number(f) % 500; }),
        column<std::int64_t>(fibres, "LOCATION", "",
                             [&](F f) { return number(f) / 500 % 10 * 1000 + number(f) % 500; }),
        column<std::int32_t>(fibres, "FIBER", "", [&](F f) { return number(f) % 5000; }),
        column<std::int32_t>(fibres, "COADD_FIBERSTATUS", "", [](F f) { return f.fiberstatus; }),
        column<double>(fibres, "TARGET_RA", "deg", [](F f) { return f.ra; }),
        column<double>(fibres, "TARGET_DEC", "deg", [](F f) { return f.dec; }),
        column<float>(fibres, "PMRA", "mas yr^-1", [](F) { return 0; }),
        column<float>(fibres, "PMDEC", "mas yr^-1", [](F) { return 0; }),
        column<float>(fibres, "REF_EPOCH", "yr", [](F) { return 2015.5; }),
        text_column(fibres, "OBJTYPE", 3, [](F f) { return f.galaxy ? "TGT" : "SKY"; }),
        column<std::int16_t>(fibres, "RELEASE", "", of_galaxy([](F f) { return f.galaxy->place.release; })),
        text_column(fibres, "BRICKNAME", 8, of_galaxy([](F f) { return f.galaxy->place.brickname; })),
        column<std::int32_t>(fibres, "BRICKID", "", of_galaxy([](F f) { return f.galaxy->place.brickid; })),
        column<std::int32_t>(fibres, "BRICK_OBJID", "", of_galaxy([](F f) { return f.galaxy->place.objid; })),
        text_column(fibres, "MORPHTYPE", 4,
                    [](F f) { return f.galaxy ? tractor_type(f.galaxy->morphology) : ""; }),
        column<float>(fibres, "EBV", "mag", of_galaxy([](F f) { return f.galaxy->ebv; })),
    };
    for (std::size_t b = 0; b < 3; ++b) {
        const auto add = [&](const std::string& name, const char* unit, auto member) {
            columns.push_back(column<float>(fibres, name + letters[b], unit,
                                            of_galaxy([=](F f) { return (f.imaging.*member)[b]; })));
        };
        add("FLUX_", flux_unit, &Imaging::flux);
        add("FLUX_IVAR_", ivar_unit, &Imaging::flux_ivar);
        add("FIBERFLUX_", flux_unit, &Imaging::fiber_flux);
        add("FIBERTOTFLUX_", flux_unit, &Imaging::fiber_flux);
    }
    const auto ellipticity = [](const Galaxy& g) { return (1 - g.axis_ratio) / (1 + g.axis_ratio); };
    const std::vector<TableColumn> rest = {
        column<std::int16_t>(fibres, "MASKBITS", "", [](F) { return 0; }),
        column<float>(fibres, "SERSIC", "", of_galaxy([](F f) { return f.galaxy->fitted_sersic; })),
        column<float>(fibres, "SHAPE_R", "arcsec",
                      of_galaxy([](F f) { return f.galaxy->half_light_arcsec; })),
        column<float>(fibres, "SHAPE_E1", "", of_galaxy([&](F f) {
                          return ellipticity(*f.galaxy) * std::cos(2 * f.galaxy->position_angle);
                      })),
        column<float>(fibres, "SHAPE_E2", "", of_galaxy([&](F f) {
                          return ellipticity(*f.galaxy) * std::sin(2 * f.galaxy->position_angle);
                      })),
        text_column(fibres, "PHOTSYS", 1, [](F f) { return f.galaxy ? "S" : ""; }),
        // Bits of desitarget: BGS_ANY 60, LRG 0, SKY 32.
        column<std::int64_t>(fibres, "DESI_TARGET", "",
                             [](F f) {
                                 return !f.galaxy                                   ? std::int64_t{1} << 32
                                        : f.galaxy->redshift > 0.3 && f.galaxy->red ? 1
                                                                                    : std::int64_t{1} << 60;
                             }),
        column<std::int64_t>(fibres, "BGS_TARGET", "", of_galaxy([](F f) {
                                 return f.imaging.flux[1] > 15.8 ? 2 : 1;  // BGS_BRIGHT (r < 19.5), BGS_FAINT
                             })),
        column<std::int32_t>(fibres, "TILEID", "", [&](F) { return tile; }),
        column<std::int16_t>(fibres, "COADD_NUMEXP", "", [](F) { return 1; }),
        column<float>(fibres, "COADD_EXPTIME", "s", [](F f) { return f.spectrum.exposure_s; }),
        column<double>(fibres, "MEAN_FIBER_RA", "deg", [](F f) { return f.ra; }),
        column<double>(fibres, "MEAN_FIBER_DEC", "deg", [](F f) { return f.dec; }),
    };
    columns.insert(columns.end(), rest.begin(), rest.end());
    return columns;
}

template <typename T>
std::vector<T> stacked(const std::vector<Fibre>& fibres, std::array<std::vector<T>, 3> Spectrum::*member,
                       std::size_t arm)
{
    std::vector<T> all;
    all.reserve(fibres.size() * arms[arm].bins);
    for (const auto& fibre : fibres) {
        const auto& row = (fibre.spectrum.*member)[arm];
        all.insert(all.end(), row.begin(), row.end());
    }
    return all;
}

hdf5::Handle create_dataset(hid_t file, const std::string& name, hid_t type, const std::vector<hsize_t>& dims,
                            const std::string& path)
{
    const hdf5::Handle space(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr), H5Sclose);
    const hdf5::Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_obj_track_times(properties, false);  // times of creation would differ from run to run
    return {hdf5::checked(H5Dcreate2(file, name.c_str(), type, space, H5P_DEFAULT, properties, H5P_DEFAULT),
                          path, "create dataset"),
            H5Dclose};
}

template <typename T>
void write_dataset(hid_t file, const std::string& name, const std::vector<hsize_t>& dims,
                   const std::vector<T>& values, const std::string& path)
{
    const auto type = hdf5::memory_type<T>();
    const auto dataset = create_dataset(file, name, type, dims, path);
    hdf5::checked(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), path, "write");
}

void write_pixels(hid_t file, const std::vector<ImageRow>& rows, int size, const std::string& path)
{
    const auto side = static_cast<hsize_t>(size);
    const auto dataset = create_dataset(file, "images", H5T_NATIVE_FLOAT, {rows.size(), 3, side, side}, path);
    const hdf5::Handle space(H5Dget_space(dataset), H5Sclose);
    const hsize_t count[] = {1, 3, side, side};
    const hdf5::Handle memory(H5Screate_simple(4, count, nullptr), H5Sclose);
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const hsize_t start[] = {i, 0, 0, 0};
        H5Sselect_hyperslab(space, H5S_SELECT_SET, start, nullptr, count, nullptr);
        hdf5::checked(H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, H5P_DEFAULT, rows[i].pixels.data()),
                      path, "write");
    }
}

}  // namespace

void write_coadd(const std::string& path, const std::vector<Fibre>& fibres, std::int32_t tile,
                 bool unsigned_mask)
{
    auto file = FitsFile::create(path);
    file.write_empty_primary({{"SURVEY", "simulated"}, {"SPGRP", "cumulative"}});
    file.write_key("TILEID", std::int64_t{tile}, "number of this file");
    file.write_table("FIBERMAP", fibermap(fibres, tile));
    const auto rows = static_cast<long>(fibres.size());
    for (std::size_t a = 0; a < arms.size(); ++a) {
        const std::string prefix = std::string(1, arms[a].letter) + "_";
        const auto bins = static_cast<long>(arms[a].bins);
        file.write_image(prefix + "WAVELENGTH", DOUBLE_IMG, {bins}, wavelength_of(arms[a]),
                         {{"BUNIT", "Angstrom"}});
        file.write_image(prefix + "FLUX", FLOAT_IMG, {bins, rows}, stacked(fibres, &Spectrum::flux, a),
                         {{"BUNIT", "10**-17 erg/(s cm2 Angstrom)"}});
        file.write_image(prefix + "IVAR", FLOAT_IMG, {bins, rows}, stacked(fibres, &Spectrum::ivar, a),
                         {{"BUNIT", "10**+34 (s2 cm4 Angstrom2) / erg2"}});
        file.write_image(prefix + "MASK", unsigned_mask ? ULONG_IMG : LONG_IMG, {bins, rows},
                         stacked(fibres, &Spectrum::mask, a), {});
    }
    file.write_table("SCORES",
                     {column<std::int64_t>(fibres, "TARGETID", "", [](const Fibre& f) { return f.targetid; }),
                      column<float>(fibres, "MEDIAN_COADD_SNR", "",
                                    [](const Fibre& f) { return median_snr(f.spectrum); })});
    file.close();
}

void write_redrock(const std::string& path, const std::vector<Fibre>& fibres, std::int32_t tile)
{
    using F = const Fibre&;
    auto file = FitsFile::create(path);
    file.write_empty_primary({{"SURVEY", "simulated"}});
    file.write_table("REDSHIFTS",
                     {column<std::int64_t>(fibres, "TARGETID", "", [](F f) { return f.targetid; }),
                      column<double>(fibres, "Z", "", [](F f) { return f.redrock.z; }),
                      column<double>(fibres, "ZERR", "", [](F f) { return f.redrock.zerr; }),
                      column<std::int64_t>(fibres, "ZWARN", "", [](F f) { return f.redrock.zwarn; }),
                      column<double>(fibres, "CHI2", "", [](F f) { return f.redrock.chi2; }),
                      TableColumn{"COEFF", "", std::vector<double>(10 * fibres.size(), 0), 0, 10},
                      column<std::int64_t>(fibres, "NPIXELS", "", [](F f) { return f.redrock.pixels; }),
                      text_column(fibres, "SPECTYPE", 6, [](F) { return "GALAXY"; }),
                      text_column(fibres, "SUBTYPE", 20, [](F) { return ""; }),
                      column<std::int64_t>(fibres, "NCOEFF", "", [](F) { return 10; }),
                      column<double>(fibres, "DELTACHI2", "", [](F f) { return f.redrock.deltachi2; })});
    file.write_table("FIBERMAP", fibermap(fibres, tile));
    file.close();
}

void write_image_chunk(const std::string& path, const std::vector<ImageRow>& rows, int size)
{
    const hdf5::Handle file(
        hdf5::checked(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), path, "create"),
        H5Fclose);
    write_pixels(file, rows, size, path);
    const auto scalar = [&]<typename T>(const std::string& name, T, auto get) {
        std::vector<T> values;
        for (const auto& row : rows) {
            values.push_back(static_cast<T>(get(row)));
        }
        write_dataset(file, name, {rows.size()}, values, path);
    };
    const auto by_band = [&]<typename T>(const std::string& name, T, auto get) {
        std::vector<T> values;
        for (const auto& row : rows) {
            for (std::size_t b = 0; b < 3; ++b) {
                values.push_back(static_cast<T>(get(row)[b]));
            }
        }
        write_dataset(file, name, {rows.size(), 3}, values, path);
    };
    using R = const ImageRow&;
    scalar("inds", std::int64_t{}, [](R r) { return r.rank; });
    scalar("ra", double{}, [](R r) { return r.galaxy->place.ra; });
    scalar("dec", double{}, [](R r) { return r.galaxy->place.dec; });
    scalar("release", std::int32_t{}, [](R r) { return r.galaxy->place.release; });
    scalar("brickid", std::int32_t{}, [](R r) { return r.galaxy->place.brickid; });
    scalar("objid", std::int32_t{}, [](R r) { return r.galaxy->place.objid; });
    scalar("ebv", float{}, [](R r) { return r.galaxy->ebv; });
    scalar("maskbits", std::int32_t{}, [](R) { return 0; });
    by_band("flux", float{}, [](R r) { return r.imaging.flux; });
    by_band("fiberflux", float{}, [](R r) { return r.imaging.fiber_flux; });
    by_band("psfdepth", float{}, [](R r) { return r.imaging.psf_depth; });
    by_band("psfsize", float{}, [](R r) { return r.imaging.psf_fwhm_arcsec; });
    by_band("nobs", std::int32_t{}, [](R r) { return r.imaging.exposures; });

    const hdf5::Handle text(H5Tcopy(H5T_C_S1), H5Tclose);
    H5Tset_size(text, 3);
    const auto types = create_dataset(file, "source_type", text, {rows.size()}, path);
    std::string letters_of_types;
    for (const auto& row : rows) {
        letters_of_types += tractor_type(row.galaxy->morphology);
    }
    hdf5::checked(H5Dwrite(types, text, H5S_ALL, H5S_ALL, H5P_DEFAULT, letters_of_types.data()), path,
                  "write");
    hdf5::checked(H5Fflush(file, H5F_SCOPE_GLOBAL), path, "flush");
}

std::string cutout_name(const Galaxy& galaxy)
{
    return fmt::format("cutout-{}-{}-{}.fits", galaxy.place.release, galaxy.place.brickid,
                       galaxy.place.objid);
}

void write_cutout(const std::string& path, const ImageRow& row, int size)
{
    auto file = FitsFile::create(path);
    file.write_image("", FLOAT_IMG, {size, size, 3}, row.pixels,
                     {{"SURVEY", "LegacySurvey"},
                      {"VERSION", "SIMULATED"},
                      {"IMAGETYP", "IMAGE"},
                      {"BANDS", "grz"},
                      {"BAND0", "g"},
                      {"BAND1", "r"},
                      {"BAND2", "z"},
                      {"CTYPE1", "RA---TAN"},
                      {"CTYPE2", "DEC--TAN"}});
    const double middle = 0.5 * (size + 1), step = pixel_arcsec / 3600;
    file.write_key("CRVAL1", row.galaxy->place.ra, "Reference RA");
    file.write_key("CRVAL2", row.galaxy->place.dec, "Reference Dec");
    file.write_key("CRPIX1", middle, "Reference x");
    file.write_key("CRPIX2", middle, "Reference y");
    file.write_key("CD1_1", -step, "CD matrix");
    file.write_key("CD1_2", 0.0, "CD matrix");
    file.write_key("CD2_1", 0.0, "CD matrix");
    file.write_key("CD2_2", step, "CD matrix");
    file.write_key("IMAGEW", static_cast<double>(size), "Image width");
    file.write_key("IMAGEH", static_cast<double>(size), "Image height");
    file.close();
}

void write_cutout_list(const std::string& path, const std::vector<ImageRow>& rows)
{
    std::ofstream list(path);
    list << "release,brickid,objid,ra,dec,file\n";
    for (const auto& row : rows) {
        const auto& place = row.galaxy->place;
        list << fmt::format("{},{},{},{:.9f},{:.9f},{}\n", place.release, place.brickid, place.objid,
                            place.ra, place.dec, cutout_name(*row.galaxy));
    }
    list.close();
    if (!list) {
        throw_errno(path, "write");
    }
}

void write_truth(const std::string& path, const std::vector<TruthRow>& rows)
{
    using T = const TruthRow&;
    std::vector<TableColumn> columns = {
        column<std::int64_t>(rows, "TARGETID", "", [](T t) { return t.galaxy->place.targetid(); }),
        column<std::int32_t>(rows, "RELEASE", "", [](T t) { return t.galaxy->place.release; }),
        column<std::int32_t>(rows, "BRICKID", "", [](T t) { return t.galaxy->place.brickid; }),
        column<std::int32_t>(rows, "OBJID", "", [](T t) { return t.galaxy->place.objid; }),
        column<double>(rows, "RA", "deg", [](T t) { return t.galaxy->place.ra; }),
        column<double>(rows, "DEC", "deg", [](T t) { return t.galaxy->place.dec; }),
        column<double>(rows, "Z", "", [](T t) { return t.galaxy->redshift; }),
    };
    for (std::size_t b = 0; b < 3; ++b) {
        const auto add = [&](const std::string& name, const char* unit, auto get) {
            columns.push_back(column<float>(rows, name + letters[b], unit, get));
        };
        add("MAG_", "mag", [b](T t) { return magnitude(t.galaxy->flux[b]); });
        add("FLUX_", flux_unit, [b](T t) { return t.galaxy->flux[b]; });
        add("OBS_FLUX_", flux_unit, [b](T t) { return t.imaging.flux[b]; });
        add("BULGE_FLUX_", flux_unit, [b](T t) { return t.galaxy->part_flux[bulge][b]; });
        add("PSF_FWHM_", "arcsec", [b](T t) { return t.imaging.psf_fwhm_arcsec[b]; });
    }
    const std::vector<TableColumn> rest = {
        column<float>(rows, "ABSMAG_R", "mag", [](T t) { return t.galaxy->absolute_r; }),
        column<float>(rows, "LOG_MSTAR", "log(solMass)", [](T t) { return t.galaxy->log_mass; }),
        column<float>(rows, "Z_MW", "", [](T t) { return t.galaxy->metallicity; }),
        column<float>(rows, "TAGE_MW", "Gyr", [](T t) { return t.galaxy->age_gyr; }),
        column<float>(rows, "AVG_SFR", "solMass/yr", [](T t) { return t.galaxy->star_formation; }),
        column<float>(rows, "LOG_SSFR", "log(yr^-1)",
                      [](T t) { return std::log10(t.galaxy->star_formation) - t.galaxy->log_mass; }),
        text_column(rows, "TYPE", 3, [](T t) { return tractor_type(t.galaxy->morphology); }),
        column<std::int16_t>(rows, "RED", "", [](T t) { return t.galaxy->red; }),
        column<float>(rows, "SHAPE_R", "arcsec", [](T t) { return t.galaxy->half_light_arcsec; }),
        column<float>(rows, "SERSIC", "", [](T t) { return t.galaxy->fitted_sersic; }),
        column<float>(rows, "AXIS_RATIO", "", [](T t) { return t.galaxy->axis_ratio; }),
        column<float>(rows, "POSITION_ANGLE", "rad", [](T t) { return t.galaxy->position_angle; }),
        column<float>(rows, "EBV", "mag", [](T t) { return t.galaxy->ebv; }),
        column<float>(rows, "A_V", "mag", [](T t) { return t.galaxy->attenuation[disk]; }),
        column<float>(rows, "SNR", "", [](T t) { return t.snr; }),
        column<std::int32_t>(rows, "DEFECTS", "", [](T t) { return t.defects; }),
    };
    columns.insert(columns.end(), rest.begin(), rest.end());
    auto file = FitsFile::create(path);
    file.write_empty_primary({{"SURVEY", "simulated"}});
    file.write_table("TRUTH", columns);
    file.close();
}

void write_votes(const std::string& path, const std::vector<TruthRow>& rows, std::uint64_t seed)
{
    std::ofstream table(path);
    table << "object_id,ra,dec";
    for (const auto& poll : polls()) {
        table << fmt::format(",{}_total-votes", poll.question);
        for (const auto& answer : poll.answers) {
            table << fmt::format(",{}_{}_debiased", poll.question, answer);
        }
    }
    table << '\n';
    for (const auto& row : rows) {
        const auto& place = row.galaxy->place;
        table << fmt::format("{},{:.9f},{:.9f}", place.targetid(), place.ra, place.dec);
        for (const auto& votes : votes_on(*row.galaxy, row.imaging, seed)) {
            const int total = std::accumulate(votes.begin(), votes.end(), 0);
            table << fmt::format(",{}", total);
            for (const int given : votes) {
                table << (total > 0 ? fmt::format(",{}", static_cast<double>(given) / total) : ",");
            }
        }
        table << '\n';
    }
    table.close();
    if (!table) {
        throw_errno(path, "write");
    }
}

}  // namespace astroclip::simulate
