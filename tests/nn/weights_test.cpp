#include "nn/weights.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/error.hpp"
#include "nn/layers.hpp"

namespace astroclip::nn {
namespace {

class Weights : public testing::Test {
protected:
    Weights() : path_(std::filesystem::temp_directory_path() / ("weights-" + std::to_string(::getpid()))) {}
    ~Weights() override { std::filesystem::remove(path_); }

    std::string bytes() const
    {
        std::ifstream file(path_, std::ios::binary);
        return {std::istreambuf_iterator<char>(file), {}};
    }
    void write(const std::string& content) const { std::ofstream(path_, std::ios::binary) << content; }
    // A file with that header, its length in front, and `data` zeros behind.
    void write_header(const std::string& header, std::size_t data) const
    {
        const std::uint64_t length = header.size();
        write(std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data, '\0'));
    }
    std::string refusal() const
    {
        try {
            const WeightsFile file(path_);
        } catch (const DataError& error) {
            return error.what();
        }
        return "accepted";
    }
    void expect_refused(const std::string& header, std::size_t data, const std::string& why) const
    {
        write_header(header, data);
        EXPECT_NE(refusal().find(why), std::string::npos) << header << "\n" << refusal();
    }

    const std::string path_;
};

bool same_bits(const at::Tensor& a, const at::Tensor& b)
{
    return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
           (a.numel() == 0 || std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0);
}

TEST_F(Weights, ComeBackBitByBit)
{
    auto special = at::tensor({0.f, -0.f, 1e-45f, std::numeric_limits<float>::quiet_NaN(),
                               -std::numeric_limits<float>::infinity()});
    const NamedTensors tensors = {{"bytes", at::arange(3, at::kByte)},
                                  {"half", at::arange(5, at::kHalf)},
                                  {"special", special},
                                  {"bfloat", at::arange(4, at::kBFloat16).view({2, 2})},
                                  {"scalar", at::scalar_tensor(2.5, at::kDouble)},
                                  {"none", at::empty({0, 3})},
                                  {"transposed", at::arange(6, at::kFloat).view({2, 3}).t()},
                                  {"count", at::tensor({std::int64_t(1) << 62}, at::kLong)}};
    save_weights(path_, tensors, {{"model", "test"}, {"note", "line\nwith \"quotes\" and ü"}});
    const WeightsFile file(path_);
    EXPECT_EQ(file.metadata().at("note"), "line\nwith \"quotes\" and ü");
    EXPECT_EQ(file.names().size(), tensors.size());
    for (const auto& [name, tensor] : tensors) {
        EXPECT_TRUE(same_bits(file.tensor(name), tensor.contiguous())) << name;
    }
}

TEST_F(Weights, AreTheSameBytesEveryTime)
{
    const NamedTensors tensors = {{"b", at::ones({3})}, {"a", at::zeros({2}, at::kDouble)}};
    save_weights(path_, tensors, {{"z", "1"}, {"a", "2"}});
    const auto first = bytes();
    save_weights(path_, tensors, {{"a", "2"}, {"z", "1"}});
    EXPECT_EQ(bytes(), first);
    const WeightsFile file(path_);
    EXPECT_EQ(file.names(),
              (std::vector<std::string>{"a", "b"}));  // larger elements first: all data is aligned
    std::uint64_t header = 0;
    std::memcpy(&header, first.data(), 8);
    EXPECT_EQ(header % 8, 0u);
}

TEST_F(Weights, AreRefusedIfAnythingIsWrong)
{
    const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
    write_header("{\"a\":{" + good + "}}", 8);
    EXPECT_EQ(refusal(), "accepted");
    expect_refused("{\"a\":{" + good + "},\"a\":{" + good + "}}", 8, "twice");
    expect_refused("{\"a\":{" + good + ",\"dtype\":\"F32\"}}", 8, "twice");
    expect_refused("{\"a\":{" + good + "}}", 12, "accounts for");
    expect_refused("{\"a\":{" + good + "}}", 4, "lies at bytes");
    expect_refused("{\"a\":{" + good + ",\"more\":1}}", 8, "exactly");
    expect_refused("{\"a\":{" + good + "},\"b\":{" + good + "}}", 8, "overlaps");
    expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12, "gap");
    expect_refused(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8, "lies at bytes");
    expect_refused(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8, "lies at bytes");
    expect_refused(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8, "natural number");
    expect_refused(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8, "natural number");
    expect_refused(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296,2],"data_offsets":[0,8]}})", 8,
                   "large");
    expect_refused(R"({"a":{"dtype":"F8","shape":[2],"data_offsets":[0,8]}})", 8, "dtype");
    expect_refused(R"({"a":{"dtype":7,"shape":[2],"data_offsets":[0,8]}})", 8, "dtype");
    expect_refused(R"({"a":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8, "deep");
    expect_refused(R"({"__metadata__":{"a":1}})", 0, "not a string");
    expect_refused(R"(["a"])", 0, "not a JSON object");
    expect_refused(R"({"a":)", 0, "not JSON");
    write("short");
    EXPECT_NE(refusal().find("too short"), std::string::npos);
    const std::uint64_t huge = 1ull << 63;
    write(std::string(reinterpret_cast<const char*>(&huge), 8) + "{}");
    EXPECT_NE(refusal().find("header of"), std::string::npos);
    std::filesystem::remove(path_);
    EXPECT_THROW(WeightsFile{path_}, MissingInput);
}

TEST_F(Weights, ListWhatDoesNotFitTheNetwork)
{
    const Start zero = Start::constant(0);
    Linear network(3, 2, zero, zero);
    save_weights(
        path_,
        {{"net.weight", at::ones({3, 2})}, {"net.scale", at::ones({1})}, {"other.bias", at::ones({2})}}, {});
    const WeightsFile file(path_);
    try {
        load_strict(*network, file, "net.");
        FAIL() << "accepted";
    } catch (const DataError& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("1 missing (net.bias)"), std::string::npos) << text;
        EXPECT_NE(text.find("1 unexpected (net.scale)"), std::string::npos) << text;
        EXPECT_NE(text.find("1 misshaped (net.weight [3, 2], expected [2, 3])"), std::string::npos) << text;
    }
}

TEST_F(Weights, AreWidenedButNeverNarrowed)
{
    const Start zero = Start::constant(0);
    Linear network(3, 2, zero, zero);
    save_weights(path_,
                 {{"weight", at::ones({2, 3}, at::kHalf)},
                  {"bias", at::ones({2}, at::kBFloat16)},
                  {"extra.x", at::ones(1)}},
                 {});
    load_strict(*network, WeightsFile(path_), "", {"extra."});
    EXPECT_TRUE(network->weight.equal(at::ones({2, 3})));
    EXPECT_TRUE(network->weight.requires_grad());
    save_weights(path_, {{"weight", at::ones({2, 3}, at::kDouble)}, {"bias", at::ones({2})}}, {});
    EXPECT_THROW(load_strict(*network, WeightsFile(path_)), DataError);
}

}  // namespace
}  // namespace astroclip::nn
