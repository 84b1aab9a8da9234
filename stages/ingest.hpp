#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "stages/stage.hpp"
#include "store/writer.hpp"
#include "survey/plan.hpp"

// What the two ingest stages share: the list of input files, the limit on damage, and the loop over the plan.
namespace astroclip::stage {

// Collective: rank 0 looks at the file system, all get the list.
inline std::vector<survey::InputFile> list_together(const comm::World& world, const std::string& input,
                                                    const std::function<bool(const std::string&)>& wanted,
                                                    const std::string& what_is_wanted)
{
    std::string text;
    world.on_root([&] {
        if (input.empty()) {
            throw ConfigError("'input' is not set: a file, a folder, or a list of files (*.txt)");
        }
        for (const auto& file : survey::list_inputs(input, wanted, what_is_wanted)) {
            text += file.path + '\0' + file.name + '\0';
        }
    });
    text = world.broadcast(text);
    std::vector<survey::InputFile> files;
    auto next = [&, at = std::size_t{0}]() mutable {
        const auto end = text.find('\0', at);
        const auto word = text.substr(at, end - at);
        at = end + 1;
        return word;
    };
    for (auto left = std::count(text.begin(), text.end(), '\0') / 2; left > 0; --left) {
        const auto path = next();
        files.push_back({path, next()});
    }
    return files;
}

// Says what the plan found, and ends here if what is unreadable alone exceeds the limit. The same on all
// ranks.
inline void review(const comm::World& world, const survey::Plan& plan, double max_reject_fraction)
{
    std::int64_t bad = 0, lost = 0;
    std::string first;
    for (const auto& file : plan.files()) {
        if (!file.error.empty()) {
            first = bad++ == 0 ? file.error : first;
            lost += file.objects;
            if (world.is_root()) {
                log::warn("{}", file.error);
            }
        }
    }
    log::info("{} input objects in {} files, {} of them duplicates", plan.size(), plan.files().size(),
              plan.duplicates());
    world.on_root([&] {
        if (plan.size() == 0) {
            throw Error("the input holds no objects", 65);
        }
        if (static_cast<double>(lost) > max_reject_fraction * static_cast<double>(plan.size())) {
            throw Error(fmt::format("{} of {} input files cannot be used, more than max-reject-fraction = {} "
                                    "allows; the first: {}",
                                    bad, plan.files().size(), max_reject_fraction, first),
                        65);
        }
    });
}

// Collective. Writes the store: `take` turns one object of the plan into a row or a reject.
inline void write_store(
    Context& context, store::Output& output, const store::Schema& schema, const survey::Plan& plan,
    const std::string& plan_id, const store::Writer::Options& options,
    const std::function<void(std::int64_t, store::Rows&, std::vector<store::Reject>&)>& take)
{
    store::Writer writer(output, schema, plan.size(), plan_id, options);
    auto more = writer.next_part();  // after those of an earlier run
    context.progress.begin("ingesting", writer.plan_share(), "objects", writer.plan_done());
    for (; more; more = writer.next_part()) {
        for (const auto turn : writer.turns()) {
            store::Rows rows(schema);
            std::vector<store::Reject> rejects;
            context.world.together([&] {
                for (auto position = turn.first; position < turn.last; ++position) {
                    alive("reading survey files");
                    take(position, rows, rejects);
                }
            });
            writer.append(rows, rejects);
            context.progress.update(writer.plan_done());
        }
        writer.publish_part();
    }
    writer.publish();
    context.progress.end();
}

// The objects of a file that the plan could not read are rejects, unseen. True if this is one.
inline bool reject_lost(const survey::Plan::File& file, std::int64_t index,
                        std::vector<store::Reject>& rejects)
{
    if (file.error.empty()) {
        return false;
    }
    const auto id = file.lost_ids.at(static_cast<std::size_t>(index));
    const bool known = id != survey::no_id;
    rejects.push_back({file.input.name, known ? index : -1, known ? id : -1,
                       file.missing ? "missing file" : "unreadable file", true, file.error});
    return true;
}

inline std::uint32_t photometry_flag(float g, float r, float z)
{
    return g > 0 && r > 0 && z > 0 ? 0 : store::qflag::no_photometry;
}

}  // namespace astroclip::stage
