#pragma once

#include <functional>
#include <string>
#include <vector>

namespace astroclip::survey {

// A file to ingest: where it is, and the name that it goes by in stores and messages (relative to the input
// asked for, so that it does not depend on where the survey lies).
struct InputFile {
    std::string path, name;
};

// The files that `input` stands for: itself; the files of a folder (with subfolders, by name) whose path
// `wanted` accepts; or the lines of a text file *.txt (in its order, relative to its folder). MissingInput if
// nothing is there.
std::vector<InputFile> list_inputs(const std::string& input,
                                   const std::function<bool(const std::string&)>& wanted,
                                   const std::string& what_is_wanted);

// Content id of a file: its size and its bytes; of a file beyond 16 MiB 256 blocks of 64 KiB spread evenly
// over it, since a survey of 20 TB cannot be read twice. Never its time.
std::string fingerprint_of(const std::string& path);

}  // namespace astroclip::survey
