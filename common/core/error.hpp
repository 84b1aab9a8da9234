#pragma once

#include <stdexcept>
#include <string>

// Errors, by who can mend them. Library code throws; only stage::run prints the message and ends the process
// with the exit code, which the workflow driver reads. A message says where, what was found, and what was
// expected.
namespace astroclip {

struct Error : std::runtime_error {
    Error(const std::string& what, int code) : std::runtime_error(what), exit_code(code) {}
    int exit_code;
};

// An error that all ranks know of (World::together): the rank that met it reports it, the others end quietly.
struct SharedError : Error {
    SharedError(const std::string& what, int code, bool mine) : Error(what, code), met_here(mine) {}
    bool met_here;
};

// 64: an option or configuration key is wrong.
struct ConfigError : Error {
    explicit ConfigError(const std::string& what) : Error(what, 64) {}
};

// 65: a file or store is not what its format promises.
struct DataError : Error {
    DataError(const std::string& path, const std::string& problem) : Error(path + ": " + problem, 65) {}
};

// 66: an input is not there, or was never completed.
struct MissingInput : Error {
    MissingInput(const std::string& path, const std::string& problem) : Error(path + ": " + problem, 66) {}
};

// 69: another rank was lost, or stopped answering.
struct PeerLost : Error {
    explicit PeerLost(const std::string& what) : Error(what, 69) {}
};

// 70: a bug of ours.
struct InternalError : Error {
    explicit InternalError(const std::string& what) : Error("internal error: " + what, 70) {}
};

// 73: the output is locked by another job, or complete with another configuration.
struct OutputConflict : Error {
    OutputConflict(const std::string& path, const std::string& problem) : Error(path + ": " + problem, 73) {}
};

// 74: the file system failed (no space, no permission, I/O error).
struct IoError : Error {
    IoError(const std::string& path, const std::string& problem) : Error(path + ": " + problem, 74) {}
};

// 75: stopped on request, after a good checkpoint or part; the same command goes on from there.
struct Stopped : Error {
    explicit Stopped(const std::string& what) : Error(what, 75) {}
};

// 76: losses or gradients were not finite beyond the limit.
struct NumericsError : Error {
    explicit NumericsError(const std::string& what) : Error(what, 76) {}
};

// An IoError with the text of errno: "write: No space left on device".
[[noreturn]] void throw_errno(const std::string& path, const std::string& action);

}  // namespace astroclip
