#include "core/error.hpp"

#include <cerrno>
#include <cstring>

namespace astroclip {

void throw_errno(const std::string& path, const std::string& action)
{
    throw IoError(path, action + ": " + std::strerror(errno));
}

}  // namespace astroclip
