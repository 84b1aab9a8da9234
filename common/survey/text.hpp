#pragma once

#include <charconv>
#include <optional>
#include <string_view>

// Text of tables and lists.
namespace astroclip::survey {

// Without the blanks and tabs around it.
inline std::string_view trimmed(std::string_view text)
{
    const auto first = text.find_first_not_of(" \t");
    return first == std::string_view::npos ? ""
                                           : text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

// The number that the whole text is, blanks around it and a plus sign apart; nothing if it is none or does
// not fit T.
template <typename T>
std::optional<T> to_number(std::string_view text)
{
    text = trimmed(text);
    if (text.starts_with('+')) {
        text.remove_prefix(1);
    }
    T value{};
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
    return result.ec == std::errc() && result.ptr == text.data() + text.size() ? std::optional(value)
                                                                               : std::nullopt;
}

}  // namespace astroclip::survey
