#include "tensor/dtype.h"

namespace cairn::tensor {

size_t bytes_of(DType type) { return type == DType::token ? 0 : 4; }

std::string_view to_string(DType type) {
  switch (type) {
    case DType::f32: return "f32";
    case DType::i32: return "i32";
    case DType::token: return "token";
  }
  return "?";
}

}  // namespace cairn::tensor
