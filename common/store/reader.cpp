#include "store/reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>

#include "core/error.hpp"
#include "store/columns.hpp"
#include "store/publication.hpp"

namespace astroclip::store {
namespace {

// A store of thousands of parts must neither run out of file descriptors nor keep the caches of all of them.
constexpr std::size_t most_open = 128;

struct Part {
    std::string path;
    nlohmann::json entry;  // of the manifest
    std::int64_t first = 0, rows = 0;
    bool verified = false;
    hdf5::Handle file{};
    std::map<std::string, hdf5::Handle> datasets{};
};

}  // namespace

struct Reader::State {
    std::string path;
    nlohmann::json manifest;
    Schema schema;
    bool trust = false;
    std::int64_t rows = 0;
    mutable std::vector<Part> parts;
    mutable std::deque<Part*> open;  // in the order in which they were opened

    void load(const std::string& kind);
    void load_parts();
    void load_axes();
    hid_t file(Part& part) const;
    hid_t dataset(Part& part, const Column& column) const;
    const Column& column(const std::string& name) const;
};

void Reader::State::load(const std::string& kind)
{
    manifest = read_manifest(path);
    const auto manifest_path = path + "/manifest.json";
    try {
        if (!manifest.at("content").contains("schema")) {
            throw DataError(manifest_path, fmt::format("describes '{}', not a store",
                                                       manifest.at("kind").get<std::string>()));
        }
        schema = schema_from_json(manifest.at("content").at("schema"));
        if (!kind.empty() && schema.kind != kind) {
            throw DataError(path, fmt::format("is a store of {}; {} are expected", schema.kind, kind));
        }
        load_parts();
    } catch (const nlohmann::json::exception& problem) {
        throw DataError(manifest_path, problem.what());
    }
    load_axes();
}

void Reader::State::load_parts()
{
    std::map<std::string, nlohmann::json> entries;
    for (const auto& entry : manifest.at("files")) {
        entries[entry.at("name")] = entry;
    }
    for (const auto& part : manifest.at("content").at("parts")) {
        const std::string name = part.at("name");
        if (!entries.contains(name)) {
            throw DataError(path + "/manifest.json", "lists the part '" + name + "' without its hashes");
        }
        verify_file(path, entries[name], true);  // there, and of the right size
        parts.push_back(
            {.path = path + "/" + name, .entry = entries[name], .first = rows, .rows = part.at("rows")});
        rows += parts.back().rows;
    }
    if (rows != manifest.at("content").at("rows") || parts.empty()) {
        throw DataError(path + "/manifest.json", "the rows of its parts do not add up");
    }
}

void Reader::State::load_axes()
{
    for (auto& axis : schema.axes) {
        const auto& name = parts.front().path;
        const auto values = hdf5::open_dataset(file(parts.front()), axis.name, name);
        const auto size = axis.values.size();
        axis.values = hdf5::read<double>(values, name);
        if (axis.values.size() != size) {
            throw DataError(name, fmt::format("axis '{}' has {} values, its manifest says {}", axis.name,
                                              axis.values.size(), size));
        }
    }
}

// Opens a part; its hashes are compared first, so that HDF5 never sees a file that somebody else changed.
hid_t Reader::State::file(Part& part) const
{
    if (!part.verified) {
        verify_file(path, part.entry, trust);
        part.verified = true;
    }
    if (part.file < 0) {
        if (open.size() == most_open) {
            open.front()->datasets.clear();
            open.front()->file.reset();
            open.pop_front();
        }
        part.file = hdf5::open_file(part.path);
        open.push_back(&part);
    }
    return part.file;
}

hid_t Reader::State::dataset(Part& part, const Column& wanted) const
{
    auto& dataset = part.datasets[wanted.name];
    if (dataset < 0) {
        auto opened = hdf5::open_dataset(file(part), wanted.name, part.path);
        check_column(opened, wanted, part.rows, part.path);
        dataset = std::move(opened);
    }
    return dataset;
}

const Column& Reader::State::column(const std::string& name) const
{
    if (!schema.has(name)) {
        std::string names;
        for (const auto& c : schema.columns) {
            names += (names.empty() ? "" : ", ") + c.name;
        }
        throw DataError(path, fmt::format("has no column '{}'; there are: {}", name, names));
    }
    return schema.column(name);
}

Reader::Reader(const std::string& path, const std::string& kind, bool trust)
    : state_(std::make_unique<State>())
{
    state_->path = path;
    state_->trust = trust;
    state_->load(kind);
}

Reader::~Reader() = default;
Reader::Reader(Reader&&) noexcept = default;

const std::string& Reader::path() const { return state_->path; }
const nlohmann::json& Reader::manifest() const { return state_->manifest; }
const Schema& Reader::schema() const { return state_->schema; }
std::int64_t Reader::rows() const { return state_->rows; }
std::string Reader::content_id() const { return state_->manifest.at("content_id"); }

template <typename T>
void Reader::read(const std::string& name, std::int64_t first, std::int64_t count, T* out) const
{
    const auto& column = state_->column(name);
    if (first < 0 || count < 0 || first + count > state_->rows) {
        throw InternalError(fmt::format("rows {} to {} of {} were asked for, which has {}", first,
                                        first + count, state_->path, state_->rows));
    }
    auto& parts = state_->parts;
    auto part = std::upper_bound(parts.begin(), parts.end(), first,
                                 [](std::int64_t row, const Part& p) { return row < p.first; });
    for (--part; count > 0; ++part) {
        const auto here = std::min(count, part->first + part->rows - first);
        if (here <= 0) {
            continue;  // a part may be empty
        }
        hdf5::read_rows(state_->dataset(*part, column), static_cast<std::uint64_t>(first - part->first),
                        static_cast<std::uint64_t>(here), out, part->path);
        out += static_cast<std::size_t>(here) * column.row_items();
        first += here;
        count -= here;
    }
}

template <typename T>
std::vector<T> Reader::column(const std::string& name) const
{
    std::vector<T> values(static_cast<std::size_t>(rows()) * state_->column(name).row_items());
    read(name, 0, rows(), values.data());
    return values;
}

#define ASTROCLIP_READ(T)                                                                    \
    template void Reader::read<T>(const std::string&, std::int64_t, std::int64_t, T*) const; \
    template std::vector<T> Reader::column<T>(const std::string&) const;
ASTROCLIP_READ(float)
ASTROCLIP_READ(double)
ASTROCLIP_READ(std::int8_t)
ASTROCLIP_READ(std::uint8_t)
ASTROCLIP_READ(std::int16_t)
ASTROCLIP_READ(std::int32_t)
ASTROCLIP_READ(std::uint32_t)
ASTROCLIP_READ(std::int64_t)
ASTROCLIP_READ(std::uint64_t)
#undef ASTROCLIP_READ

const std::vector<double>& Reader::axis(const std::string& name) const
{
    for (const auto& axis : state_->schema.axes) {
        if (axis.name == name) {
            return axis.values;
        }
    }
    throw DataError(state_->path, "has no axis '" + name + "'");
}

std::vector<Reject> Reader::rejects() const
{
    std::vector<Reject> all;
    for (auto& part : state_->parts) {
        const auto some = read_rejects(state_->file(part), part.path);
        all.insert(all.end(), some.begin(), some.end());
    }
    return all;
}

}  // namespace astroclip::store
