// astroclip-check STORE: is this output complete, undamaged, and what its manifest says?
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.hpp"
#include "core/hdf5.hpp"
#include "core/provenance.hpp"
#include "store/columns.hpp"
#include "store/index.hpp"
#include "store/publication.hpp"
#include "store/reader.hpp"

namespace astroclip {
namespace {

namespace po = boost::program_options;
using nlohmann::json;

constexpr std::int64_t rows_at_once = 4096;
constexpr int parts_at_once = 64;

// What was found: a summary for people and programs, and everything that is wrong.
struct Findings {
    json summary = json::object();
    std::vector<std::string> problems;
    int exit_code = 0;

    void problem(const std::string& text, int code = 65)
    {
        problems.push_back(text);
        exit_code = exit_code == 0 ? code : exit_code;
    }
    // Runs a check; what it throws is a finding.
    template <typename Check>
    bool attempt(Check check)
    {
        try {
            check();
            return true;
        } catch (const Error& error) {
            problem(error.what(), error.exit_code);
        } catch (const json::exception& error) {
            problem(std::string("manifest.json: ") + error.what());
        }
        return false;
    }
};

std::string text_of(const std::string& unit) { return unit.empty() ? "-" : unit; }

void check_attribute(hid_t object, const std::string& name, const std::string& expected,
                     const std::string& where)
{
    if (const auto found = hdf5::read_text_attribute(object, name); found != expected) {
        throw DataError(where,
                        fmt::format("attribute '{}' is '{}', the schema says '{}'", name, found, expected));
    }
}

void check_datasets(hid_t file, const store::Schema& schema, std::int64_t rows, const std::string& path)
{
    for (const auto* name : {"format", "creator", "configuration_digest", "inputs"}) {
        if (hdf5::read_text_attribute(file, name).empty()) {
            throw DataError(path, fmt::format("has no attribute '{}'", name));
        }
    }
    check_attribute(file, "kind", schema.kind, path);
    for (const auto& column : schema.columns) {
        const auto dataset = hdf5::open_dataset(file, column.name, path);
        store::check_column(dataset, column, rows, path);
        const auto where = fmt::format("{}, dataset '{}'", path, column.name);
        check_attribute(dataset, "unit", column.unit, where);
        check_attribute(dataset, "description", column.description, where);
        check_attribute(dataset, "ucd", column.ucd, where);
    }
    for (const auto& axis : schema.axes) {
        const auto dataset = hdf5::open_dataset(file, axis.name, path);
        check_attribute(dataset, "unit", axis.unit, path);
        if (hdf5::dims(dataset) != std::vector<std::uint64_t>{axis.values.size()}) {
            throw DataError(path,
                            fmt::format("axis '{}' has another length than the manifest says", axis.name));
        }
    }
    for (const auto& name : hdf5::dataset_names(file)) {
        const auto is_axis = std::any_of(schema.axes.begin(), schema.axes.end(),
                                         [&](const auto& a) { return a.name == name; });
        if (!schema.has(name) && !is_axis) {
            throw DataError(path, fmt::format("has a dataset '{}' that the schema does not know", name));
        }
    }
}

void check_positions(const store::Reader& reader)
{
    if (!reader.schema().has("ra") || !reader.schema().has("dec")) {
        return;
    }
    const auto ra = reader.column<double>("ra"), dec = reader.column<double>("dec");
    for (std::size_t i = 0; i < ra.size(); ++i) {
        if (!(ra[i] >= 0 && ra[i] < 360 && std::abs(dec[i]) <= 90)) {
            throw DataError(reader.path(),
                            fmt::format("row {} has the position ra {}, dec {}", i, ra[i], dec[i]));
        }
    }
}

// Unit vectors where the object has the modality, zeros where it has not, NaN nowhere.
void check_embedding(const store::Reader& reader, const std::string& modality)
{
    const auto name = modality + "_embedding";
    if (!reader.schema().has(name)) {
        return;
    }
    const auto width = reader.schema().column(name).row_items();
    std::vector<float> vectors(static_cast<std::size_t>(rows_at_once) * width);
    const auto has = reader.column<std::uint8_t>("has_" + modality);
    for (std::int64_t first = 0; first < reader.rows(); first += rows_at_once) {
        const auto count = std::min(rows_at_once, reader.rows() - first);
        reader.read(name, first, count, vectors.data());
        for (std::int64_t i = 0; i < count; ++i) {
            double square = 0;
            for (std::size_t d = 0; d < width; ++d) {
                square += double(vectors[i * width + d]) * vectors[i * width + d];
            }
            const double expected = has[first + i] ? 1 : 0;
            // float32 rounding of a few thousand terms stays far below 1e-3.
            if (!(std::abs(std::sqrt(square) - expected) < 1e-3)) {
                throw DataError(reader.path(), fmt::format("{} of row {} has length {}, {} expected", name,
                                                           first + i, std::sqrt(square), expected));
            }
        }
    }
}

void check_identifiers(const store::Reader& reader)
{
    auto ids = reader.column<std::int64_t>("object_id");
    if (const auto* twice = store::duplicate_in(ids)) {
        throw DataError(reader.path(), fmt::format("object_id {} occurs more than once", *twice));
    }
}

// The manifest's counts against the rejects that the parts hold, and rows + rejects = planned objects.
void check_rejects(const store::Reader& reader)
{
    const auto& content = reader.manifest().at("content");
    std::map<std::string, std::pair<std::int64_t, std::int64_t>> found;
    const auto rejects = reader.rejects();
    for (const auto& reject : rejects) {
        ++(reject.damage ? found[reject.reason].second : found[reject.reason].first);
    }
    auto reasons = json::object();
    for (const auto& [reason, counts] : found) {
        reasons[reason] = {{"selection", counts.first}, {"damage", counts.second}};
    }
    if (reasons != content.at("rejects").at("reasons")) {
        throw DataError(reader.path(),
                        fmt::format("its parts hold the rejects {}, its manifest says {}", reasons.dump(),
                                    content.at("rejects").at("reasons").dump()));
    }
    const std::int64_t planned = content.at("plan").at("objects");
    if (reader.rows() + static_cast<std::int64_t>(rejects.size()) != planned) {
        throw DataError(reader.path(),
                        fmt::format("{} rows and {} rejects are not the {} objects of the plan",
                                    reader.rows(), rejects.size(), planned));
    }
}

template <typename Visit>
void for_each_part(const store::Reader& reader, Visit visit)
{
    std::int64_t first = 0;
    for (const auto& part : reader.manifest().at("content").at("parts")) {
        const std::int64_t rows = part.at("rows");
        visit(reader.path() + "/" + part.at("name").get<std::string>(), first, rows);
        first += rows;
    }
}

// Small columns whole, large ones at the first and last row of every part: the index and the parts must
// agree.
void check_index(const store::Reader& reader)
{
    const auto path = reader.path() + "/index.h5";
    const auto index = hdf5::open_file(path);
    check_datasets(index, reader.schema(), reader.rows(), path);
    for (const auto& column : reader.schema().columns) {
        hdf5::Handle linked;
        int parts = 0;
        for_each_part(reader, [&](const std::string& part_path, std::int64_t first, std::int64_t rows) {
            // A virtual dataset keeps the parts that it has shown open, with their caches, until nobody has
            // it open any more.
            if (parts++ % parts_at_once == 0) {
                linked.reset();
                linked = hdf5::open_dataset(index, column.name, path);
            }
            const auto part = hdf5::open_file(part_path);
            const auto dataset = hdf5::open_dataset(part, column.name, part_path);
            const auto step = column.shape.empty() ? rows_at_once : std::max<std::int64_t>(rows - 1, 1);
            const auto block = column.shape.empty() ? rows_at_once : 1;
            for (std::int64_t at = 0; at < rows; at += step) {
                const auto count = static_cast<std::uint64_t>(std::min(block, rows - at));
                std::vector<char> here(count * column.row_bytes()), there(here.size());
                store::read_bytes(dataset, column, at, count, here.data(), part_path);
                store::read_bytes(linked, column, first + at, count, there.data(), path);
                if (here != there) {
                    throw DataError(path, fmt::format("column '{}' differs from {} near row {}", column.name,
                                                      part_path, at));
                }
            }
        });
    }
    if (store::read_rejects(index, path).size() != reader.rejects().size()) {
        throw DataError(path, "has other rejects than the parts");
    }
}

void check_store(const std::string& path, Findings& findings)
{
    const store::Reader reader(path, "", true);  // the hashes were compared already
    const auto& content = reader.manifest().at("content");
    findings.summary["rows"] = reader.rows();
    findings.summary["parts"] = content.at("parts").size();
    findings.summary["rejects"] = content.at("rejects");
    findings.summary["planned_objects"] = content.at("plan").at("objects");
    findings.summary["attributes"] = reader.schema().attributes;
    findings.summary["columns"] = store::to_json(reader.schema()).at("columns");
    for_each_part(reader, [&](const std::string& part, std::int64_t, std::int64_t rows) {
        findings.attempt([&] { check_datasets(hdf5::open_file(part), reader.schema(), rows, part); });
    });
    if (!findings.problems.empty()) {
        return;
    }
    findings.attempt([&] { check_identifiers(reader); });
    findings.attempt([&] { check_positions(reader); });
    findings.attempt([&] { check_embedding(reader, "image"); });
    findings.attempt([&] { check_embedding(reader, "spectrum"); });
    findings.attempt([&] { check_rejects(reader); });
    findings.attempt([&] { check_index(reader); });
}

Findings check(const std::string& path)
{
    Findings findings;
    auto& summary = findings.summary;
    summary["path"] = path;
    json manifest;
    if (!findings.attempt([&] { manifest = store::read_manifest(path); })) {
        return findings;
    }
    findings.attempt([&] {
        summary["kind"] = manifest.at("kind");
        summary["content_id"] = manifest.at("content_id");
        summary["stage"] = manifest.at("request").at("stage");
        summary["configuration_digest"] = manifest.at("request").at("configuration_digest");
        summary["inputs"] = manifest.at("request").at("inputs");
        summary["run"] = manifest.at("run");
        std::uint64_t bytes = 0;
        for (const auto& file : manifest.at("files")) {
            findings.attempt([&] { store::verify_file(path, file, false); });
            bytes += file.at("bytes").get<std::uint64_t>();
        }
        summary["files"] = manifest.at("files").size();
        summary["bytes"] = bytes;
    });
    if (findings.problems.empty() && manifest.at("content").contains("schema")) {
        findings.attempt([&] { check_store(path, findings); });
    }
    return findings;
}

void print_text(const Findings& findings)
{
    const auto& s = findings.summary;
    const auto line = [](const std::string& name, const std::string& value) {
        fmt::print("{:<22}{}\n", name, value);
    };
    line("path", s.at("path"));
    if (s.contains("bytes")) {
        line("kind", s.at("kind"));
        line("made by", fmt::format("astroclip-{}, {} ({}), {}", s["stage"].get<std::string>(),
                                    s["run"].value("version", ""), s["run"].value("revision", ""),
                                    s["run"].value("utc", "")));
        line("files", fmt::format("{}, {:.3f} MB", s["files"].get<int>(), s["bytes"].get<double>() / 1e6));
        line("content", s.at("content_id"));
        for (const auto& [name, id] : s.at("inputs").items()) {
            line("input " + name, id.is_string() ? id.get<std::string>() : id.dump());
        }
    }
    if (s.contains("columns")) {
        line("rows", fmt::format("{} in {} parts, of {} planned objects", s["rows"].get<std::int64_t>(),
                                 s["parts"].get<int>(), s["planned_objects"].get<std::int64_t>()));
        line("rejects", fmt::format("{} ({} selection, {} damage)", s["rejects"]["total"].get<std::int64_t>(),
                                    s["rejects"]["selection"].get<std::int64_t>(),
                                    s["rejects"]["damage"].get<std::int64_t>()));
        for (const auto& [reason, kinds] : s["rejects"]["reasons"].items()) {
            line("", fmt::format("{} {}",
                                 kinds["selection"].get<std::int64_t>() + kinds["damage"].get<std::int64_t>(),
                                 reason));
        }
        fmt::print("\n{:<26}{:<9}{:<16}{:<34}{}\n", "column", "type", "shape", "unit", "description");
        for (const auto& c : s["columns"]) {
            fmt::print(
                "{:<26}{:<9}{:<16}{:<34}{}\n", c["name"].get<std::string>(), c["type"].get<std::string>(),
                c["shape"].empty() ? "-"
                                   : fmt::format("{}", fmt::join(c["shape"].get<std::vector<int>>(), " x ")),
                text_of(c["unit"]), c["description"].get<std::string>());
        }
        fmt::print("\n");
    }
    line("result", findings.problems.empty() ? "complete and undamaged" : "NOT VALID");
}

const char* const usage =
    "astroclip-check STORE: is this output complete, undamaged, and what its manifest says?\n\n"
    "Usage: astroclip-check [options] STORE\n\n"
    "STORE is a folder that a stage published: a store (images, spectra, pairs, embeddings, ...) or a "
    "model.\n"
    "Compares the hashes of all files, the datasets with the schema, the index with the parts, and the rows "
    "and\n"
    "rejects with the plan; object_id must be unique.\n\n";
const char* const examples =
    "\nExit status: 0 valid, 64 usage, 65 damaged or not what its manifest says, 66 not there or not "
    "complete.\n\n"
    "Examples:\n"
    "  astroclip-check /scratch/run7/embeddings\n"
    "  astroclip-check --digest /scratch/run7/spectra    # equal for bit-identical contents\n";

int run(int argc, char** argv)
{
    std::string path;
    po::options_description options("Options");
    options.add_options()("json", "print the summary as one JSON object")(
        "digest", "print one hash of the contents and nothing else, if they are valid")(
        "help,h", "print this text")("version,V", "print the version")("quiet,q", "print only what is wrong");
    po::options_description all;
    all.add(options).add_options()("store", po::value(&path));
    po::positional_options_description positional;
    positional.add("store", 1);
    po::variables_map values;
    try {
        constexpr auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
        po::store(po::command_line_parser(argc, argv).options(all).positional(positional).style(style).run(),
                  values);
        po::notify(values);
    } catch (const po::error& error) {
        throw ConfigError(fmt::format("{}; astroclip-check --help lists the options", error.what()));
    }
    if (values.count("help")) {
        std::cout << usage << options << examples;
        return 0;
    }
    if (values.count("version")) {
        fmt::print("astroclip-check {} ({}), HDF5 {}\n", version(), revision(), H5_VERS_INFO);
        return 0;
    }
    if (path.empty()) {
        throw ConfigError("no STORE was given; usage: astroclip-check [--json] [--digest] STORE");
    }
    hdf5::silence();
    auto findings = check(path);
    for (const auto& problem : findings.problems) {
        fmt::print(stderr, "astroclip-check: {}\n", problem);
    }
    if (values.count("json")) {
        findings.summary["valid"] = findings.problems.empty();
        findings.summary["problems"] = findings.problems;
        fmt::print("{}\n", findings.summary.dump(1, ' ', false, json::error_handler_t::replace));
    } else if (values.count("digest")) {
        if (findings.problems.empty()) {
            fmt::print("{}\n", findings.summary.at("content_id").get<std::string>());
        }
    } else if (!values.count("quiet")) {
        print_text(findings);
    }
    return findings.exit_code;
}

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    try {
        return astroclip::run(argc, argv);
    } catch (const astroclip::Error& error) {
        fmt::print(stderr, "astroclip-check: {}\n", error.what());
        return error.exit_code;
    } catch (const std::exception& error) {
        fmt::print(stderr, "astroclip-check: internal error: {}\n", error.what());
        return 70;
    }
}
