#include "config/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <charconv>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <sstream>

#include "core/error.hpp"
#include "core/hash.hpp"

namespace astroclip::config {

namespace po = boost::program_options;

namespace {

// Every section that a configuration file of the pipeline may hold.
const std::vector<std::string> known_sections = {
    "run",    "simulate",       "ingest-images",     "ingest-spectra", "match",
    "embed",  "pretrain-image", "pretrain-spectrum", "align",          "train-supervised",
    "search", "evaluate"};

bool is_driver_key(const std::string& key)
{
    static const std::vector<std::string> keys = {"ranks", "launcher", "binding", "lustre-stripe"};
    return key.starts_with("slurm-") || key.starts_with("expected-") ||
           std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::size_t edit_distance(const std::string& a, const std::string& b)
{
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const auto above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0 : 1)});
            diagonal = above;
        }
    }
    return row.back();
}

std::string nearest(const std::string& word, const std::vector<std::string>& known)
{
    const auto best = std::min_element(known.begin(), known.end(), [&](const auto& a, const auto& b) {
        return edit_distance(word, a) < edit_distance(word, b);
    });
    return best == known.end() ? "" : *best;
}

template <typename T>
std::string text_of(const T& value)
{
    if constexpr (std::is_same_v<T, bool>) {
        return value ? "true" : "false";
    } else {
        return fmt::format("{}", value);
    }
}

template <typename T>
bool read_number(const std::string& text, T& value)
{
    const auto* end = text.data() + text.size();
    const auto result = std::from_chars(text.data(), end, value);
    return result.ec == std::errc() && result.ptr == end;
}

template <typename T>
bool read_value(const std::string& text, T& value)
{
    if constexpr (std::is_same_v<T, bool>) {
        value = text == "true";
        return text == "true" || text == "false";
    } else if constexpr (std::is_same_v<T, std::string>) {
        value = text;
        return true;
    } else {
        return read_number(text, value);
    }
}

std::string range_text(const std::string& kind, const Allowed& allowed)
{
    if (!allowed.choices.empty()) {
        return "one of " + fmt::format("{}", fmt::join(allowed.choices, ", "));
    }
    if (std::isfinite(allowed.min) && std::isfinite(allowed.max)) {
        return fmt::format("{} from {} to {}", kind, allowed.min, allowed.max);
    }
    if (std::isfinite(allowed.min)) {
        return fmt::format("{} of at least {}", kind, allowed.min);
    }
    if (std::isfinite(allowed.max)) {
        return fmt::format("{} of at most {}", kind, allowed.max);
    }
    return kind;
}

}  // namespace

struct Key {
    std::string name, kind, help, default_text;
    Allowed allowed;
    std::function<bool(const std::string&)> assign;  // false: not of this kind, or out of range
    std::function<nlohmann::json()> json;
    std::function<std::string()> text;
    std::string source = "default";
};

struct Registry {
    std::string program_section;
    std::map<std::string, std::vector<Key>> sections;
    RunOptions run;
    Invocation invocation;
    bool seed_in_digest = false;
    std::vector<std::string>* positional = nullptr;
    std::string positional_name, positional_help;
    int positional_least = 0;

    std::vector<std::string> key_names(const std::string& section) const
    {
        std::vector<std::string> names;
        for (const auto& key : sections.at(section)) {
            names.push_back(key.name);
        }
        return names;
    }

    Key* find(const std::string& section, const std::string& name)
    {
        auto& keys = sections.at(section);
        const auto found =
            std::find_if(keys.begin(), keys.end(), [&](const Key& k) { return k.name == name; });
        return found == keys.end() ? nullptr : &*found;
    }

    void set(Key& key, const std::string& value, const std::string& source, const std::string& place)
    {
        if (!key.assign(value)) {
            throw ConfigError(fmt::format("{}: '{}' = '{}' is not allowed: expected {}", place, key.name,
                                          value, range_text(key.kind, key.allowed)));
        }
        key.source = source;
    }

    void read_command_line(int argc, const char* const* argv);
    void read_file(const std::string& path, const std::vector<std::string>& from_command_line);
};

