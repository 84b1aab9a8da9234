// ingest-images: cutouts (FITS files named by a list, HDF5) or coadds cut at the positions of a catalogue ->
// images/, one row an object. Rows and rejects together are the objects of the lists, files and catalogues.
#include <memory>
#include <optional>

#include "core/hash.hpp"
#include "core/random.hpp"
#include "stages/ingest.hpp"
#include "survey/coadd_cutouts.hpp"
#include "survey/cutouts.hpp"
#include "survey/display_image.hpp"
#include "survey/sky.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string input, output;
    std::string format = "auto";
    std::string coadds, coadd_name = "legacysurvey-{field}-image-{band}.fits.fz";
    survey::CutoutOptions cutouts;
    bool skip_missing = false;
    double max_reject_fraction = 0.01;
    std::int64_t part_rows = 0;
    store::Shard shard;
};

void bind(config::Section section, Options& o)
{
    section
        .option(
            "input", o.input,
            "list of cutouts or catalogue (CSV or FITS table), HDF5 of cutouts, a folder of them, or a list "
            "(*.txt)",
            config::runtime_only())
        .option("output", o.output, "store of images to publish", config::runtime_only())
        .option(
            "format", o.format,
            "list: FITS cutouts named by a list; stein: HDF5, chunks of Stein et al. or of the Multimodal "
            "Universe; auto: by the file's ending",
            config::one_of({"auto", "list", "stein"}))
        .option("coadds", o.coadds,
                "images to cut at the positions of the input, which is then a catalogue: a folder of brick "
                "coadds or frames in nanomaggy, one file a band, or a list of them (*.txt)",
                config::runtime_only())
        .option(
            "coadd-name", o.coadd_name,
            "names of the coadds' files: {band} is one of the bands, {field} tells bricks or frames apart")
        .option("min-coverage", o.cutouts.min_coverage,
                "of coadds: share of a cutout's pixels in each band that must have data (not be 0)",
                config::between(0, 1))
        .option("bands", o.cutouts.bands,
                "bands to take, in this order, one letter each; RGB: the list names colour JPEGs, which are "
                "display images, not fluxes")
        .option("size", o.cutouts.size, "pixels a side, cropped around the centre", config::between(8, 4096))
        .option("pixel-scale", o.cutouts.pixel_scale_arcsec, "arcsec a pixel; cutouts 1 % off are rejects",
                config::between(0.001, 100))
        .option("max-offset", o.cutouts.max_offset_arcsec,
                "arcsec from a listed position to the centre of its cutout's WCS; 0: any",
                config::at_least(0))
        .option("cutouts", o.cutouts.folder, "folder that the list's paths start from; empty: the list's own",
                config::runtime_only())
        .option("cutout-name", o.cutouts.name_pattern,
                "names of the cutouts of a list without a file column: {object_id} {release} {brickid} "
                "{objid} are filled in")
        .option("release", o.cutouts.release,
                "survey release of a list without that column, such as 9010; 0: none",
                config::between(0, 65535))
        .option("skip-missing", o.skip_missing, "a listed file that is not there is a reject, not an error")
        .option("max-reject-fraction", o.max_reject_fraction,
                "share of damaged objects above which the stage fails", config::between(0, 1))
        .option("part-rows", o.part_rows, "objects a part of the store; 0: about 4 GiB", config::at_least(0));
    stage::bind(section, o.shard);
}

bool is_chunk(const std::string& name) { return name.ends_with(".h5") || name.ends_with(".hdf5"); }
bool is_list(const std::string& name) { return name.ends_with(".csv"); }
bool is_catalogue(const std::string& path)
{
    const auto name = path.substr(path.find_last_of('/') + 1);
    return is_list(name) || name.starts_with("tractor-") || name.starts_with("sweep-");
}

// The catalogues of a folder; its HDF5 files or, where there are none, its lists.
std::vector<survey::InputFile> list_files(const comm::World& world, const Options& options)
{
    if (!options.coadds.empty()) {
        return stage::list_together(world, options.input, is_catalogue,
                                    "catalogue (*.csv, tractor-*, sweep-*)");
    }
    try {
        return stage::list_together(world, options.input, options.format == "list" ? is_list : is_chunk,
                                    options.format == "list" ? "list (*.csv)" : "HDF5 (*.h5, *.hdf5)");
    } catch (const SharedError& error) {
        if (options.format != "auto" || error.exit_code != 66) {
            throw;
        }
        return stage::list_together(world, options.input, is_list, "HDF5 (*.h5, *.hdf5) or list (*.csv)");
    }
}

