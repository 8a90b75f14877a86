#include "formats/llama2c.h"

#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/error.h"

namespace cairn::formats {
namespace {

constexpr uint32_t kMagic = 0x616b3432;  // "ak42"
constexpr uint64_t kHeader = 256;        // versions 1 and 2
constexpr int32_t kLargestField = 1 << 24;
constexpr int32_t kMostLayers = 4096;

struct Header {
  int version = 0;  // 0: legacy
  int64_t dim = 0, hidden = 0, layers = 0, heads = 0, kv_heads = 0, vocab = 0, context = 0;
  bool shared_classifier = false;
  int64_t group = 0;  // version 2: int8 values that share a scale
  uint64_t bytes = 0;

  int64_t head_dim() const { return dim / heads; }
  int64_t kv_dim() const { return head_dim() * kv_heads; }
};

template <typename T>
T load(std::span<const std::byte> bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

Header read_header(std::span<const std::byte> bytes, const std::string& name) {
  const auto invalid = [&](const std::string& message) {
    fail(ErrorKind::invalid_file, "{}: not a llama2.c checkpoint: {}", name, message);
  };
  if (bytes.size() < 28) invalid(fmt::format("it has {} bytes, the smallest header 28", bytes.size()));
  Header header;
  uint64_t at = 0;
  if (load<uint32_t>(bytes, 0) == kMagic) {
    header.version = load<int32_t>(bytes, 4);
    if (header.version != 1 && header.version != 2)
      fail(ErrorKind::unsupported,
           "{}: llama2.c version {} is unknown; legacy files and versions 1 and 2 are read", name,
           header.version);
    if (bytes.size() < kHeader) invalid(fmt::format("it has {} bytes, its header {}", bytes.size(), kHeader));
    at = 8;
  }
  const auto field = [&](const char* what, int32_t largest) {
    const auto value = load<int32_t>(bytes, at);
    at += 4;
    if (value < 1 || value > largest)
      invalid(fmt::format("{} is {}; it must lie between 1 and {}", what, value, largest));
    return int64_t{value};
  };
  header.dim = field("dim", kLargestField);
  header.hidden = field("hidden_dim", kLargestField);
  header.layers = field("n_layers", kMostLayers);
  header.heads = field("n_heads", kLargestField);
  header.kv_heads = field("n_kv_heads", kLargestField);
  if (header.version == 0) {  // a negative vocabulary says that the classifier has weights of its own
    const auto vocab = load<int32_t>(bytes, at);
    at += 4;
    header.shared_classifier = vocab > 0;
    header.vocab = vocab < 0 ? -int64_t{vocab} : vocab;
    if (header.vocab < 1 || header.vocab > kLargestField)
      invalid(fmt::format("vocab_size is {}; its size must lie between 1 and {}", vocab, kLargestField));
  } else {
    header.vocab = field("vocab_size", kLargestField);
  }
  header.context = field("max_seq_len", kLargestField);
  header.bytes = at;
  if (header.version > 0) {
    header.shared_classifier = load<uint8_t>(bytes, at) != 0;
    header.bytes = kHeader;
  }
  if (header.version == 2) {
    header.group = load<int32_t>(bytes, at + 1);
    if (header.group < 1 || header.group > kLargestField)
      invalid(fmt::format("the group size is {}; it must lie between 1 and {}", header.group, kLargestField));
  }
  if (header.dim % header.heads != 0)
    invalid(fmt::format("dim {} is no multiple of n_heads {}", header.dim, header.heads));
  if (header.heads % header.kv_heads != 0)
    invalid(fmt::format("n_heads {} is no multiple of n_kv_heads {}", header.heads, header.kv_heads));
  if (header.head_dim() % 2 != 0) invalid(fmt::format("the head size {} is odd", header.head_dim()));
  return header;
}

// Hands out the file's weights in order; both kinds of storage end as f32 tensors.
class Weights {
 public:
  Weights(const Header& header, Checkpoint& checkpoint, const std::string& name)
      : header_(header),
        checkpoint_(checkpoint),
        name_(name),
        bytes_(checkpoint.files.front().bytes()),
        position_(header.bytes) {}

  // f32 in the file; its bytes are used where they lie.
  void plain(std::string tensor, std::vector<int64_t> shape) {
    const uint64_t count = elements(tensor, shape);
    add(std::move(tensor), std::move(shape), take(tensor, count * 4));
  }

  // One weight per layer, layer after layer.
  void plain_layers(const std::string& tensor, const std::vector<int64_t>& shape) {
    for (int64_t layer = 0; layer < header_.layers; ++layer) plain(layer_name(layer, tensor), shape);
  }

  void matrix(std::string tensor, std::vector<int64_t> shape) {
    if (header_.version == 2)
      quantized(std::move(tensor), std::move(shape));
    else
      plain(std::move(tensor), std::move(shape));
  }

  void matrix_layers(const std::string& tensor, const std::vector<int64_t>& shape) {
    for (int64_t layer = 0; layer < header_.layers; ++layer) matrix(layer_name(layer, tensor), shape);
  }

  void skip(const char* what, uint64_t count) { take(what, count); }

  void check_end() const {
    if (position_ != bytes_.size())
      fail(ErrorKind::invalid_file,
           "{}: the weights that its header describes end at byte {}, but the file has {}", name_, position_,
           bytes_.size());
  }

 private:
  static std::string layer_name(int64_t layer, const std::string& tensor) {
    return fmt::format("model.layers.{}.{}.weight", layer, tensor);
  }

  uint64_t elements(const std::string& tensor, const std::vector<int64_t>& shape) const {
    uint64_t count = 1;  // two factors up to 2^24: no overflow, also not times 5 bytes
    for (const int64_t size : shape) count *= uint64_t(size);
    if (header_.group && shape.size() > 1 && count % uint64_t(header_.group) != 0)
      fail(ErrorKind::invalid_file, "{}: tensor '{}' has {} elements, no multiple of the group size {}",
           name_, tensor, count, header_.group);
    return count;
  }

  std::span<const std::byte> take(const std::string& tensor, uint64_t count) {
    if (count > bytes_.size() - position_)
      fail(ErrorKind::invalid_file,
           "{}: tensor '{}' takes {} bytes from byte {} on, but the file has only {}; it is "
           "cut off, or no llama2.c checkpoint",
           name_, tensor, count, position_, bytes_.size());
    const auto place = bytes_.subspan(position_, count);
    position_ += count;
    return place;
  }

  // int8 values, then one f32 scale per group: w = scale * q.
  void quantized(std::string tensor, std::vector<int64_t> shape) {
    const uint64_t count = elements(tensor, shape), groups = count / uint64_t(header_.group);
    const auto values = take(tensor, count), scales = take(tensor, groups * 4);
    auto buffer = std::make_shared<AlignedBuffer>(count * 4);
    auto* decoded = reinterpret_cast<float*>(buffer->data());
    for (uint64_t group = 0; group < groups; ++group) {
      const auto scale = load<float>(scales, group * 4);
      for (uint64_t i = group * uint64_t(header_.group); i < (group + 1) * uint64_t(header_.group); ++i)
        decoded[i] = scale * float(load<int8_t>(values, i));
    }
    add(std::move(tensor), std::move(shape), buffer->span());
    checkpoint_.owned.push_back(std::move(buffer));
  }

  void add(std::string tensor, std::vector<int64_t> shape, std::span<const std::byte> bytes) {
    checkpoint_.index.emplace(tensor, checkpoint_.tensors.size());
    checkpoint_.tensors.push_back({.name = std::move(tensor), .shape = std::move(shape), .bytes = bytes});
  }

  const Header& header_;
  Checkpoint& checkpoint_;
  const std::string& name_;
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kAttentionNorm = "input_layernorm";
constexpr const char* kFeedForwardNorm = "post_attention_layernorm";

void read_matrices(const Header& h, Weights& weights, const std::function<void()>& between) {
  weights.matrix_layers("self_attn.q_proj", {h.dim, h.dim});
  weights.matrix_layers("self_attn.k_proj", {h.kv_dim(), h.dim});
  weights.matrix_layers("self_attn.v_proj", {h.kv_dim(), h.dim});
  weights.matrix_layers("self_attn.o_proj", {h.dim, h.dim});
  between();
  weights.matrix_layers("mlp.gate_proj", {h.hidden, h.dim});
  weights.matrix_layers("mlp.down_proj", {h.dim, h.hidden});
  weights.matrix_layers("mlp.up_proj", {h.hidden, h.dim});
}

// legacy_export: norms stand between the matrices, and tables of rope angles before the classifier.
void read_legacy(const Header& h, Weights& weights) {
  weights.plain(kEmbedding, {h.vocab, h.dim});
  weights.plain_layers(kAttentionNorm, {h.dim});
  read_matrices(h, weights, [&] { weights.plain_layers(kFeedForwardNorm, {h.dim}); });
  weights.plain("model.norm.weight", {h.dim});
  const uint64_t angles = uint64_t(h.context) * uint64_t(h.head_dim() / 2) * 4;
  weights.skip("freqs_cos", angles);
  weights.skip("freqs_sin", angles);
  if (!h.shared_classifier) weights.plain("lm_head.weight", {h.vocab, h.dim});
}

// version1_export and version2_export: all norms first.
void read_versioned(const Header& h, Weights& weights) {
  weights.plain_layers(kAttentionNorm, {h.dim});
  weights.plain_layers(kFeedForwardNorm, {h.dim});
  weights.plain("model.norm.weight", {h.dim});
  weights.matrix(kEmbedding, {h.vocab, h.dim});
  read_matrices(h, weights, [] {});
  if (!h.shared_classifier) weights.matrix("lm_head.weight", {h.vocab, h.dim});
}

nlohmann::json config_of(const Header& header) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"hidden_size", header.dim},
          {"intermediate_size", header.hidden},
          {"num_hidden_layers", header.layers},
          {"num_attention_heads", header.heads},
          {"num_key_value_heads", header.kv_heads},
          {"vocab_size", header.vocab},
          {"max_position_embeddings", header.context},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"tie_word_embeddings", header.shared_classifier},
          {"bos_token_id", 1},
          {"eos_token_id", 2},
          {"cairn_rope_pairing", "adjacent"}};
}

}  // namespace

Checkpoint parse_llama2c(MappedFile file) {
  const std::string name = file.path().string();
  Checkpoint checkpoint;
  checkpoint.format = Format::llama2c;
  checkpoint.path = file.path();
  checkpoint.files.push_back(std::move(file));
  const Header header = read_header(checkpoint.files.front().bytes(), name);
  Weights weights(header, checkpoint, name);
  if (header.version == 0)
    read_legacy(header, weights);
  else
    read_versioned(header, weights);
  weights.check_end();
  checkpoint.config = std::make_shared<const nlohmann::json>(config_of(header));
  checkpoint.config_name = name;
  return checkpoint;
}

Checkpoint open_llama2c(const std::filesystem::path& path) { return parse_llama2c(MappedFile(path)); }

}  // namespace cairn::formats
