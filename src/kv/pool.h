// The keys and values of all sequences of one model, in pages of a fixed number of tokens taken from one
// pool.
//
// A page holds page_tokens tokens of one sequence for every layer. K and V are separate segments (their head
// sizes may differ), each laid out [layer][page][kv_head][token][head_dim]: one head's tokens of a page are
// consecutive, so that a decode step streams whole runs (4 KiB for 32 tokens of 64 f16) into tiles of tokens
// x head_dim, and pages that were allocated one after the other continue each other within a layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"

namespace cairn::kv {

enum class Part : uint8_t { K, V };
// e4m3: 8-bit floats, with GPUs only. q8_0 rows on a GPU are laid out differently
// (backends/cuda/attention.h), in as many bytes.
enum class KvForm : uint8_t { f32, f16, bf16, q8_0, e4m3 };
std::string_view to_string(KvForm);

struct KvConfig {
  int layers = 0;
  int kv_heads = 0;
  int head_dim_k = 0, head_dim_v = 0;
  int page_tokens = 32;  // power of two
  KvForm form = KvForm::f16;
  int64_t pages = 0;
  bool operator==(const KvConfig&) const = default;
};

// Bytes of one head's vector of one token. q8_0 rows are whole blocks of 32; the last one is padded with
// zeros.
int64_t row_bytes(KvForm, int head_dim);

// 16 times the bytes of a cached element, keys and values together: what program::StepSizes counts with.
int bytes_per_element_x16(const KvConfig&);

class KvPool {
 public:
  // Bytes that a pool of this configuration reserves (touched only as pages are written). Throws
  // Error(invalid_argument) for a configuration that makes no sense or whose size passes 2^63.
  static int64_t bytes(const KvConfig&);

  // Where the pages' bytes lie: in this pool, or with a backend that addresses its own memory by the same
  // page numbers (then head() must not be called).
  enum class Memory : uint8_t { host, elsewhere };
  explicit KvPool(const KvConfig&, Memory = Memory::host);  // throws Error(out_of_memory)

  const KvConfig& config() const { return config_; }
  int64_t free_pages() const { return int64_t(free_.size()); }
  int64_t pages_of(int64_t tokens) const { return (tokens + config_.page_tokens - 1) / config_.page_tokens; }

  // Appends `count` pages of one reference each to `pages`; all or none. Throws Error(out_of_memory) that
  // says how many are needed and how many there are.
  void allocate(int64_t count, std::vector<int32_t>& pages);
  void retain(int32_t page);   // one more sequence reads this page
  void release(int32_t page);  // the last release makes it free
  int references(int32_t page) const { return references_[size_t(page)]; }

  // Copies a page's first `tokens` tokens of every layer. Where the bytes lie elsewhere, whoever keeps them
  // says how (copying more than asked is fine); until then pages can only be shared whole.
  using PageCopy = std::function<void(int32_t from, int32_t to, int64_t tokens)>;
  void set_page_copy(PageCopy copy) { copy_ = std::move(copy); }
  bool can_copy() const { return k_.memory.data() != nullptr || copy_ != nullptr; }
  void copy_page(int32_t from, int32_t to, int64_t tokens);

  // One of this page's references belongs to a cache (PrefixTree) that gives it back when room is needed.
  void set_cached(int32_t page, bool cached);
  // Pages to which nobody but the cache refers.
  int64_t idle_cached_pages() const { return idle_cached_; }

  int64_t row_bytes(Part part) const { return segment(part).row_bytes; }
  int head_dim(Part part) const { return part == Part::K ? config_.head_dim_k : config_.head_dim_v; }

  // Where the rows of a head begin in a page: page_tokens rows, row_bytes(part) apart.
  const std::byte* head(Part part, int layer, int32_t page, int kv_head) const {
    const Segment& s = segment(part);
    return s.memory.data() +
           ((int64_t{layer} * config_.pages + page) * config_.kv_heads + kv_head) * s.head_bytes;
  }
  std::byte* head(Part part, int layer, int32_t page, int kv_head) {
    return const_cast<std::byte*>(std::as_const(*this).head(part, layer, page, kv_head));
  }

 private:
  struct Segment {
    AlignedBuffer memory;
    int64_t row_bytes = 0, head_bytes = 0;
  };
  const Segment& segment(Part part) const { return part == Part::K ? k_ : v_; }

  KvConfig config_;
  Segment k_, v_;
  PageCopy copy_;
  std::vector<int32_t> free_;  // the back is handed out first
  std::vector<int32_t> references_;
  std::vector<bool> cached_;
  int64_t idle_cached_ = 0;
};

// One sequence's pages in order and how many tokens they hold. Not copyable: its pages are its own
// references. Pages may be shared with other sequences and a prefix tree; a shared page is never written: a
// sequence that continues inside of one takes a copy first.
class Sequence {
 public:
  explicit Sequence(KvPool& pool) : pool_(&pool) {}
  ~Sequence() { release(); }
  Sequence(Sequence&&) noexcept;
  Sequence& operator=(Sequence&&) noexcept;

  int64_t length() const { return length_; }
  std::span<const int32_t> block_table() const { return pages_; }

  // Begins an empty sequence with tokens that are already cached. Takes over one reference to each page;
  // there are pages_of(tokens) of them, and the last may be partly used and shared.
  void adopt(std::span<const int32_t> pages, int64_t tokens);
  // A second sequence with the same tokens, sharing all pages; whoever goes on first inside a partly filled
  // last page takes a copy. Where pages cannot be copied the fork ends at a page's end: compare the lengths.
  Sequence fork() const;
  // Replaces a page by another that holds the same rows and takes over one reference to it.
  void share_page(size_t index, int32_t page);

  // Pages that reserve(tokens) would take from the pool, a copy of a shared last page included.
  int64_t pages_needed(int64_t tokens) const;
  bool must_copy() const;  // the next token would lie in a page that others read
  // Makes room for `tokens` more without changing the length; throws as KvPool::allocate and then changes
  // nothing. Throws Error(unsupported) when a shared page had to be copied and cannot be.
  void reserve(int64_t tokens);
  // Counts `tokens` more as present, reserving what is missing. Their rows are written by the backend's
  // append.
  void append(int64_t tokens);
  // Forgets all tokens from `length` on and frees the pages that only they used. length <= length().
  void truncate(int64_t length);
  void release() { truncate(0); }

 private:
  KvPool* pool_;
  std::vector<int32_t> pages_;
  int64_t length_ = 0;
};

}  // namespace cairn::kv
