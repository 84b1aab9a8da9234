#include "survey/lzf.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace astroclip::survey {
namespace {

// "" if the bytes are damaged.
std::string unpacked(const std::vector<unsigned char>& packed, std::size_t size)
{
    std::string text(size, '?');
    const std::span bytes(reinterpret_cast<unsigned char*>(text.data()), size);
    return unpack_lzf(packed, bytes) ? text : "";
}

TEST(Lzf, CopiesLiterals) { EXPECT_EQ(unpacked({2, 'a', 'b', 'c'}, 3), "abc"); }

TEST(Lzf, RepeatsWhatWasThere)
{
    // Two bytes as they are; then 4 bytes from 2 back, which overlap themselves.
    EXPECT_EQ(unpacked({1, 'a', 'b', 2 << 5, 1}, 6), "ababab");
    // The length's further byte: 9 + 3 bytes from 1 back.
    EXPECT_EQ(unpacked({0, 'x', 7 << 5, 3, 0}, 13), std::string(13, 'x'));
}

TEST(Lzf, ReachesBackBeyond256Bytes)
{
    std::vector<unsigned char> packed{0, 'a', 0, 'b', 7 << 5, 255, 0, 7 << 5, 30, 0};  // a, then many b
    packed.insert(packed.end(), {1 << 5 | 1, 48});  // 3 bytes from 256 + 48 + 1 back, the start
    const auto text = unpacked(packed, 2 + 264 + 39 + 3);
    ASSERT_FALSE(text.empty());
    EXPECT_EQ(text.substr(0, 3), "abb");
    EXPECT_EQ(text.substr(305), "abb");
}

TEST(Lzf, TellsDamagedBytes)
{
    EXPECT_EQ(unpacked({2, 'a', 'b'}, 3), "");               // ends within literals
    EXPECT_EQ(unpacked({0, 'a', 1 << 5}, 4), "");            // ends within a code
    EXPECT_EQ(unpacked({0, 'a', 7 << 5, 9}, 20), "");        // ends within a long code
    EXPECT_EQ(unpacked({0, 'a', 1 << 5, 1}, 4), "");         // reaches back before the start
    EXPECT_EQ(unpacked({2, 'a', 'b', 'c'}, 2), "");          // too much
    EXPECT_EQ(unpacked({0, 'a', 7 << 5, 255, 0}, 100), "");  // too much, by a repeat
    EXPECT_EQ(unpacked({2, 'a', 'b', 'c'}, 4), "");          // too little
}

}  // namespace
}  // namespace astroclip::survey
