#include "survey/table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
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

TEST(Table, MissesWhatIsNotThere) { EXPECT_THROW(Table::open(data + "nope.csv"), MissingInput); }

}  // namespace
}  // namespace astroclip::survey
