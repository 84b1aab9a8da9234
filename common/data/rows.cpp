#include "data/rows.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

namespace astroclip::data {
namespace {

// Calls read(place in `rows`, first row, count) for each run of consecutive rows.
template <typename Read>
void for_each_run(std::span<const std::int64_t> rows, const Read& read)
{
    for (std::size_t begin = 0; begin < rows.size();) {
        auto end = begin + 1;
        while (end < rows.size() && rows[begin] >= 0 && rows[end] == rows[end - 1] + 1) {
            ++end;
        }
        if (rows[begin] >= 0) {
            read(begin, rows[begin], static_cast<std::int64_t>(end - begin));
        }
        begin = end;
    }
}

// [count, shape of the column], not yet filled
at::Tensor room_for(const store::Column& column, std::size_t count, at::ScalarType type)
{
    std::vector<std::int64_t> sizes{static_cast<std::int64_t>(count)};
    sizes.insert(sizes.end(), column.shape.begin(), column.shape.end());
    return at::empty(sizes, type);
}

}  // namespace

at::Tensor read_rows(const store::Reader& reader, const std::string& column,
                     std::span<const std::int64_t> rows)
{
    const auto& of = reader.schema().column(column);
    const auto values = room_for(of, rows.size(), at::kFloat).zero_();
    for_each_run(rows, [&](std::size_t place, std::int64_t first, std::int64_t count) {
        reader.read(column, first, count, values.data_ptr<float>() + place * of.row_items());
    });
    return values;
}

at::Tensor read_words(const store::Reader& reader, const std::string& column,
                      std::span<const std::int64_t> rows)
{
    const auto& of = reader.schema().column(column);
    const auto values = room_for(of, rows.size(), at::kShort);
    std::vector<std::size_t> places(rows.size());
    std::iota(places.begin(), places.end(), std::size_t{0});
    std::sort(places.begin(), places.end(), [&](auto a, auto b) { return rows[a] < rows[b]; });
    for (const auto place : places) {
        reader.read(column, rows[place], 1, values.data_ptr<std::int16_t>() + place * of.row_items());
    }
    return values;
}

template <typename T>
std::vector<T> read_scalars(const store::Reader& reader, const std::string& column,
                            std::span<const std::int64_t> rows, T fill)
{
    std::vector<T> values(rows.size(), fill);
    for_each_run(rows, [&](std::size_t place, std::int64_t first, std::int64_t count) {
        reader.read(column, first, count, values.data() + place);
    });
    return values;
}

template std::vector<double> read_scalars(const store::Reader&, const std::string&,
                                          std::span<const std::int64_t>, double);
template std::vector<std::int64_t> read_scalars(const store::Reader&, const std::string&,
                                                std::span<const std::int64_t>, std::int64_t);

}  // namespace astroclip::data
