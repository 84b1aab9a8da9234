#include "store/writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/error.hpp"
#include "core/fault_point.hpp"
#include "core/log.hpp"
#include "store/index.hpp"
#include "store/part_file.hpp"

namespace astroclip::store {
namespace {

constexpr std::int64_t default_part_bytes = std::int64_t{4} << 30;
constexpr std::int64_t default_turn_bytes = std::int64_t{64} << 20;

// Objects left out, by reason and kind.
struct RejectCounts {
    struct Kinds {
        std::int64_t selection = 0, damage = 0;
    };
    std::map<std::string, Kinds> reasons;
    Kinds all;

    void add(const std::string& reason, std::int64_t selection, std::int64_t damage)
    {
        auto& kinds = reasons[reason];
        kinds.selection += selection;
        kinds.damage += damage;
        all.selection += selection;
        all.damage += damage;
    }
    void add(const RejectCounts& other)
    {
        for (const auto& [reason, kinds] : other.reasons) {
            add(reason, kinds.selection, kinds.damage);
        }
    }
    std::int64_t total() const { return all.selection + all.damage; }
    nlohmann::json json() const
    {
        auto by_reason = nlohmann::json::object();
        for (const auto& [reason, kinds] : reasons) {
            by_reason[reason] = {{"selection", kinds.selection}, {"damage", kinds.damage}};
        }
        return {
            {"total", total()}, {"selection", all.selection}, {"damage", all.damage}, {"reasons", by_reason}};
    }
    static RejectCounts from(const nlohmann::json& json)
    {
        RejectCounts counts;
        for (const auto& [reason, kinds] : json.at("reasons").items()) {
            counts.add(reason, kinds.at("selection"), kinds.at("damage"));
        }
        return counts;
    }
    std::string text() const
    {
        std::string list;
        for (const auto& [reason, kinds] : reasons) {
            list += fmt::format("{}{} {}", list.empty() ? "" : ", ", kinds.selection + kinds.damage, reason);
        }
        return list.empty() ? "none" : list;
    }
};

// CBOR rather than JSON: names of files need not be UTF-8.
std::string packed(const std::vector<Reject>& rejects)
{
    auto rows = nlohmann::json::array();
    for (const auto& r : rejects) {
        rows.push_back({r.source, r.source_row, r.object_id, r.reason, r.damage, r.detail});
    }
    std::string bytes;
    nlohmann::json::to_cbor(rows, bytes);
    return bytes;
}

void unpack(const std::string& bytes, std::vector<Reject>& rejects)
{
    for (const auto& r : nlohmann::json::from_cbor(bytes)) {
        rejects.push_back({r[0], r[1], r[2], r[3], r[4], r[5]});
    }
}

std::int64_t rounded_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

struct Writer::State {
    Output& output;
    const comm::World& world;
    Schema schema;
    std::int64_t plan_size;
    std::string plan_id;
    Options options;

    std::int64_t part = -1;
    std::vector<nlohmann::json> commits{};  // of the parts published, as in their .json
    RejectCounts published{};               // in those parts

    std::optional<PartFile> file{};
    std::vector<Range> turns{};  // of this part, over all ranks
    std::size_t turn = 0;
    std::int64_t rows = 0;
    std::vector<Reject> rejects{};  // of this part, in the order of the plan; rank 0 has them
    RejectCounts counts{};          // of this part

    std::int64_t parts() const
    {
        return std::max<std::int64_t>(1, (plan_size + options.part_rows - 1) / options.part_rows);
    }
    Range range(std::int64_t number) const
    {
        return {number * options.part_rows, std::min(plan_size, (number + 1) * options.part_rows)};
    }
    std::string path(std::int64_t number) const { return output.path() + "/" + part_name(number); }

