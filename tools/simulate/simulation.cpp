#include "tools/simulate/simulation.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <future>
#include <limits>
#include <numeric>

#include "core/error.hpp"
#include "core/interrupt.hpp"
#include "core/provenance.hpp"
#include "core/random.hpp"
#include "tools/simulate/parallel.hpp"
#include "tools/simulate/population.hpp"
#include "tools/simulate/survey_files.hpp"

namespace astroclip::simulate {
namespace {

namespace fs = std::filesystem;

// The unfinished output: OUTPUT.part, held by one process (the lock goes with the process), renamed at the
// end.
class Draft {
public:
    Draft(const std::string& output, bool force) : output_(output), path_(output + ".part"), force_(force)
    {
        std::error_code failure;
        fs::create_directories(path_, failure);
        if (failure) {
            throw IoError(path_, "cannot be created: " + failure.message());
        }
        lock_ = open((path_ + "/.lock").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
        if (lock_ < 0) {
            throw_errno(path_ + "/.lock", "open");
        }
        if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
            close(lock_);
            throw OutputConflict(output_, "another process is writing it");
        }
        for (const auto& entry : fs::directory_iterator(path_)) {  // left by a run that was ended
            if (entry.path().filename() != ".lock") {
                fs::remove_all(entry.path());
            }
        }
        fs::create_directories(path_ + "/spectra");
        fs::create_directories(path_ + "/images");
    }
    ~Draft() { close(lock_); }
    Draft(const Draft&) = delete;
    Draft& operator=(const Draft&) = delete;

    const std::string& path() const { return path_; }

    void publish()
    {
        for (const auto& entry : fs::recursive_directory_iterator(path_)) {
            sync(entry.path());
        }
        sync(path_);
        if (force_) {
            fs::remove_all(output_);
        }
        std::error_code failure;
        fs::rename(path_, output_, failure);
        if (failure && fs::exists(output_)) {
            throw OutputConflict(output_, "has appeared meanwhile; this run's files are in " + path_);
        }
        if (failure) {
            throw IoError(output_, "cannot be renamed from " + path_ + ": " + failure.message());
        }
        fs::remove(output_ + "/.lock");  // not before: another process would take the folder for a dead one's
        sync(fs::absolute(output_).parent_path());
    }

private:
    static void sync(const fs::path& path)
    {
        const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
        if (file < 0 || fsync(file) != 0) {
            throw_errno(path, "sync");
        }
        close(file);
    }

    std::string output_, path_;
    bool force_;
    int lock_ = -1;
};

// True if the output is complete with these parameters.
bool is_complete(const Settings& settings, const nlohmann::json& parameters, bool force)
{
    const auto& output = settings.output;
    if (!fs::exists(output) || (fs::is_directory(output) && fs::is_empty(output))) {
        return false;
    }
    std::ifstream file(output + "/simulation.json");
    const auto found = nlohmann::json::parse(file, nullptr, false);
    if (!file || found.is_discarded() || !found.contains("parameters")) {
        throw OutputConflict(output, "exists and is no simulation (it has no simulation.json)");
    }
    if (!force && !fs::exists(output + "/votes.csv")) {
        throw OutputConflict(output,
                             "has no votes.csv, so that an earlier version made it; --force replaces it");
    }
    if (force || found["parameters"] == parameters) {
        return !force;
    }
    std::string difference;
    for (const auto& [key, value] : parameters.items()) {
        const auto before = found["parameters"].value(key, nlohmann::json());
        if (before != value) {
            difference += fmt::format("{}{} was {}, now {}", difference.empty() ? "" : "; ", key,
                                      before.dump(), value.dump());
        }
    }
    throw OutputConflict(output, "complete with other parameters (" + difference + "); --force replaces it");
}

// The rows of the files, in order: which galaxy, or which sky fibre, in which state.
struct FibrePlan {
    std::int64_t galaxy = -1;  // -1: sky
    std::int64_t sky = 0;
    std::uint32_t realization = 0;
    bool dead = false, zero = false;
};
struct ImagePlan {
    std::int64_t galaxy = 0;
    std::uint32_t realization = 0;
    bool nan_pixels = false;
};

void cut_off(const std::string& path) { fs::resize_file(path, fs::file_size(path) * 3 / 5); }

class Run {
public:
    Run(const Settings& settings, const Watcher& watch)
        : settings_(settings),
          watch_(watch),
          data_(settings.data.empty() ? ASTROCLIP_SIMULATION_DATA : settings.data),
          population_(data_, settings.seed),
          sky_noise_(SkyNoise::read(data_ + "/desi-noise.fits"))
    {
    }

