#include "stages/stage.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "comm/watchdog.hpp"
#include "core/clock.hpp"
#include "core/fault_point.hpp"
#include "core/hdf5.hpp"
#include "core/heartbeat.hpp"
#include "core/interrupt.hpp"
#include "core/log.hpp"
#include "core/provenance.hpp"

namespace astroclip::stage {
namespace {

// The output is complete and nothing has changed: not an error, but the body ends here.
struct UpToDate {};

log::Level level_named(const std::string& name)
{
    return name == "debug"   ? log::Level::debug
           : name == "warn"  ? log::Level::warn
           : name == "error" ? log::Level::error
                             : log::Level::info;
}

std::string mpi_version()
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
    int length = 0;
    MPI_Get_library_version(text, &length);
    const std::string whole(text, static_cast<std::size_t>(length));
    return whole.substr(0, whole.find(','));
}

std::string version_text(const Description& description)
{
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    return fmt::format("astroclip-{} {} ({})\nHDF5 {}.{}.{}, {}\n{}", description.name, version(), revision(),
                       major, minor, release, mpi_version(), ASTROCLIP_LIBRARIES);
}

// What is known of a run before its options are.
nlohmann::json status_of(const Description& description, const comm::World& world, const std::string& state,
                         int exit_code, const std::string& message)
{
    return {{"stage", description.name},
            {"state", state},
            {"message", message},
            {"exit_code", exit_code < 0 ? nlohmann::json() : nlohmann::json(exit_code)},
            {"ranks", world.size()},
            {"rank", world.rank()},
            {"host", host_name()},
            {"job", job_id()},
            {"pid", getpid()},
            {"utc", utc_now()}};
}

// Written aside and renamed, so that a reader never sees half of it. Not synced: it tells of the run, it is
// no result.
void write_status_file(const std::string& path, const nlohmann::json& status)
{
    if (path.empty()) {
        return;
    }
    const auto temporary = path + "." + std::to_string(getpid());
    std::ofstream(temporary) << status.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
    std::error_code ignored;
    std::filesystem::rename(temporary, path, ignored);
}

// The file of --status, also where the command line has an error and the parse gives none; "" in a dry run.
std::string status_file_in(int argc, char** argv)
{
    const std::vector<std::string> words(argv + 1, argv + std::max(argc, 1));
    std::string file;
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i] == "--dry-run" || words[i] == "-n") {
            return "";
        }
        if (words[i] == "--status" && i + 1 < words.size()) {
            file = words[i + 1];
        } else if (words[i].starts_with("--status=")) {
            file = words[i].substr(std::string("--status=").size());
        }
    }
    return file;
}

}  // namespace

Context::Context(const comm::World& world_, const config::Options& options, const Description& description)
    : world(world_),
      run(options.run()),
      progress(world_.is_root()),
      invocation_(options.invocation()),
      description_(description),
      configuration_(options.shaping_values()),
      digest_(options.digest()),
      started_utc_(utc_now())
{
    if (world.is_root()) {
        progress.on_report([this](const Progress::Report&) { write_status("running", -1, ""); });
    }
}

void Context::write_status(const std::string& state, int exit_code, const std::string& message)
{
    if (dry_run()) {
        return;
    }
    auto status = status_of(description_, world, state, exit_code, message);
    const auto& p = progress.last();
    status["progress"] = {{"what", p.what}, {"done", p.done}, {"total", p.total},
                          {"unit", p.unit}, {"rate", p.rate}, {"left_s", p.left_s}};
    status["started_utc"] = started_utc_;
    if (output_) {
        status["output"] = output_->path();
        write_status_file(in_output("status", ".json"), status);
    }
    write_status_file(invocation_.status_file, status);
}

// A file that tells of this run in the output folder; each shard has its own.
std::string Context::in_output(const std::string& name, const std::string& ending) const
{
    const auto& shard = output_->shard();
    const auto part = shard.whole() ? "" : fmt::format("-{}-of-{}", shard.index, shard.count);
    return output_->path() + "/" + name + part + ending;
}

store::Output& Context::open_output(const std::string& path, const nlohmann::json& inputs,
                                    const store::Shard& asked)
{
    auto shard = asked;
    world.together([&] {
        if (path.empty()) {
            throw ConfigError("'output' is not set: the folder to publish");
        }
        if (shard.whole() && shard.index < 0) {
            shard.index = 0;
        }
        if (shard.index < 0) {
            throw ConfigError(
                fmt::format("shards = {}: 'shard' says which of them this job is, and is not set; "
                            "--shards 1 makes the whole store here",
                            shard.count));
        }
        if (shard.index >= shard.count) {
            throw ConfigError(fmt::format("shard = {}: with shards = {} they are numbered from 0",
                                          shard.index, shard.count));
        }
        if (!shard.whole() && invocation_.force) {
            throw ConfigError(
                "--force with several shards: each would undo the others' work; --redo WORD, the "
                "same for all");
        }
    });
    output_ = std::make_unique<store::Output>(
        world, path, store::Request{description_.name, configuration_, digest_, inputs}, invocation_.force,
        store::Opening{invocation_.break_lock, invocation_.redo, shard});
    if (output_->up_to_date()) {
        throw UpToDate{};
    }
    if (world.is_root()) {
        metrics_ = {std::fopen(in_output("metrics", ".jsonl").c_str(), "a"), &std::fclose};
        write_status("running", -1, "");
    }
    return *output_;
}

void Context::metric(nlohmann::json values)
{
    if (!metrics_) {
        return;
    }
    values["utc"] = utc_now();
    const auto line = values.dump() + "\n";
    std::fwrite(line.data(), 1, line.size(), metrics_.get());
    std::fflush(metrics_.get());
}

