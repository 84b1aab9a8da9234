// match: images/ + spectra/ -> pairs/: which rows of the two are one galaxy, and its side of the split.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "core/hash.hpp"
#include "core/log.hpp"
#include "stages/stage.hpp"
#include "store/reader.hpp"
#include "store/writer.hpp"
#include "survey/crossmatch.hpp"
#include "survey/split.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string images, spectra, output;
    std::string by = "auto";
    double radius_arcsec = 1;
    double test_fraction = 0.2;
    std::int64_t part_rows = 0;
};

void bind(config::Section section, Options& o)
{
    section.option("images", o.images, "store of images", config::runtime_only())
        .option("spectra", o.spectra, "store of spectra", config::runtime_only())
        .option("output", o.output, "store of pairs to publish", config::runtime_only())
        .option("by", o.by,
                "id: equal object_id; sky: each other's nearest; auto: id if the stores share any, else sky",
                config::one_of({"auto", "id", "sky"}))
        .option("radius", o.radius_arcsec, "arcsec, largest separation of a match on the sky",
                config::between(0, 3600))
        .option("test-fraction", o.test_fraction,
                "share of galaxies held out for tests, by a hash of object_id", config::between(0, 1))
        .option("part-rows", o.part_rows, "pairs a part of the store; 0: about 4 GiB", config::at_least(0));
}

survey::Sources sources_of(const store::Reader& store)
{
    return {store.column<std::int64_t>("object_id"), store.column<double>("ra"), store.column<double>("dec")};
}

struct Pair {
    std::int64_t object_id;  // the spectrum's
    survey::Match match;     // image row, spectrum row
};

// In the order of the images. Rows without a position (anonymous spectra) cannot match on the sky.
std::vector<Pair> find_pairs(const Options& options, const store::Reader& images,
                             const store::Reader& spectra)
{
    const auto image_sources = sources_of(images);
    const auto spectrum_sources = sources_of(spectra);
    auto matches = options.by == "sky" ? std::vector<survey::Match>()
                                       : survey::match_by_id(image_sources, spectrum_sources);
    if (options.by == "sky" || (options.by == "auto" && matches.empty())) {
        const auto flags = spectra.column<std::uint32_t>("qflag");
        matches = survey::match_on_sky(image_sources, spectrum_sources, options.radius_arcsec);
        std::erase_if(matches, [&](const auto& match) {
            return (flags[match.second] & store::qflag::no_position) != 0;
        });
        log::info("matched on the sky within {} arcsec", options.radius_arcsec);
    }
    std::vector<Pair> pairs;
    for (const auto& match : matches) {
        pairs.push_back({spectrum_sources.object_id[match.second], match});
    }
    return pairs;
}

// Collective: rank 0 matches, all get the pairs.
std::vector<Pair> share_pairs(const comm::World& world, const Options& options, const store::Reader& images,
                              const store::Reader& spectra)
{
    std::vector<Pair> own;
    world.on_root([&] { own = find_pairs(options, images, spectra); });
    return world.all_gather(own);
}

void write_pairs(const Options& options, stage::Context& context, store::Output& output,
                 const std::vector<Pair>& pairs, const nlohmann::json& counts)
{
    const auto schema = store::pairs();
    const auto seed = context.run.seed;
    const auto plan_id =
        digest_of({reinterpret_cast<const char*>(pairs.data()), pairs.size() * sizeof(Pair)});
    store::Writer writer(output, schema, static_cast<std::int64_t>(pairs.size()), plan_id,
                         {.part_rows = options.part_rows});
    context.progress.begin("writing pairs", static_cast<std::int64_t>(pairs.size()), "pairs",
                           writer.plan_done());
    while (writer.next_part()) {
        for (const auto turn : writer.turns()) {
            store::Rows rows(schema);
            for (auto i = turn.first; i < turn.last; ++i) {
                const auto& [object_id, match] = pairs[static_cast<std::size_t>(i)];
                rows.add("object_id", object_id);
                rows.add("image_row", match.first);
                rows.add("spectrum_row", match.second);
                rows.add("split",
                         static_cast<std::uint8_t>(survey::split_of(object_id, seed, options.test_fraction)));
                rows.add("separation_arcsec", match.separation_arcsec);
            }
            writer.append(rows, {});
            context.progress.update(writer.plan_done());
        }
        writer.publish_part();
    }
    writer.publish(counts);
    context.progress.end();
}

void match(const Options& options, stage::Context& context)
{
    const auto& world = context.world;
    world.together([&] {
        if (options.images.empty() || options.spectra.empty()) {
            throw ConfigError("'images' and 'spectra' are not both set: the two stores to match");
        }
    });
    std::unique_ptr<store::Reader> images, spectra;
    world.together([&] {
        images = std::make_unique<store::Reader>(options.images, "images");
        spectra = std::make_unique<store::Reader>(options.spectra, "spectra");
    });
    if (context.dry_run()) {
        log::info("would match {} images with {} spectra", images->rows(), spectra->rows());
        return;
    }
    auto& output = context.open_output(
        options.output, {{"images", images->content_id()}, {"spectra", spectra->content_id()}});
    const auto pairs = share_pairs(world, options, *images, *spectra);
    const auto found = static_cast<std::int64_t>(pairs.size());
    const auto tests = std::count_if(pairs.begin(), pairs.end(), [&](const Pair& pair) {
        return survey::split_of(pair.object_id, context.run.seed, options.test_fraction) ==
               survey::Split::test;
    });
    const nlohmann::json counts = {{"pairs", found},
                                   {"test_pairs", tests},
                                   {"images_without_spectrum", images->rows() - found},
                                   {"spectra_without_image", spectra->rows() - found}};
    log::info("{} pairs ({} for tests); {} images and {} spectra found no partner", found, tests,
              images->rows() - found, spectra->rows() - found);
    write_pairs(options, context, output, pairs, {{"match", counts}});
}

const stage::Description description{
    .name = "match",
    .purpose =
        "finds which rows of the stores of images and spectra are one galaxy, and splits them into training "
        "and test",
    .examples =
        "  astroclip-match --images run/images --spectra run/spectra --output run/pairs\n"
        "  astroclip-match --images run/images --spectra run/spectra --by sky --radius 0.5 --output "
        "run/pairs",
    .seeded = true};

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::match);
}