    void write(const std::string& folder)
    {
        draw_galaxies();
        plan();
        write_all_spectra(folder + "/spectra", Exposure::noisy);
        if (settings_.noiseless) {
            fs::create_directory(folder + "/noiseless");
            write_all_spectra(folder + "/noiseless", Exposure::noiseless);
        }
        write_all_images(folder + "/images");
        write_truth(folder + "/truth.fits", truth_);
        write_votes(folder + "/votes.csv", truth_, settings_.seed);
    }

    nlohmann::json files() const { return files_; }

private:
    void draw_galaxies();
    void plan();
    void write_all_spectra(const std::string& folder, Exposure exposure);
    void write_all_images(const std::string& folder);
    void write_chunks(const std::string& folder);
    void write_cutouts(const std::string& folder);
    template <typename Row, typename Observe, typename Write>
    void write_in_files(std::int64_t rows, Observe observe_row, Write write);
    Fibre observe_fibre(const FibrePlan& row, Exposure exposure) const;
    ImageRow observe_image(const ImagePlan& row) const;
    bool is_truncated(std::uint32_t kind, std::int64_t file, std::int64_t files) const;
    void list(const std::string& kind, const std::string& name, bool truncated);
    void advance(std::int64_t objects);

    const Settings& settings_;
    Watcher watch_;
    std::string data_;
    Population population_;
    SkyNoise sky_noise_;
    std::vector<Galaxy> galaxies_;
    std::vector<TruthRow> truth_;
    std::vector<std::int64_t> z_rank_;  // of each galaxy, 0 the brightest
    std::vector<FibrePlan> fibres_;
    std::vector<ImagePlan> images_;
    std::int64_t done_ = 0;
    nlohmann::json files_ = {{"spectra", nlohmann::json::array()},
                             {"images", nlohmann::json::array()},
                             {"truncated", nlohmann::json::array()}};
};

void Run::advance(std::int64_t objects)
{
    done_ += objects;
    if (watch_) {
        watch_(done_,
               static_cast<std::int64_t>((settings_.noiseless ? 2 : 1) * fibres_.size() + images_.size()));
    }
    if (stop_signalled()) {
        throw Stopped("stopped on request; the same command starts again");
    }
}

void Run::draw_galaxies()
{
    const auto all = places(settings_.galaxies, settings_.seed);
    galaxies_.resize(all.size());
    truth_.resize(all.size());
    parallel_for(settings_.galaxies, settings_.threads, [&](std::int64_t i) {
        const auto k = static_cast<std::size_t>(i);
        galaxies_[k] = population_.draw(i);
        galaxies_[k].place = all[k];
        truth_[k] = {&galaxies_[k], observe(galaxies_[k], settings_.seed), 0, 0};
    });
}

// Spectra lie by place, images by decreasing z flux; second copies come last.
void Run::plan()
{
    std::vector<std::int64_t> by_flux(galaxies_.size());
    std::iota(by_flux.begin(), by_flux.end(), 0);
    std::stable_sort(by_flux.begin(), by_flux.end(), [&](auto a, auto b) {
        return galaxies_[static_cast<std::size_t>(a)].flux[2] >
               galaxies_[static_cast<std::size_t>(b)].flux[2];
    });
    z_rank_.resize(galaxies_.size());
    for (std::size_t i = 0; i < by_flux.size(); ++i) {
        z_rank_[static_cast<std::size_t>(by_flux[i])] = static_cast<std::int64_t>(i);
    }

    images_.resize(galaxies_.size());
    std::vector<FibrePlan> second_fibres;
    std::vector<ImagePlan> second_images;
    std::int64_t skies = 0;
    for (std::int64_t i = 0; i < settings_.galaxies; ++i) {
        Random random(settings_.seed, "defects", 0, static_cast<std::uint64_t>(i));
        auto& defects = truth_[static_cast<std::size_t>(i)].defects;
        const auto happens = [&](double rate, Defect defect) {
            const bool yes = random.uniform() < rate;
            defects |= yes ? defect : 0;
            return yes;
        };
        ImagePlan image{i, 0, happens(settings_.nan_pixels, defect_nan_pixels)};
        FibrePlan fibre{.galaxy = i};
        fibre.dead = happens(settings_.dead_fibres, defect_dead_fibre);
        fibre.zero = happens(settings_.zero_spectra, defect_zero_spectrum);
        images_[static_cast<std::size_t>(z_rank_[static_cast<std::size_t>(i)])] = image;
        fibres_.push_back(fibre);
        if (happens(settings_.duplicates, defect_duplicate_image)) {
            second_images.push_back({i, 1, image.nan_pixels});
        }
        if (happens(settings_.duplicates, defect_duplicate_spectrum)) {
            fibre.realization = 1;
            second_fibres.push_back(fibre);
        }
        if (random.uniform() < settings_.sky_fibres) {
            fibres_.push_back({.sky = skies++});
        }
    }
    images_.insert(images_.end(), second_images.begin(), second_images.end());
    fibres_.insert(fibres_.end(), second_fibres.begin(), second_fibres.end());
}

Fibre Run::observe_fibre(const FibrePlan& row, Exposure exposure) const
{
    Fibre fibre;
    if (row.galaxy < 0) {
        Random random(settings_.seed, "sky-place", 0, static_cast<std::uint64_t>(row.sky));
        fibre.targetid = (std::int64_t{1} << 59) + row.sky + 1;
        fibre.ra = random.uniform(0, 1);
        fibre.dec = random.uniform(-1, 1);
        fibre.spectrum = observe_sky(row.sky, population_, sky_noise_, exposure);
        fibre.redrock = {random.uniform(0, 1.6),
                         1e-3,
                         7900,
                         random.uniform(0, 9),
                         zwarn_sky | zwarn_small_delta_chi2,
                         7900};
        return fibre;
    }
    const auto k = static_cast<std::size_t>(row.galaxy);
    const auto& galaxy = galaxies_[k];
    fibre.galaxy = &galaxy;
    fibre.imaging = truth_[k].imaging;
    fibre.targetid = galaxy.place.targetid();
    fibre.ra = galaxy.place.ra;
    fibre.dec = galaxy.place.dec;
    fibre.spectrum = observe_spectrum(galaxy, population_, sky_noise_, row.realization, exposure);
    fibre.redrock = fit_redshift(galaxy, median_snr(fibre.spectrum), settings_.seed, row.realization);
    if (row.dead || row.zero) {
        for (std::size_t a = 0; a < arms.size(); ++a) {
            std::fill(fibre.spectrum.ivar[a].begin(), fibre.spectrum.ivar[a].end(), 0.0f);
            std::fill(fibre.spectrum.flux[a].begin(), fibre.spectrum.flux[a].end(), 0.0f);
            std::fill(fibre.spectrum.mask[a].begin(), fibre.spectrum.mask[a].end(), 0);
        }
        fibre.redrock = {-0.0019957, 0, 9e99, 0, zwarn_no_data | zwarn_small_delta_chi2, 0};
        fibre.fiberstatus = row.dead ? 1 << 9 : 0;  // BROKENFIBER
    }
    return fibre;
}

ImageRow Run::observe_image(const ImagePlan& plan) const
{
    const auto k = static_cast<std::size_t>(plan.galaxy);
    ImageRow row{
        &galaxies_[k], truth_[k].imaging, z_rank_[k],
        cutout(galaxies_[k], truth_[k].imaging, settings_.cutout_size, settings_.seed, plan.realization)};
    if (plan.nan_pixels) {  // a block of them in one band, as where an exposure is missing
        Random random(settings_.seed, "nan-pixels", plan.realization,
                      static_cast<std::uint64_t>(plan.galaxy));
        const auto size = static_cast<std::size_t>(settings_.cutout_size);
        const auto band = random.below(3), first_row = random.below(size), first_column = random.below(size);
        const auto side = 1 + random.below(size / 4 + 1);
        for (auto y = first_row; y < std::min<std::uint64_t>(size, first_row + side); ++y) {
            for (auto x = first_column; x < std::min<std::uint64_t>(size, first_column + side); ++x) {
                row.pixels[(band * size + y) * size + x] = std::numeric_limits<float>::quiet_NaN();
            }
        }
    }
    return row;
}

// At least one file of a kind if there is a rate at all: the last, if chance spares all others.
bool Run::is_truncated(std::uint32_t kind, std::int64_t file, std::int64_t files) const
{
    const auto chosen = [&](std::int64_t f) {
        return Random(settings_.seed, "truncated-files", kind, static_cast<std::uint64_t>(f)).uniform() <
               settings_.truncated_files;
    };
    if (chosen(file) || settings_.truncated_files == 0 || file != files - 1) {
        return chosen(file);
    }
    for (std::int64_t f = 0; f < file; ++f) {
        if (chosen(f)) {
            return false;
        }
    }
    return true;
}

void Run::list(const std::string& kind, const std::string& name, bool truncated)
{
    files_[kind].push_back(name);
    if (truncated) {
        files_["truncated"].push_back(name);
    }
}

// Rows in order, `per_file` at a time. While they are being written (by one thread: neither CFITSIO nor HDF5
// take more), the next are computed.
template <typename Row, typename Observe, typename Write>
void Run::write_in_files(std::int64_t rows, Observe observe_row, Write write)
{
    std::future<void> writing;
    for (std::int64_t first = 0; first < rows; first += settings_.per_file) {
        const auto count = std::min<std::int64_t>(settings_.per_file, rows - first);
        std::vector<Row> observed(static_cast<std::size_t>(count));
        parallel_for(count, settings_.threads,
                     [&](std::int64_t i) { observed[static_cast<std::size_t>(i)] = observe_row(first + i); });
        if (writing.valid()) {
            writing.get();
        }
        writing = std::async(std::launch::async,
                             [write, first, observed = std::move(observed)] { write(first, observed); });
        advance(count);
    }
    if (writing.valid()) {
        writing.get();
    }
}

void Run::write_all_spectra(const std::string& folder, Exposure exposure)
{
    const bool noisy = exposure == Exposure::noisy;
    const auto kind = fs::path(folder).filename().string();
    const auto rows = static_cast<std::int64_t>(fibres_.size());
    const auto files = (rows + settings_.per_file - 1) / settings_.per_file;
    const auto coadd = [](std::int64_t f) { return fmt::format("coadd-simulated-{:05}.fits", f); };
    for (std::int64_t f = 0; f < files; ++f) {
        list(kind, kind + "/" + coadd(f), noisy && is_truncated(0, f, files));
    }
    const auto observe_row = [&](std::int64_t i) {
        const auto& row = fibres_[static_cast<std::size_t>(i)];
        auto fibre = observe_fibre(row, exposure);
        if (noisy && fibre.galaxy && row.realization == 0) {
            auto& truth = truth_[static_cast<std::size_t>(row.galaxy)];
            truth.snr = static_cast<float>(median_snr(fibre.spectrum));
            truth.defects |=
                is_truncated(0, i / settings_.per_file, files) ? defect_truncated_spectrum_file : 0;
        }
        return fibre;
    };
    write_in_files<Fibre>(
        rows, observe_row, [=, this](std::int64_t first, const std::vector<Fibre>& observed) {
            const auto f = first / settings_.per_file;
            const auto tile = static_cast<std::int32_t>(f + 1);
            write_coadd(folder + "/" + coadd(f), observed, tile, f % 2 == 1);
            write_redrock(folder + fmt::format("/redrock-simulated-{:05}.fits", f), observed, tile);
            if (noisy && is_truncated(0, f, files)) {
                cut_off(folder + "/" + coadd(f));
            }
        });
}

void Run::write_all_images(const std::string& folder)
{
    settings_.images == "fits" ? write_cutouts(folder) : write_chunks(folder);
}

void Run::write_chunks(const std::string& folder)
{
    const auto rows = static_cast<std::int64_t>(images_.size());
    const auto chunks = (rows + settings_.per_file - 1) / settings_.per_file;
    const auto chunk = [=, this](std::int64_t c) {
        return fmt::format("images_npix{}_{:09}_{:09}.h5", settings_.cutout_size, c * settings_.per_file,
                           std::min(rows, (c + 1) * settings_.per_file));
    };
    for (std::int64_t c = 0; c < chunks; ++c) {
        list("images", "images/" + chunk(c), is_truncated(1, c, chunks));
    }
    for (std::int64_t i = 0; i < rows; ++i) {
        truth_[static_cast<std::size_t>(images_[static_cast<std::size_t>(i)].galaxy)].defects |=
            is_truncated(1, i / settings_.per_file, chunks) ? defect_truncated_image_file : 0;
    }
    const auto observe_row = [&](std::int64_t i) {
        return observe_image(images_[static_cast<std::size_t>(i)]);
    };
    write_in_files<ImageRow>(rows, observe_row,
                             [=, this](std::int64_t first, const std::vector<ImageRow>& observed) {
                                 const auto c = first / settings_.per_file;
                                 write_image_chunk(folder + "/" + chunk(c), observed, settings_.cutout_size);
                                 if (is_truncated(1, c, chunks)) {
                                     cut_off(folder + "/" + chunk(c));
                                 }
                             });
}

// A file a galaxy; for a second copy the list names the first one's file again.
void Run::write_cutouts(const std::string& folder)
{
    std::vector<ImageRow> listed;  // without pixels
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(images_.size()); ++i) {
        const auto k = static_cast<std::size_t>(images_[static_cast<std::size_t>(i)].galaxy);
        listed.push_back({&galaxies_[k], truth_[k].imaging, z_rank_[k], {}});
        if (i < settings_.galaxies && is_truncated(1, i, settings_.galaxies)) {
            truth_[k].defects |= defect_truncated_image_file;
            files_["truncated"].push_back("images/" + cutout_name(galaxies_[k]));
        }
    }
    write_cutout_list(folder + "/cutouts.csv", listed);
    list("images", "images/cutouts.csv", false);

