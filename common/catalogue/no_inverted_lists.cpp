#include "catalogue/inverted_lists.hpp"

// A build without FAISS: compiled in place of inverted_lists.cpp.
namespace astroclip::catalogue {

bool has_inverted_lists() { return false; }

void write_inverted_lists(const std::string&, const at::Tensor&, const at::Tensor&, std::int64_t,
                          std::uint64_t)
{
    require_inverted_lists();
}

Neighbours search_inverted_lists(const std::string&, const at::Tensor&, std::int64_t, std::int64_t)
{
    require_inverted_lists();
    return {};
}

}  // namespace astroclip::catalogue
