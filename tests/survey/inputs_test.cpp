#include "survey/inputs.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

namespace fs = std::filesystem;

class Inputs : public testing::Test {
protected:
    void SetUp() override
    {
        folder = (fs::path(testing::TempDir()) / "astroclip-inputs").string();
        fs::remove_all(folder);
        fs::create_directories(folder + "/b");
    }
    void TearDown() override { fs::remove_all(folder); }
    void write(const std::string& name, const std::string& text)
    {
        std::ofstream(folder + "/" + name) << text;
    }
    std::vector<std::string> names(const std::string& input)
    {
        std::vector<std::string> result;
        for (const auto& file : list_inputs(
                 input, [](const auto& n) { return n.ends_with(".fits"); }, "FITS files")) {
            result.push_back(file.name);
        }
        return result;
    }
    std::string folder;
};

TEST_F(Inputs, ListsAFolderByNameWithSubfolders)
{
    write("z.fits", "1");
    write("b/a.fits", "2");
    write("a.txt", "no");
    write("a.fits", "3");
    EXPECT_EQ(names(folder), (std::vector<std::string>{"a.fits", "b/a.fits", "z.fits"}));
}

TEST_F(Inputs, KeepsTheOrderOfAList)
{
    write("list.txt", "# mine\nz.fits\r\n\nb/a.fits\n");
    EXPECT_EQ(names(folder + "/list.txt"), (std::vector<std::string>{"z.fits", "b/a.fits"}));
    EXPECT_EQ(list_inputs(folder + "/list.txt", nullptr, "")[1].path, folder + "/b/a.fits");
}

TEST_F(Inputs, TakesOneFileWhateverItsName)
{
    write("odd name[1].dat", "x");
    EXPECT_EQ(names(folder + "/odd name[1].dat"), (std::vector<std::string>{"odd name[1].dat"}));
}

TEST_F(Inputs, MissesWhatIsNotThere)
{
    EXPECT_THROW(names(folder + "/nope"), MissingInput);
    EXPECT_THROW(names(folder), MissingInput);
    write("list.txt", "# nothing\n");
    EXPECT_THROW(names(folder + "/list.txt"), MissingInput);
}

TEST_F(Inputs, FingerprintsContentAndNotTime)
{
    write("a.fits", std::string(300000, 'x'));
    const auto before = fingerprint_of(folder + "/a.fits");
    fs::last_write_time(folder + "/a.fits", fs::file_time_type::clock::now() - std::chrono::hours(9000));
    EXPECT_EQ(fingerprint_of(folder + "/a.fits"), before);
    auto changed = std::string(300000, 'x');
    changed[200001] = 'y';
    write("a.fits", changed);
    EXPECT_NE(fingerprint_of(folder + "/a.fits"), before);
    EXPECT_THROW(fingerprint_of(folder + "/nope"), MissingInput);
}

}  // namespace
}  // namespace astroclip::survey
