// astroclip-synthetic-catalogue: a store of embeddings or images of random galaxies, of any size, to try how
// stages and tools bear it. Every row is a function of the seed and its number alone.
#include <fmt/format.h>

#include <cmath>
#include <numbers>

#include "core/hash.hpp"
#include "core/random.hpp"
#include "stages/stage.hpp"
#include "store/writer.hpp"
#include "survey/healpix.hpp"

namespace astroclip::synthetic {
namespace {

const stage::Description description{
    "synthetic-catalogue", "a store of embeddings or images of random galaxies, of any size",
    "  mpirun -n 2 astroclip-synthetic-catalogue --rows 10000000 --part-rows 5000 --width 16 --output big\n"
    "  astroclip-synthetic-catalogue --kind images --rows 1000 --size 72 --output small",
    true};

struct Options {
    std::string output;
    std::int64_t rows = 100000, part_rows = 0;
    std::string kind = "embeddings";
    int width = 32, size = 32;
};

void bind(config::Section options, Options& o)
{
    options.option("output", o.output, "store to publish", config::runtime_only())
        .option("rows", o.rows, "galaxies", config::at_least(1))
        .option("part-rows", o.part_rows, "galaxies in a part, 0: about 4 GiB", config::at_least(0))
        .option("kind", o.kind, "what the store holds", config::one_of({"embeddings", "images"}))
        .option("width", o.width, "numbers in an embedding", config::at_least(1))
        .option("size", o.size, "pixels a side of an image", config::at_least(8));
}

// A unit vector in some direction (of a cube's points, which is random enough here).
std::vector<float> unit_vector(Random& random, int width)
{
    std::vector<float> values(static_cast<std::size_t>(width));
    double square = 0;
    for (auto& value : values) {
        value = static_cast<float>(random.bits()) * 0x1p-31F - 1.0F;
        square += static_cast<double>(value) * value;
    }
    for (auto& value : values) value = static_cast<float>(value / std::sqrt(square));
    return values;
}

void add_embeddings(store::Rows& rows, const Options& o, Random& random)
{
    rows.add("targetid", std::int64_t{-1});
    for (const std::string modality : {"image", "spectrum"}) {
        rows.add(modality + "_embedding", unit_vector(random, o.width).data(), 1);
        rows.add(modality + "_embedding_norm", 1.0F);
        rows.add("has_" + modality, true);
    }
    rows.add("z_spec", random.uniform());
    rows.add("zwarn", std::int64_t{0});
}

// Noise around a round source.
void add_image(store::Rows& rows, const Options& o, Random& random)
{
    const double width = random.uniform(1, 4), middle = (o.size - 1) / 2.0;
    std::vector<float> flux;
    for (int band = 0; band < 3; ++band) {
        for (int pixel = 0; pixel < o.size * o.size; ++pixel) {
            const double r = std::hypot(pixel % o.size - middle, pixel / o.size - middle);
            flux.push_back(static_cast<float>(std::exp(-r / width) + 0.01 * random.normal()));
        }
    }
    rows.add("flux", flux.data(), 1);
    for (const auto* name : {"flux_g", "flux_r", "flux_z", "ebv"}) rows.add(name, 1.0F);
    rows.add("redshift", random.uniform());
}

void add_row(store::Rows& rows, std::int64_t number, const Options& o, std::uint64_t seed)
{
    Random random(seed, "synthetic-catalogue", 0, static_cast<std::uint64_t>(number));
    const auto ra = random.uniform(0, 360);
    const auto dec = std::asin(random.uniform(-1, 1)) * 180 / std::numbers::pi;
    rows.add("object_id", number + 1);
    for (const auto* name : {"release", "brickid", "objid"}) rows.add(name, std::int64_t{-1});
    rows.add("ra", ra);
    rows.add("dec", dec);
    rows.add("qflag", std::uint32_t{0});
    if (o.kind == "images") {
        add_image(rows, o, random);
    } else {
        rows.add("healpix_29", survey::healpix_nested(ra, dec));
        add_embeddings(rows, o, random);
    }
}

void make(const Options& o, stage::Context& context)
{
    auto& output = context.open_output(o.output, nlohmann::json::object());
    const auto schema = o.kind == "images" ? store::images("grz", o.size, 0.262) : store::embeddings(o.width);
    store::Writer writer(output, schema, o.rows, digest_of(fmt::format("{} {}", o.rows, context.run.seed)),
                         {.part_rows = o.part_rows});
    bool more = writer.next_part();
    context.progress.begin("making galaxies", o.rows, "galaxies", writer.plan_done());
    for (; more; more = writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            for (auto number = turn.first; number < turn.last; ++number) {
                add_row(rows, number, o, context.run.seed);
            }
            writer.append(rows, {});
            context.progress.update(writer.plan_done());
        }
        writer.publish_part();
    }
    context.progress.end();
    writer.publish();
    context.print(output.path());
}

}  // namespace
}  // namespace astroclip::synthetic

int main(int argc, char** argv)
{
    using namespace astroclip::synthetic;
    return astroclip::stage::run<Options>(argc, argv, description, bind, make);
}
