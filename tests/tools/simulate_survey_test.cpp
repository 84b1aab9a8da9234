#include <gtest/gtest.h>
#include <hdf5.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/hdf5.hpp"
#include "tools/simulate/fits_file.hpp"
#include "tools/simulate/simulation.hpp"

namespace astroclip::simulate {
namespace {

namespace fs = std::filesystem;

std::string fresh_folder(const std::string& name)
{
    const auto path = testing::TempDir() + "simulate-" + name;
    fs::remove_all(path);
    fs::remove_all(path + ".part");
    return path;
}

Settings small(const std::string& name)
{
    Settings settings;
    settings.output = fresh_folder(name);
    settings.galaxies = 30;
    settings.per_file = 12;
    settings.cutout_size = 48;
    settings.sky_fibres = 0.2;
    return settings;
}

std::map<std::string, std::vector<std::string>> hashes(const std::string& folder)
{
    std::map<std::string, std::vector<std::string>> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
        if (entry.is_regular_file()) {
            found[fs::relative(entry.path(), folder)] = file_block_hashes(entry.path());
        }
    }
    return found;
}

nlohmann::json parameters_of(const Settings& settings)
{
    return {{"galaxies", settings.galaxies}, {"seed", settings.seed}};
}

void run(const Settings& settings) { ASSERT_TRUE(simulate(settings, parameters_of(settings), false)); }

TEST(Simulation, GivesTheSameBytesWhateverTheThreads)
{
    for (const char* images : {"hdf5", "fits"}) {
        auto one = small("one"), three = small("three"), other = small("other");
        one.images = three.images = other.images = images;
        one.nan_pixels = three.nan_pixels = other.nan_pixels = 0.2;
        three.threads = 3;
        other.seed = 43;
        run(one);
        run(three);
        run(other);
        EXPECT_EQ(hashes(one.output), hashes(three.output)) << images;
        EXPECT_NE(hashes(one.output), hashes(other.output)) << images;
    }
}

TEST(Simulation, HasTheSameObjectsInSpectraImagesAndTruth)
{
    const auto settings = small("pairs");
    run(settings);
    auto truth = FitsFile::open(settings.output + "/truth.fits");
    truth.move_to("TRUTH");
    const auto ids = truth.read_column("TARGETID");
    const auto ra = truth.read_column("RA"), brickid = truth.read_column("BRICKID"),
               objid = truth.read_column("OBJID");
    ASSERT_EQ(ids.size(), 30u);

    std::vector<double> targets, skies;
    for (const auto& entry : fs::directory_iterator(settings.output + "/spectra")) {
        auto file = FitsFile::open(entry.path());
        const bool coadd = entry.path().filename().string().starts_with("coadd");
        file.move_to(coadd ? "FIBERMAP" : "REDSHIFTS");
        if (!coadd) {
            continue;
        }
        const auto found = file.read_column("TARGETID");
        const auto types = file.read_text_column("OBJTYPE");
        for (std::size_t i = 0; i < found.size(); ++i) {
            (types[i] == "TGT" ? targets : skies).push_back(found[i]);
        }
        file.move_to("Z_FLUX");
        EXPECT_EQ(file.image_dims(), (std::vector<long>{2881, static_cast<long>(found.size())}));
    }
    std::sort(targets.begin(), targets.end());
    auto sorted = ids;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(targets, sorted);
    EXPECT_GT(skies.size(), 0u);

    std::map<std::pair<double, double>, double> ra_of_image;
    for (const auto& entry : fs::directory_iterator(settings.output + "/images")) {
        const hdf5::Handle file(H5Fopen(entry.path().c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), H5Fclose);
        const auto read = [&](const char* name) {
            const hdf5::Handle dataset(H5Dopen2(file, name, H5P_DEFAULT), H5Dclose);
            const hdf5::Handle space(H5Dget_space(dataset), H5Sclose);
            std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
            H5Dread(dataset, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
            return values;
        };
        const auto bricks = read("brickid"), objects = read("objid"), positions = read("ra"),
                   pixels = read("images");
        EXPECT_EQ(pixels.size(), bricks.size() * 3 * 48 * 48);
        for (std::size_t i = 0; i < bricks.size(); ++i) {
            ra_of_image[{bricks[i], objects[i]}] = positions[i];
        }
    }
    ASSERT_EQ(ra_of_image.size(), 30u);
    for (std::size_t i = 0; i < ids.size(); ++i) {
        EXPECT_EQ(ra_of_image.at({brickid[i], objid[i]}), ra[i]);
    }
}

TEST(Simulation, WritesVotesOnTheObjectsOfTheTruth)
{
    const auto settings = small("votes");
    run(settings);
    std::ifstream file(settings.output + "/votes.csv");
    const auto fields = [&file] {
        std::string line, field;
        std::getline(file, line);
        std::istringstream text(line);
        std::vector<std::string> all;
        while (std::getline(text, field, ',')) {
            all.push_back(field);
        }
        if (line.ends_with(',')) {
            all.emplace_back();
        }
        return all;
    };
    auto truth = FitsFile::open(settings.output + "/truth.fits");
    truth.move_to("TRUTH");
    const auto ids = truth.read_column("TARGETID");
    const auto names = fields();
    int empty = 0;
    for (const double id : ids) {
        const auto row = fields();
        ASSERT_EQ(row.size(), names.size());
        EXPECT_EQ(std::stod(row[0]), id);
        for (std::size_t i = 3; i < row.size();) {
            ASSERT_TRUE(names[i].ends_with("_total-votes")) << names[i];
            const bool asked = row[i] != "0";
            double shares = 0;
            for (++i; i < row.size() && names[i].ends_with("_debiased"); ++i) {
                EXPECT_EQ(row[i].empty(), !asked);
                shares += asked ? std::stod(row[i]) : 0;
            }
            EXPECT_NEAR(shares, asked, 1e-12);
            empty += !asked;
        }
    }
    EXPECT_TRUE(fields().empty());
    EXPECT_GT(empty, 0);
}

TEST(Simulation, DiffersFromItsNoiselessSpectraByNoiseOfTheStatedIvar)
{
    auto settings = small("noiseless");
    settings.noiseless = true;
    run(settings);
    double chi2 = 0;
    std::int64_t bins = 0;
    for (const auto& entry : fs::directory_iterator(settings.output + "/noiseless")) {
        const auto name = entry.path().filename().string();
        if (!name.starts_with("coadd")) {
            continue;
        }
        auto quiet = FitsFile::open(entry.path()),
             noisy = FitsFile::open(settings.output + "/spectra/" + name);
        for (const char* arm : {"B", "R", "Z"}) {
            const auto read = [arm](FitsFile& file, const char* what) {
                file.move_to(std::string(arm) + "_" + what);
                return file.read_image();
            };
            const auto light = read(quiet, "FLUX"), seen = read(noisy, "FLUX"), ivar = read(noisy, "IVAR"),
                       mask = read(noisy, "MASK");
            for (std::size_t i = 0; i < light.size(); ++i) {
                const bool good = ivar[i] > 0 && mask[i] == 0;
                chi2 += good ? (seen[i] - light[i]) * (seen[i] - light[i]) * ivar[i] : 0;
                bins += good;
            }
        }
    }
    // 36 spectra of 7958 bins: the mean of chi² scatters by sqrt(2 / 286,000) = 0.0026.
    EXPECT_GT(bins, 250'000);
    EXPECT_NEAR(chi2 / static_cast<double>(bins), 1, 0.015);
}

TEST(Simulation, WritesTheDefectsItIsToldTo)
{
    auto settings = small("defects");
    settings.dead_fibres = settings.zero_spectra = settings.duplicates = 0.3;
    run(settings);
    auto truth = FitsFile::open(settings.output + "/truth.fits");
    truth.move_to("TRUTH");
    int dead = 0, second = 0;
    for (const double bits : truth.read_column("DEFECTS")) {
        dead += (static_cast<int>(bits) & 2) != 0;
        second += (static_cast<int>(bits) & 16) != 0;
    }
    EXPECT_GT(dead, 0);
    EXPECT_GT(second, 0);
    int found = 0, targets = 0;
    for (const auto& entry : fs::directory_iterator(settings.output + "/spectra")) {
        if (entry.path().filename().string().starts_with("coadd")) {
            auto file = FitsFile::open(entry.path());
            file.move_to("FIBERMAP");
            const auto types = file.read_text_column("OBJTYPE");
            const auto status = file.read_column("COADD_FIBERSTATUS");
            for (std::size_t i = 0; i < types.size(); ++i) {
                found += status[i] != 0;
                targets += types[i] == "TGT";
            }
        }
    }
    EXPECT_GE(found, dead);
    EXPECT_EQ(targets, 30 + second);
}

TEST(Simulation, CutsOffAtLeastOneFileOfEachKind)
{
    auto settings = small("truncated");
    settings.truncated_files = 1e-9;
    run(settings);
    std::ifstream file(settings.output + "/simulation.json");
    EXPECT_EQ(nlohmann::json::parse(file)["files"]["truncated"].size(), 2u);
}

TEST(Simulation, IsMadeOnceAndNeverOverwritten)
{
    auto settings = small("again");
    settings.galaxies = 3;
    run(settings);
    const auto before = hashes(settings.output);
    EXPECT_FALSE(simulate(settings, parameters_of(settings), false));
    settings.seed = 7;
    EXPECT_THROW(simulate(settings, parameters_of(settings), false), OutputConflict);
    EXPECT_EQ(hashes(settings.output), before);
    EXPECT_TRUE(simulate(settings, parameters_of(settings), true));
    EXPECT_NE(hashes(settings.output), before);
    EXPECT_FALSE(fs::exists(settings.output + ".part"));
}

TEST(Simulation, RefusesAFolderThatIsSomethingElse)
{
    auto settings = small("foreign");
    fs::create_directories(settings.output);
    std::ofstream(settings.output + "/thesis.tex") << "do not delete";
    EXPECT_THROW(simulate(settings, parameters_of(settings), true), OutputConflict);
    EXPECT_TRUE(fs::exists(settings.output + "/thesis.tex"));
}

TEST(Simulation, SaysWhichDataFileIsMissing)
{
    auto settings = small("nodata");
    settings.data = testing::TempDir();
    EXPECT_THROW(simulate(settings, parameters_of(settings), false), MissingInput);
    EXPECT_FALSE(fs::exists(settings.output));
}

}  // namespace
}  // namespace astroclip::simulate
