// A Hugging Face folder again, with the matrices of its blocks as a method stores them: one shard of
// safetensors per transformer block and one for what lies outside of them, an index, config.json with a
// quantization_config, and the small files (tokenizer, chat template) as they are.
//
// The work happens in OUT.partial, which is renamed when everything is there. Shards that an earlier run with
// the same source and settings finished are kept, so that a killed run goes on where it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "models/model.h"
#include "quantize/method.h"

namespace cairn::quantize {

struct FolderJob {
  std::filesystem::path out;
  bool overwrite = false;  // replace `out` when it exists
  std::string settings;    // what tells this run from one with other settings
  // For methods that calibrate: token sequences (calibration_text.h).
  std::vector<std::vector<int32_t>> samples = {};
  // Bytes of the source that are done, of all; may throw to stop.
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};
};

struct FolderReport {
  int64_t matrices = 0;                                   // that the method stored
  uint64_t weights = 0;                                   // how many numbers they hold
  uint64_t before = 0, after = 0;                         // their bytes
  uint64_t all_before = 0, all_after = 0;                 // of all tensors
  int64_t resumed = 0;                                    // shards that were there
  std::vector<std::pair<std::string, std::string>> kept;  // matrices that stayed: name, why
  std::vector<std::string> lines;                         // of the method, and what was left out
};

// Throws Error(invalid_argument) when `out` exists and may not be replaced, or when no matrix can be encoded;
// Error(io) when the disk refuses (what is finished stays in OUT.partial).
FolderReport quantize_folder(const models::Model&, Encoder&, const FolderJob&, ThreadPool&);

}  // namespace cairn::quantize
