// The folder that holds packed files, and the thread that adds one when nothing else is to be done.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "backends/cpu/packed_file.h"

namespace cairn::cpu {

struct PackedFolder {
  std::filesystem::path path;                 // empty: packed weights are not kept
  uint64_t least_bytes = uint64_t{64} << 20;  // what packs in a blink is not worth a file
  uint64_t most_bytes = 0;  // of all files together; 0: 32 GiB or a tenth of what the disk has free
  // "packed" in the cache folder. CAIRN_WEIGHT_CACHE is 0: none; another number: the most bytes, in GiB.
  // Throws Error(invalid_argument) for anything else.
  static PackedFolder from_environment();
};

// Removes what writers that died left behind and, oldest use first, as many packed files as are in the way of
// `bytes` more. False when even an emptied folder has no room. Creates the folder, for its owner only.
bool make_room(const PackedFolder&, uint64_t bytes);

// Writes one packed file on a thread that runs only where a processor would idle.
class PackedWriter {
 public:
  // What the source and `matrices` refer to must outlive the writer.
  PackedWriter(PackedFolder, PackedSource, std::vector<const std::byte*> matrices,
               std::function<void(const std::string&)> on_end);
  ~PackedWriter();  // gives up what is not yet written

  void start();                 // at once, or not again
  void finish(double seconds);  // starts, and waits at most so long

 private:
  void work();

  PackedFolder folder_;
  PackedSource source_;
  std::vector<const std::byte*> matrices_;
  std::function<void(const std::string&)> on_end_;  // one line: what was written, or why not
  std::atomic<bool> stop_{false}, ended_{false};
  std::thread thread_;
};

}  // namespace cairn::cpu
