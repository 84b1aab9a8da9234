#include "catalogue/inverted_lists.hpp"
#include "core/error.hpp"

// A build without FAISS: compiled in place of inverted_lists.cpp.
namespace astroclip::catalogue {
namespace {

[[noreturn]] void refuse()
{
    throw ConfigError(
        "this build has no FAISS, which approximate search needs; configure with -DASTROCLIP_FAISS=ON");
}

}  // namespace

bool has_inverted_lists() { return false; }

void write_inverted_lists(const std::string&, const at::Tensor&, const std::vector<std::int64_t>&,
                          std::int64_t, std::uint64_t)
{
    refuse();
}

Neighbours search_inverted_lists(const std::string&, const at::Tensor&, std::int64_t, std::int64_t)
{
    refuse();
}

}  // namespace astroclip::catalogue
