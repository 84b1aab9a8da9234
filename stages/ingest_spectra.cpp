// ingest-spectra: spectra of DESI (with redrock files beside them), SDSS, MaNGA or the Multimodal Universe ->
// spectra/, one row a target on the grid of 7781 bins. Rows and rejects together are the input's targets.
#include <cmath>
#include <memory>
#include <optional>
#include <set>

#include "stages/ingest.hpp"
#include "survey/desi.hpp"
#include "survey/sky.hpp"
#include "survey/spectra.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string input, output;
    std::string arm_rule = "edr";
    std::string redshifts = "beside";
    bool anonymous = false;
    bool keep_empty = false;
    bool skip_missing = false;
    std::int64_t max_zwarn = -1;
    bool verify_checksums = true;
    double max_reject_fraction = 0.01;
    std::int64_t part_rows = 0;
    store::Shard shard;
};

void bind(config::Section section, Options& o)
{
    section
        .option(
            "input", o.input,
            "file of spectra (DESI, SDSS, MaNGA: FITS; Multimodal Universe: HDF5), a folder of them, or a "
            "list (*.txt, one path a line)",
            config::runtime_only())
        .option("output", o.output, "store of spectra to publish", config::runtime_only())
        .option("arm-rule", o.arm_rule,
                "how DESI's arms are combined: edr (weights ivar where the mask is 0) or current (copied "
                "outside overlaps)",
                config::one_of({"edr", "current"}))
        .option("redshifts", o.redshifts,
                "beside: from the redrock-* file in the same folder, where there is one; none",
                config::one_of({"beside", "none"}))
        .option(
            "anonymous", o.anonymous,
            "accept files without FIBERMAP and MaNGA stacks, under ids of their own and without positions")
        .option("keep-empty", o.keep_empty,
                "keep spectra without a good bin, all zeros (as the published sample does)")
        .option("skip-missing", o.skip_missing, "a listed file that is not there is a reject, not an error")
        .option("max-zwarn", o.max_zwarn,
                "largest ZWARN accepted; -1: all, and targets without a redshift too", config::at_least(-1))
        .option("verify-checksums", o.verify_checksums,
                "compare HDUs with their CHECKSUM and DATASUM, where they have them")
        .option("max-reject-fraction", o.max_reject_fraction,
                "share of damaged objects above which the stage fails", config::between(0, 1))
        .option("part-rows", o.part_rows, "objects a part of the store; 0: about 4 GiB", config::at_least(0));
    stage::bind(section, o.shard);
}

// A spectra-* file only where its coadd-* is not there too.
std::vector<survey::InputFile> without_coadded(std::vector<survey::InputFile> files)
{
    const auto key = [](const std::string& path, const char* kind) {
        const auto slash = path.rfind('/');
        const auto start = slash == std::string::npos ? 0 : slash + 1;
        const std::string prefix(kind);
        if (path.compare(start, prefix.size(), prefix) != 0) {
            return std::string();
        }
        const auto end = path.ends_with(".gz") ? path.size() - 3 : path.size();
        return path.substr(0, start) + path.substr(start + prefix.size(), end - start - prefix.size());
    };
    std::set<std::string> coadded;
    for (const auto& file : files) {
        coadded.insert(key(file.path, "coadd-"));
    }
    coadded.erase("");
    const auto listed = files.size();
    std::erase_if(files, [&](const auto& file) { return coadded.contains(key(file.path, "spectra-")); });
    if (files.size() < listed) {
        log::info("{} spectra-* files left out: their coadd-* files are there", listed - files.size());
    }
    return files;
}

std::uint8_t spectype_code(const std::string& name)
{
    return name == "GALAXY" ? store::spectype::galaxy
           : name == "QSO"  ? store::spectype::qso
           : name == "STAR" ? store::spectype::star
                            : store::spectype::none;
}

class Ingest {
public:
    Ingest(const Options& options, const survey::Plan* plan = nullptr) : options_(options), plan_(plan)
    {
        selection_.max_zwarn = options.max_zwarn;
    }

