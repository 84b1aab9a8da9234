#include "survey/display_image.hpp"

#include <fmt/format.h>

#include <csetjmp>
#include <cstdio>
#include <memory>
#include <vector>

#include <jpeglib.h>  // wants FILE to be known

#include "core/error.hpp"

namespace astroclip::survey {
namespace {

constexpr std::size_t max_side = 1u << 14;  // memory is asked for by what the header says

// libjpeg ends the program at errors unless its handler jumps away.
struct Errors {
    jpeg_error_mgr handlers;
    std::jmp_buf escape;
    char text[JMSG_LENGTH_MAX];
};

[[noreturn]] void jump_away(j_common_ptr decoder)
{
    auto* errors = reinterpret_cast<Errors*>(decoder->err);
    decoder->err->format_message(decoder, errors->text);
    std::longjmp(errors->escape, 1);
}

// Truncated and damaged data is only a warning to libjpeg, which makes up the rest.
void jump_away_at_warnings(j_common_ptr decoder, int level)
{
    if (level < 0) jump_away(decoder);
}

// Members that call libjpeg have no objects with destructors: errors jump over them.
class Decoder {
public:
    Decoder(const std::string& path, std::FILE* file) : path_(path)
    {
        state_.err = jpeg_std_error(&errors_.handlers);
        errors_.handlers.error_exit = jump_away;
        errors_.handlers.emit_message = jump_away_at_warnings;
        if (setjmp(errors_.escape) != 0) fail();
        jpeg_create_decompress(&state_);
        jpeg_stdio_src(&state_, file);
    }
    ~Decoder() { jpeg_destroy_decompress(&state_); }
    Decoder(const Decoder&) = delete;
    Decoder& operator=(const Decoder&) = delete;

    // Settles height and width: at the scale that suits `size`.
    void read_header(JDIMENSION size)
    {
        if (setjmp(errors_.escape) != 0) fail();
        jpeg_read_header(&state_, TRUE);
        state_.out_color_space = JCS_RGB;
        state_.scale_num = 1;
        for (state_.scale_denom = 8; state_.scale_denom > 1; state_.scale_denom /= 2) {
            jpeg_calc_output_dimensions(&state_);
            if (state_.output_width >= size && state_.output_height >= size) break;
        }
        jpeg_calc_output_dimensions(&state_);
    }
    JDIMENSION height() const { return state_.output_height; }
    JDIMENSION width() const { return state_.output_width; }

    void read_pixels(JSAMPLE* out)  // [height, width, 3]
    {
        if (setjmp(errors_.escape) != 0) fail();
        jpeg_start_decompress(&state_);
        while (state_.output_scanline < state_.output_height) {
            JSAMPLE* row = out + std::size_t(3) * width() * state_.output_scanline;
            jpeg_read_scanlines(&state_, &row, 1);
        }
        jpeg_finish_decompress(&state_);
    }

private:
    [[noreturn]] void fail() const
    {
        throw DataError(path_, std::string("not a JPEG image, or damaged: ") + errors_.text);
    }

    std::string path_;
    jpeg_decompress_struct state_{};
    Errors errors_{};
};

}  // namespace

Refusal read_display_image(const std::string& path, int size, double ra, double dec, Cutout& cutout)
{
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) throw MissingInput(path, "no such file, or not readable");
    Decoder decoder(path, file.get());
    decoder.read_header(static_cast<JDIMENSION>(size));
    const std::size_t side = static_cast<std::size_t>(size), height = decoder.height(),
                      width = decoder.width();
    if (height < side || width < side || height > max_side || width > max_side) {
        return {"wrong size", true,
                fmt::format("{} x {} pixels, {} to {} a side expected", height, width, size, max_side)};
    }
    std::vector<JSAMPLE> pixels(3 * height * width);
    decoder.read_pixels(pixels.data());
    cutout = {.flux = std::vector<float>(3 * side * side), .ra = ra, .dec = dec};
    const auto top = (height - side) / 2, left = (width - side) / 2;
    for (std::size_t channel = 0; channel < 3; ++channel) {
        for (std::size_t y = 0; y < side; ++y) {
            const auto* row = pixels.data() + 3 * (width * (top + side - 1 - y) + left) + channel;
            auto* out = cutout.flux.data() + (channel * side + y) * side;
            for (std::size_t x = 0; x < side; ++x) out[x] = static_cast<float>(row[3 * x]) / 255.0f;
        }
    }
    return judge_pixels(cutout, 3, size);
}

}  // namespace astroclip::survey