    const auto observe_row = [&](std::int64_t i) {
        return observe_image(images_[static_cast<std::size_t>(i)]);
    };
    write_in_files<ImageRow>(
        settings_.galaxies, observe_row,
        [=, this](std::int64_t first, const std::vector<ImageRow>& observed) {
            for (std::size_t i = 0; i < observed.size(); ++i) {
                const auto path = folder + "/" + cutout_name(*observed[i].galaxy);
                write_cutout(path, observed[i], settings_.cutout_size);
                if (is_truncated(1, first + static_cast<std::int64_t>(i), settings_.galaxies)) {
                    cut_off(path);
                }
            }
        });
}

}  // namespace

std::int64_t estimated_bytes(const Settings& settings)
{
    const std::int64_t image = 12LL * settings.cutout_size * settings.cutout_size;
    const std::int64_t spectrum = (settings.noiseless ? 2 : 1) * 12LL * 7958;
    return settings.galaxies * (image + spectrum + 1000);
}

void check_data(const Settings& settings) { Run(settings, {}); }

bool simulate(const Settings& settings, const nlohmann::json& parameters, bool force, const Watcher& watch)
{
    if (is_complete(settings, parameters, force)) {
        return false;
    }
    Run run(settings, watch);
    Draft draft(settings.output, force);
    run.write(draft.path());
    const nlohmann::json summary = {{"program", "astroclip-simulate"},
                                    {"version", version()},
                                    {"parameters", parameters},
                                    {"files", run.files()}};
    std::ofstream file(draft.path() + "/simulation.json");
    file << summary.dump(1) << '\n';
    file.close();
    if (!file) {
        throw_errno(draft.path() + "/simulation.json", "write");
    }
    draft.publish();
    return true;
}

}  // namespace astroclip::simulate
