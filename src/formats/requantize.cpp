#include "formats/requantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "formats/gguf_writer.h"

namespace cairn::formats {
namespace {

using codecs::CodecId;

constexpr Recipe kRecipes[] = {
    {"f32", CodecId::f32, CodecId::f32, 0},         {"f16", CodecId::f16, CodecId::f16, 1},
    {"bf16", CodecId::bf16, CodecId::bf16, 32},     {"q4_0", CodecId::q4_0, CodecId::q6_k, 2},
    {"q4_1", CodecId::q4_1, CodecId::q6_k, 3},      {"q5_0", CodecId::q5_0, CodecId::q6_k, 8},
    {"q5_1", CodecId::q5_1, CodecId::q6_k, 9},      {"q8_0", CodecId::q8_0, CodecId::q8_0, 7},
    {"q2_k", CodecId::q2_k, CodecId::q4_k, 10},     {"q3_k_m", CodecId::q3_k, CodecId::q5_k, 12},
    {"q4_k_s", CodecId::q4_k, CodecId::q6_k, 14},   {"q4_k_m", CodecId::q4_k, CodecId::q6_k, 15},
    {"q5_k_s", CodecId::q5_k, CodecId::q6_k, 16},   {"q5_k_m", CodecId::q5_k, CodecId::q6_k, 17},
    {"q6_k", CodecId::q6_k, CodecId::q6_k, 18},     {"iq4_nl", CodecId::iq4_nl, CodecId::q6_k, 25},
    {"iq4_xs", CodecId::iq4_xs, CodecId::q6_k, 30}, {"tq1_0", CodecId::tq1_0, CodecId::q6_k, 36},
    {"tq2_0", CodecId::tq2_0, CodecId::q6_k, 37},
};

bool is_float(CodecId id) {
  return id == CodecId::f32 || id == CodecId::f16 || id == CodecId::bf16 || id == CodecId::f64;
}
bool is_number(CodecId id) {
  return id == CodecId::i8 || id == CodecId::i16 || id == CodecId::i32 || id == CodecId::i64;
}
bool contains(std::string_view text, std::string_view part) { return text.find(part) != text.npos; }

// The layer of "blk.12.attn_v.weight".
std::optional<int64_t> layer_of(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  int64_t layer = 0;
  const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return layer;
}

// Matrices of products and lookups; routers decide between experts and are small.
bool is_matrix(const Tensor& t) {
  return t.shape.size() >= 2 && t.shape.front() > 1 && std::string_view(t.name).ends_with(".weight") &&
         !contains(t.name, "norm") && !contains(t.name, "ffn_gate_inp") && !contains(t.name, "ssm_conv1d");
}

// In a mix: the first and last eighth of the layers and every third between them.
bool takes_more(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

CodecId wanted(const Recipe& recipe, const std::string& name, bool tied, int64_t layers) {
  if (name == "output.weight" || (name == "token_embd.weight" && tied)) return recipe.more;
  const bool mix = recipe.name.ends_with("_m");
  const auto layer = layer_of(name);
  if (mix && layer && (contains(name, "attn_v.") || contains(name, "ffn_down")) && takes_more(*layer, layers))
    return recipe.more;
  return recipe.codec;
}

// What a row that is no whole blocks of `id` is held in instead.
CodecId with_smaller_blocks(CodecId id, int64_t cols) {
  if (cols % 32 != 0) return CodecId::f16;
  switch (id) {
    case CodecId::q2_k:
    case CodecId::q3_k:
    case CodecId::iq4_xs:
    case CodecId::tq1_0:
    case CodecId::tq2_0: return CodecId::iq4_nl;
    case CodecId::q4_k: return CodecId::q5_0;
    case CodecId::q5_k: return CodecId::q5_1;
    default: return CodecId::q8_0;
  }
}

}  // namespace

std::span<const Recipe> recipes() { return kRecipes; }
const Recipe* find_recipe(std::string_view name) {
  for (const auto& r : kRecipes)
    if (r.name == name) return &r;
  return nullptr;
}

std::vector<PlannedTensor> plan_requantize(const Gguf& source, const Recipe& recipe, bool again) {
  std::vector<PlannedTensor> plan;
  const bool tied = std::none_of(source.tensors.begin(), source.tensors.end(),
                                 [](const Tensor& t) { return t.name == "output.weight"; });
  int64_t layers = 0;
  for (const auto& t : source.tensors) layers = std::max(layers, layer_of(t.name).value_or(-1) + 1);
  for (size_t i = 0; i < source.tensors.size(); ++i) {
    const Tensor& t = source.tensors[i];
    PlannedTensor p{i, t.codec, {}, t.bytes.size()};
    if (is_matrix(t) && !is_number(t.codec)) {
      const CodecId codec = wanted(recipe, t.name, tied, layers);
      if (!is_float(t.codec) && t.codec != codec && !again)
        fail(ErrorKind::invalid_argument,
             "{}: tensor '{}' is {} already; quantizing it again loses twice\nhint: start from the f16 or "
             "bf16 file, or say --again",
             source.name, t.name, codecs::codec(t.codec).name);
      if (!codecs::codec(t.codec).decode)
        fail(ErrorKind::unsupported, "{}: tensor '{}' is {}, which cairn does not read", source.name, t.name,
             codecs::codec(t.codec).name);
      const int64_t cols = t.shape.back();
      p.codec = codec;
      if (cols % codecs::codec(codec).block_elements != 0) {
        p.codec = with_smaller_blocks(codec, cols);
        p.note = fmt::format("{} columns are no whole blocks of {}", cols, codecs::codec(codec).name);
      }
      p.bytes = *codecs::row_bytes(codecs::codec(p.codec), uint64_t(cols)) * uint64_t(t.elements() / cols);
    }
    plan.push_back(std::move(p));
  }
  return plan;
}

void requantize(const Gguf& source, const Recipe& recipe, std::span<const PlannedTensor> plan,
                const std::filesystem::path& out, ThreadPool& pool,
                const std::function<void(uint64_t, uint64_t)>& on_progress, const Importance& importance) {
  GgufWriter writer(out, source.alignment);
  for (size_t i = 0; i < source.metadata.size(); ++i) {
    const auto& key = source.metadata[i].first;
    if (key != "general.file_type" && key != "general.quantization_version" && key != "general.alignment" &&
        !key.starts_with("split."))
      writer.add_encoded(key, source.encoded[i]);
  }
  writer.add_u32("general.file_type", recipe.file_type);
  writer.add_u32("general.quantization_version", 2);
  uint64_t total = 0, done = 0;
  for (const auto& p : plan) {
    const Tensor& t = source.tensors[p.source];
    writer.add_tensor(t.name, p.codec, t.shape);
    total += t.bytes.size();
  }
  // Slices bound the memory: as many rows as make 4 million values.
  std::vector<float> values;
  std::vector<std::byte> blocks;
  for (const auto& p : plan) {
    const Tensor& t = source.tensors[p.source];
    if (p.codec == t.codec) {
      writer.write(t.bytes);
      done += t.bytes.size();
      if (on_progress) on_progress(done, total);
      continue;
    }
    const auto &from = codecs::codec(t.codec), &to = codecs::codec(p.codec);
    const int64_t cols = t.shape.back(), rows = t.elements() / cols;
    const auto from_bytes = size_t(*codecs::row_bytes(from, uint64_t(cols))),
               to_bytes = size_t(*codecs::row_bytes(to, uint64_t(cols)));
    const auto counts = importance.find(t.name);
    const int64_t rows_each =
        t.shape.size() == 3 ? t.shape[1] : rows;  // that share their columns' importance
    if (counts != importance.end() && int64_t(counts->second.size()) != rows / rows_each * cols)
      fail(ErrorKind::invalid_argument, "{}: tensor '{}' has {} columns that count, its importance {}",
           source.name, t.name, rows / rows_each * cols, counts->second.size());
    const int64_t slice = std::max<int64_t>(1, (int64_t{1} << 22) / cols);
    for (int64_t first = 0; first < rows; first += slice) {
      const int64_t count = std::min(slice, rows - first);
      values.resize(size_t(count * cols));
      blocks.resize(size_t(count) * to_bytes);
      std::mutex mutex;
      int64_t broken = -1;
      pool.split(count, 1, [&](Range part) {
        for (int64_t r = part.begin; r < part.end; ++r) {
          float* row = values.data() + r * cols;
          from.decode(t.bytes.data() + size_t(first + r) * from_bytes, row, cols);
          if (!std::all_of(row, row + cols, [](float v) { return std::isfinite(v); })) {
            const std::lock_guard lock(mutex);
            broken = first + r;
            return;
          }
          to.encode(
              row, blocks.data() + size_t(r) * to_bytes, cols,
              counts == importance.end() ? nullptr : counts->second.data() + (first + r) / rows_each * cols);
        }
      });
      if (broken >= 0)
        fail(ErrorKind::invalid_file, "{}: tensor '{}' has a value that is not finite in row {}", source.name,
             t.name, broken);
      writer.write(blocks);
      done += size_t(count) * from_bytes;
      if (on_progress) on_progress(done, total);
    }
  }
  writer.finish();
}

}  // namespace cairn::formats