// Collective. The coadds of the options; nothing if there are none.
std::optional<survey::Coadds> open_coadds(const comm::World& world, const Options& options)
{
    if (options.coadds.empty()) return {};
    std::optional<survey::CoaddName> name;
    world.together([&] {
        if (options.format != "auto" || !options.cutouts.name_pattern.empty()) {
            throw ConfigError(
                "'coadds' cuts images out itself: neither 'format' nor 'cutout-name' is for it");
        }
        if (options.cutouts.bands == survey::display_bands) {
            throw ConfigError(
                "'bands' = RGB stands for display images; 'coadds' are fluxes: bands such as grz");
        }
        name.emplace(options.coadd_name, options.cutouts.bands);
    });
    const auto wanted = [&](const std::string& path) {
        return name->parts(path.substr(path.find_last_of('/') + 1)).band != 0;
    };
    const auto files =
        stage::list_together(world, options.coadds, wanted, "coadd named " + options.coadd_name);
    auto coadds = survey::Coadds::make(world, files, *name, options.cutouts.pixel_scale_arcsec);
    log::info("{} images of {} fields to cut from", files.size(), coadds.size());
    return coadds;
}

class Ingest {
public:
    Ingest(const Options& options, const survey::Coadds* coadds, const survey::Plan* plan = nullptr)
        : options_(options), coadds_(coadds), plan_(plan)
    {
    }

    // For the plan: the ids of one list, file or catalogue.
    survey::FileContents contents(const survey::InputFile& input) const
    {
        const auto file = read_list(input.path);
        survey::FileContents contents;
        for (const auto& entry : file->entries()) {
            contents.object_ids.push_back(entry.refusal ? survey::no_id : entry.object_id);
        }
        contents.fingerprint = survey::fingerprint_of(input.path);
        return contents;
    }

    // Of the cutouts that lists name: a sum over [first, last) of hashes of position and content.
    std::uint64_t fingerprint(std::int64_t first, std::int64_t last)
    {
        std::uint64_t sum = 0;
        for (auto position = first; position < last; ++position) {
            const auto item = plan_->item(position);
            if (!plan_->files()[item.file].error.empty()) {
                continue;
            }
            alive("hashing cutouts");
            open(item.file);
            const auto index = static_cast<std::size_t>(item.index);
            if (file_->entries()[index].refusal) {
                continue;
            }
            std::string content;
            try {
                content = file_->fingerprint(index);
            } catch (const MissingInput&) {
                if (!options_.skip_missing) {
                    throw;
                }
                content = "0";
            }
            if (!content.empty()) {
                sum += mix64(std::stoull(content.substr(0, 16), nullptr, 16) ^
                             mix64(static_cast<std::uint64_t>(position)));
            }
        }
        return sum;
    }

    void take(std::int64_t position, store::Rows& rows, std::vector<store::Reject>& rejects)
    {
        const auto item = plan_->item(position);
        const auto& planned = plan_->files()[item.file];
        if (stage::reject_lost(planned, item.index, rejects)) {
            return;
        }
        open(item.file);
        const auto& entry = file_->entries().at(static_cast<std::size_t>(item.index));
        const auto refuse = [&](const survey::Refusal& refusal) {
            rejects.push_back({planned.input.name, item.index, entry.object_id, refusal.reason,
                               refusal.damage, refusal.detail});
        };
        if (entry.refusal) {
            return refuse(entry.refusal);
        }
        if (plan_->is_duplicate(position)) {
            return refuse({"duplicate id", false});
        }
        survey::Cutout cutout;
        try {
            if (const auto refusal = file_->read(static_cast<std::size_t>(item.index), cutout)) {
                return refuse(refusal);
            }
        } catch (const MissingInput& error) {
            if (!options_.skip_missing) {
                throw;
            }
            return refuse({"missing file", true, error.what()});
        } catch (const DataError& error) {
            return refuse({"unreadable file", true, error.what()});
        }
        add_row(entry, cutout, rows);
    }

private:
    std::unique_ptr<survey::CutoutFile> read_list(const std::string& path) const
    {
        if (coadds_) return std::make_unique<survey::CoaddCutouts>(path, options_.cutouts, *coadds_);
        return survey::CutoutFile::open(path, options_.cutouts);
    }