    Range share(const Range& all) const;
    nlohmann::json committed(std::int64_t number) const;
    void check_rows(const Rows& rows_of_turn, const std::vector<Reject>& left_out) const;
    void gather_rejects(const std::vector<Reject>& own, bool any);
    void check_limit() const;
};

Writer::Writer(Output& output, Schema schema, std::int64_t plan_size, const std::string& plan_id,
               Options options)
    : state_(new State{output, output.world(), std::move(schema), plan_size, plan_id, options})
{
    auto& o = state_->options;
    const auto row_bytes = static_cast<std::int64_t>(std::max<std::size_t>(state_->schema.row_bytes(), 1));
    o.unit_rows = std::max<std::int64_t>(o.unit_rows, 1);
    o.part_rows =
        rounded_up(o.part_rows > 0 ? o.part_rows : std::max<std::int64_t>(default_part_bytes / row_bytes, 1),
                   o.unit_rows);
    o.turn_rows =
        rounded_up(o.turn_rows > 0 ? o.turn_rows : std::max<std::int64_t>(default_turn_bytes / row_bytes, 1),
                   o.unit_rows);
}

Writer::~Writer() = default;

// The part's commit, if it was published by this very plan; null otherwise. Rank 0.
nlohmann::json Writer::State::committed(std::int64_t number) const
{
    const auto commit_path = path(number) + ".json";
    if (!std::filesystem::exists(commit_path)) {
        return {};
    }
    const auto commit = read_json(commit_path);
    const auto expected = range(number);
    try {
        const auto& plan = commit.at("plan");
        if (plan.at("id") != plan_id || plan.at("first") != expected.first ||
            plan.at("last") != expected.last || commit.at("kind") != schema.kind) {
            throw OutputConflict(commit_path,
                                 "belongs to another list of input objects or another size of parts; "
                                 "--force makes the output anew");
        }
        verify_file(output.path(), commit.at("file"), true);
    } catch (const nlohmann::json::exception& problem) {
        throw DataError(commit_path, problem.what());
    } catch (const MissingInput&) {
        return {};
    }
    return commit;
}

bool Writer::next_part()
{
    auto& s = *state_;
    if (s.file) {
        throw InternalError("next_part() before the part was published");
    }
    while (++s.part < s.parts()) {
        std::string commit;
        s.world.on_root([&] { commit = s.committed(s.part).dump(); });
        const auto known = nlohmann::json::parse(s.world.broadcast(commit));
        if (known.is_null()) {
            break;
        }
        s.commits.push_back(known);
        s.published.add(RejectCounts::from(known.at("rejects")));
    }
    if (s.part >= s.parts()) {
        return false;
    }
    if (s.world.stop_requested()) {
        throw Stopped(
            fmt::format("stopped on request: {} of {} parts of {} are published; the same command goes on",
                        s.part, s.parts(), s.output.path()));
    }
    const auto range = part();
    s.turns.clear();
    for (auto first = range.first; first < range.last; first += s.options.turn_rows) {
        s.turns.push_back({first, std::min(range.last, first + s.options.turn_rows)});
    }
    s.turn = 0;
    s.rows = 0;
    s.rejects.clear();
    s.counts = {};
    s.file.emplace(s.world, s.schema, s.output.request(), s.path(s.part) + ".h5",
                   static_cast<std::uint64_t>(range.size()));
    return true;
}

Writer::Range Writer::part() const { return state_->range(state_->part); }

// This rank's share: contiguous, a whole number of units (the last one may be short).
Writer::Range Writer::State::share(const Range& all) const
{
    const auto unit = options.unit_rows;
    const auto units = (all.size() + unit - 1) / unit;
    const auto bound = [&](std::int64_t rank) {
        return std::min(all.last, all.first + units * rank / world.size() * unit);
    };
    return {bound(world.rank()), bound(world.rank() + 1)};
}

std::vector<Writer::Range> Writer::turns() const
{
    std::vector<Range> own;
    for (const auto& turn : state_->turns) {
        own.push_back(state_->share(turn));
    }
    return own;
}

// Rows out = rows in, on every rank and turn.
void Writer::State::check_rows(const Rows& rows_of_turn, const std::vector<Reject>& left_out) const
{
    if (turn >= turns.size()) {
        throw InternalError(fmt::format("part {} has {} turns; one more was appended", part, turns.size()));
    }
    const auto own = share(turns[turn]);
    const auto found = static_cast<std::int64_t>(rows_of_turn.size() + left_out.size());
    if (found != own.size()) {
        throw InternalError(fmt::format("plan positions {} to {} gave {} rows and {} rejects", own.first,
                                        own.last, rows_of_turn.size(), left_out.size()));
    }
    for (const auto& column : schema.columns) {
        const auto bytes = rows_of_turn.bytes(column.name).size();
        if (bytes != rows_of_turn.size() * column.row_bytes()) {
            throw InternalError(fmt::format("column '{}' has {} bytes for {} rows of {}", column.name, bytes,
                                            rows_of_turn.size(), column.row_bytes()));
        }
    }
}

// Collective. The ranks own contiguous ranges, so that rank order is plan order.
void Writer::State::gather_rejects(const std::vector<Reject>& own, bool any)
{
    if (!any) {
        return;
    }
    std::vector<Reject> all;
    for (const auto& bytes : world.all_gather(packed(own))) {
        unpack(bytes, all);
    }
    for (const auto& reject : all) {
        counts.add(reject.reason, !reject.damage, reject.damage);
    }
    if (world.is_root()) {
        rejects.insert(rejects.end(), all.begin(), all.end());
    }
}

void Writer::State::check_limit() const
{
    auto so_far = published;
    so_far.add(counts);
    const auto most = options.max_reject_fraction * static_cast<double>(plan_size);
    if (static_cast<double>(so_far.all.damage) > most) {
        const auto example =
            std::find_if(rejects.begin(), rejects.end(), [](const Reject& r) { return r.damage; });
        throw DataError(
            output.path(),
            fmt::format(
                "{} damaged objects of {} planned are more than --max-reject-fraction {} allows ({}){}",
                so_far.all.damage, plan_size, options.max_reject_fraction, so_far.text(),
                example == rejects.end()
                    ? ""
                    : fmt::format("; for example {} row {}: {} {}", example->source, example->source_row,
                                  example->reason, example->detail)));
    }
}

void Writer::append(const Rows& rows, const std::vector<Reject>& rejects)
{
    auto& s = *state_;
    s.world.together([&] { s.check_rows(rows, rejects); });
    struct Counts {
        std::int64_t rows, rejects;
    };
    const auto all = s.world.all_gather(std::vector<Counts>{
        {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rejects.size())}});
    auto first = s.rows;
    bool any_reject = false;
    for (int rank = 0; rank < s.world.size(); ++rank) {
        first += rank < s.world.rank() ? all[rank].rows : 0;
        s.rows += all[rank].rows;
        any_reject = any_reject || all[rank].rejects > 0;
    }
    s.gather_rejects(rejects, any_reject);
    s.world.on_root([&] { s.check_limit(); });
    s.file->append(rows, static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(s.rows));
    ++s.turn;
}

void Writer::publish_part()
{
    auto& s = *state_;
    if (s.turn != s.turns.size()) {
        throw InternalError(
            fmt::format("part {} is published after {} of {} turns", s.part, s.turn, s.turns.size()));
    }
    const auto columns = s.file->column_hashes();
    const auto entry = s.file->publish(s.rejects, s.options.verify);
    s.file.reset();
    const auto range = part();
    const nlohmann::json commit = {
        {"format", "astroclip"},
        {"format_version", 1},
        {"kind", s.schema.kind},
        {"part", s.part},
        {"plan", {{"id", s.plan_id}, {"first", range.first}, {"last", range.last}}},
        {"rows", s.rows},
        {"rejects", s.counts.json()},
        {"columns", columns},
        {"file", entry},
        {"configuration_digest", s.output.request().configuration_digest},
        {"inputs", s.output.request().inputs},
        {"run", run_facts(s.world)}};
    s.world.on_root([&] {
        fault_point("publish.before-manifest");
        publish_text(s.path(s.part) + ".json", commit.dump(1) + "\n");
        fault_point("publish.after-manifest");
        log::info("{}: part {} of {}, {} rows, rejects: {}", s.output.path(), s.part + 1, s.parts(), s.rows,
                  s.counts.text());
    });
    s.commits.push_back(commit);
    s.published.add(s.counts);
    s.counts = {};
    s.rows = 0;
}

void Writer::publish(const nlohmann::json& extra)
{
    auto& s = *state_;
    if (static_cast<std::int64_t>(s.commits.size()) != s.parts()) {
        throw InternalError(fmt::format("{} of {} parts are published", s.commits.size(), s.parts()));
    }
    std::int64_t rows = 0;
    std::vector<std::int64_t> part_rows;
    auto parts = nlohmann::json::array();
    std::vector<nlohmann::json> entries;
    for (const auto& commit : s.commits) {
        part_rows.push_back(commit.at("rows"));
        rows += part_rows.back();
        parts.push_back({{"name", commit.at("file").at("name")},
                         {"first", commit.at("plan").at("first")},
                         {"last", commit.at("plan").at("last")},
                         {"rows", part_rows.back()}});
        entries.push_back(commit.at("file"));
    }
    if (rows + s.published.total() != s.plan_size) {
        throw InternalError(fmt::format("{}: {} rows and {} rejects for {} planned objects", s.output.path(),
                                        rows, s.published.total(), s.plan_size));
    }
    s.world.on_root([&] {
        publish_file(s.output.path() + "/index.h5", [&](const std::string& temporary) {
            write_index(temporary, s.output.path(), s.schema, s.output.request(), part_rows,
                        s.schema.kind != "search");
        });
    });
    entries.push_back(file_entry(s.world, s.output.path(), "index.h5"));
    nlohmann::json content = {{"kind", s.schema.kind},
                              {"rows", rows},
                              {"schema", to_json(s.schema)},
                              {"plan", {{"id", s.plan_id}, {"objects", s.plan_size}}},
                              {"parts", parts},
                              {"rejects", s.published.json()}};
    content.update(extra);
    s.output.publish_entries(content, entries);
    if (s.world.is_root()) {
        log::info("{}: {} rows in {} parts, {} rejects ({})", s.output.path(), rows, s.parts(),
                  s.published.total(), s.published.text());
    }
}

std::int64_t Writer::plan_done() const
{
    const auto& s = *state_;
    if (s.part < 0) {
        return 0;
    }
    if (!s.file) {
        return static_cast<std::int64_t>(s.commits.size()) < s.parts() ? s.range(s.commits.size()).first
                                                                       : s.plan_size;
    }
    return s.turn == 0 ? s.range(s.part).first : s.turns[s.turn - 1].last;
}

}  // namespace astroclip::store
