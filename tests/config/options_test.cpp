#include "config/options.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "core/error.hpp"

namespace astroclip::config {
namespace {

struct Settings {
    int batch_size = 64;
    double rate = 0.5;
    std::string mode = "ii", output;
    bool causal = false;
};

// Parses `arguments` for a program [align] with the settings above; the message of a ConfigError otherwise.
struct Parsed {
    Settings settings;
    Options options{"align"};
    std::string error;

    explicit Parsed(std::vector<const char*> arguments)
    {
        options.section()
            .option("batch-size", settings.batch_size, "samples a step", at_least(1))
            .option("rate", settings.rate, "share", between(0, 1))
            .option("mode", settings.mode, "which way", one_of({"ii", "ss"}))
            .option("causal", settings.causal, "look back only")
            .option("output", settings.output, "folder", runtime_only());
        arguments.insert(arguments.begin(), "program");
        try {
            options.parse(static_cast<int>(arguments.size()), arguments.data());
        } catch (const Error& e) {
            EXPECT_EQ(e.exit_code, 64);
            error = e.what();
        }
    }
};

class ConfigFile {
public:
    explicit ConfigFile(const std::string& text)
        : path_(std::filesystem::temp_directory_path() /
                ("astroclip_options_test_" + std::to_string(getpid()) + ".cfg"))
    {
        std::ofstream(path_) << text;
    }
    ~ConfigFile() { std::filesystem::remove(path_); }
    const char* path() const { return path_.c_str(); }

private:
    std::filesystem::path path_;
};

bool mentions(const std::string& text, std::initializer_list<const char*> words)
{
    return std::all_of(words.begin(), words.end(),
                       [&](const char* word) { return text.find(word) != std::string::npos; });
}

TEST(Options, CommandLineBeatsFileBeatsDefault)
{
    const ConfigFile file(
        "[run]\nseed = 7\n[align]\nbatch-size = 32 # pairs\nrate = 0.25\n[embed]\nanything = 1\n");
    const Parsed parsed({"--config", file.path(), "--rate", "1", "--causal"});
    EXPECT_EQ(parsed.error, "");
    EXPECT_EQ(parsed.settings.batch_size, 32);
    EXPECT_EQ(parsed.settings.rate, 1.0);
    EXPECT_EQ(parsed.settings.mode, "ii");
    EXPECT_TRUE(parsed.settings.causal);
    EXPECT_EQ(parsed.options.run().seed, 7u);
    const auto shown = parsed.options.print_config();
    EXPECT_TRUE(mentions(shown, {"batch-size = 32", ".cfg:4", "command line", "default"})) << shown;
}

TEST(Options, UnknownKeysNameTheNearestOneAndTheLine)
{
    const ConfigFile file("[align]\n\nbatch-sice = 32\n");
    EXPECT_TRUE(
        mentions(Parsed({"--config", file.path()}).error, {".cfg:3", "'batch-sice'", "'batch-size'"}));
    EXPECT_TRUE(mentions(Parsed({"--batch-sise", "3"}).error, {"--batch-sise", "'--batch-size'"}));
    EXPECT_TRUE(mentions(Parsed({"--batch", "3"}).error, {"unknown option '--batch'"}))
        << "abbreviations are off";
}

TEST(Options, RefusesUnknownSectionsAndRepeatedKeys)
{
    EXPECT_TRUE(mentions(Parsed({"--config", ConfigFile("[alugn]\nrate = 1\n").path()}).error,
                         {"[alugn]", "[align]"}));
    EXPECT_TRUE(mentions(Parsed({"--config", ConfigFile("[align]\nrate = 1\nrate = 0\n").path()}).error,
                         {"rate", "twice"}));
    EXPECT_TRUE(mentions(Parsed({"--rate", "1", "--rate", "0"}).error, {"rate", "twice"}));
}

TEST(Options, ValuesOutOfRangeSayWhatIsAllowed)
{
    EXPECT_TRUE(mentions(Parsed({"--rate", "1.5"}).error, {"'rate'", "1.5", "from 0 to 1"}));
    EXPECT_TRUE(mentions(Parsed({"--batch-size", "0"}).error, {"'batch-size'", "at least 1"}));
    EXPECT_TRUE(mentions(Parsed({"--batch-size", "many"}).error, {"'many'", "integer"}));
    EXPECT_TRUE(mentions(Parsed({"--mode", "xx"}).error, {"'mode'", "ii, ss"}));
}

TEST(Options, LeavesTheDriversKeysAlone)
{
    const ConfigFile file(
        "[run]\nranks = 2\nslurm-time = 60\nexpected-galaxies = 5\n[align]\nslurm-nodes = 2\n");
    EXPECT_EQ(Parsed({"--config", file.path()}).error, "");
}

TEST(Options, DigestIsOfWhatShapesTheOutput)
{
    EXPECT_EQ(Parsed({"--output", "a"}).options.digest(),
              Parsed({"--output", "b", "--threads", "3"}).options.digest());
    EXPECT_NE(Parsed({"--rate", "0.1"}).options.digest(), Parsed({"--rate", "0.2"}).options.digest());
}

TEST(Options, AMissingFileIsAMissingInput)
{
    Options options("align");
    const char* arguments[] = {"program", "--config", "/nowhere/x.cfg"};
    EXPECT_THROW(options.parse(3, arguments), MissingInput);
}

}  // namespace
}  // namespace astroclip::config
