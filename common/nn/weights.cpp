#include "nn/weights.hpp"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.hpp"

namespace astroclip::nn {

static_assert(std::endian::native == std::endian::little,
              "safetensors data is little-endian, and copied as it is");

namespace {

constexpr std::uint64_t max_header_bytes = 100'000'000;
constexpr int max_header_depth = 3;  // the header, a tensor's entry, its shape

struct Dtype {
    const char* name;
    at::ScalarType type;
};
constexpr Dtype dtypes[] = {{"F64", at::kDouble},    {"F32", at::kFloat}, {"F16", at::kHalf},
                            {"BF16", at::kBFloat16}, {"I64", at::kLong},  {"U8", at::kByte}};

void read_at(int descriptor, void* bytes, std::uint64_t size, std::uint64_t offset, const std::string& path)
{
    auto* out = static_cast<char*>(bytes);
    while (size > 0) {
        const auto count = ::pread(descriptor, out, size, static_cast<off_t>(offset));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) throw_errno(path, "read");
        if (count == 0) throw DataError(path, "ends before its header says");
        out += count;
        offset += count;
        size -= count;
    }
}

// Parses the header; a name that occurs twice in an object would otherwise silently win over the first.
nlohmann::json parse_strict(const std::string& text, const std::string& path)
{
    std::vector<std::set<std::string>> names;
    const auto check = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
        using Event = nlohmann::json::parse_event_t;
        if (depth > max_header_depth) throw DataError(path, "header is nested too deeply");
        if (event == Event::object_start) names.emplace_back();
        if (event == Event::object_end) names.pop_back();
        if (event == Event::key && !names.back().insert(value.get<std::string>()).second) {
            throw DataError(path, "header names '" + value.get<std::string>() + "' twice");
        }
        return true;
    };
    try {
        return nlohmann::json::parse(text, check);
    } catch (const nlohmann::json::exception& error) {
        throw DataError(path, std::string("header is not JSON: ") + error.what());
    }
}

std::uint64_t natural_number(const nlohmann::json& value, const std::string& path, const std::string& where)
{
    if (!value.is_number_unsigned() ||
        value.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
        throw DataError(path, where + ": " + value.dump().substr(0, 40) + " is not a natural number");
    }
    return value.get<std::uint64_t>();
}

at::ScalarType dtype(const nlohmann::json& name, const std::string& path, const std::string& tensor)
{
    for (const auto& known : dtypes) {
        if (name == known.name) return known.type;
    }
    throw DataError(path, "tensor '" + tensor + "' has dtype " + name.dump().substr(0, 40) +
                              ", known are F64, F32, F16, BF16, I64, U8");
}

const char* dtype_name(at::ScalarType type)
{
    for (const auto& known : dtypes) {
        if (type == known.type) return known.name;
    }
    throw InternalError(std::string("a tensor of type ") + at::toString(type) + " cannot be saved");
}

std::string shape_text(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

bool widens(at::ScalarType from, at::ScalarType to)
{
    const bool half = from == at::kHalf || from == at::kBFloat16;
    return from == to || (half && (to == at::kFloat || to == at::kDouble)) ||
           (from == at::kFloat && to == at::kDouble);
}

// "2 missing (a, b)" with at most a dozen names, or nothing.
void add_list(std::string& text, const std::vector<std::string>& names, const char* what)
{
    if (names.empty()) return;
    const auto shown = std::min<std::size_t>(names.size(), 12);
    text +=
        fmt::format("{}{} {} ({}{})", text.empty() ? "" : "; ", names.size(), what,
                    fmt::join(names.begin(), names.begin() + shown, ", "), shown < names.size() ? ", …" : "");
}

void collect_state(const torch::nn::Module& module, const std::string& prefix, NamedTensors& state)
{
    for (const auto& item : module.named_parameters(false))
        state.emplace_back(prefix + item.key(), item.value());
    for (const auto& item : module.named_buffers(false))
        state.emplace_back(prefix + item.key(), item.value());
    for (const auto& child : module.named_children())
        collect_state(*child.value(), prefix + child.key() + ".", state);
}

}  // namespace

