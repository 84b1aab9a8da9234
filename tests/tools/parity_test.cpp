// What astroclip-parity says of cases that agree, that do not, and that it does not know.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "nn/weights.hpp"

namespace astroclip {
namespace {

const std::string data = std::string(TEST_DATA) + "/nn/";

int parity(const std::string& cases)
{
    // Its MPI_Init must not find the environment of this test's own rank.
    const auto command =
        "for v in $(env | sed -n 's/^\\(OMPI_\\|PMIX_\\)\\([A-Za-z0-9_]*\\)=.*/\\1\\2/p'); do unset $v; "
        "done; " +
        std::string(BIN) + "/astroclip-parity " + cases + " > /dev/null 2>&1";
    return WEXITSTATUS(std::system(command.c_str()));
}

class Parity : public testing::Test {
protected:
    Parity() : folder_(std::filesystem::temp_directory_path() / ("parity-" + std::to_string(::getpid())))
    {
        std::filesystem::create_directories(folder_);
    }
    ~Parity() override { std::filesystem::remove_all(folder_); }

    // A copy of a case under another name, with its tensors changed.
    template <typename Change>
    std::string copy(const std::string& name, Change&& change) const
    {
        const nn::WeightsFile file(data + name + ".safetensors");
        nn::NamedTensors tensors;
        for (const auto& tensor : file.names()) tensors.emplace_back(tensor, file.tensor(tensor));
        change(tensors);
        nn::save_weights(folder_ / "copy.safetensors", tensors, {});
        std::filesystem::copy_file(data + name + ".json", folder_ / "copy.json",
                                   std::filesystem::copy_options::overwrite_existing);
        return folder_ / "copy.safetensors";
    }
    const std::filesystem::path folder_;
};

TEST_F(Parity, HoldsForTheNetworks)
{
    for (const std::string name : {"specformer", "vit", "astroclip_heads", "dino_head"}) {
        EXPECT_EQ(parity(data + name + ".safetensors"), 0) << name;
    }
}

TEST_F(Parity, HoldsForImagePretraining)
{
    for (const std::string name : {"ssl/dino_losses", "ssl/dino_step", "data/mask_statistics"}) {
        EXPECT_EQ(parity(std::string(TEST_DATA) + "/" + name + ".safetensors"), 0) << name;
    }
}

TEST_F(Parity, HoldsForTheEvaluation)
{
    EXPECT_EQ(parity(std::string(TEST_DATA) + "/catalogue/downstream.safetensors"), 0);
}

TEST_F(Parity, DoesNotDependOnTheNamesOfFileAndCase)
{
    const auto renamed = copy("specformer", [](nn::NamedTensors& tensors) {
        for (auto& [name, tensor] : tensors) {
            if (name.starts_with("main/")) name = "another/" + name.substr(5);
        }
    });
    EXPECT_EQ(parity(renamed), 0);
}

TEST_F(Parity, SeesAChangedOutputAndAChangedGradient)
{
    for (const std::string changed : {"head/out/logits", "head/grad/mlp.2.bias"}) {
        const auto path = copy("dino_head", [&](nn::NamedTensors& tensors) {
            for (auto& [name, tensor] : tensors) {
                if (name == changed) tensor = tensor + 1e-3 * tensor.abs().max();
            }
        });
        EXPECT_EQ(parity(path), 1) << changed;
    }
}

TEST_F(Parity, SkipsWhatItDoesNotKnow)
{
    const auto unknown = copy("dino_head", [](nn::NamedTensors& tensors) {
        tensors = {{"a/in/b", at::ones({1})}};
    });
    EXPECT_EQ(parity(unknown), 77);
    EXPECT_EQ(parity(data + "dino_head.safetensors " + unknown), 77);
    EXPECT_EQ(parity(data + "no_such_case.safetensors"), 66);
    EXPECT_EQ(parity(""), 64);
}

}  // namespace
}  // namespace astroclip
