#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace astroclip::config {

// What a value may be. Numbers: [min, max]; texts: one of `choices`, if any are given.
struct Allowed {
    double min = -std::numeric_limits<double>::infinity();
    double max = std::numeric_limits<double>::infinity();
    std::vector<std::string> choices{};
    bool shapes_output =
        true;  // false: how it runs (threads, time-outs), not what it makes; outside the digest
};
inline Allowed at_least(double min) { return {.min = min}; }
inline Allowed between(double min, double max) { return {.min = min, .max = max}; }
inline Allowed one_of(std::vector<std::string> choices) { return {.choices = std::move(choices)}; }
inline Allowed runtime_only(Allowed allowed = {})
{
    allowed.shapes_output = false;
    return allowed;
}

struct Registry;

// One section of the configuration: binds keys to the members of a struct. The struct's values at binding
// time are the defaults; they are overwritten by the file, then by the command line. Supported: bool
// (true|false; `--flag` alone means true), int, std::int64_t, std::uint64_t, double, std::string.
//
//   options.option("batch-size", o.batch_size, "samples a step, over all ranks", at_least(1));
class Section {
public:
    explicit Section(std::shared_ptr<Registry> registry, std::string name)
        : registry_(std::move(registry)), section_(std::move(name))
    {
    }

    Section& option(const std::string& key, bool& value, const std::string& help, Allowed allowed = {});
    Section& option(const std::string& key, int& value, const std::string& help, Allowed allowed = {});
    Section& option(const std::string& key, std::int64_t& value, const std::string& help,
                    Allowed allowed = {});
    Section& option(const std::string& key, std::uint64_t& value, const std::string& help,
                    Allowed allowed = {});
    Section& option(const std::string& key, double& value, const std::string& help, Allowed allowed = {});
    Section& option(const std::string& key, std::string& value, const std::string& help,
                    Allowed allowed = {});

private:
    template <typename T>
    Section& add(const std::string& key, T& value, const std::string& help, Allowed allowed,
                 std::string kind);

    std::shared_ptr<Registry> registry_;
    std::string section_;
};

// How a program runs, whatever it does: the keys of [run] that every program knows.
struct RunOptions {
    std::uint64_t seed = 42;
    std::string device = "auto";
    std::string backend = "auto";
    int threads = 1;
    double hang_timeout_s = 600;
    std::string log_level = "info";
    std::string log_format = "text";
};

// What was asked for on the command line alone.
struct Invocation {
    bool help = false, version = false, print_config = false, dry_run = false, force = false,
         break_lock = false;
    std::string config_file;
    std::string status_file;
    std::string redo;
};

// The options of one program: its section, [run], and what came of the parse. In a file, sections of other
// programs are left to them, and so are the keys of the workflow driver (slurm-…, ranks, launcher, …,
// expected-…).
class Options {
public:
    explicit Options(const std::string& program_section);

    Section section();  // the program's own: [embed]
    // Collects the arguments without a key, `least` of them at least: "STORE".
    void positional(const std::string& name, std::vector<std::string>& values, const std::string& help,
                    int least = 1);
    // Whether the seed shapes what the program makes (and so is part of the digest).
    void seed_shapes_output();

    // Reads argv, then the file of --config. Throws ConfigError that names key, file and line, value, what is
    // allowed and the nearest known key; MissingInput if the file is not there. Does not look at values if
    // help or version is wanted.
    void parse(int argc, const char* const* argv);

    const RunOptions& run() const;
    const Invocation& invocation() const;

    std::string help() const;          // every option with unit and default, in sections
    std::string print_config() const;  // "key = value    # default | file:line | command line"
    // "'images' (run.cfg:12)": the option whose value is the path that a message begins with, or a folder
    // above it; "" if none.
    std::string origin_of_path(const std::string& message) const;
    nlohmann::json shaping_values() const;  // {key: value} of what shapes the output
    std::string digest() const;             // hash of shaping_values

private:
    std::shared_ptr<Registry> registry_;
};

}  // namespace astroclip::config
