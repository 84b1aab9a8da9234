#include "survey/fits.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include "core/error.hpp"

namespace astroclip::survey::fits {
namespace {

const std::string data = TEST_DATA "/survey/";
const std::string coadd = data + "coadd-4-80613-thru20210324.fits";

std::string temporary(const std::string& name)
{
    return (std::filesystem::path(testing::TempDir()) / ("astroclip-fits-" + name)).string();
}

std::string bytes_of(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const std::string& path, const std::string& bytes)
{
    std::ofstream(path, std::ios::binary) << bytes;
}

std::string message_of(const std::function<void()>& work)
{
    try {
        work();
    } catch (const Error& error) {
        return error.what();
    }
    return "";
}

TEST(Fits, FindsHdusByNameWhateverTheirCaseAndPlace)
{
    const File file(coadd);
    EXPECT_EQ(file.hdus(), 19);
    EXPECT_EQ(file.find("fibermap"), 1);
    EXPECT_EQ(File(data + "spectra-5-169-thru20210419.fits.gz").find("SCORES"), 2);
    EXPECT_NE(message_of([&] { file.find("NOPE"); }).find("no HDU 'NOPE'; there are: PRIMARY, FIBERMAP"),
              std::string::npos);
}

TEST(Fits, ReadsColumnsOfAllKinds)
{
    const File file(coadd);
    const auto hdu = file.find("FIBERMAP");
    const auto columns = file.columns(hdu);
    EXPECT_EQ(columns.size(), 81u);
    EXPECT_EQ(file.rows(hdu), 1);
    EXPECT_EQ(file.read_column<std::int64_t>(hdu, *find_column(columns, "targetid"))[0], 39633345008634465);
    EXPECT_EQ(file.read_column<double>(hdu, *find_column(columns, "TARGET_RA"))[0], 105.48977452498902);
    EXPECT_EQ(file.read_column<float>(hdu, *find_column(columns, "FLUX_G"))[0], 3.2370327f);
    EXPECT_EQ(file.read_texts(hdu, *find_column(columns, "OBJTYPE"))[0], "TGT");
    EXPECT_EQ(file.read_texts(hdu, *find_column(columns, "BRICKNAME"))[0], "1054p567");
    EXPECT_EQ(find_column(columns, "NOPE"), nullptr);
}

TEST(Fits, ReadsPlainUnsignedAndCompressedMasksAlike)
{
    for (const auto* name : {"coadd-5-169-thru20210419.fits.gz", "spectra-5-169-thru20210419.fits.gz"}) {
        const File file(data + name);
        const auto hdu = file.find("R_MASK");
        EXPECT_EQ(file.image_shape(hdu), (std::vector<std::int64_t>{5, 2326}));
        const auto row = file.read_box<std::int64_t>(hdu, {4, 0}, {1, 2326});
        const auto bad = std::count_if(row.begin(), row.end(), [](auto m) { return m != 0; });
        EXPECT_EQ(bad, std::string(name).starts_with("spectra") ? 4 : 0) << name;
        for (const auto value : row) {
            EXPECT_TRUE(value == 0 || value == 1);
        }
    }
}

TEST(Fits, RefusesTruncatedFilesByHduAndSize)
{
    const auto whole = bytes_of(coadd);
    const auto path = temporary("cut.fits");
    for (const double share : {0.2, 0.5, 0.9}) {
        write_bytes(path,
                    whole.substr(0, static_cast<std::size_t>(share * static_cast<double>(whole.size()))));
        const auto message = message_of([&] { File file(path); });
        EXPECT_NE(message.find("truncated: HDU '"), std::string::npos) << share << ": " << message;
    }
    write_bytes(path, whole.substr(0, whole.size() - 6000));  // inside the last header
    EXPECT_NE(message_of([&] { File file(path); }).find("truncated or damaged: HDU 18"), std::string::npos);
    write_bytes(path, whole.substr(0, 1000));
    EXPECT_THROW(File file(path), DataError);
    write_bytes(path, "");
    EXPECT_THROW(File file(path), DataError);
    std::filesystem::remove(path);
}

TEST(Fits, FindsAFlippedBitByTheChecksum)
{
    auto bytes = bytes_of(coadd);
    const auto path = temporary("flip.fits");
    // Inside the data of B_FLUX: it follows a header that holds this keyword.
    const auto header = bytes.find("B_FLUX");
    bytes[(header / 2880 + 2) * 2880 + 1000] ^= 4;
    write_bytes(path, bytes);
    const File file(path);
    file.verify_checksum(file.find("R_FLUX"));
    EXPECT_NE(message_of([&] {
                  file.verify_checksum(file.find("B_FLUX"));
              }).find("HDU 'B_FLUX' does not match its"),
              std::string::npos);
    std::filesystem::remove(path);
}

TEST(Fits, TakesNamesLiterally)
{
    const auto path = temporary("a[1].fits");
    std::filesystem::copy_file(data + "tractor-1054p567.fits", path,
                               std::filesystem::copy_options::overwrite_existing);
    EXPECT_EQ(File(path).hdus(), 2);
    std::filesystem::remove(path);
    EXPECT_THROW(File(data + "tractor-1054p567.fits(copy.fits)"), MissingInput);
    EXPECT_THROW(File("mem://x"), MissingInput);
}

TEST(Fits, SaysWhatIsNotFits)
{
    const auto path = temporary("text.fits");
    write_bytes(path, std::string(5000, 'x'));
    EXPECT_NE(message_of([&] { File file(path); }).find(path + ": is not a FITS file"), std::string::npos);
    EXPECT_THROW(File(testing::TempDir()), DataError);
    std::filesystem::remove(path);
}

TEST(Fits, RefusesABoxOutsideTheImage)
{
    const File file(coadd);
    const auto hdu = file.find("B_FLUX");
    EXPECT_THROW(file.read_box<float>(hdu, {1, 0}, {1, 2751}), DataError);
    EXPECT_THROW(file.read_box<float>(hdu, {0, 0}, {1, 2752}), DataError);
    EXPECT_THROW(file.read_box<float>(hdu, {0}, {1}), DataError);
}

}  // namespace
}  // namespace astroclip::survey::fits