template <typename T>
Section& Section::add(const std::string& key, T& value, const std::string& help, Allowed allowed,
                      std::string kind)
{
    auto& keys = registry_->sections[section_];
    if (registry_->find(section_, key)) {
        throw InternalError(fmt::format("option '{}' is declared twice in [{}]", key, section_));
    }
    const auto inside = [allowed](const T& candidate) {
        if constexpr (std::is_same_v<T, std::string>) {
            const auto& choices = allowed.choices;
            return choices.empty() || std::find(choices.begin(), choices.end(), candidate) != choices.end();
        } else if constexpr (std::is_same_v<T, bool>) {
            return true;
        } else {
            const auto number = static_cast<double>(candidate);
            return number >= allowed.min && number <= allowed.max;
        }
    };
    const auto assign = [&value, inside](const std::string& text) {
        T candidate{};
        if (!read_value(text, candidate) || !inside(candidate)) {
            return false;
        }
        value = candidate;
        return true;
    };
    keys.push_back({key, std::move(kind), help, text_of(value), allowed, assign,
                    [&value] { return nlohmann::json(value); }, [&value] { return text_of(value); }});
    return *this;
}

Section& Section::option(const std::string& key, bool& value, const std::string& help, Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "true or false");
}
Section& Section::option(const std::string& key, int& value, const std::string& help, Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "an integer");
}
Section& Section::option(const std::string& key, std::int64_t& value, const std::string& help,
                         Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "an integer");
}
Section& Section::option(const std::string& key, std::uint64_t& value, const std::string& help,
                         Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "a non-negative integer");
}
Section& Section::option(const std::string& key, double& value, const std::string& help, Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "a number");
}
Section& Section::option(const std::string& key, std::string& value, const std::string& help, Allowed allowed)
{
    return add(key, value, help, std::move(allowed), "a text");
}

Options::Options(const std::string& program_section) : registry_(std::make_shared<Registry>())
{
    registry_->program_section = program_section;
    registry_->sections[program_section];
    registry_->sections["run"];
    auto& run = registry_->run;
    Section(registry_, "run")
        .option("seed", run.seed, "seed of every random draw")
        .option("device", run.device, "auto, cpu or cuda", runtime_only(one_of({"auto", "cpu", "cuda"})))
        .option("backend", run.backend, "tensors between ranks: auto, mpi or nccl",
                runtime_only(one_of({"auto", "mpi", "nccl"})))
        .option("threads", run.threads, "compute threads of each rank", runtime_only(between(1, 1024)))
        .option("hang-timeout", run.hang_timeout_s, "s without progress after which a rank ends the job",
                runtime_only(at_least(1)))
        .option("log-level", run.log_level, "least level shown",
                runtime_only(one_of({"debug", "info", "warn", "error"})))
        .option("log-format", run.log_format, "text or json", runtime_only(one_of({"text", "json"})));
}

Section Options::section() { return Section(registry_, registry_->program_section); }

void Options::positional(const std::string& name, std::vector<std::string>& values, const std::string& help,
                         int least)
{
    registry_->positional = &values;
    registry_->positional_name = name;
    registry_->positional_help = help;
    registry_->positional_least = least;
}

void Options::seed_shapes_output() { registry_->seed_in_digest = true; }

const RunOptions& Options::run() const { return registry_->run; }
const Invocation& Options::invocation() const { return registry_->invocation; }

