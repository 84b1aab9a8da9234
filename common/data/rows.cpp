#include "data/rows.hpp"

#include <ATen/ATen.h>

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

template <typename T>
at::Tensor read_as(at::ScalarType type, const store::Reader& reader, const std::string& column,
                   std::span<const std::int64_t> rows)
{
    const auto& of = reader.schema().column(column);
    std::vector<std::int64_t> sizes{static_cast<std::int64_t>(rows.size())};
    sizes.insert(sizes.end(), of.shape.begin(), of.shape.end());
    const auto values = at::zeros(sizes, type);
    for_each_run(rows, [&](std::size_t place, std::int64_t first, std::int64_t count) {
        reader.read(column, first, count, values.data_ptr<T>() + place * of.row_items());
    });
    return values;
}

}  // namespace

at::Tensor read_rows(const store::Reader& reader, const std::string& column,
                     std::span<const std::int64_t> rows)
{
    return read_as<float>(at::kFloat, reader, column, rows);
}

at::Tensor read_words(const store::Reader& reader, const std::string& column,
                      std::span<const std::int64_t> rows)
{
    return read_as<std::int16_t>(at::kShort, reader, column, rows);
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