void Context::print(const std::string& line) const
{
    if (world.is_root()) {
        std::cout << line << std::endl;
    }
}

void Context::stop_if_requested(const std::string& what) const
{
    if (world.stop_requested()) {
        throw Stopped(what);
    }
}

void bind(config::Section& options, store::Shard& shard)
{
    shard.index = -1;
    options
        .option("shards", shard.count, "jobs that fill the store together, each its own parts",
                config::runtime_only(config::between(1, 100000)))
        .option("shard", shard.index, "which of them this job is, from 0; -1: not said",
                config::runtime_only(config::at_least(-1)));
}

// Runs the body and decides how the process ends.
struct Frame {
    const Description& description;
    comm::World& world;
    const config::Options& options;
    std::string status_file;
    comm::Watchdog* watchdog = nullptr;
    Context* context = nullptr;

    // All ranks are here.
    int end(int code)
    {
        if (context) {
            context->output_.reset();
        }
        if (watchdog) {
            watchdog->stop();
        }
        return code;
    }

    void report(const Error& error)
    {
        const auto* word = error.exit_code == 75 ? "stopped" : "failed";
        std::string message = error.what();
        if (const auto origin = options.origin_of_path(message); !origin.empty()) {
            message += "; the path is from option " + origin;
        }
        const auto text = fmt::format("astroclip-{} {} (exit code {}): {}", description.name, word,
                                      error.exit_code, message);
        error.exit_code == 75 ? log::warn("{}", text) : log::error("{}", text);
        if (context) {
            context->write_status(word, error.exit_code, message);
        } else {
            write_status_file(status_file, status_of(description, world, word, error.exit_code, message));
        }
    }

    // Every rank has this error: one reports, and none is left behind.
    int fail_together(const SharedError& error)
    {
        if (error.met_here) {
            report(error);
        }
        if (world.size() == 1 || error.exit_code == 75) {
            return end(error.exit_code);
        }
        if (context) {
            context->output_.reset();
        }
        MPI_Barrier(world.handle());
        if (error.met_here) {
            MPI_Abort(MPI_COMM_WORLD, error.exit_code);
        }
        sleep(5);
        _exit(error.exit_code);
    }

    // This rank alone failed; the others may be waiting for it anywhere.
    int fail_alone(const Error& error)
    {
        if (!watchdog || watchdog->claim_report()) {
            report(error);
        }
        if (world.size() == 1) {
            return end(error.exit_code);
        }
        MPI_Abort(MPI_COMM_WORLD, error.exit_code);
        _exit(error.exit_code);
    }

    int run(const std::function<void()>& body)
    {
        try {
            body();
            world.barrier();
            if (world.is_root() && context) {
                context->write_status("done", 0, "");
            }
            return end(0);
        } catch (const UpToDate&) {
            if (world.is_root()) {
                log::info("{} is up to date: complete, with the same configuration and inputs",
                          context->output_->path());
                context->write_status("done", 0, "up to date");
            }
            return end(0);
        } catch (const SharedError& error) {
            return fail_together(error);
        } catch (const Stopped& error) {  // ranks agree before they stop
            return fail_together(SharedError(error.what(), error.exit_code, world.is_root()));
        } catch (const Error& error) {
            return fail_alone(error);
        } catch (const std::bad_alloc&) {
            return fail_alone(
                InternalError("out of memory; lower batch-size or part-rows, or use more nodes"));
        } catch (const std::exception& error) {
            return fail_alone(InternalError(error.what()));
        }
    }
};

namespace {

void check_threads(int provided)
{
    if (provided < MPI_THREAD_MULTIPLE) {
        throw InternalError(
            "MPI gives no MPI_THREAD_MULTIPLE, which gradient communication beside the backward pass needs");
    }
}

int run_parsed(Frame& frame, const Description& description, config::Options& options,
               const std::function<void(Context&)>& body)
{
    auto& world = frame.world;
    const auto& run = options.run();
    log::configure(level_named(run.log_level), run.log_format == "json", world.rank());
    if (options.invocation().print_config) {
        if (world.is_root()) {
            std::cout << options.print_config();
        }
        return 0;
    }
    Context context(world, options, description);
    frame.context = &context;
    comm::Watchdog watchdog(world, run.hang_timeout_s,
                            [&](const std::string& text) { frame.report(PeerLost(text)); });
    frame.watchdog = &watchdog;
    const auto code = frame.run([&] { body(context); });
    frame.context = nullptr;
    frame.watchdog = nullptr;
    return code;
}

}  // namespace

int run_frame(int argc, char** argv, const Description& description, config::Options& options,
              const std::function<void(Context&)>& body)
{
    // MKL's float32 products otherwise differ in bits between batch sizes and numbers of threads; read at its
    // first call.
    setenv("MKL_CBWR", "AUTO,STRICT", 0);
    umask(027);
    hdf5::silence();
    catch_stop_signals();
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    int code = 0;
    {
        comm::World world(MPI_COMM_WORLD);
        set_fault_rank(world.rank());
        log::configure(log::Level::info, false, world.rank());
        Frame frame{description, world, options, status_file_in(argc, argv)};
        code = frame.run([&] {
            check_threads(provided);
            world.together([&] { options.parse(argc, argv); });
        });
        if (code == 0 && options.invocation().help) {
            if (world.is_root()) {
                std::cout << fmt::format("astroclip-{}: {}\n\n{}\nExamples\n{}\n", description.name,
                                         description.purpose, options.help(), description.examples);
            }
        } else if (code == 0 && options.invocation().version) {
            if (world.is_root()) {
                std::cout << version_text(description) << std::endl;
            }
        } else if (code == 0) {
            code = run_parsed(frame, description, options, body);
        }
    }
    MPI_Finalize();
    return code;
}

}  // namespace astroclip::stage
