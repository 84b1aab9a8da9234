// embed: images/ and spectra/ (either may be absent), joined by pairs/, + a model -> embeddings/, one row per
// galaxy.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <future>
#include <limits>
#include <optional>

#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "core/log.hpp"
#include "data/batches.hpp"
#include "data/loader.hpp"
#include "data/rows.hpp"
#include "stages/compute.hpp"
#include "stages/embedding.hpp"
#include "stages/stage.hpp"
#include "store/writer.hpp"
#include "survey/healpix.hpp"
#include "survey/object_id.hpp"
#include "train/precision.hpp"

namespace astroclip {
namespace {

struct Options {
    std::string images, spectra, pairs, model, output, precision = "fp32";
    bool trust = false;
    std::int64_t part_rows = 0;
    double max_reject_fraction = 0.01;
    store::Shard shard;
};

void bind(config::Section options, Options& o)
{
    using config::runtime_only;
    options.option("images", o.images, "store of cutouts", runtime_only())
        .option("spectra", o.spectra, "store of spectra", runtime_only())
        .option("pairs", o.pairs, "which rows of the two are one galaxy", runtime_only())
        .option("model", o.model, "folder published by align, by a pretraining, or by the converter",
                runtime_only())
        .option("output", o.output, "embedding store to publish", runtime_only())
        .option("precision", o.precision, "of matrix products; vectors, norms and softmaxes are float32",
                config::one_of({"fp32", "bf16"}))
        .option("trust", o.trust, "believe the hashes of the inputs without computing them", runtime_only())
        .option("part-rows", o.part_rows, "galaxies in a part, 0: about 4 GiB", config::at_least(0))
        .option("max-reject-fraction", o.max_reject_fraction,
                "share of damaged galaxies above which the stage fails", config::between(0, 1));
    stage::bind(options, o.shard);
}

const stage::Description description{
    "embed", "embeddings of every galaxy in stores of images and spectra",
    "  mpirun -n 4 astroclip-embed --images run/images --spectra run/spectra --pairs run/pairs \\\n"
    "      --model run/aligned --output run/embeddings\n"
    "  astroclip-embed --spectra run/spectra --model run/spectrum-encoder --output spectrum-embeddings"};

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

// What the stage reads, open.
struct Inputs {
    stage::EmbeddingModel model;
    data::Galaxies galaxies;
    std::optional<store::Reader> images, spectra;

    Inputs(const Options& o, at::Device device)
        : model(o.model, o.trust, device), galaxies(data::Stores{o.images, o.spectra, o.pairs, o.trust})
    {
        // The pixels and fluxes, which is nearly all, are read through `galaxies`, which looks at the hashes.
        if (!o.images.empty()) images.emplace(o.images, "images", true);
        if (!o.spectra.empty()) spectra.emplace(o.spectra, "spectra", true);
        if (model.tokens.leaves_out_bad_bins()) galaxies.read_ivar();
        if (galaxies.has_images() && model.network->image_size() > 0) {
            require_bands();
        }
        if (!embeds_images() && !embeds_spectra()) {
            throw DataError(o.model, fmt::format("embeds {}, which no given store holds",
                                                 model.network->image_width() > 0 ? "images" : "spectra"));
        }
    }

