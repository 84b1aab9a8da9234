#include "store/schema.hpp"

#include <gtest/gtest.h>

#include <set>

#include "core/error.hpp"

namespace astroclip::store {
namespace {

std::vector<Schema> all()
{
    return {images("grz", 152, 0.262), spectra({3600.0, 3600.8}), pairs(), embeddings(512)};
}

TEST(Schema, BeginsWithTheIdentifierAndDescribesEveryColumn)
{
    for (const auto& schema : all()) {
        EXPECT_EQ(schema.columns.front().name, "object_id");
        EXPECT_EQ(schema.columns.front().type, Type::i64);
        std::set<std::string> names;
        for (const auto& column : schema.columns) {
            EXPECT_TRUE(names.insert(column.name).second)
                << schema.kind << " has two columns " << column.name;
            EXPECT_FALSE(column.description.empty()) << column.name;
            const bool vector =
                column.name.ends_with("_embedding") || column.name.ends_with("_embedding_norm");
            EXPECT_EQ(column.ucd.empty(), vector) << column.name;
        }
    }
}

TEST(Schema, SurvivesTheManifest)
{
    for (const auto& schema : all()) {
        EXPECT_EQ(to_json(schema_from_json(to_json(schema))), to_json(schema));
    }
}

TEST(Schema, CountsTheBytesOfARow)
{
    const auto schema = images("grz", 152, 0.262);
    EXPECT_EQ(schema.column("flux").row_bytes(), 3u * 152 * 152 * 4);
    EXPECT_EQ(schema.column("release").row_bytes(), 2u);
    EXPECT_GT(schema.row_bytes(), schema.column("flux").row_bytes());
    EXPECT_THROW(schema.column("fluxx"), InternalError);
}

TEST(Schema, HoldsTheColumnsOfTheCatalogue)
{
    const auto schema = embeddings(1024);
    for (const auto* name :
         {"object_id", "targetid", "release", "brickid", "objid", "ra", "dec", "healpix_29",
          "image_embedding", "spectrum_embedding", "image_embedding_norm", "spectrum_embedding_norm",
          "has_image", "has_spectrum", "z_spec", "zwarn", "qflag"}) {
        EXPECT_TRUE(schema.has(name)) << name;
    }
    EXPECT_EQ(schema.column("image_embedding").shape, std::vector<std::size_t>{1024});
    EXPECT_EQ(schema.column("z_spec").fill, "NaN");
}

}  // namespace
}  // namespace astroclip::store