WeightsFile::WeightsFile(const std::string& path) : path_(path)
{
    descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0 && errno == ENOENT) throw MissingInput(path, "no such file");
    if (descriptor_ < 0) throw_errno(path, "open");
    try {
        struct stat status {};
        if (::fstat(descriptor_, &status) != 0) throw_errno(path, "stat");
        if (!S_ISREG(status.st_mode)) throw DataError(path, "is not a file");
        const auto size = static_cast<std::uint64_t>(status.st_size);
        if (size < 8) throw DataError(path, "is too short for a safetensors file");
        std::uint64_t header_bytes = 0;
        read_at(descriptor_, &header_bytes, 8, 0, path);
        if (header_bytes > std::min(max_header_bytes, size - 8)) {
            throw DataError(
                path, fmt::format("header of {} bytes in a file of {} (not a safetensors file, or cut short)",
                                  header_bytes, size));
        }
        std::string header(header_bytes, '\0');
        read_at(descriptor_, header.data(), header_bytes, 8, path);
        data_start_ = 8 + header_bytes;
        parse_header(header, size - data_start_);
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

WeightsFile::~WeightsFile() { ::close(descriptor_); }

void WeightsFile::parse_header(const std::string& text, std::uint64_t data_bytes)
{
    const auto header = parse_strict(text, path_);
    if (!header.is_object()) throw DataError(path_, "header is not a JSON object");
    std::vector<std::pair<std::uint64_t, std::string>> order;
    for (const auto& [name, value] : header.items()) {
        if (name == "__metadata__") {
            if (!value.is_object()) throw DataError(path_, "__metadata__ is not an object");
            for (const auto& [key, item] : value.items()) {
                if (!item.is_string()) throw DataError(path_, "metadata '" + key + "' is not a string");
                metadata_[key] = item.get<std::string>();
            }
            continue;
        }
        const auto where = "tensor '" + name + "'";
        if (!value.is_object() || value.size() != 3 || !value.contains("dtype") || !value.contains("shape") ||
            !value.contains("data_offsets")) {
            throw DataError(path_, where + " has not exactly dtype, shape and data_offsets");
        }
        Entry entry{dtype(value["dtype"], path_, name), {}, 0, 0};
        const auto& offsets = value["data_offsets"];
        if (!offsets.is_array() || offsets.size() != 2 || !value["shape"].is_array()) {
            throw DataError(path_, where + ": shape or data_offsets are not lists");
        }
        entry.begin = natural_number(offsets[0], path_, where);
        entry.end = natural_number(offsets[1], path_, where);
        std::uint64_t bytes = at::elementSize(entry.type);
        for (const auto& dimension : value["shape"]) {
            const auto length = natural_number(dimension, path_, where);
            if (__builtin_mul_overflow(bytes, length, &bytes))
                throw DataError(path_, where + " is impossibly large");
            entry.shape.push_back(static_cast<std::int64_t>(length));
        }
        if (entry.end < entry.begin || entry.end > data_bytes || entry.end - entry.begin != bytes) {
            throw DataError(path_, fmt::format("{} of shape {} lies at bytes {} to {} of {}", where,
                                               shape_text(entry.shape), entry.begin, entry.end, data_bytes));
        }
        order.emplace_back(entry.begin, name);
        entries_.emplace(name, std::move(entry));
    }
    // By position in the file; tensors without elements come before the one that starts where they do.
    std::sort(order.begin(), order.end(), [this](const auto& a, const auto& b) {
        return std::tuple(a.first, entries_.at(a.second).end, a.second) <
               std::tuple(b.first, entries_.at(b.second).end, b.second);
    });
    std::uint64_t position = 0;
    for (const auto& [begin, name] : order) {
        if (begin != position)
            throw DataError(path_, "tensor '" + name + "' leaves a gap or overlaps another");
        position = entries_.at(name).end;
        names_.push_back(name);
    }
    if (position != data_bytes) {
        throw DataError(path_,
                        fmt::format("{} bytes of data, its header accounts for {}", data_bytes, position));
    }
}

const WeightsFile::Entry& WeightsFile::entry(const std::string& name) const
{
    const auto found = entries_.find(name);
    if (found == entries_.end()) throw DataError(path_, "has no tensor '" + name + "'");
    return found->second;
}

const std::vector<std::int64_t>& WeightsFile::shape(const std::string& name) const
{
    return entry(name).shape;
}

at::Tensor WeightsFile::tensor(const std::string& name) const
{
    const auto& place = entry(name);
    auto values = at::empty(place.shape, place.type);
    read_at(descriptor_, values.data_ptr(), place.end - place.begin, data_start_ + place.begin, path_);
    return values;
}

void save_weights(const std::string& path, const NamedTensors& tensors, const Metadata& metadata)
{
    auto ordered = tensors;
    std::stable_sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) {
        return a.second.element_size() > b.second.element_size();
    });
    nlohmann::ordered_json header = nlohmann::ordered_json::object();
    if (!metadata.empty()) header["__metadata__"] = metadata;
    std::uint64_t position = 0;
    for (const auto& [name, tensor] : ordered) {
        if (header.contains(name) || name == "__metadata__")
            throw InternalError("two tensors named '" + name + "'");
        const auto end = position + tensor.nbytes();
        header[name] = {{"dtype", dtype_name(tensor.scalar_type())},
                        {"shape", tensor.sizes().vec()},
                        {"data_offsets", {position, end}}};
        position = end;
    }
    auto text = header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');  // so that the data is aligned
    const std::uint64_t header_bytes = text.size();

    std::FILE* file = std::fopen(path.c_str(), "wb");
    if (file == nullptr) throw_errno(path, "create");
    bool good =
        std::fwrite(&header_bytes, 8, 1, file) == 1 && std::fwrite(text.data(), text.size(), 1, file) == 1;
    for (const auto& [name, tensor] : ordered) {
        if (!good) break;
        const auto bytes = tensor.detach().to(at::kCPU).contiguous();
        good = bytes.nbytes() == 0 || std::fwrite(bytes.data_ptr(), bytes.nbytes(), 1, file) == 1;
    }
    const int error = errno;
    if (std::fclose(file) != 0) throw_errno(path, "write");
    errno = error;
    if (!good) throw_errno(path, "write");
}