    bool embeds_images() const { return galaxies.has_images() && model.network->image_width() > 0; }
    bool embeds_spectra() const { return galaxies.has_spectra() && model.network->spectrum_width() > 0; }
    int width() const { return model.width(); }

private:
    void require_bands() const
    {
        const auto shape = galaxies.image_shape();
        if (shape[0] != 3 || shape[1] < model.view.crop || shape[2] < model.view.crop) {
            throw DataError(
                images->path(),
                fmt::format(
                    "holds cutouts of {} bands and {}x{} pixels; the model takes 3 bands and {}x{} or more",
                    shape[0], shape[1], shape[2], model.view.crop, model.view.crop));
        }
    }
};

store::Schema schema_of(const Inputs& inputs, const std::string& precision)
{
    auto schema = store::embeddings(inputs.width());
    auto& facts = schema.attributes;
    facts["model"] = inputs.model.kind;
    facts["model_id"] = inputs.model.content_id;
    facts["precision"] = precision;
    if (inputs.images) {
        const auto& of = inputs.images->schema().attributes;
        for (const auto* key : {"bands", "pixel_scale", "pixel_scale_unit"}) {
            if (of.contains(key)) facts[key] = of.at(key);
        }
        facts["rgb"] = inputs.model.view.rgb;
        facts["image_norm"] = inputs.model.view.image_norm;
        facts["crop"] = inputs.model.view.crop;
    }
    return schema;
}

// Embeddings of one compute batch: unit vectors [B, width] and their lengths before [B], zeros where there is
// none.
struct Vectors {
    std::vector<float> unit, norm;
    std::vector<char> finite;
};

Vectors unit_vectors(const at::Tensor& embedding, const std::vector<std::uint8_t>& present, int width)
{
    const auto rows = present.size(), size = static_cast<std::size_t>(width);
    Vectors vectors{std::vector<float>(rows * size), std::vector<float>(rows), std::vector<char>(rows, 1)};
    for (std::size_t row = 0; row < rows; ++row) {
        if (!present[row]) {
            continue;
        }
        const auto* z = embedding.const_data_ptr<float>() + row * size;
        double square = 0;
        for (std::size_t i = 0; i < size; ++i) {
            square += static_cast<double>(z[i]) * z[i];
        }
        const auto norm = std::sqrt(square);
        vectors.norm[row] = static_cast<float>(norm);
        vectors.finite[row] = std::isfinite(vectors.norm[row]) && norm > 0;
        for (std::size_t i = 0; i < size && vectors.finite[row]; ++i) {
            vectors.unit[row * size + i] = static_cast<float>(z[i] / norm);
        }
    }
    return vectors;
}

Vectors embed_images(const Inputs& inputs, const data::Batch& batch)
{
    if (!inputs.embeds_images()) {
        return unit_vectors({}, std::vector<std::uint8_t>(batch.object_ids.size(), 0), inputs.width());
    }
    return unit_vectors(inputs.model.embed_images(batch.images), batch.has_image, inputs.width());
}

Vectors embed_spectra(const Inputs& inputs, const data::Batch& batch)
{
    if (!inputs.embeds_spectra()) {
        return unit_vectors({}, std::vector<std::uint8_t>(batch.object_ids.size(), 0), inputs.width());
    }
    return unit_vectors(inputs.model.embed_spectra(batch.spectra, batch.ivar), batch.has_spectrum,
                        inputs.width());
}

// A scalar column of both stores for some galaxies: that of the spectrum where it has a value, else that of
// the image.
class Scalars {
public:
    Scalars(const Inputs& inputs, data::Range range) : inputs_(inputs)
    {
        for (auto i = range.first; i < range.last; ++i) {
            image_rows_.push_back(inputs.galaxies[i].image_row);
            spectrum_rows_.push_back(inputs.galaxies[i].spectrum_row);
        }
    }

    std::vector<double> image(const std::string& column, double fill) const
    {
        return read(inputs_.images, column, image_rows_, fill);
    }
    std::vector<double> spectrum(const std::string& column, double fill) const
    {
        return read(inputs_.spectra, column, spectrum_rows_, fill);
    }
    std::vector<double> either(const std::string& column, double fill) const
    {
        auto values = spectrum(column, nan);
        const auto others = image(column, nan);
        for (std::size_t i = 0; i < values.size(); ++i) {
            const bool absent = std::isnan(values[i]) || values[i] == fill;
            values[i] = !absent ? values[i] : std::isnan(others[i]) ? fill : others[i];
        }
        return values;
    }

private:
    static std::vector<double> read(const std::optional<store::Reader>& reader, const std::string& column,
                                    const std::vector<std::int64_t>& rows, double fill)
    {
        return reader && reader->schema().has(column)
                   ? data::read_scalars<double>(*reader, column, rows, fill)
                   : std::vector<double>(rows.size(), fill);
    }

    const Inputs& inputs_;
    std::vector<std::int64_t> image_rows_, spectrum_rows_;
};

// What the stores hold of the galaxies of a compute batch.
struct Piece {
    data::Range range;
    data::Batch batch;
    std::vector<double> ra, dec, z, release, brickid, objid, zwarn, image_flags, spectrum_flags;

    Piece(const Inputs& inputs, data::Range range_) : range(range_), batch(inputs.galaxies.read(range))
    {
        const Scalars of(inputs, range);
        ra = of.either("ra", nan);
        dec = of.either("dec", nan);
        z = of.either("redshift", nan);
        release = of.either("release", -1);
        brickid = of.either("brickid", -1);
        objid = of.either("objid", -1);
        zwarn = of.spectrum("zwarn", -1);
        image_flags = of.image("qflag", 0);
        spectrum_flags = of.spectrum("qflag", 0);
    }
};

// Pieces one after the other, each read while the one before is computed with. HDF5 bears one thread at a
// time: who writes waits first.
class ReadAhead {
public:
    ReadAhead(const Inputs& inputs, std::vector<data::Range> pieces)
        : inputs_(inputs), pieces_(std::move(pieces))
    {
        start();
    }

    Piece next()
    {
        auto piece = reading_.get();
        start();
        return piece;
    }
    void wait() const
    {
        if (reading_.valid()) reading_.wait();
    }

private:
    void start()
    {
        if (started_ < pieces_.size()) {
            reading_ = std::async(std::launch::async,
                                  [this, range = pieces_[started_++]] { return Piece(inputs_, range); });
        }
    }

