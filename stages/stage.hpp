#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "comm/world.hpp"
#include "config/options.hpp"
#include "core/progress.hpp"
#include "store/publication.hpp"

// The frame of every stage: MPI, options, signals, watchdog, status file, and errors -> one message and an
// exit code.
//
//   int main(int argc, char** argv)
//   {
//       return astroclip::stage::run<Options>(argc, argv, description, bind, body);
//   }
namespace astroclip::stage {

struct Description {
    std::string name;      // "embed": section of the configuration, astroclip-embed
    std::string purpose;   // one line for --help
    std::string examples;  // two working commands
    bool seeded = false;   // the seed shapes what the stage makes
};

// What the frame hands to a stage's body.
class Context {
public:
    Context(const comm::World& world, const config::Options& options, const Description& description);

    const comm::World& world;
    const config::RunOptions& run;
    Progress progress;

    bool dry_run() const { return invocation_.dry_run; }
    // For what a stage publishes beside or inside its output folder, which open_output takes care of itself.
    bool break_lock() const { return invocation_.break_lock; }

    // Collective. Locks the output folder for this stage, with the configuration's digest and the content ids
    // of the inputs
    // ({"images": id, …}). If it is complete with the same request, the stage ends here with 0 ("up to
    // date"). From here on status.json is also written in the folder. Throws OutputConflict, IoError.
    store::Output& open_output(const std::string& path, const nlohmann::json& inputs,
                               const store::Shard& shard = {});

    // Rank 0 appends one JSON object to metrics.jsonl in the output folder, with the time; other ranks do
    // nothing.
    void metric(nlohmann::json values);

    // Rank 0 prints a result line on stdout.
    void print(const std::string& line) const;

    // Collective; throws Stopped (75) with `what` if any rank was asked to stop. Call at boundaries where all
    // is safe.
    void stop_if_requested(const std::string& what) const;

private:
    friend struct Frame;
    // Of a dry run, which writes nothing, nothing is told.
    void write_status(const std::string& state, int exit_code, const std::string& message);
    std::string in_output(const std::string& name, const std::string& ending) const;

    config::Invocation invocation_;
    Description description_;
    nlohmann::json configuration_;
    std::string digest_;
    std::string started_utc_;
    std::unique_ptr<store::Output> output_;
    std::unique_ptr<std::FILE, int (*)(std::FILE*)> metrics_{nullptr, nullptr};
};

// The options of a stage whose store several jobs may fill together: `shards` and `shard`.
void bind(config::Section& options, store::Shard& shard);

// The type-erased frame behind run().
int run_frame(int argc, char** argv, const Description& description, config::Options& options,
              const std::function<void(Context&)>& body);

template <typename Options>
int run(int argc, char** argv, const Description& description, void (*bind)(config::Section, Options&),
        void (*body)(const Options&, Context&))
{
    config::Options registry(description.name);
    if (description.seeded) {
        registry.seed_shapes_output();
    }
    Options options;
    bind(registry.section(), options);
    return run_frame(argc, argv, description, registry, [&](Context& context) { body(options, context); });
}

}  // namespace astroclip::stage
