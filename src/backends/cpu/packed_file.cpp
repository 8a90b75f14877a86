#include "backends/cpu/packed_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>

#include "base/checked.h"
#include "base/content_hash.h"
#include "base/error.h"
#include "codecs/split_weight.h"

namespace cairn::cpu {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'c', 'a', 'i', 'r', 'n', 'p', 'k', '1'};
constexpr uint64_t kDataBegin = uint64_t{2} << 20;  // huge pages of the page cache begin here
constexpr uint64_t kMatrixAlignment = 4096;
constexpr size_t kHashPiece = size_t{1} << 20;
constexpr size_t kWritePiece = size_t{4} << 20;  // whole huge pages of the page cache

// What may be written again while others have the file open: checked apart, and worth no more than a wish.
struct State {
  std::array<uint64_t, 2> boot = {};  // of the machine, when the file was last known to be whole
  uint64_t stamps = 0;                // of the model's files then
  uint64_t check = 0;
  uint64_t right_check() const { return content_hash(std::as_bytes(std::span(this, 1)).first(24)); }
};

struct Header {
  char magic[8] = {};
  uint64_t file_bytes = 0;
  std::array<uint64_t, 2> key = {};
  uint64_t source_hash = 0;  // of all weights in the model's files
  uint64_t count = 0;
  uint64_t check = 0;  // of the fields above and the entries
  uint64_t unused = 0;
  State state;
  uint64_t padding[4] = {};
};
static_assert(sizeof(Header) == 128 && offsetof(Header, state) == 64);

struct Entry {
  uint64_t at = 0, bytes = 0, hash = 0;
};

uint64_t header_check(const Header& header, std::span<const Entry> entries) {
  return combine_hashes(content_hash(std::as_bytes(std::span(&header, 1)).first(offsetof(Header, check))),
                        content_hash(std::as_bytes(entries)));
}

// The places that the matrices have in a file, hashes not yet filled in.
std::vector<Entry> places(std::span<const MatrixPlan> plans) {
  std::vector<Entry> entries;
  uint64_t at = uint64_t(round_up(int64_t(sizeof(Header) + plans.size() * sizeof(Entry)), kDataBegin));
  for (const auto& plan : plans) {
    entries.push_back({at, plan.bytes(), 0});
    at = uint64_t(round_up(int64_t(at + plan.bytes()), kMatrixAlignment));
  }
  return entries;
}

uint64_t file_bytes(std::span<const Entry> entries) {
  // A kernel may load a vector past its last panel.
  return entries.empty() ? kDataBegin
                         : uint64_t(round_up(int64_t(entries.back().at + entries.back().bytes + 64),
                                             int64_t(kMatrixAlignment)));
}

// Hash of parts that follow each other, in pieces that threads can share.
struct Pieces {
  std::vector<std::span<const std::byte>> pieces;
  std::vector<uint64_t> hashes;
  void add(std::span<const std::byte> part) {
    for (size_t at = 0; at < part.size(); at += kHashPiece)
      pieces.push_back(part.subspan(at, std::min(kHashPiece, part.size() - at)));
    hashes.resize(pieces.size());
  }
  void hash(size_t i) { hashes[i] = content_hash(pieces[i], i); }
  void hash(ThreadPool& pool) {
    std::atomic<size_t> next{0};
    pool.run([&](int) {
      for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < pieces.size();) hash(i);
    });
  }
  uint64_t all() const { return content_hash(std::as_bytes(std::span(hashes))); }
};

Pieces source_pieces(const PackedSource& source) {
  Pieces pieces;
  for (const auto& plan : source.plans)
    for (const auto& piece : source.stored[plan.weight].pieces) {
      pieces.add({piece.data, piece.bytes});
      for (const auto& part : piece.beside) pieces.add({part.data, part.bytes});
    }
  return pieces;
}

uint64_t stamps_of(std::span<const MappedFile> files) {
  uint64_t hash = files.size();
  for (const auto& file : files) {
    const FileStamp stamp = file.stamp();
    hash = combine_hashes(hash, content_hash(std::as_bytes(std::span(&stamp, 1))));
  }
  return hash;
}

// Names this run of the machine; zeros where that cannot be known, which never matches.
std::array<uint64_t, 2> boot_id() {
  std::array<uint64_t, 2> id = {};
  std::ifstream in("/proc/sys/kernel/random/boot_id");
  std::string text;
  if (!std::getline(in, text)) return id;
  const auto bytes = std::as_bytes(std::span(text));
  id = {content_hash(bytes, 1), content_hash(bytes, 2)};
  return id;
}