NamedTensors published_state(const torch::nn::Module& module)
{
    NamedTensors state;
    collect_state(module, "", state);
    return state;
}

void load_strict(torch::nn::Module& module, const WeightsFile& file, const std::string& prefix,
                 const std::vector<std::string>& ignore)
{
    const at::NoGradGuard no_grad;
    const auto state = published_state(module);
    std::set<std::string> expected;
    std::vector<std::string> missing, unexpected, misshaped;
    for (const auto& [name, target] : state) {
        expected.insert(prefix + name);
        if (!file.has(prefix + name)) {
            missing.push_back(prefix + name);
        } else if (target.sizes() != at::IntArrayRef(file.shape(prefix + name))) {
            misshaped.push_back(prefix + name + " " + shape_text(file.shape(prefix + name)) + ", expected " +
                                shape_text(target.sizes()));
        }
    }
    for (const auto& name : file.names()) {
        const auto ignored = [&](const std::string& start) { return name.starts_with(prefix + start); };
        if (name.starts_with(prefix) && expected.count(name) == 0 &&
            std::none_of(ignore.begin(), ignore.end(), ignored)) {
            unexpected.push_back(name);
        }
    }
    std::string problems;
    add_list(problems, missing, "missing");
    add_list(problems, unexpected, "unexpected");
    add_list(problems, misshaped, "misshaped");
    if (!problems.empty()) throw DataError(file.path(), "does not fit the network: " + problems);

    for (auto [name, target] : state) {
        const auto values = file.tensor(prefix + name);
        if (!widens(values.scalar_type(), target.scalar_type())) {
            throw DataError(file.path(),
                            fmt::format("'{}' has dtype {}, the network needs {}", prefix + name,
                                        dtype_name(values.scalar_type()), dtype_name(target.scalar_type())));
        }
        target.copy_(values);
    }
}

}  // namespace astroclip::nn