void Registry::read_command_line(int argc, const char* const* argv)
{
    po::options_description declared;
    auto add = declared.add_options();
    add("help,h", "")("version,V", "")("print-config", "")("dry-run,n", "")("force", "")("break-lock", "");
    add("config,c", po::value<std::string>(), "")("status", po::value<std::string>(), "");
    add("redo", po::value<std::string>(), "");
    std::vector<std::string> names = {"help",       "version", "print-config", "dry-run", "force",
                                      "break-lock", "config",  "status",       "redo"};
    for (const auto& [section, keys] : sections) {
        for (const auto& key : keys) {
            auto* value = po::value<std::string>();
            add(key.name.c_str(), key.kind == "true or false" ? value->implicit_value("true") : value, "");
            names.push_back(key.name);
        }
    }
    po::parsed_options parsed(nullptr);
    try {
        using namespace po::command_line_style;
        parsed = po::command_line_parser(argc, argv)
                     .options(declared)
                     .style(allow_short | short_allow_next | allow_dash_for_short | allow_long |
                            long_allow_adjacent | long_allow_next)
                     .run();
    } catch (const po::unknown_option& error) {
        auto name = error.get_option_name();
        name.erase(0, name.find_first_not_of('-'));
        name.erase(std::min(name.find('='), name.size()));
        throw ConfigError(fmt::format("command line: unknown option '--{}'; the nearest known one is '--{}'",
                                      name, nearest(name, names)));
    } catch (const po::error& error) {
        throw ConfigError(fmt::format("command line: {}", error.what()));
    }
    std::map<std::string, int> seen;
    for (const auto& option : parsed.options) {
        if (option.string_key.empty() || option.position_key >= 0) {
            if (!positional) {
                throw ConfigError(
                    fmt::format("command line: unexpected argument '{}' (options are --key value)",
                                fmt::join(option.original_tokens, " ")));
            }
            positional->insert(positional->end(), option.value.begin(), option.value.end());
            continue;
        }
        const auto& name = option.string_key;
        if (++seen[name] > 1) {
            throw ConfigError(fmt::format("command line: '--{}' is given twice", name));
        }
        const auto value = option.value.empty() ? std::string() : option.value.front();
        if (name == "help") {
            invocation.help = true;
        } else if (name == "version") {
            invocation.version = true;
        } else if (name == "print-config") {
            invocation.print_config = true;
        } else if (name == "dry-run") {
            invocation.dry_run = true;
        } else if (name == "force") {
            invocation.force = true;
        } else if (name == "break-lock") {
            invocation.break_lock = true;
        } else if (name == "config") {
            invocation.config_file = value;
        } else if (name == "status") {
            invocation.status_file = value;
        } else if (name == "redo") {
            invocation.redo = value;
        } else {
            auto* key = find(program_section, name);
            set(key ? *key : *find("run", name), value.empty() && option.value.empty() ? "true" : value,
                "command line", "command line");
        }
    }
}

namespace {

// Boost gives no line numbers: "section.key" -> line, by a scan of the same file.
std::map<std::string, int> lines_of_keys(const std::string& path)
{
    std::map<std::string, int> lines;
    std::ifstream file(path);
    std::string line, section;
    for (int number = 1; std::getline(file, line); ++number) {
        line.erase(std::min(line.find('#'), line.size()));
        const auto first = line.find_first_not_of(" \t\r");
        if (first == std::string::npos) {
            continue;
        }
        if (line[first] == '[') {
            section = line.substr(first + 1, line.find(']') - first - 1);
        } else if (const auto equals = line.find('='); equals != std::string::npos) {
            const auto last = line.find_last_not_of(" \t", equals - 1);
            lines.try_emplace(section + "." + line.substr(first, last - first + 1), number);
        }
    }
    return lines;
}

}  // namespace

void Registry::read_file(const std::string& path, const std::vector<std::string>& from_command_line)
{
    std::ifstream file(path);
    if (!file) {
        throw MissingInput(path, "configuration file cannot be read");
    }
    po::options_description nothing;
    po::parsed_options parsed(nullptr);
    try {
        parsed = po::parse_config_file(file, nothing, true);
    } catch (const po::error& error) {
        throw ConfigError(fmt::format("{}: {}", path, error.what()));
    }
    const auto lines = lines_of_keys(path);
    std::map<std::string, int> seen;
    for (const auto& option : parsed.options) {
        const auto& full = option.string_key;
        const auto line = lines.contains(full) ? lines.at(full) : 0;
        const auto place = fmt::format("{}:{}", path, line);
        const auto dot = full.find('.');
        if (dot == std::string::npos) {
            throw ConfigError(fmt::format("{}: key '{}' stands outside a section ([run], [{}], …)", place,
                                          full, program_section));
        }
        const auto section = full.substr(0, dot), name = full.substr(dot + 1);
        if (std::find(known_sections.begin(), known_sections.end(), section) == known_sections.end()) {
            throw ConfigError(
                fmt::format("{}: unknown section [{}] (key '{}'); the nearest known one is [{}]", place,
                            section, name, nearest(section, known_sections)));
        }
        if (++seen[full] > 1) {
            throw ConfigError(fmt::format("{}: key '{}' is given twice in [{}]", path, name, section));
        }
        if (is_driver_key(name) || !sections.contains(section)) {
            continue;
        }
        auto* key = find(section, name);
        if (!key) {
            throw ConfigError(fmt::format("{}: unknown key '{}' in [{}]; the nearest known one is '{}'",
                                          place, name, section, nearest(name, key_names(section))));
        }
        const bool overruled =
            std::find(from_command_line.begin(), from_command_line.end(), name) != from_command_line.end();
        if (!overruled) {
            set(*key, option.value.front(), place, place);
        }
    }
}