    void open(std::size_t index)
    {
        if (!file_ || open_ != index) {
            file_ = read_list(plan_->files()[index].input.path);
            open_ = index;
        }
    }

    static void add_row(const survey::CutoutEntry& entry, const survey::Cutout& cutout, store::Rows& rows)
    {
        rows.add("object_id", entry.object_id);
        rows.add("release", entry.brick.release);
        rows.add("brickid", entry.brick.brickid);
        rows.add("objid", entry.brick.objid);
        const bool placed = survey::is_position(cutout.ra, cutout.dec);  // display images may be nowhere
        rows.add("ra", placed ? survey::wrapped_ra(cutout.ra) : 0.0);
        rows.add("dec", placed ? cutout.dec : 0.0);
        rows.add("flux", cutout.flux.data(), 1);
        rows.add("flux_g", entry.flux_g);
        rows.add("flux_r", entry.flux_r);
        rows.add("flux_z", entry.flux_z);
        rows.add("ebv", entry.ebv);
        rows.add("redshift", entry.redshift);
        rows.add("qflag", stage::photometry_flag(entry.flux_g, entry.flux_r, entry.flux_z) |
                              (cutout.blank_edge ? store::qflag::edge : 0) |
                              (placed ? 0 : store::qflag::no_position));
    }

    const Options& options_;
    const survey::Coadds* coadds_;  // nullptr: the input has the pixels
    const survey::Plan* plan_;
    std::unique_ptr<survey::CutoutFile> file_;
    std::size_t open_ = 0;
};

// Collective: the plan's digest with the content of every cutout, whatever the number of ranks that read
// them.
std::string content_of_all(const comm::World& world, const Options& options, const survey::Coadds* coadds,
                           const survey::Plan& plan)
{
    Ingest reader(options, coadds, &plan);
    std::uint64_t own = 0;
    world.together([&] {
        own = reader.fingerprint(plan.size() * world.rank() / world.size(),
                                 plan.size() * (world.rank() + 1) / world.size());
    });
    std::uint64_t sum = 0;
    for (const auto part : world.all_gather(std::vector<std::uint64_t>{own})) {
        sum += part;
    }
    return digest_of(plan.digest() + std::to_string(sum) + (coadds ? coadds->digest() : ""));
}

void check_bands(const std::string& bands)
{
    for (std::size_t i = 0; i < bands.size(); ++i) {
        if (bands.find(bands[i], i + 1) != std::string::npos) {
            throw ConfigError("'bands' names a band twice: " + bands);
        }
    }
    if (bands.empty()) {
        throw ConfigError("'bands' is empty: letters such as grz expected");
    }
}

void ingest_images(const Options& options, stage::Context& context)
{
    const auto& world = context.world;
    world.together([&] { check_bands(options.cutouts.bands); });
    const auto files = list_files(world, options);
    const auto opened = open_coadds(world, options);
    const auto* coadds = opened ? &*opened : nullptr;
    const Ingest reader(options, coadds);
    const auto plan =
        survey::Plan::make(world, files, options.skip_missing,
                           [&](const survey::InputFile& input) { return reader.contents(input); });
    stage::review(world, plan, options.max_reject_fraction);
    const auto plan_id = content_of_all(world, options, coadds, plan);
    const auto schema =
        store::images(options.cutouts.bands, options.cutouts.size, options.cutouts.pixel_scale_arcsec);
    if (context.dry_run()) {
        log::info("would write up to {} rows, {:.2f} GB", plan.size(),
                  static_cast<double>(plan.size()) * static_cast<double>(schema.row_bytes()) / 1e9);
        return;
    }
    auto& output = context.open_output(options.output, {{"files", plan_id}}, options.shard);
    Ingest ingest(options, coadds, &plan);
    stage::write_store(
        context, output, schema, plan, plan_id,
        {.part_rows = options.part_rows, .max_reject_fraction = options.max_reject_fraction},
        [&](auto position, auto& rows, auto& rejects) { ingest.take(position, rows, rejects); });
}

const stage::Description description{
    .name = "ingest-images",
    .purpose =
        "reads cutouts (FITS files named by a list, HDF5) into a store, or cuts them from brick coadds",
    .examples =
        "  astroclip-ingest-images --input cutouts.csv --output run/images\n"
        "  mpirun -n 8 astroclip-ingest-images --input dr9/tractor --coadds dr9/coadd --output run/images"};

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::ingest_images);
}
