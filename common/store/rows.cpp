#include <fmt/format.h>

#include <type_traits>

#include "core/error.hpp"
#include "store/visit.hpp"
#include "store/writer.hpp"

namespace astroclip::store {
namespace {

template <typename To, typename From>
void append_as(std::vector<char>& bytes, const From* values, std::size_t count)
{
    const auto start = bytes.size();
    bytes.resize(start + count * sizeof(To));
    auto* out = reinterpret_cast<To*>(bytes.data() + start);
    for (std::size_t i = 0; i < count; ++i) {
        out[i] = static_cast<To>(values[i]);
    }
}

template <typename From>
void append_values(Type type, std::vector<char>& bytes, const From* values, std::size_t count)
{
    visit(type, [&]<typename To>(To) { append_as<To>(bytes, values, count); });
}

}  // namespace

Rows::Rows(const Schema& schema) : schema_(&schema)
{
    for (const auto& column : schema.columns) {
        bytes_[column.name];
    }
}

std::size_t Rows::size() const
{
    const auto& first = schema_->columns.front();
    return bytes_.at(first.name).size() / first.row_bytes();
}

void Rows::clear()
{
    for (auto& [name, bytes] : bytes_) {
        bytes.clear();
    }
}

template <typename T>
void Rows::add(const std::string& column, const T* values, std::size_t count)
{
    const auto& description = schema_->column(column);
    append_values(description.type, bytes_.at(column), values, count * description.row_items());
}

template <typename T>
void Rows::add(const std::string& column, T value)
{
    const auto& description = schema_->column(column);
    if (!description.shape.empty()) {
        throw InternalError(
            fmt::format("column '{}' takes {} values a row, one was given", column, description.row_items()));
    }
    append_values(description.type, bytes_.at(column), &value, 1);
}

const std::vector<char>& Rows::bytes(const std::string& column) const
{
    const auto found = bytes_.find(column);
    if (found == bytes_.end()) {
        throw InternalError("store of " + schema_->kind + " has no column '" + column + "'");
    }
    return found->second;
}

#define ASTROCLIP_ADD(T)                                                   \
    template void Rows::add<T>(const std::string&, const T*, std::size_t); \
    template void Rows::add<T>(const std::string&, T);
ASTROCLIP_ADD(float)
ASTROCLIP_ADD(double)
ASTROCLIP_ADD(bool)
ASTROCLIP_ADD(std::int8_t)
ASTROCLIP_ADD(std::uint8_t)
ASTROCLIP_ADD(std::int16_t)
ASTROCLIP_ADD(std::int32_t)
ASTROCLIP_ADD(std::uint32_t)
ASTROCLIP_ADD(std::int64_t)
ASTROCLIP_ADD(std::uint64_t)
#undef ASTROCLIP_ADD

}  // namespace astroclip::store
