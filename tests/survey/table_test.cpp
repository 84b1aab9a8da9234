#include "survey/table.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "survey/csv.hpp"

namespace astroclip::survey {
namespace {

const std::string data = TEST_DATA "/survey/";

std::string csv_file(const std::string& text)
{
    const auto path = (std::filesystem::path(testing::TempDir()) / "astroclip-table.csv").string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
}

TEST(Csv, ReadsQuotesCommasLineBreaksAndBothLineEnds)
{
    const auto csv = Csv::parse(
        "\xef\xbb\xbf# made by hand\nname,note\r\n\"a,b\",\"say \"\"yes\"\"\"\r\nc,\"two\nlines\"\n\nd,",
        "x");
    ASSERT_EQ(csv.rows(), 3);
    EXPECT_EQ(csv.names(), (std::vector<std::string>{"name", "note"}));
    EXPECT_EQ(csv.field(0, 0), "a,b");
    EXPECT_EQ(csv.field(0, 1), "say \"yes\"");
    EXPECT_EQ(csv.field(1, 1), "two\nlines");
    EXPECT_EQ(csv.field(2, 1), "");
}

TEST(Csv, RefusesRaggedRowsAndOpenQuotesByLine)
{
    try {
        Csv::parse("a,b\n1,2\n3\n", "list.csv");
        FAIL();
    } catch (const DataError& error) {
        EXPECT_STREQ(error.what(), "list.csv: line 3 has 1 fields, the header 2");
    }
    EXPECT_THROW(Csv::parse("a,b\n1,\"2\n", "x"), DataError);
    EXPECT_THROW(Csv::parse("", "x"), DataError);
}

TEST(Table, ReadsNumbersExactlyAndSaysWhereOneIsNone)
{
    const auto table = Table::open(csv_file(
        "Object_ID, RA,dec,file\n39633345008634465,105.48977452498902,+1,a.fits\n7,,2e0, b.fits \n"));
    EXPECT_EQ(table->rows(), 2);
    EXPECT_EQ(table->integers("object_id"), (std::vector<std::int64_t>{39633345008634465, 7}));
    EXPECT_EQ(table->numbers("ra")[0], 105.48977452498902);
    EXPECT_TRUE(std::isnan(table->numbers("RA")[1]));
    EXPECT_EQ(table->numbers("dec"), (std::vector<double>{1, 2}));
    EXPECT_EQ(table->texts("file")[1], "b.fits");
    EXPECT_EQ(table->first_of({"targetid", "object_id"}), "object_id");
    try {
        table->integers("ra");
        FAIL();
    } catch (const DataError& error) {
        EXPECT_NE(
            std::string(error.what()).find("row 1, column 'ra': '105.48977452498902' is not a whole number"),
            std::string::npos)
            << error.what();
    }
    EXPECT_THROW(table->numbers("nope"), DataError);
}

TEST(Table, ReadsTheTractorSchemasOfTwoReleases)
{
    const auto dr9 = Table::open(data + "tractor-1054p567.fits");
    EXPECT_EQ(dr9->names().size(), 181u);
    EXPECT_EQ(dr9->integers("RELEASE")[0], 9011);
    EXPECT_EQ(dr9->integers("objid")[0], 2657);
    EXPECT_EQ(dr9->texts("type")[0], "REX");
    EXPECT_EQ(dr9->numbers("flux_r")[0], 5.947273f);
    EXPECT_EQ(dr9->integers("brick_primary")[0], 1);  // a logical column
    const auto dr8 = Table::open(data + "tractor-3301m002.fits.gz");
    EXPECT_EQ(dr8->rows(), 6);
    EXPECT_TRUE(dr8->has("SHAPEDEV_R"));
    EXPECT_EQ(dr8->integers("brickid").size(), 6u);
    EXPECT_THROW(dr9->integers("flux_r"), DataError);
    EXPECT_THROW(dr9->numbers("type"), DataError);
}

// Records of an int64 `TARGETID` and a double `LOG_MSTAR`, as one dataset or as two.
std::string hdf5_file(bool records)
{
    struct Record {
        std::int64_t id;
        double mass;
    };
    const std::vector<Record> rows{{7, 10.5}, {9, NAN}};
    const auto path =
        std::filesystem::temp_directory_path() / fmt::format("table-{}-{}.h5", getpid(), records);
    const hdf5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
    const hsize_t count = rows.size();
    const hdf5::Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
    const hdf5::Handle record(H5Tcreate(H5T_COMPOUND, sizeof(Record)), H5Tclose);
    H5Tinsert(record, "TARGETID", offsetof(Record, id), H5T_NATIVE_INT64);
    H5Tinsert(record, "LOG_MSTAR", offsetof(Record, mass), H5T_NATIVE_DOUBLE);
    const auto write = [&](const char* name, hid_t type, const void* values) {
        const hdf5::Handle dataset(H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
                                   H5Dclose);
        H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
    };
    if (records) {
        write("__astropy_table__", record, rows.data());
    } else {
        const std::vector<std::int64_t> ids{7, 9};
        const std::vector<double> masses{10.5, NAN};
        write("TARGETID", H5T_NATIVE_INT64, ids.data());
        write("LOG_MSTAR", H5T_NATIVE_DOUBLE, masses.data());
    }
    return path;
}

TEST(Table, ReadsHdf5AsColumnsAndAsRecords)
{
    for (const bool records : {false, true}) {
        const auto path = hdf5_file(records);
        const auto table = Table::open(path);
        EXPECT_EQ(table->rows(), 2);
        EXPECT_EQ(table->integers("targetid"), (std::vector<std::int64_t>{7, 9}));
        EXPECT_EQ(table->numbers("log_mstar")[0], 10.5);
        EXPECT_TRUE(std::isnan(table->numbers("LOG_MSTAR")[1]));
        EXPECT_THROW(table->numbers("Z_MW"), DataError);
        std::filesystem::remove(path);
    }
}

TEST(Table, ReadsTextsOfDigitsAsWholeNumbers)
{
    const auto path =
        (std::filesystem::temp_directory_path() / fmt::format("table-{}-texts.h5", getpid())).string();
    struct Record {
        char fixed[6];
        const char* elsewhere;
    };
    const auto write = [&](const std::vector<Record>& rows, bool records) {
        const hdf5::Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
        const hsize_t count = rows.size();
        const hdf5::Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
        const hdf5::Handle fixed(H5Tcopy(H5T_C_S1), H5Tclose), elsewhere(H5Tcopy(H5T_C_S1), H5Tclose);
        H5Tset_size(fixed, sizeof Record::fixed);
        H5Tset_strpad(fixed, H5T_STR_NULLPAD);
        H5Tset_size(elsewhere, H5T_VARIABLE);
        const auto put = [&](const char* name, const std::vector<std::pair<const char*, hid_t>>& members) {
            const hdf5::Handle type(H5Tcreate(H5T_COMPOUND, sizeof(Record)), H5Tclose);
            for (const auto& [member, kind] : members) {
                H5Tinsert(type, member, kind == fixed ? offsetof(Record, fixed) : offsetof(Record, elsewhere),
                          kind);
            }
            const hdf5::Handle dataset(
                H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
            H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows.data());
        };
        const auto put_column = [&](const char* name, hid_t type, const void* values) {
            const hdf5::Handle dataset(
                H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT), H5Dclose);
            H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values);
        };
        if (records) {
            return put("table", {{"fixed", fixed}, {"elsewhere", elsewhere}});
        }
        std::string letters;
        std::vector<const char*> pointers;
        for (const auto& row : rows) {
            letters.append(row.fixed, sizeof row.fixed);
            pointers.push_back(row.elsewhere);
        }
        put_column("fixed", fixed, letters.data());
        put_column("elsewhere", elsewhere, pointers.data());
    };
    for (const bool records : {false, true}) {
        write({{{'1', '2', '3', '4', '5', '6'}, " 39633345008634465"}, {"-7", "8"}, {"", ""}}, records);
        auto table = Table::open(path);
        EXPECT_EQ(table->integers("fixed"), (std::vector<std::int64_t>{123456, -7, -1}));
        EXPECT_EQ(table->integers("elsewhere"), (std::vector<std::int64_t>{39633345008634465, 8, -1}));
        EXPECT_EQ(table->texts("fixed")[0], "123456");
        table.reset();
        write({{"1", "1"}, {"M 31", "1.5"}}, records);
        for (const auto* name : {"fixed", "elsewhere"}) {
            try {
                Table::open(path)->integers(name);
                FAIL();
            } catch (const DataError& error) {
                EXPECT_NE(std::string(error.what()).find(fmt::format("row 2, column '{}': '", name)),
                          std::string::npos)
                    << error.what();
            }
        }
    }
    std::filesystem::remove(path);
}

TEST(Table, MissesWhatIsNotThere) { EXPECT_THROW(Table::open(data + "nope.csv"), MissingInput); }

}  // namespace
}  // namespace astroclip::survey
