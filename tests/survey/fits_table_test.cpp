#include "survey/fits_table.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "survey/fits.hpp"

using namespace astroclip;
using namespace astroclip::survey::fits;

namespace {

class FitsTable : public ::testing::Test {
protected:
    std::string path = std::filesystem::temp_directory_path() /
                       ("fits-table-" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) +
                        "-" + std::to_string(getpid()) + ".fits");
    ~FitsTable() override { std::filesystem::remove(path); }
};

template <typename T>
const char* bytes(const std::vector<T>& values)
{
    return reinterpret_cast<const char*>(values.data());
}

const std::vector<TableColumn> columns{
    {"id", 'K', 1, "", "identifier", "meta.id"},
    {"ra", 'D', 1, "deg", "right ascension"},
    {"vector", 'E', 3},
    {"flag", 'V'},
    {"small", 'B'},
    {"release", 'I', 1, "", "", "", -1},
    {"mode", 'A', 2},
};

struct Values {
    std::vector<std::int64_t> id{1, -2, 3};
    std::vector<double> ra{0.25, 359.5, 12};
    std::vector<float> vector{1, 2, 3, 4, 5, 6, 7, 8, 9};
    std::vector<std::uint32_t> flag{0, 4000000000U, 7};
    std::vector<std::uint8_t> small{0, 255, 1};
    std::vector<std::int16_t> release{9010, -1, 9011};
    std::string mode = "iisssi";

    // From row `first` on.
    std::vector<const char*> from(std::size_t first) const
    {
        return {bytes(id) + first * 8,   bytes(ra) + first * 8, bytes(vector) + first * 12,
                bytes(flag) + first * 4, bytes(small) + first,  bytes(release) + first * 2,
                mode.data() + first * 2};
    }
};

std::string contents(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_F(FitsTable, RowsAppendedInPiecesAreReadBackWithUnitsAndKeys)
{
    const Values values;
    TableWriter writer(
        path, "catalog", columns, 3,
        {{"MODEL", std::string(150, 'm'), "a long text"}, {"scale_of_it", 0.262}, {"PART", std::int64_t{4}}});
    writer.append(values.from(0), 2);
    writer.append(values.from(2), 1);
    writer.close();

    const File file(path);
    const auto table = file.find("catalog");
    file.verify_checksum(table);
    const auto there = file.columns(table);
    const auto column = [&](const char* name) { return *find_column(there, name); };
    EXPECT_EQ(file.rows(table), 3);
    EXPECT_EQ(file.read_column<std::int64_t>(table, column("id")), values.id);
    EXPECT_EQ(file.read_column<double>(table, column("ra")), values.ra);
    EXPECT_EQ(file.read_column<float>(table, column("vector")), values.vector);
    EXPECT_EQ(file.read_column<std::int64_t>(table, column("flag")),
              (std::vector<std::int64_t>{0, 4000000000, 7}));
    EXPECT_EQ(file.read_column<std::int64_t>(table, column("small")), (std::vector<std::int64_t>{0, 255, 1}));
    EXPECT_EQ(file.read_texts(table, column("mode")), (std::vector<std::string>{"ii", "ss", "si"}));
    EXPECT_EQ(file.text(table, "TUNIT2"), "deg");
    EXPECT_EQ(file.text(table, "TCOMM1"), "identifier");
    EXPECT_EQ(file.text(table, "TUCD1"), "meta.id");
    EXPECT_EQ(file.number(table, "TNULL6", 0), -1);
    EXPECT_EQ(file.text(table, "MODEL"), std::string(150, 'm'));
    EXPECT_EQ(file.number(table, "PART", 0), 4);
}

TEST_F(FitsTable, EqualContentIsEqualBytes)
{
    std::string first;
    for (int time = 0; time < 2; ++time) {
        TableWriter writer(path, "catalog", columns, 3, {});
        writer.append(Values{}.from(0), 3);
        writer.close();
        if (time == 0) {
            first = contents(path);
            std::filesystem::remove(path);
        }
    }
    EXPECT_EQ(first, contents(path));
}

TEST_F(FitsTable, AFileThatCannotBeMadeOrIsCutShortIsAnError)
{
    EXPECT_THROW(TableWriter("/nonexistent/table.fits", "catalog", columns, 3, {}), IoError);
    TableWriter writer(path, "catalog", columns, 3, {});
    EXPECT_THROW(writer.close(), InternalError);
    EXPECT_THROW(writer.append(Values{}.from(0), 4), InternalError);
}