    // For the plan: ids and content of one file, damaged or not.
    survey::FileContents contents(const survey::InputFile& input) const
    {
        try {
            return whole_contents(input);
        } catch (const DataError& error) {
            auto ids = survey::surviving_ids(input.path);
            if (ids.empty()) {
                throw;
            }
            return {std::move(ids), survey::fingerprint_of(input.path), error.what()};
        }
    }

    void take(std::int64_t position, store::Rows& rows, std::vector<store::Reject>& rejects)
    {
        const auto item = plan_->item(position);
        const auto& planned = plan_->files()[item.file];
        if (stage::reject_lost(planned, item.index, rejects)) {
            return;
        }
        open(item.file);
        const auto& target = file_->targets().at(static_cast<std::size_t>(item.index));
        const auto refuse = [&](const std::string& reason, bool damage, const std::string& detail) {
            rejects.push_back(
                {planned.input.name, target.rows.front(), target.object_id, reason, damage, detail});
        };
        if (const auto reason = selection_.reason_against(target); !reason.empty()) {
            return refuse(reason, false,
                          fmt::format("OBJTYPE '{}', fibre status {}, ZWARN {}", target.objtype,
                                      target.fibre_status, target.redshift.warning));
        }
        if (plan_->is_duplicate(position)) {
            return refuse("duplicate id", false, "");
        }
        if (!survey::is_position(target.ra, target.dec)) {
            return refuse("no position", true, fmt::format("ra {}, dec {}", target.ra, target.dec));
        }
        survey::Spectrum spectrum;
        try {
            spectrum = file_->read(target);
        } catch (const DataError& error) {
            return refuse("unreadable file", true, error.what());
        }
        if (spectrum.damaged_pixels > 0) {
            return refuse("non-finite flux", true, fmt::format("{} pixels", spectrum.damaged_pixels));
        }
        if (const auto place = beyond_all_flux(spectrum); place) {
            return refuse("flux out of range", true,
                          fmt::format("{} at bin {}", spectrum.flux[*place], *place));
        }
        if (!options_.keep_empty && is_empty(spectrum)) {
            return refuse("no good bins", false, "");
        }
        add_row(target, spectrum, rows);
    }

private:
    survey::FileContents whole_contents(const survey::InputFile& input) const
    {
        const auto settings = settings_for(input.path);
        const auto file = survey::SpectrumFile::open(input.path, settings);
        if (options_.verify_checksums) {
            file->verify_checksums();
        }
        survey::FileContents contents;
        for (const auto& target : file->targets()) {
            contents.object_ids.push_back(selection_.reason_against(target).empty() ? target.object_id
                                                                                    : survey::no_id);
        }
        contents.fingerprint = survey::fingerprint_of(input.path);
        if (!settings.redshifts.empty()) {
            contents.fingerprint += survey::fingerprint_of(settings.redshifts);
        }
        return contents;
    }

    survey::SpectrumOptions settings_for(const std::string& path) const
    {
        return {options_.arm_rule == "edr" ? survey::ArmRule::edr : survey::ArmRule::current,
                options_.anonymous, options_.redshifts == "beside" ? survey::redshift_file_beside(path) : ""};
    }

    void open(std::size_t index)
    {
        if (!file_ || open_ != index) {
            const auto& path = plan_->files()[index].input.path;
            file_ = survey::SpectrumFile::open(path, settings_for(path));
            open_ = index;
        }
    }

    // The first bin whose flux or inverse variance no galaxy or instrument has: what would overflow further
    // on.
    static std::optional<std::size_t> beyond_all_flux(const survey::Spectrum& spectrum)
    {
        constexpr float largest_flux = 1e15f, largest_ivar = 1e30f;
        for (std::size_t i = 0; i < spectrum.flux.size(); ++i) {
            if (std::abs(spectrum.flux[i]) > largest_flux || spectrum.ivar[i] > largest_ivar) {
                return i;
            }
        }
        return std::nullopt;
    }

