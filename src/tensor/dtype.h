// Element types of activations and state. Stored weights have codecs (codecs/codec.h) instead.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cairn::tensor {

enum class DType : uint8_t {
  f32,
  i32,
  token,  // no data: orders an instruction after another one's side effect (a KV write before its readers)
};

size_t bytes_of(DType);
std::string_view to_string(DType);

}  // namespace cairn::tensor
