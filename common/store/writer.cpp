#include "store/writer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/error.hpp"
#include "core/fault_point.hpp"
#include "core/log.hpp"
#include "core/rounding.hpp"
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
    std::int64_t done = 0;                  // plan positions of those parts

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
    void note(const nlohmann::json& commit);
    std::int64_t missing_parts();
    void complete(const nlohmann::json& extra);
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
            plan.at("last") != expected.last || commit.at("kind") != schema.kind ||
            commit.at("configuration_digest") != output.request().configuration_digest) {
            throw OutputConflict(commit_path,
                                 "belongs to another list of input objects, another size of parts or another "
                                 "configuration; " +
                                     output.remedy() + " makes the output anew");
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
    for (s.part = s.part < 0 ? s.output.shard().index : s.part + s.output.shard().count; s.part < s.parts();
         s.part += s.output.shard().count) {
        std::string commit;
        s.world.on_root([&] { commit = s.committed(s.part).dump(); });
        const auto known = nlohmann::json::parse(s.world.broadcast(commit));
        if (known.is_null()) {
            break;
        }
        s.note(known);
    }
    if (s.part >= s.parts()) {
        return false;
    }
    if (s.world.stop_requested()) {
        throw Stopped(
            fmt::format("stopped on request: {} of {} objects for {} are published; the same command goes on",
                        s.done, plan_share(), s.output.path()));
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

void Writer::State::note(const nlohmann::json& commit)
{
    commits.push_back(commit);
    published.add(RejectCounts::from(commit.at("rejects")));
    done +=
        commit.at("plan").at("last").get<std::int64_t>() - commit.at("plan").at("first").get<std::int64_t>();
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
                    : fmt::format("; for example {} row {}: {}{}{}", example->source, example->source_row,
                                  example->reason, example->detail.empty() ? "" : ": ", example->detail)));
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
    s.note(commit);
    s.counts = {};
    s.rows = 0;
}

// Collective. Reads the commits of all parts, by whichever shard; the number of parts that have none.
std::int64_t Writer::State::missing_parts()
{
    std::string text;
    world.on_root([&] {
        auto all = nlohmann::json::array();
        for (std::int64_t number = 0; number < parts(); ++number) {
            all.push_back(committed(number));
        }
        text = all.dump();
    });
    std::int64_t missing = 0;
    commits.clear();
    published = {};
    for (const auto& commit : nlohmann::json::parse(world.broadcast(text))) {
        commit.is_null() ? static_cast<void>(++missing) : note(commit);
    }
    return missing;
}

bool Writer::publish(const nlohmann::json& extra)
{
    auto& s = *state_;
    bool complete = true;
    s.output.exclusively([&] {
        const auto& shard = s.output.shard();
        const auto missing = shard.whole() ? 0 : s.missing_parts();
        complete = missing == 0;
        if (!complete) {
            log::info("{}: shard {} of {} is done; {} of {} parts are still to come from the others",
                      s.output.path(), shard.index, shard.count, missing, s.parts());
        } else if (!s.world.any(s.world.is_root() &&
                                std::filesystem::exists(s.output.path() + "/manifest.json"))) {
            s.world.on_root([&] { s.check_limit(); });
            s.complete(extra);
        }
    });
    return complete;
}

void Writer::State::complete(const nlohmann::json& extra)
{
    if (static_cast<std::int64_t>(commits.size()) != parts()) {
        throw InternalError(fmt::format("{} of {} parts are published", commits.size(), parts()));
    }
    std::int64_t all_rows = 0;
    std::vector<std::int64_t> part_rows;
    auto listed = nlohmann::json::array();
    std::vector<nlohmann::json> entries;
    for (const auto& commit : commits) {
        part_rows.push_back(commit.at("rows"));
        all_rows += part_rows.back();
        listed.push_back({{"name", commit.at("file").at("name")},
                          {"first", commit.at("plan").at("first")},
                          {"last", commit.at("plan").at("last")},
                          {"rows", part_rows.back()}});
        entries.push_back(commit.at("file"));
    }
    if (all_rows + published.total() != plan_size) {
        throw InternalError(fmt::format("{}: {} rows and {} rejects for {} planned objects", output.path(),
                                        all_rows, published.total(), plan_size));
    }
    world.on_root([&] {
        publish_file(output.path() + "/index.h5", [&](const std::string& temporary) {
            write_index(temporary, output.path(), schema, output.request(), part_rows,
                        schema.kind != "search");
        });
    });
    entries.push_back(file_entry(world, output.path(), "index.h5"));
    nlohmann::json content = {
        {"kind", schema.kind},       {"rows", all_rows},
        {"schema", to_json(schema)}, {"plan", {{"id", plan_id}, {"objects", plan_size}}},
        {"parts", listed},           {"rejects", published.json()}};
    content.update(extra);
    output.publish_entries(content, entries);
    if (world.is_root()) {
        log::info("{}: {} rows in {} parts, {} rejects ({})", output.path(), all_rows, parts(),
                  published.total(), published.text());
    }
}

std::int64_t Writer::plan_share() const
{
    const auto& s = *state_;
    std::int64_t share = 0;
    for (std::int64_t number = s.output.shard().index; number < s.parts(); number += s.output.shard().count) {
        share += s.range(number).size();
    }
    return share;
}

std::int64_t Writer::plan_done() const
{
    const auto& s = *state_;
    return s.done + (s.file && s.turn > 0 ? s.turns[s.turn - 1].last - s.range(s.part).first : 0);
}

}  // namespace astroclip::store