    static bool is_empty(const survey::Spectrum& spectrum)
    {
        bool good = false, signal = false;
        for (std::size_t i = 0; i < spectrum.flux.size(); ++i) {
            good |= spectrum.ivar[i] > 0;
            signal |= spectrum.flux[i] != 0;
        }
        return !good || !signal;
    }

    static std::uint32_t flags_of(const survey::Target& target, const survey::Spectrum& spectrum)
    {
        std::size_t masked = 0, without = 0;
        for (std::size_t i = 0; i < spectrum.flux.size(); ++i) {
            masked += spectrum.mask[i] != 0;
            without += spectrum.ivar[i] == 0;
        }
        const auto limit = spectrum.flux.size() / 20;
        std::uint32_t flags = stage::photometry_flag(target.flux_g, target.flux_r, target.flux_z);
        flags |= masked > limit ? store::qflag::masked : 0;
        flags |= without > limit ? store::qflag::zero_ivar : 0;
        flags |= target.redshift.warning > 0 ? store::qflag::bad_redshift : 0;
        flags |= survey::is_anonymous(target.object_id) ? store::qflag::no_position : 0;
        return flags;
    }

    static void add_row(const survey::Target& target, const survey::Spectrum& spectrum, store::Rows& rows)
    {
        rows.add("object_id", target.object_id);
        // Where the file has no brick columns, the id says them.
        const auto brick =
            target.brick.brickid > 0 ? target.brick : survey::unpack_object_id(target.object_id);
        rows.add("release", brick.release);
        rows.add("brickid", brick.brickid);
        rows.add("objid", brick.objid);
        rows.add("ra", survey::wrapped_ra(target.ra));
        rows.add("dec", target.dec);
        rows.add("flux", spectrum.flux.data(), 1);
        rows.add("ivar", spectrum.ivar.data(), 1);
        rows.add("mask", spectrum.mask.data(), 1);
        rows.add("redshift", target.redshift.z);
        rows.add("redshift_error", target.redshift.error);
        rows.add("zwarn", target.redshift.warning);
        rows.add("spectype", spectype_code(target.redshift.spectype));
        rows.add("flux_g", target.flux_g);
        rows.add("flux_r", target.flux_r);
        rows.add("flux_z", target.flux_z);
        rows.add("ebv", target.ebv);
        rows.add("qflag", flags_of(target, spectrum));
    }

    const Options& options_;
    const survey::Plan* plan_;
    survey::TargetSelection selection_;
    std::unique_ptr<survey::SpectrumFile> file_;
    std::size_t open_ = 0;
};

void ingest_spectra(const Options& options, stage::Context& context)
{
    const auto& world = context.world;
    const auto files = without_coadded(
        stage::list_together(world, options.input, survey::looks_like_spectra,
                             "coadd-*.fits, spectra-*.fits, spec-*.fits or HDF5 file of spectra"));
    const Ingest reader(options);
    const auto plan =
        survey::Plan::make(world, files, options.skip_missing,
                           [&](const survey::InputFile& input) { return reader.contents(input); });
    stage::review(world, plan, options.max_reject_fraction);
    const auto schema = store::spectra(survey::desi_wavelength());
    if (context.dry_run()) {
        log::info("would write up to {} rows, {:.2f} GB", plan.size(),
                  static_cast<double>(plan.size()) * static_cast<double>(schema.row_bytes()) / 1e9);
        return;
    }
    auto& output = context.open_output(options.output, {{"files", plan.digest()}}, options.shard);
    Ingest ingest(options, &plan);
    stage::write_store(
        context, output, schema, plan, plan.digest(),
        {.part_rows = options.part_rows, .max_reject_fraction = options.max_reject_fraction},
        [&](auto position, auto& rows, auto& rejects) { ingest.take(position, rows, rejects); });
}

const stage::Description description{
    .name = "ingest-spectra",
    .purpose = "reads spectra (DESI with redrock beside them, SDSS, MaNGA, Multimodal Universe) into a store",
    .examples =
        "  astroclip-ingest-spectra --input healpix/sv3/bright --output run/spectra\n"
        "  mpirun -n 8 astroclip-ingest-spectra --config run/config.cfg"};

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::ingest_spectra);
}
