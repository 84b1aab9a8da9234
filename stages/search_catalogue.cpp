#include "stages/search_catalogue.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

#include "core/heartbeat.hpp"
#include "core/random.hpp"
#include "survey/sky.hpp"

namespace astroclip::search {
namespace {

constexpr std::int64_t rows_at_once = 1 << 18;

// [first, last) of this rank's rows.
std::pair<std::int64_t, std::int64_t> share(std::int64_t rows, const comm::World& world)
{
    return {rows * world.rank() / world.size(), rows * (world.rank() + 1) / world.size()};
}

// The small columns of some rows.
struct Piece {
    std::int64_t first;
    std::vector<std::int64_t> object_id;
    std::vector<std::uint8_t> has_image, has_spectrum;
    std::vector<double> ra, dec;

    Piece(const store::Reader& reader, std::int64_t first_row, std::int64_t count, bool positions)
        : first(first_row), object_id(count), has_image(count), has_spectrum(count)
    {
        reader.read("object_id", first, count, object_id.data());
        reader.read("has_image", first, count, has_image.data());
        reader.read("has_spectrum", first, count, has_spectrum.data());
        if (positions) {
            ra.resize(count);
            dec.resize(count);
            reader.read("ra", first, count, ra.data());
            reader.read("dec", first, count, dec.data());
        }
    }
    std::int64_t size() const { return std::ssize(object_id); }
};

// The order of `values`, ascending.
template <typename T>
std::vector<std::size_t> order_of(const std::vector<T>& values)
{
    std::vector<std::size_t> order(values.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return values[a] < values[b]; });
    return order;
}

// Rows by id: the same id may be asked for more than once.
class ById {
public:
    explicit ById(const std::vector<std::int64_t>& ids)
        : ids_(ids), order_(order_of(ids)), row_(ids.size(), -1)
    {
    }
    void look_at(const Piece& piece)
    {
        for (std::int64_t i = 0; i < piece.size() && !ids_.empty(); ++i) {
            const auto id = piece.object_id[i];
            auto at = std::lower_bound(order_.begin(), order_.end(), id,
                                       [&](auto place, auto value) { return ids_[place] < value; });
            for (; at != order_.end() && ids_[*at] == id; ++at) {
                row_[*at] = piece.first + i;
            }
        }
    }
    std::vector<std::int64_t> rows(const comm::World& world) const
    {
        const auto all = world.all_gather(row_);
        auto rows = row_;
        for (std::size_t i = 0; i < all.size(); ++i) {
            rows[i % rows.size()] = std::max(rows[i % rows.size()], all[i]);
        }
        return rows;
    }

private:
    const std::vector<std::int64_t>& ids_;
    std::vector<std::size_t> order_;
    std::vector<std::int64_t> row_;
};

// The nearest row to each position within a radius; of equally near ones that of the smaller id.
class ByPosition {
public:
    explicit ByPosition(const Wanted& wanted)
        : wanted_(wanted), order_(order_of(wanted.dec)), best_(wanted.ra.size())
    {
    }
    void look_at(const Piece& piece)
    {
        const auto reach = wanted_.radius_arcsec / 3600 * (1 + 1e-9);  // degrees; declinations are no farther
        for (std::int64_t i = 0; i < piece.size() && !best_.empty(); ++i) {
            auto at = std::lower_bound(order_.begin(), order_.end(), piece.dec[i] - reach,
                                       [&](auto place, double value) { return wanted_.dec[place] < value; });
            for (; at != order_.end() && wanted_.dec[*at] <= piece.dec[i] + reach; ++at) {
                const auto apart =
                    survey::separation_arcsec(wanted_.ra[*at], wanted_.dec[*at], piece.ra[i], piece.dec[i]);
                if (apart <= wanted_.radius_arcsec) {
                    best_[*at] = std::min(best_[*at], Near{apart, piece.object_id[i], piece.first + i});
                }
            }
        }
    }
    void store(FoundRows& found, const comm::World& world) const
    {
        auto best = best_;
        const auto all = world.all_gather(best_);
        for (std::size_t i = 0; i < all.size(); ++i) {
            best[i % best.size()] = std::min(best[i % best.size()], all[i]);
        }
        for (const auto& near : best) {
            found.of_positions.push_back(near.row);
            found.separation_arcsec.push_back(near.separation);
        }
    }

private:
    struct Near {
        double separation = std::numeric_limits<double>::infinity();
        std::int64_t id = -1, row = -1;
        bool operator<(const Near& other) const
        {
            return std::tie(separation, id) < std::tie(other.separation, other.id);
        }
    };