    const Inputs& inputs_;
    std::vector<data::Range> pieces_;
    std::size_t started_ = 0;
    std::future<Piece> reading_;
};

// The embedded galaxies as rows of the store; what has an embedding that is not finite becomes a reject.
void append_rows(const Inputs& inputs, const Options& o, const Piece& piece, store::Rows& rows,
                 std::vector<store::Reject>& rejects)
{
    const auto& batch = piece.batch;
    const auto images = embed_images(inputs, batch);
    const auto spectra = embed_spectra(inputs, batch);
    const auto width = static_cast<std::size_t>(inputs.width());
    for (std::size_t i = 0; i < batch.object_ids.size(); ++i) {
        const auto id = batch.object_ids[i];
        if (!images.finite[i] || !spectra.finite[i]) {
            rejects.push_back({o.model, piece.range.first + static_cast<std::int64_t>(i), id,
                               images.finite[i] ? "spectrum embedding zero or not finite"
                                                : "image embedding zero or not finite",
                               true});
            continue;
        }
        const bool has_spectrum = inputs.embeds_spectra() && batch.has_spectrum[i];
        rows.add("object_id", id);
        rows.add("targetid", batch.has_spectrum[i] && survey::is_targetid(id) ? id : std::int64_t{-1});
        rows.add("release", piece.release[i]);
        rows.add("brickid", piece.brickid[i]);
        rows.add("objid", piece.objid[i]);
        rows.add("ra", piece.ra[i]);
        rows.add("dec", piece.dec[i]);
        rows.add("healpix_29", survey::healpix_nested(piece.ra[i], piece.dec[i]));
        rows.add("image_embedding", images.unit.data() + i * width, 1);
        rows.add("image_embedding_norm", images.norm[i]);
        rows.add("has_image", inputs.embeds_images() && batch.has_image[i]);
        rows.add("spectrum_embedding", spectra.unit.data() + i * width, 1);
        rows.add("spectrum_embedding_norm", spectra.norm[i]);
        rows.add("has_spectrum", has_spectrum);
        rows.add("z_spec", piece.z[i]);
        rows.add("zwarn", piece.zwarn[i]);
        rows.add("qflag", static_cast<std::uint32_t>(piece.image_flags[i]) |
                              static_cast<std::uint32_t>(piece.spectrum_flags[i]));
    }
}

nlohmann::json inputs_of(const Inputs& inputs)
{
    auto ids = inputs.galaxies.content_ids();
    ids["model"] = inputs.model.content_id;
    return ids;
}

// The compute batches of all turns, in order.
std::vector<data::Range> pieces_of(const std::vector<store::Writer::Range>& turns)
{
    std::vector<data::Range> all;
    for (const auto& turn : turns) {
        const auto pieces = data::in_order({turn.first, turn.last}, nn::compute_batch);
        all.insert(all.end(), pieces.begin(), pieces.end());
    }
    return all;
}

void write_all(const Inputs& inputs, const Options& o, stage::Context& context, store::Output& output)
{
    const auto total = inputs.galaxies.size();
    const auto schema = schema_of(inputs, o.precision);
    const store::Writer::Options how{.part_rows = o.part_rows,
                                     .max_reject_fraction = o.max_reject_fraction,
                                     .unit_rows = nn::compute_batch};
    store::Writer writer(output, schema, total, digest_of(inputs_of(inputs).dump()), how);
    auto more = writer.next_part();  // after those of an earlier run
    context.progress.begin("embedding", writer.plan_share(), "galaxies", writer.plan_done());
    for (; more; more = writer.next_part()) {
        const auto turns = writer.turns();
        ReadAhead reading(inputs, pieces_of(turns));
        for (const auto& turn : turns) {
            store::Rows rows(schema);
            std::vector<store::Reject> rejects;
            for (auto left = pieces_of({turn}).size(); left > 0; --left) {
                alive("embedding a batch");
                append_rows(inputs, o, reading.next(), rows, rejects);
            }
            reading.wait();
            writer.append(rows, rejects);
            context.progress.update(writer.plan_done());
        }
        writer.publish_part();
        context.metric({{"galaxies", writer.plan_done()}, {"galaxies_per_s", context.progress.last().rate}});
    }
    context.progress.end();
    writer.publish({{"model", {{"path", o.model}, {"id", inputs.model.content_id}}}});
}

void embed(const Options& o, stage::Context& context)
{
    const at::NoGradGuard no_grad;
    const auto compute = stage::start_compute(context);
    std::optional<Inputs> inputs;
    context.world.together([&] { inputs.emplace(o, compute.device); });
    const train::Autocast autocast(o.precision, compute.device.type());
    const auto total = inputs->galaxies.size();
    if (context.dry_run()) {
        const auto row_bytes = schema_of(*inputs, o.precision).row_bytes();
        context.print(fmt::format("embed: {} galaxies, width {}, {} bytes a row, about {:.1f} MB", total,
                                  inputs->width(), row_bytes,
                                  1e-6 * static_cast<double>(row_bytes) * static_cast<double>(total)));
        return;
    }
    auto& output = context.open_output(o.output, inputs_of(*inputs), o.shard);
    write_all(*inputs, o, context, output);
    context.print(output.path());
}

}  // namespace
}  // namespace astroclip

int main(int argc, char** argv)
{
    return astroclip::stage::run<astroclip::Options>(argc, argv, astroclip::description, astroclip::bind,
                                                     astroclip::embed);
}
