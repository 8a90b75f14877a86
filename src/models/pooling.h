// How the rows of a text become its embedding.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

namespace cairn::models {

enum class Pooling : uint8_t {
  mean,  // of all rows
  cls,   // the first row
  last,  // the last row
};
std::string_view to_string(Pooling);

// What sentence-transformers' files beside a model say (modules.json, 1_Pooling/config.json); mean without
// them. Throws Error(unsupported) naming the file for modules and ways of pooling that would give other
// numbers.
Pooling read_pooling(const std::filesystem::path& model);

// One text's embedding while its rows come in, in order and in any number of pieces.
class PooledRows {
 public:
  explicit PooledRows(Pooling pooling = Pooling::mean) : pooling_(pooling) {}
  void add(const float* rows, int64_t count, int64_t dim);
  std::vector<float> result() const;  // scaled to length 1; zeros stay zeros

 private:
  Pooling pooling_;
  std::vector<double> sum_;
};

}  // namespace cairn::models
