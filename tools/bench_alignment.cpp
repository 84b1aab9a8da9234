#include "tools/bench_alignment.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "ssl/clip_task.hpp"
#include "ssl/token_cache.hpp"
#include "store/writer.hpp"
#include "train/step.hpp"

namespace astroclip::bench {
namespace {

constexpr std::int64_t spectrum_bins = 7781;

// A store of rows that are zero but for `flux`, which is random, and what `fill` sets.
void write_store(const comm::World& world, const std::string& path, const store::Schema& schema,
                 const nlohmann::json& inputs, std::int64_t count,
                 const std::function<bool(store::Rows&, const store::Column&, std::int64_t)>& fill)
{
    store::Output output(world, path, {schema.kind, {{"test-fraction", 0.0}}, "bench", inputs}, false);
    store::Writer writer(output, schema, count, "bench", {});
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            for (auto row = turn.first; row < turn.last; ++row) {
                for (const auto& column : schema.columns) {
                    if (fill(rows, column, row)) continue;
                    const auto n = static_cast<std::int64_t>(column.row_items());
                    const auto values = column.name == "flux" ? at::randn({n}, at::kFloat) : at::zeros({n});
                    rows.add(column.name, values.const_data_ptr<float>(), 1);
                }
            }
            writer.append(rows, {});
        }
        writer.publish_part();
    }
    writer.publish();
}

// Row i of images and of spectra is galaxy i.
data::Stores write_stores(const comm::World& world, const std::string& folder, std::int64_t count,
                          std::int64_t pixels, std::int64_t bins)
{
    const data::Stores stores{folder + "/images", folder + "/spectra", folder + "/pairs", true};
    const auto numbered = [](const std::vector<std::string>& names) {
        return [names](store::Rows& rows, const store::Column& column, std::int64_t row) {
            const bool ours = std::find(names.begin(), names.end(), column.name) != names.end();
            if (ours) rows.add(column.name, row);
            return ours;
        };
    };
    std::vector<double> wavelength(static_cast<std::size_t>(bins));
    std::iota(wavelength.begin(), wavelength.end(), 3600.0);
    write_store(world, stores.images, store::images("grz", pixels, 0.262), {}, count,
                numbered({"object_id"}));
    write_store(world, stores.spectra, store::spectra(wavelength), {}, count, numbered({"object_id"}));
    write_store(world, stores.pairs, store::pairs(), {}, count,
                numbered({"object_id", "image_row", "spectrum_row"}));
    return stores;
}

// With a cache nobody looks at images and spectra: they are small.
class Alignment {
public:
    Alignment(const std::string& folder, bool cached, const AlignmentSizes& sizes, std::int64_t batch,
              const std::string& precision, const comm::World& world, comm::Communicator& ranks)
        : galaxies_(write_stores(world, folder, 4 * batch, cached ? 8 : 152, cached ? 64 : spectrum_bins))
    {
        if (cached) {
            make_cache(folder + "/tokens", sizes, world);
            cache_.emplace(folder + "/tokens", galaxies_);
        }
        nn::AlignedModel model(sizes.image, sizes.spectrum, sizes.head);
        nn::initialise(*model, 1);
        ssl::ClipTaskConfig config;
        config.batch_size = batch;
        config.head = sizes.head;
        task_.emplace(config, model, sizes.image, sizes.spectrum, galaxies_, ranks, 1,
                      cached ? &*cache_ : nullptr);
        step_.emplace(*task_, train::TrainerConfig{.precision = precision}, ranks);
        task_->seek(0);
    }

    void step()
    {
        task_->fetch();
        step_->gradient(*task_, number_++);
        step_->apply({1e-4, 1e-4, 0.01});
    }

private:
    void make_cache(const std::string& path, const AlignmentSizes& sizes, const comm::World& world)
    {
        const auto side = sizes.image.image_size / sizes.image.patch_size;
        const ssl::Encode random = [&](const data::Batch& batch) -> ssl::EncoderTokens {
            const auto rows = batch.images.size(0);
            return {at::randn({rows, side * side, sizes.image.width}),
                    at::randn({rows, data::token_count(spectrum_bins), sizes.spectrum.width})};
        };
        store::Output output(world, path, {"token-cache", {}, "bench", {}}, false);
        ssl::make_token_cache(output, galaxies_, random, 512, [](std::int64_t, std::int64_t) {});
    }

    data::Galaxies galaxies_;
    std::optional<ssl::TokenCache> cache_;
    std::optional<ssl::ClipTask> task_;
    std::optional<train::Step> step_;
    std::int64_t number_ = 0;
};

}  // namespace

std::function<void()> alignment(const std::string& folder, bool cached, const AlignmentSizes& sizes,
                                std::int64_t batch, const std::string& precision, const comm::World& world,
                                comm::Communicator& ranks)
{
    const auto made = std::make_shared<Alignment>(folder, cached, sizes, batch, precision, world, ranks);
    return [made] { made->step(); };
}

}  // namespace astroclip::bench