    const Wanted& wanted_;
    std::vector<std::size_t> order_;
    std::vector<Near> best_;
};

// Some rows of the pool, chosen by a hash of their ids.
class ByHash {
public:
    ByHash(std::int64_t number, std::uint64_t seed)
        : number_(static_cast<std::size_t>(number)), key_(stream_key(seed, "search-queries"))
    {
    }
    void look_at(const Piece& piece, std::int64_t i)
    {
        const bool complete = piece.has_image[i] && piece.has_spectrum[i];
        chosen_.push_back({complete ? 0U : 1U, mix64(static_cast<std::uint64_t>(piece.object_id[i]) ^ key_),
                           piece.first + i});
        if (chosen_.size() >= 2 * number_ + 1024) {
            keep_first();
        }
    }
    std::vector<std::int64_t> rows(const comm::World& world)
    {
        keep_first();
        chosen_ = world.all_gather(chosen_);
        keep_first();
        std::vector<std::int64_t> rows;
        for (const auto& one : chosen_) rows.push_back(one.row);
        return rows;
    }

private:
    struct Choice {
        std::uint64_t incomplete, hash;
        std::int64_t row;
    };
    void keep_first()
    {
        std::sort(chosen_.begin(), chosen_.end(), [](const Choice& a, const Choice& b) {
            return std::tie(a.incomplete, a.hash, a.row) < std::tie(b.incomplete, b.hash, b.row);
        });
        chosen_.resize(std::min(chosen_.size(), number_));
    }

    std::size_t number_;
    std::uint64_t key_;
    std::vector<Choice> chosen_;
};

}  // namespace

Catalogue::Catalogue(const std::string& path, bool trust) : reader_(path, "embeddings", trust) {}

void Catalogue::restrict_to_test(const store::Reader& pairs)
{
    const auto ids = pairs.column<std::int64_t>("object_id");
    const auto split = pairs.column<std::int64_t>("split");
    pool_.emplace();
    for (std::size_t i = 0; i < ids.size(); ++i) {
        if (split[i] == 1) pool_->push_back(ids[i]);
    }
    std::sort(pool_->begin(), pool_->end());
}

bool Catalogue::in_pool(std::int64_t object_id) const
{
    return !pool_ || std::binary_search(pool_->begin(), pool_->end(), object_id);
}

FoundRows Catalogue::find(const Wanted& wanted, const comm::World& world) const
{
    ById by_id(wanted.ids);
    ByPosition by_position(wanted);
    ByHash by_hash(wanted.random, wanted.seed);
    FoundRows found;
    const auto [begin, end] = share(reader_.rows(), world);
    world.together([&, begin = begin, end = end] {
        for (auto row = begin; row < end; row += rows_at_once) {
            alive("looking for the queries");
            const Piece piece(reader_, row, std::min(rows_at_once, end - row), !wanted.ra.empty());
            by_id.look_at(piece);
            by_position.look_at(piece);
            for (std::int64_t i = 0; i < piece.size(); ++i) {
                if (in_pool(piece.object_id[i])) {
                    ++found.pool;
                    if (wanted.random > 0) by_hash.look_at(piece, i);
                }
            }
        }
    });
    found.of_ids = by_id.rows(world);
    by_position.store(found, world);
    found.random = by_hash.rows(world);
    found.pool = world.sum(found.pool);
    return found;
}

catalogue::CatalogueRows Catalogue::rows(const std::string& modality, std::int64_t first,
                                         std::int64_t count) const
{
    const auto width =
        static_cast<std::int64_t>(reader_.schema().column(modality + "_embedding").row_items());
    const Piece piece(reader_, first, count, false);
    const auto& has = modality == "image" ? piece.has_image : piece.has_spectrum;
    const auto usable = at::zeros({count}, at::kBool);
    bool any = false;
    for (std::int64_t i = 0; i < count; ++i) {
        usable.data_ptr<bool>()[i] = has[i] && in_pool(piece.object_id[i]);
        any = any || usable.data_ptr<bool>()[i];
    }
    const auto vectors = any ? at::empty({count, width}) : at::zeros({count, width});
    if (any) {
        reader_.read(modality + "_embedding", first, count, vectors.data_ptr<float>());
    }
    return {vectors, usable};
}

catalogue::CatalogueShard Catalogue::shard(const std::string& modality, const comm::World& world) const
{
    const auto [begin, end] = share(reader_.rows(), world);
    return {begin, end - begin,
            [=, this](std::int64_t first, std::int64_t count) { return rows(modality, first, count); }};
}

}  // namespace astroclip::search
