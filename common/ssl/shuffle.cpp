#include "ssl/shuffle.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/error.hpp"
#include "core/random.hpp"

namespace astroclip::ssl {

namespace {

constexpr std::int64_t rows_at_once = 64;  // of each rank

}  // namespace

std::vector<std::int64_t> shuffled_rows(std::int64_t count, std::uint64_t seed, std::uint32_t step)
{
    std::vector<std::int64_t> order(static_cast<std::size_t>(count));
    std::iota(order.begin(), order.end(), 0);
    Random random(seed, "moco-shuffle", step, 0);
    for (std::size_t i = order.size(); i > 1; --i) {
        std::swap(order[i - 1], order[random.below(i)]);
    }
    return order;
}

std::vector<std::int64_t> places(const std::vector<std::int64_t>& order)
{
    std::vector<std::int64_t> place(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
        place[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
    }
    return place;
}

at::Tensor reordered(comm::Communicator& ranks, const at::Tensor& own, const std::vector<std::int64_t>& order)
{
    const at::NoGradGuard no_grad;
    const auto rows = own.size(0);
    if (std::int64_t(order.size()) != rows * ranks.size()) {
        throw InternalError(
            fmt::format("an order of {} rows for {} ranks of {}", order.size(), ranks.size(), rows));
    }
    const auto mine =
        at::tensor(at::ArrayRef<std::int64_t>(order), at::kLong).narrow(0, ranks.rank() * rows, rows);
    if (ranks.size() == 1) return own.index_select(0, mine.to(own.device()));
    auto out = at::empty_like(own, at::MemoryFormat::Contiguous);
    const auto of_rank = mine.div(rows, "floor"), row = mine.remainder(rows);
    for (std::int64_t first = 0; first < rows; first += rows_at_once) {
        const auto count = std::min(rows_at_once, rows - first);
        const auto piece = ranks.all_gather(own.narrow(0, first, count).contiguous());
        const auto here = ((row >= first) & (row < first + count)).nonzero().squeeze(1);
        const auto from = (of_rank * count + row - first).index_select(0, here);
        out.index_copy_(0, here.to(own.device()), piece.index_select(0, from.to(own.device())));
    }
    return out;
}

}  // namespace astroclip::ssl
