#include "backends/cpu/packed_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <string_view>

#include "base/cache_folder.h"
#include "base/error.h"

namespace cairn::cpu {
namespace {

namespace fs = std::filesystem;

std::string_view environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

// A living writer holds a lock on its file.
void remove_abandoned(const fs::path& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) unlink(file.c_str());
  close(fd);
}

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

PackedFolder PackedFolder::from_environment() {
  PackedFolder folder;
  if (const auto limit = environment("CAIRN_WEIGHT_CACHE"); !limit.empty()) {
    uint64_t gibibytes = 0;
    const auto [end, error] = std::from_chars(limit.data(), limit.data() + limit.size(), gibibytes);
    if (error != std::errc() || end != limit.data() + limit.size() || gibibytes > uint64_t{1} << 30)
      fail(ErrorKind::invalid_argument,
           "CAIRN_WEIGHT_CACHE is '{}'; it must be 0 (off) or the most GiB that packed weights may take",
           limit);
    if (gibibytes == 0) return folder;
    folder.most_bytes = gibibytes << 30;
  }
  if (const auto root = cache_folder(); !root.empty()) folder.path = root / "packed";
  return folder;
}

bool make_room(const PackedFolder& folder, uint64_t bytes) {
  std::error_code error;
  fs::create_directories(folder.path, error);
  if (!fs::is_directory(folder.path, error)) return false;
  chmod(folder.path.c_str(), 0700);
  struct Held {
    fs::path path;
    uint64_t bytes;
    fs::file_time_type used;
  };
  std::vector<Held> held;
  uint64_t total = 0;
  for (const auto& entry : fs::directory_iterator(folder.path, error)) {
    std::error_code gone;  // another process may be tidying too
    if (entry.path().extension() == ".partial") remove_abandoned(entry.path());
    if (entry.path().extension() != ".packed") continue;
    const uint64_t size = entry.file_size(gone);
    const auto used = gone ? fs::file_time_type() : entry.last_write_time(gone);
    if (gone) continue;
    held.push_back({entry.path(), size, used});
    total += size;
  }
  const auto space = fs::space(folder.path, error);
  if (error) return false;
  const uint64_t most = folder.most_bytes != 0
                            ? folder.most_bytes
                            : std::min(uint64_t{32} << 30, (uint64_t(space.available) + total) / 10);
  if (bytes > most) return false;
  std::sort(held.begin(), held.end(), [](const Held& a, const Held& b) { return a.used < b.used; });
  for (const Held& file : held) {
    if (total + bytes <= most) break;
    fs::remove(file.path, error);
    total -= file.bytes;
  }
  return true;
}

PackedWriter::PackedWriter(PackedFolder folder, PackedSource source, std::vector<const std::byte*> matrices,
                           std::function<void(const std::string&)> on_end)
    : folder_(std::move(folder)),
      source_(source),
      matrices_(std::move(matrices)),
      on_end_(std::move(on_end)) {}

PackedWriter::~PackedWriter() {
  stop_ = true;
  if (thread_.joinable()) thread_.join();
}

void PackedWriter::start() {
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
}

void PackedWriter::finish(double seconds) {
  start();
  for (const double end = now_seconds() + seconds; !ended_ && now_seconds() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stop_ = true;
  thread_.join();
}

void PackedWriter::work() {
#if defined(SCHED_IDLE)
  // Answers come first: this thread gets what they leave.
  const sched_param none{};
  sched_setscheduler(0, SCHED_IDLE, &none);
#endif
  const uint64_t bytes = packed_file_bytes(source_.plans);
  const auto path = folder_.path / source_.key.file_name();
  std::string end;
  try {
    std::error_code error;
    if (fs::exists(path, error)) {
      end = fmt::format("packed weights are already in {}", path.string());  // by another process
    } else if (!make_room(folder_, bytes)) {
      end = fmt::format("packed weights ({} bytes) are not kept: {} has no room for them", bytes,
                        folder_.path.string());
    } else if (const auto why = write_packed_file(path, source_, matrices_, stop_)) {
      end = fmt::format("packed weights are not kept: {}", *why);
    } else {
      end = fmt::format("packed weights are kept in {} ({} bytes)", path.string(), bytes);
    }
  } catch (const std::exception& problem) {
    end = fmt::format("packed weights are not kept: {}", problem.what());
  }
  if (on_end_) on_end_(end);
  ended_ = true;
}

}  // namespace cairn::cpu
