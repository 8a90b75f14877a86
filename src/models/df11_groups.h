// Finds the weights of a folder that was published as DFloat11 (codecs/df11.h): config.json's dfloat11_config
// names the matrices of every group, in their order; the tensors `<block>.luts`, `.encoded_exponent`,
// `.sign_mantissa`, `.output_positions`, `.gaps` and `.split_positions` hold it. A block without them has
// plain tensors: the tensors decide.
#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "codecs/df11.h"
#include "codecs/stored_weight.h"
#include "formats/checkpoint.h"

namespace cairn::models {

class Df11Groups {
 public:
  // None when the config has no such field. Checks what codecs::Df11Group checks. Throws Error naming the
  // group and the field.
  Df11Groups(const formats::Checkpoint&, const nlohmann::json& config, const std::string& file);

  struct Found {
    std::shared_ptr<const codecs::Df11Group> group;
    codecs::StoredPiece piece;
  };
  // Rows [first_row, first_row + rows) of `name` ("model.layers.0.mlp.up_proj.weight"), a matrix of
  // stored_rows by cols. Nullopt when it is in no group.
  std::optional<Found> find(const std::string& name, int64_t first_row, int64_t rows, int64_t stored_rows,
                            int64_t cols) const;

 private:
  struct Module {
    size_t group = 0;
    int64_t begin = 0, end = 0;  // elements
  };
  struct Group {
    std::shared_ptr<const codecs::Df11Group> fields;
    int codes_file = -1, signs_file = -1, luts_file = -1;
  };
  std::vector<Group> groups_;
  std::map<std::string, Module, std::less<>> modules_;
};

}  // namespace cairn::models
