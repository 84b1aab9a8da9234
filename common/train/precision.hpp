#pragma once

#include <c10/core/DeviceType.h>

#include <string>

namespace astroclip::train {

// While it lives, matrix products run in bfloat16 if `precision` is "bf16" (autocast: weights, losses,
// softmaxes and norms stay float32); with "fp32" it does nothing. The cache of cast weights ends with it,
// since the weights change.
class Autocast {
public:
    Autocast(const std::string& precision, c10::DeviceType device);
    ~Autocast();
    Autocast(const Autocast&) = delete;
    Autocast& operator=(const Autocast&) = delete;

private:
    c10::DeviceType device_;
    bool on_, before_ = false;
};

}  // namespace astroclip::train