void Options::parse(int argc, const char* const* argv)
{
    auto& registry = *registry_;
    registry.read_command_line(argc, argv);
    if (registry.invocation.help || registry.invocation.version) {
        return;
    }
    if (!registry.invocation.config_file.empty()) {
        std::vector<std::string> from_command_line;
        for (const auto& [section, keys] : registry.sections) {
            for (const auto& key : keys) {
                if (key.source == "command line") {
                    from_command_line.push_back(key.name);
                }
            }
        }
        registry.read_file(registry.invocation.config_file, from_command_line);
    }
    if (registry.positional && static_cast<int>(registry.positional->size()) < registry.positional_least) {
        throw ConfigError(fmt::format("command line: {} is missing ({})", registry.positional_name,
                                      registry.positional_help));
    }
}

std::string Options::help() const
{
    std::ostringstream text;
    const auto line = [&](const std::string& name, const std::string& what) {
        text << fmt::format("  {:<28} {}\n", name, what);
    };
    if (registry_->positional) {
        line(registry_->positional_name, registry_->positional_help);
    }
    for (const auto& section : {registry_->program_section, std::string("run")}) {
        text << fmt::format("[{}]\n", section);
        for (const auto& key : registry_->sections.at(section)) {
            const auto given = key.default_text.empty() ? "" : fmt::format(" (default {})", key.default_text);
            line("--" + key.name, key.help + given);
        }
    }
    text << "command line only\n";
    line("-c, --config FILE", "configuration file; the command line wins over it");
    line("--status FILE", "also write status.json here");
    line("-n, --dry-run", "check inputs and configuration, print the plan, write nothing");
    line("--force", "redo an output that is complete or begun with another configuration");
    line("--redo WORD", "as --force, but once: what was begun under this WORD goes on");
    line("--break-lock", "take the lock of a job that is known to be dead");
    line("--print-config", "print every value and where it came from");
    line("-h, --help; -V, --version", "");
    return text.str();
}

std::string Options::print_config() const
{
    std::ostringstream text;
    for (const auto& section : {std::string("run"), registry_->program_section}) {
        text << fmt::format("[{}]\n", section);
        for (const auto& key : registry_->sections.at(section)) {
            text << fmt::format("{:<40} # {}\n", key.name + " = " + key.text(), key.source);
        }
    }
    return text.str();
}

std::string Options::origin_of_path(const std::string& message) const
{
    std::string origin;
    std::size_t longest = 0;
    for (const auto& [section, keys] : registry_->sections) {
        for (const auto& key : keys) {
            auto path = key.kind == "a text" ? key.text() : "";
            path.erase(path.find_last_not_of('/') + 1);
            const auto next = path.size();
            if (next > longest && message.starts_with(path) &&
                (message[next] == ':' || message[next] == '/')) {
                longest = next;
                origin = fmt::format("'{}' ({})", key.name, key.source);
            }
        }
    }
    return origin;
}

nlohmann::json Options::shaping_values() const
{
    auto values = nlohmann::json::object();
    for (const auto& key : registry_->sections.at(registry_->program_section)) {
        if (key.allowed.shapes_output) {
            values[key.name] = key.json();
        }
    }
    if (registry_->seed_in_digest) {
        values["seed"] = registry_->run.seed;
    }
    return values;
}

std::string Options::digest() const { return digest_of(shaping_values().dump()); }

}  // namespace astroclip::config