State state_now(std::span<const MappedFile> files) {
  State state{boot_id(), stamps_of(files), 0};
  state.check = state.right_check();
  return state;
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

bool write_at(int fd, const void* data, size_t bytes, uint64_t at) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = pwrite(fd, from, bytes, off_t(at));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    from += count, at += uint64_t(count), bytes -= size_t(count);
  }
  return true;
}

// What packing makes of 17 rows (two panels) of fixed random bytes.
uint64_t packed_sample(const MatMulKernel& kernel, int64_t cols) {
  constexpr int64_t kRows = kPanelRows + 1;
  const auto row = codecs::row_bytes(codecs::codec(kernel.codec), uint64_t(cols)).value_or(0);
  std::vector<uint32_t> random(size_t(kRows) * row / 4 + 1);
  std::minstd_rand generator(1);
  for (auto& word : random) word = uint32_t(generator());
  std::vector<std::byte> packed(kernel.packed_bytes(kRows, cols));
  kernel.pack(reinterpret_cast<const std::byte*>(random.data()), kRows, cols, {0, panels_of(kRows)},
              packed.data());
  return content_hash(packed);
}

}  // namespace

std::string PackedKey::file_name() const { return fmt::format("{:016x}{:016x}.packed", value[0], value[1]); }

uint64_t packed_file_bytes(std::span<const MatrixPlan> plans) { return file_bytes(places(plans)); }

PackedKey packed_key(std::span<const MatrixPlan> plans, std::span<const codecs::StoredWeight> stored) {
  constexpr size_t kSample = 4096;
  PackedKey key;
  std::vector<std::pair<std::pair<const MatMulKernel*, int64_t>, uint64_t>> layouts;
  const auto add = [&](uint64_t value) {
    key.value[0] = combine_hashes(key.value[0], value);
    key.value[1] = combine_hashes(value ^ key.value[1], uint64_t{0x70616b65});
  };
  const auto sample = [&](const auto& piece, uint64_t at) {  // a piece, or a part beside one
    at = std::min(at, piece.bytes - std::min<uint64_t>(piece.bytes, kSample));
    add(content_hash({piece.data + at, size_t(std::min<uint64_t>(kSample, piece.bytes))}));
  };
  for (const auto& plan : plans) {
    const auto& weight = stored[plan.weight];
    const std::pair id{plan.kernel, weight.cols};
    auto layout =
        std::find_if(layouts.begin(), layouts.end(), [&](const auto& known) { return known.first == id; });
    if (layout == layouts.end())
      layout = layouts.insert(layout, {id, packed_sample(*plan.kernel, weight.cols)});
    for (const uint64_t field :
         {uint64_t(plan.weight), uint64_t(plan.kernel->isa), uint64_t(weight.codec), layout->second,
          uint64_t(weight.rows), uint64_t(weight.cols), uint64_t(weight.transposed),
          uint64_t(weight.first_col), uint64_t(weight.stored_cols), uint64_t(plan.pieces),
          weight.pieces.front().bytes})
      add(field);
    if (weight.split) add(codecs::hash_of(*weight.split));
    sample(weight.pieces.front(), 0);
    const auto& middle = weight.pieces[weight.pieces.size() / 2];
    sample(middle, middle.bytes / 2);
    sample(weight.pieces.back(), weight.pieces.back().bytes);
    for (const auto& part : weight.pieces.front().beside)
      if (part.data) sample(part, part.bytes / 2);
  }
  return key;
}

std::optional<PackedFile> PackedFile::open(const fs::path& path, const PackedSource& source, ThreadPool& pool,
                                           std::string& why) {
  why.clear();
  PackedFile result;
  try {
    result.file_ = MappedFile(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::not_found) why = error.what();
    return std::nullopt;
  }
  const auto refuse = [&](std::string_view reason) {
    why = fmt::format("{} {}; it was removed", path.string(), reason);
    std::error_code ignored;
    fs::remove(path, ignored);
    return std::nullopt;
  };
  const auto bytes = result.file_.bytes();
  auto expected = places(source.plans);
  if (bytes.size() != file_bytes(expected)) return refuse("has another size than its model asks for");
  Header header;
  std::memcpy(&header, bytes.data(), sizeof header);
  std::vector<Entry> entries(expected.size());
  if (!entries.empty())
    std::memcpy(entries.data(), bytes.data() + sizeof header, entries.size() * sizeof(Entry));
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.file_bytes != bytes.size() ||
      header.count != entries.size() || header.check != header_check(header, entries))
    return refuse("has a damaged header");
  if (header.key != source.key.value) return refuse("holds other weights than its name says");
  for (size_t i = 0; i < entries.size(); ++i)
    if (entries[i].at != expected[i].at || entries[i].bytes != expected[i].bytes)
      return refuse("has its weights in other places");

  result.file_.prefer_huge_pages();
  const State now = state_now(source.files);
  const State& then = header.state;
  const bool trusted = then.check == then.right_check() && then.stamps == now.stamps &&
                       then.boot == now.boot && now.boot != std::array<uint64_t, 2>{};
  if (!trusted) {
    Pieces model = source_pieces(source);
    model.hash(pool);
    for (const auto& plan : source.plans)
      for (const auto& piece : source.stored[plan.weight].pieces)
        if (piece.file >= 0) source.files[size_t(piece.file)].drop({piece.data, piece.bytes});
    if (model.all() != header.source_hash) return refuse("was made from other weights");
    for (const Entry& entry : entries) {
      Pieces packed;
      packed.add(bytes.subspan(entry.at, entry.bytes));
      packed.hash(pool);
      if (packed.all() != entry.hash) return refuse("is damaged");
    }
    const Descriptor file{::open(path.c_str(), O_WRONLY | O_CLOEXEC)};
    if (file.fd >= 0) write_at(file.fd, &now, sizeof now, offsetof(Header, state));
  }
  // The time of last use, by which the oldest is found when room is needed.
  utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
  if (result.file_.in_page_cache()) result.file_.populate(bytes);
  for (const Entry& entry : entries) result.at_.push_back(entry.at);
  return result;
}

