#pragma once

#include <functional>
#include <string>

#include "config/options.hpp"

// The frame of the tools that are no stages: --help, --version, --print-config, and errors -> one message and
// an exit code (that of core/error.hpp).
//
//   config::Options options(description.name);
//   Options o;
//   bind(options.section(), o);
//   return program::run(argc, argv, description, options, [&] { export_store(o); });
namespace astroclip::program {

struct Description {
    std::string name;     // "export-fits": section of the configuration, astroclip-export-fits
    std::string purpose;  // for --help, before the options
};

// Parses the options and runs the body.
int run(int argc, char** argv, const Description& description, config::Options& options,
        const std::function<void()>& body);

// The same for ranks that work together, with MPI and the numerics of a stage: the error of one ends all.
int run_ranks(int argc, char** argv, const Description& description, config::Options& options,
              const std::function<void()>& body);

}  // namespace astroclip::program
