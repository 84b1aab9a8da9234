#pragma once

#include <cstdint>

#include "core/error.hpp"
#include "store/schema.hpp"

namespace astroclip::store {

// What `work` makes of a zero of a column's type: visit(column.type, [&]<typename T>(T) { … }).
template <typename Work>
decltype(auto) visit(Type type, Work&& work)
{
    switch (type) {
        case Type::f32:
            return work(float{});
        case Type::f64:
            return work(double{});
        case Type::i64:
            return work(std::int64_t{});
        case Type::i32:
            return work(std::int32_t{});
        case Type::i16:
            return work(std::int16_t{});
        case Type::u8:
            return work(std::uint8_t{});
        case Type::u32:
            return work(std::uint32_t{});
    }
    throw InternalError("unknown column type");
}

}  // namespace astroclip::store
