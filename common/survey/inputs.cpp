#include "survey/inputs.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace astroclip::survey {
namespace {

namespace fs = std::filesystem;

std::vector<InputFile> files_of_list(const std::string& list)
{
    std::ifstream stream(list);
    std::vector<InputFile> files;
    std::string line;
    while (std::getline(stream, line)) {
        line.erase(line.find_last_not_of(" \t\r") + 1);
        if (!line.empty() && line[0] != '#') {
            files.push_back({(fs::path(list).parent_path() / line).string(), line});
        }
    }
    return files;
}

std::vector<InputFile> files_of_folder(const std::string& folder,
                                       const std::function<bool(const std::string&)>& wanted)
{
    std::vector<InputFile> files;
    for (const auto& entry :
         fs::recursive_directory_iterator(folder, fs::directory_options::follow_directory_symlink)) {
        if (entry.is_regular_file() && wanted(entry.path().string())) {
            files.push_back({entry.path().string(), fs::relative(entry.path(), folder).string()});
        }
    }
    std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
    return files;
}

}  // namespace

std::vector<InputFile> list_inputs(const std::string& input,
                                   const std::function<bool(const std::string&)>& wanted,
                                   const std::string& what_is_wanted)
{
    std::error_code error;
    if (!fs::exists(input, error)) {
        throw MissingInput(input, "no such file or folder");
    }
    try {
        const bool folder = fs::is_directory(input), list = !folder && fs::path(input).extension() == ".txt";
        auto files = folder ? files_of_folder(input, wanted)
                     : list ? files_of_list(input)
                            : std::vector<InputFile>{{input, fs::path(input).filename().string()}};
        if (files.empty()) {
            throw MissingInput(input, std::string(list ? "an empty list; one path a line expected"
                                                       : "the folder holds no ") +
                                          (list ? "" : what_is_wanted));
        }
        return files;
    } catch (const fs::filesystem_error& failure) {
        throw IoError(input, failure.code().message());
    }
}

std::string fingerprint_of(const std::string& path)
{
    constexpr std::int64_t whole_below = 16 << 20, block = 64 << 10, blocks = 256;
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) {
        const bool missing = errno == ENOENT;
        if (file >= 0) {
            ::close(file);
        }
        if (missing) {
            throw MissingInput(path, "no such file");
        }
        throw_errno(path, "open");
    }
    const std::int64_t size = status.st_size;
    const auto pieces = size <= whole_below ? (size + block - 1) / block : blocks;
    Digest digest;
    digest.add(&size, sizeof size);
    std::vector<char> bytes(block);
    for (std::int64_t i = 0; i < pieces; ++i) {
        const auto at = size <= whole_below ? i * block : (size - block) / (blocks - 1) * i;
        const auto got = pread(file, bytes.data(), block, at);
        if (got < 0) {
            ::close(file);
            throw_errno(path, "read");
        }
        digest.add(bytes.data(), static_cast<std::size_t>(got));
    }
    ::close(file);
    return digest.hex();
}

}  // namespace astroclip::survey
