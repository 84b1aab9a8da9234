#include "ssl/token_cache.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <unordered_map>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/heartbeat.hpp"
#include "data/loader.hpp"
#include "data/rows.hpp"
#include "nn/encoder.hpp"
#include "store/writer.hpp"

namespace astroclip::ssl {
namespace {

// Of both sides of the split, since validation needs tokens too, in the order of the stores.
std::vector<std::int64_t> paired(const data::Galaxies& galaxies)
{
    auto numbers = galaxies.paired(false);
    const auto held_out = galaxies.paired(true);
    numbers.insert(numbers.end(), held_out.begin(), held_out.end());
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

data::Batch read_padded(const data::Galaxies& galaxies, std::span<const std::int64_t> numbers)
{
    auto batch = galaxies.read(numbers);
    for (auto* tensor : {&batch.images, &batch.spectra, &batch.ivar}) {
        *tensor = tensor->defined() ? data::padded(*tensor, nn::compute_batch) : *tensor;
    }
    return batch;
}

EncoderTokens first_tokens(const data::Galaxies& galaxies, const Encode& encode)
{
    const auto numbers = paired(galaxies);
    if (numbers.empty()) {
        throw ConfigError("no galaxy has both an image and a spectrum: there is nothing to align");
    }
    return encode(galaxies.read(std::span(numbers).first(1)));
}

store::Schema schema_of(const EncoderTokens& one)
{
    store::Schema schema;
    schema.kind = "tokens";
    schema.columns.push_back(
        {"object_id", store::Type::i64, {}, "", "unique id of the object", "meta.id;meta.main"});
    const auto add = [&](const std::string& modality, const at::Tensor& tokens) {
        schema.columns.push_back(
            {modality + "_tokens",
             store::Type::i16,
             {static_cast<std::size_t>(tokens.size(1)), static_cast<std::size_t>(tokens.size(2))},
             "",
             "tokens of the " + modality + " encoder: the bits of float16 numbers"});
    };
    add("image", one.image);
    add("spectrum", one.spectrum);
    return schema;
}

// [B, N, D] -> bits of float16, of the first `rows`
at::Tensor half_bits(const at::Tensor& tokens, std::int64_t rows, std::span<const std::int64_t> ids)
{
    const auto half = tokens.narrow(0, 0, rows).to(at::kCPU, at::kHalf).contiguous();
    const auto good = half.isfinite().flatten(1).all(1);
    for (std::int64_t i = 0; i < rows; ++i) {
        if (!good[i].item<bool>()) {
            throw NumericsError(
                fmt::format("the encoders give object {} tokens that are not finite or beyond 65504, the "
                            "largest float16; "
                            "'token-cache' = off trains without the cache",
                            ids[static_cast<std::size_t>(i)]));
        }
    }
    return half.view(at::kShort);
}

}  // namespace

std::int64_t token_cache_bytes(const data::Galaxies& galaxies, const Encode& encode)
{
    const auto row = schema_of(first_tokens(galaxies, encode)).row_bytes();
    return static_cast<std::int64_t>(row * paired(galaxies).size());
}

void make_token_cache(store::Output& output, const data::Galaxies& galaxies, const Encode& encode,
                      std::int64_t part_rows, const std::function<void(std::int64_t, std::int64_t)>& progress)
{
    const auto numbers = paired(galaxies);
    const auto total = static_cast<std::int64_t>(numbers.size());
    const auto schema = schema_of(first_tokens(galaxies, encode));
    store::Writer writer(output, schema, total, digest_of(output.request().inputs.dump()),
                         {.part_rows = part_rows, .unit_rows = nn::compute_batch});
    while (writer.next_part()) {
        for (const auto& turn : writer.turns()) {
            store::Rows rows(schema);
            for (const auto& piece : data::in_order({turn.first, turn.last}, nn::compute_batch)) {
                alive("computing tokens");
                const auto batch =
                    read_padded(galaxies, std::span(numbers).subspan(static_cast<std::size_t>(piece.first),
                                                                     static_cast<std::size_t>(piece.size())));
                const auto tokens = encode(batch);
                const auto image = half_bits(tokens.image, piece.size(), batch.object_ids);
                const auto spectrum = half_bits(tokens.spectrum, piece.size(), batch.object_ids);
                const auto count = batch.object_ids.size();
                rows.add("object_id", batch.object_ids.data(), count);
                rows.add("image_tokens", image.const_data_ptr<std::int16_t>(), count);
                rows.add("spectrum_tokens", spectrum.const_data_ptr<std::int16_t>(), count);
            }
            writer.append(rows, {});
            progress(writer.plan_done(), total);
        }
        writer.publish_part();
    }
    writer.publish();
}

struct TokenCache::State {
    const data::Galaxies& galaxies;
    store::Reader reader;
    std::unordered_map<std::int64_t, std::int64_t> row_of;  // by number of the galaxy
    mutable std::mutex reading;

    State(const std::string& path, const data::Galaxies& of) : galaxies(of), reader(path, "tokens", true)
    {
        const auto ids = reader.column<std::int64_t>("object_id");
        const auto numbers = paired(galaxies);
        bool same = ids.size() == numbers.size();
        for (std::size_t row = 0; same && row < ids.size(); ++row) {
            same = ids[row] == galaxies[numbers[row]].object_id;
            row_of[numbers[row]] = static_cast<std::int64_t>(row);
        }
        if (!same) {
            throw DataError(path, "holds tokens of other galaxies than the pairs");
        }
    }
};

TokenCache::TokenCache(const std::string& path, const data::Galaxies& galaxies)
    : state_(std::make_unique<State>(path, galaxies))
{
}
TokenCache::~TokenCache() = default;

data::Batch TokenCache::read(std::span<const std::int64_t> numbers) const
{
    data::Batch batch;
    std::vector<std::int64_t> rows;
    for (const auto number : numbers) {
        batch.object_ids.push_back(state_->galaxies[number].object_id);
        rows.push_back(state_->row_of.at(number));
    }
    const std::lock_guard lock(state_->reading);
    batch.image_tokens = data::read_words(state_->reader, "image_tokens", rows).view(at::kHalf);
    batch.spectrum_tokens = data::read_words(state_->reader, "spectrum_tokens", rows).view(at::kHalf);
    batch.has_image.assign(rows.size(), 1);
    batch.has_spectrum.assign(rows.size(), 1);
    return batch;
}

}  // namespace astroclip::ssl
