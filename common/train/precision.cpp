#include "train/precision.hpp"

#include <ATen/autocast_mode.h>

namespace astroclip::train {

Autocast::Autocast(const std::string& precision, c10::DeviceType device)
    : device_(device), on_(precision == "bf16")
{
    if (on_) {
        before_ = at::autocast::is_autocast_enabled(device_);
        at::autocast::set_autocast_dtype(device_, at::kBFloat16);
        at::autocast::set_autocast_enabled(device_, true);
    }
}

Autocast::~Autocast()
{
    if (on_) {
        at::autocast::set_autocast_enabled(device_, before_);
        at::autocast::clear_cache();
    }
}

}  // namespace astroclip::train
