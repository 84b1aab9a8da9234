// astroclip-parity: runs our modules on what the published code took, and compares with what it gave.
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <mpi.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "tools/parity/case.hpp"

namespace astroclip::parity {
namespace {

constexpr int different = 1, skipped = 77;

constexpr const char* usage = R"(astroclip-parity CASE.safetensors...

Compares our modules with reference tensors of the published code: loads the weights and inputs of each file (the JSON of
the same name beside it describes them), computes, and prints the largest absolute and relative difference of every
output and gradient.

  0   all that was compared agrees within the tolerance of its kind
  1   something differs
  64  usage     65  not a valid case     66  a file is missing
  77  a file is of a kind that no module covers yet (and no other file differs)

  astroclip-parity parity/specformer.safetensors
  astroclip-parity parity/*.safetensors
)";

int compare(const std::string& path, const comm::World& world)
{
    const Case reference(path);
    const auto* kind = kind_of(reference);
    if (kind == nullptr || kind->run == nullptr) {
        fmt::print("{}: skipped, no module covers {} yet\n", path,
                   kind == nullptr ? "this kind" : kind->name);
        return skipped;
    }
    fmt::print("{}: {}\n", path, kind->name);
    Report report(reference, kind->tolerance);
    kind->run(reference, report, world);
    return report.finish() ? 0 : different;
}

int compare_all(const std::vector<std::string>& paths)
{
    const comm::World world(MPI_COMM_WORLD);
    int result = 0;
    for (const auto& path : paths) {
        const int code = compare(path, world);
        if (code == different || result == 0) result = code;
    }
    return result;
}

int run(const std::vector<std::string>& arguments)
{
    try {
        for (const auto& argument : arguments) {
            if (argument == "--help") return fmt::print("{}", usage), 0;
            if (argument.starts_with("--"))
                throw ConfigError("unknown option " + argument + "; --help explains");
        }
        if (arguments.empty()) throw ConfigError("no case given; --help explains");
        return compare_all(arguments);
    } catch (const Error& error) {
        fmt::print(stderr, "astroclip-parity: {}\n", error.what());
        return error.exit_code;
    } catch (const std::exception& error) {
        fmt::print(stderr, "astroclip-parity: internal error: {}\n", error.what());
        return 70;
    }
}

}  // namespace
}  // namespace astroclip::parity

int main(int argc, char** argv)
{
    ::setenv("MKL_CBWR", "AUTO,STRICT", 0);  // before the first product, as in every stage
    MPI_Init(&argc, &argv);
    const int code = astroclip::parity::run({argv + 1, argv + argc});
    MPI_Finalize();
    return code;
}