std::optional<std::string> write_packed_file(const fs::path& path, const PackedSource& source,
                                             std::span<const std::byte* const> matrices,
                                             const std::atomic<bool>& stop) {
  static std::atomic<uint64_t> counter{0};
  const std::string temporary = fmt::format("{}.{}.{}.partial", path.string(), getpid(), counter++);
  const Descriptor file{::open(temporary.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
  const auto error = [&](std::string_view what) {
    const std::string reason = fmt::format("{} {}: {}", what, temporary, std::strerror(errno));
    unlink(temporary.c_str());
    return reason;
  };
  if (file.fd < 0) return fmt::format("cannot create {}: {}", temporary, std::strerror(errno));
  flock(file.fd, LOCK_EX | LOCK_NB);  // tells a living writer's file from one left behind
  const auto give_up = [&](std::string reason) {
    unlink(temporary.c_str());
    return reason;
  };

  const State state = state_now(source.files);
  Pieces model = source_pieces(source);
  size_t hashed = 0;
  for (const auto& plan : source.plans)
    for (const auto& piece : source.stored[plan.weight].pieces) {
      const auto hash_part = [&](uint64_t part_bytes, int in_file) {
        for (size_t end = hashed + size_t(ceil_div(int64_t(part_bytes), kHashPiece)); hashed < end;
             ++hashed) {
          if (stop) return false;
          model.hash(hashed);
          if (in_file >= 0) source.files[size_t(in_file)].drop(model.pieces[hashed]);
        }
        return true;
      };
      bool whole = hash_part(piece.bytes, piece.file);
      for (const auto& part : piece.beside) whole = whole && hash_part(part.bytes, part.file);
      if (!whole) return give_up("stopped");
    }

  auto entries = places(source.plans);
  const uint64_t size = file_bytes(entries);
  if (ftruncate(file.fd, off_t(size)) != 0) return error("cannot size");
  for (size_t i = 0; i < entries.size(); ++i) {
    Entry& entry = entries[i];
    Pieces packed;
    packed.add({matrices[i], entry.bytes});
    size_t next = 0;
    for (uint64_t done = 0; done < entry.bytes;) {
      if (stop) return give_up("stopped");
      // Up to the next multiple in the file, so that the page cache gets whole huge pages.
      const uint64_t at = entry.at + done, end = (at / kWritePiece + 1) * kWritePiece;
      const size_t count = size_t(std::min(end - at, entry.bytes - done));
      if (!write_at(file.fd, matrices[i] + done, count, at)) return error("cannot write");
      done += count;
      for (; next < packed.pieces.size() && (next + 1) * kHashPiece <= done; ++next) packed.hash(next);
    }
    for (; next < packed.pieces.size(); ++next) packed.hash(next);
    entry.hash = packed.all();
  }

  Header header;
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.file_bytes = size;
  header.key = source.key.value;
  header.source_hash = model.all();
  header.count = entries.size();
  header.check = header_check(header, entries);
  header.state = state;
  if (!write_at(file.fd, entries.data(), entries.size() * sizeof(Entry), sizeof header) ||
      !write_at(file.fd, &header, sizeof header, 0))
    return error("cannot write");
  for (const auto& model_file : source.files)
    if (file_stamp(model_file.path()) != model_file.stamp())
      return give_up(fmt::format("{} changed while it was in use", model_file.path().string()));
  if (rename(temporary.c_str(), path.c_str()) != 0) return error("cannot rename");
  return std::nullopt;
}

}  // namespace cairn::cpu
