#include "tools/bench_search.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "catalogue/neighbours.hpp"
#include "core/error.hpp"

namespace astroclip::bench {
namespace {

at::Tensor read_rows(const std::string& path, std::int64_t width)
{
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        throw MissingInput(path, "cannot be read: rows of float32 expected");
    }
    const auto rows = static_cast<std::int64_t>(std::filesystem::file_size(path)) / (4 * width);
    const auto values = at::empty({rows, width});
    file.read(reinterpret_cast<char*>(values.data_ptr<float>()), values.numel() * 4);
    return values;
}

template <typename T>
void write(const std::string& path, const at::Tensor& values)
{
    const auto all = values.contiguous();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(all.const_data_ptr<T>()), all.numel() * sizeof(T));
}

}  // namespace

void bind(config::Section options, SearchOptions& o)
{
    options.option("vectors", o.vectors, "of search and search-single: file of the catalogue's vectors")
        .option("queries", o.queries, "file of those to search for")
        .option("found", o.found, "file for the rows found; empty: none")
        .option("width", o.width, "numbers in a vector", config::at_least(1))
        .option("neighbours", o.neighbours, "of each query", config::at_least(1));
}

std::function<void()> search(const SearchOptions& o, bool single, const comm::World& world,
                             comm::Communicator& ranks)
{
    const auto all = read_rows(o.vectors, o.width);
    const auto first = all.size(0) * world.rank() / world.size(),
               last = all.size(0) * (world.rank() + 1) / world.size();
    const auto shard = catalogue::CatalogueShard::of(all.narrow(0, first, last - first), first);
    return [=, &world, &ranks, queries = read_rows(o.queries, o.width), told = o.found.empty()]() mutable {
        const auto at_once = single ? 1 : queries.size(0);
        std::vector<at::Tensor> rows, scores;
        for (std::int64_t query = 0; query < queries.size(0); query += at_once) {
            const auto found =
                catalogue::nearest(ranks, shard, queries.narrow(0, query, at_once), o.neighbours);
            rows.push_back(found.row);
            scores.push_back(found.score);
        }
        if (!told && world.is_root()) {
            write<std::int64_t>(o.found, at::cat(rows));
            write<float>(o.found + ".scores", at::cat(scores));
        }
        told = true;
    };
}

}  // namespace astroclip::bench
