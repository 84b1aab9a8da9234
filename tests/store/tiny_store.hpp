#pragma once

#include <fmt/format.h>
#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "comm/world.hpp"
#include "core/log.hpp"
#include "store/lock.hpp"
#include "store/publication.hpp"
#include "store/writer.hpp"

// A store small enough to write hundreds of times, with everything that is awkward: odd numbers, chunks that
// straddle turns and ranks, a turn and a part without any row, rejects of both kinds.
namespace astroclip::tests {

struct Tiny {
    std::int64_t plan = 260;
    std::int64_t part_rows = 101, turn_rows = 17, unit_rows = 1;
    double max_reject_fraction = 0.05;
    std::string setting = "a";
    bool force = false;
    std::int64_t empty_part = -1;  // all of whose objects are left out
    store::Opening opening{};
};

inline store::Schema tiny_schema()
{
    store::Schema schema{.kind = "tiny", .columns = {}};
    schema.columns = {{"object_id", store::Type::i64, {}, "", "identifier", "meta.id;meta.main"},
                      {"ra", store::Type::f64, {}, "deg", "right ascension, ICRS", "pos.eq.ra"},
                      {"dec", store::Type::f64, {}, "deg", "declination, ICRS", "pos.eq.dec"},
                      // 19 kB a row: 13 rows a chunk
                      {"flux", store::Type::f32, {3, 40, 40}, "nanomaggy", "cutout", "phot.flux"},
                      {"class", store::Type::u8, {}, "", "a small one", "meta.code", "0"}};
    schema.axes = {{"wavelength", "Angstrom", "three bands", {4800, 6400, 9200}}};
    schema.attributes = {{"bands", "grz"}, {"pixel_scale", 0.262}, {"release", 9010}};
    return schema;
}

inline float tiny_flux(std::int64_t object, std::int64_t pixel)
{
    return float(object) + float(pixel) / 8192;
}

inline void add_tiny(std::int64_t object, const Tiny& tiny, store::Rows& rows,
                     std::vector<store::Reject>& rejects)
{
    const bool empty_turn = object >= 34 && object < 51;
    if (empty_turn || object % 7 == 3 || object / tiny.part_rows == tiny.empty_part) {
        rejects.push_back(
            {"survey.fits", object, object, "not a target", false, "class " + std::to_string(object % 3)});
        return;
    }
    if (object % 50 == 11) {
        rejects.push_back({"survey.fits", object, object, "non-finite pixels", true, "3 of 4800"});
        return;
    }
    std::vector<float> flux(4800);
    for (std::size_t i = 0; i < flux.size(); ++i) {
        flux[i] = tiny_flux(object, static_cast<std::int64_t>(i));
    }
    rows.add<std::int64_t>("object_id", 1000 + object);
    rows.add("ra", 0.25 * double(object));
    rows.add("dec", -0.125 * double(object));
    rows.add("flux", flux.data(), 1);
    rows.add("class", int(object % 3));
}

inline store::Request tiny_request(const Tiny& tiny)
{
    return {
        "tiny", {{"tiny", {{"setting", tiny.setting}}}}, "digest of " + tiny.setting, {{"survey", "0123"}}};
}

// Collective. Returns the object positions that this rank was asked for.
inline std::vector<std::int64_t> write_tiny(const comm::World& world, const std::string& path,
                                            const Tiny& tiny = {})
{
    std::vector<std::int64_t> asked;
    store::Output output(world, path, tiny_request(tiny), tiny.force, tiny.opening);
    if (output.up_to_date()) {
        return asked;
    }
    const auto schema = tiny_schema();
    store::Writer writer(output, schema, tiny.plan, "plan of " + std::to_string(tiny.plan),
                         {.part_rows = tiny.part_rows,
                          .turn_rows = tiny.turn_rows,
                          .max_reject_fraction = tiny.max_reject_fraction,
                          .unit_rows = tiny.unit_rows});
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            std::vector<store::Reject> rejects;
            for (auto object = turn.first; object < turn.last; ++object) {
                add_tiny(object, tiny, rows, rejects);
                asked.push_back(object);
            }
            writer.append(rows, rejects);
        }
        writer.publish_part();
        if (std::getenv("TINY_STOP")) std::raise(SIGUSR2);
    }
    writer.publish();
    return asked;
}

// A folder that all ranks know and that goes with its owner. Collective.
class Folder {
public:
    explicit Folder(const comm::World& world) : world_(world)
    {
        const auto name = std::filesystem::temp_directory_path() / ("astroclip-test-" + store::new_token());
        log::configure(log::Level::warn, false, world.rank());
        path = world.broadcast(name.string());
        world.on_root([&] { std::filesystem::create_directories(path); });
    }
    ~Folder()
    {
        world_.barrier();
        if (world_.is_root()) {
            std::error_code ignored;
            std::filesystem::remove_all(path, ignored);
        }
    }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string path;

private:
    const comm::World& world_;
};

inline std::string bytes_of(const std::string& path)
{
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

// Flips one bit in the middle of a file.
inline void damage(const std::string& path, std::uintmax_t at)
{
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekg(static_cast<std::streamoff>(at));
    const char byte = static_cast<char>(file.get() ^ 4);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(byte);
}

template <typename Work>
int exit_code_of(Work work, std::string* message = nullptr)
{
    try {
        work();
    } catch (const Error& error) {
        if (message) {
            *message = error.what();
        }
        return error.exit_code;
    }
    return 0;
}

}  // namespace astroclip::tests
