#include "core/hash.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace astroclip {
namespace {

TEST(Digest, IsXxh3Of128Bits)
{
    // XXH3_128bits("") with seed 0, from the algorithm's specification.
    EXPECT_EQ(digest_of(""), "99aa06d3014798d86001c324468d497f");
    EXPECT_EQ(digest_of("abc").size(), 32u);
}

TEST(Digest, KeepsTheBordersOfTexts)
{
    EXPECT_NE(Digest().add(std::string_view("ab")).add(std::string_view("c")).hex(),
              Digest().add(std::string_view("a")).add(std::string_view("bc")).hex());
}

TEST(FileBlockHashes, SeeEveryByteAndNameAMissingFile)
{
    const auto path = std::filesystem::temp_directory_path() / "astroclip_hash_test";
    const auto write = [&](char last) { std::ofstream(path) << std::string(1000, 'x') << last; };
    write('a');
    const auto before = file_block_hashes(path);
    write('b');
    EXPECT_NE(file_block_hashes(path), before);
    EXPECT_EQ(before.size(), 1u);
    std::filesystem::remove(path);
    EXPECT_THROW(file_block_hashes(path), MissingInput);
}

}  // namespace
}  // namespace astroclip
