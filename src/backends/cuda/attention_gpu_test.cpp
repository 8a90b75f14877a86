// The attention kernels against the definition in double, over the values as the device holds them.
#include "backends/cuda/attention.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "backends/cuda/testing.h"
#include "base/checked.h"
#include "base/error.h"
#include "base/float16.h"

namespace cairn::cuda {
namespace {

using attention::AttentionPlan;
using kv::KvForm;

struct Sequence {
  int64_t length = 0;
  int32_t rows = 0;
  RowClass row_class = RowClass::decode;
};

struct Shape {
  int kv_heads = 2, group = 4, dim = 128, page = 32;
  KvForm form = KvForm::bf16;
  int window = 0;
  float softcap = 0;
  bool sinks = false, alibi = false, causal = true;
  int dim_v = 0;  // 0: as dim
  RopeKind rope = {};
  bool plain_prompt = false;  // attention_prompt.cu where Hopper has its own kernel
  bool masked = false;        // prompt rows too
  int cluster = 0;            // of attention_prompt_sm90.cu

  int heads() const { return kv_heads * group; }
  int v() const { return dim_v ? dim_v : dim; }
  std::string name() const {
    return fmt::format(
        "kv_heads {} group {} dim {}/{} page {} form {} window {} softcap {} sinks {} alibi {} causal {} "
        "cluster {}",
        kv_heads, group, dim, v(), page, to_string(form), window, softcap, sinks, alibi, causal, cluster);
  }
  AttentionTuning tuning() const {
    return {.prompt_cluster = cluster, .share = true, .plain_prompt = plain_prompt};
  }
  AttentionKind kind() const {
    return {.heads = heads(),
            .scale = 1.5f / std::sqrt(float(dim)),
            .window = window,
            .softcap = softcap,
            .sinks = sinks,
            .alibi = alibi,
            .causal = causal,
            .masked = masked};
  }
};

// 0x7f and 0xff are NaN.
float value_of_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 127) == 127) return std::nanf("");
  const float size =
      exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
  return code & 128 ? -size : size;
}
uint8_t nearest_e4m3(float x) {
  static const std::vector<float> sizes = [] {
    std::vector<float> all;
    for (int code = 0; code < 127; ++code) all.push_back(value_of_e4m3(uint8_t(code)));
    return all;
  }();
  auto above = std::lower_bound(sizes.begin(), sizes.end() - 1, std::abs(x));
  if (above != sizes.begin() && std::abs(x) - above[-1] < *above - std::abs(x)) --above;
  return uint8_t((above - sizes.begin()) + (x < 0 ? 128 : 0));
}

// A cache on the device with sequences in it, its copy here, and an engine. What no token owns is a NaN.
class World {
 public:
  // A sequence whose first `tokens` are the pages of another one before it.
  struct Fork {
    size_t sequence = 0, from = 0;
    int64_t tokens = 0;
  };
  World(testing::Gpu& gpu, const Shape& shape, const std::vector<int64_t>& lengths, unsigned seed,
        const std::vector<Fork>& forks = {})
      : gpu_(gpu), shape_(shape), lengths_(lengths), random_(seed) {
    config_ = {.layers = 2,
               .kv_heads = shape.kv_heads,
               .head_dim_k = shape.dim,
               .head_dim_v = shape.v(),
               .page_tokens = shape.page,
               .form = shape.form,
               .pages = 3};
    for (const int64_t n : lengths) config_.pages += ceil_div(n, shape.page);
    std::vector<int32_t> ids(size_t(config_.pages));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i);
    std::shuffle(ids.begin(), ids.end(), random_);
    size_t at = 0;
    for (const int64_t n : lengths) {
      const auto count = size_t(ceil_div(n, shape.page));
      tables_.emplace_back(ids.begin() + std::ptrdiff_t(at), ids.begin() + std::ptrdiff_t(at + count));
      at += count;
    }
    std::vector<int64_t> own(lengths.size());  // tokens before are another sequence's
    for (const Fork& f : forks) {
      own[f.sequence] = f.tokens / shape.page * shape.page;
      std::copy_n(tables_[f.from].begin(), f.tokens / shape.page, tables_[f.sequence].begin());
    }
    memory_ = Buffer(gpu.device, device_kv_bytes(config_));
    kv_ = DeviceKv::at(memory_.address(), config_);
    k_bytes_.assign(device_kv_bytes(layer_config(), kv::Part::K), 0xff);
    v_bytes_.assign(device_kv_bytes(layer_config(), kv::Part::V), 0xff);
    for (size_t s = 0; s < lengths.size(); ++s)
      for (int64_t t = own[s]; t < lengths[s]; ++t)
        for (int h = 0; h < shape.kv_heads; ++h) {
          fill_row(k_bytes_, slot(s, t, h), shape.dim);
          fill_row(v_bytes_, slot(s, t, h), shape.v());
        }
    k_ = values(k_bytes_, shape.dim), v_ = values(v_bytes_, shape.v());
    upload_cache();
    for (int h = 0; h < shape.heads(); ++h) {
      sinks_.push_back(2 + normal_(random_));
      slopes_.push_back(std::exp2(-8.f * float(h + 1) / float(shape.heads())));
    }
    sinks_device_ = gpu.upload(sinks_), slopes_device_ = gpu.upload(slopes_);
    AttentionLimits limits{
        .rows = 1024, .decode_rows = 256, .sequences = 256, .longest = 8192, .mask_words = 1 << 16};
    for (const int64_t n : lengths) limits.table_pages += 2 * ceil_div(n, shape.page) + 64;
    engine_ = std::make_unique<AttentionEngine>(gpu.device, gpu.kernels, config_, std::vector{shape.kind()},
                                                limits, shape.tuning());
  }

  kv::KvConfig layer_config() const {
    kv::KvConfig c = config_;
    c.layers = 1;
    return c;
  }
  void upload_cache() {
    gpu_.stream.fill(memory_.address(), 0xff, memory_.size());
    gpu_.stream.upload(kv_.layer(kv::Part::K, 1), k_bytes_.data(), layer_bytes(kv::Part::K));
    gpu_.stream.upload(kv_.layer(kv::Part::V, 1), v_bytes_.data(), layer_bytes(kv::Part::V));
    gpu_.stream.synchronize();
  }
  size_t layer_bytes(kv::Part part) const { return size_t(kv_.layer(part, 1) - kv_.layer(part, 0)); }
  // What layer 1 holds now.
  std::vector<float> download_cache(kv::Part part) {
    std::vector<uint8_t> bytes(part == kv::Part::K ? k_bytes_.size() : v_bytes_.size(), 0xff);
    gpu_.stream.download(bytes.data(), kv_.layer(part, 1), layer_bytes(part));
    gpu_.stream.synchronize();
    return values(bytes, part == kv::Part::K ? shape_.dim : shape_.v());
  }

  bool blocks() const { return shape_.form == KvForm::q8_0; }
  bool e4m3() const { return shape_.form == KvForm::e4m3; }
  // Where the codes and the scales of a slot begin.
  size_t codes_at(size_t slot, int dim) const {
    const size_t page = size_t(shape_.page);
    return slot / page * page * size_t(dim + dim / 16) + slot % page * size_t(dim);
  }
  size_t scales_at(size_t slot, int dim) const {
    const size_t page = size_t(shape_.page);
    return slot / page * page * size_t(dim + dim / 16) + page * size_t(dim) +
           slot % page * size_t(dim / 32) * 2;
  }
  void fill_row(std::vector<uint8_t>& bytes, size_t slot, int dim) {
    for (int d = 0; d < dim; ++d) {
      const float x = normal_(random_);
      if (e4m3()) {
        bytes[slot * size_t(dim) + size_t(d)] = nearest_e4m3(x);
      } else if (blocks()) {
        bytes[codes_at(slot, dim) + size_t(d)] =
            uint8_t(int8_t(std::clamp(std::lround(x * 40), -127l, 127l)));
        const uint16_t scale = float_to_f16(0.02f + 0.01f * float(d / 32));
        std::memcpy(&bytes[scales_at(slot, dim) + size_t(d / 32) * 2], &scale, 2);
      } else {
        const uint16_t y = shape_.form == KvForm::f16 ? float_to_f16(x) : float_to_bf16(x);
        std::memcpy(&bytes[(slot * size_t(dim) + size_t(d)) * 2], &y, 2);
      }
    }
  }
  // [slot][dim], NaN where nothing was written.
  std::vector<float> values(const std::vector<uint8_t>& bytes, int dim) const {
    std::vector<float> all(size_t(config_.pages) * size_t(shape_.kv_heads * shape_.page * dim));
    for (size_t i = 0; i < all.size(); ++i) {
      const size_t slot = i / size_t(dim), d = i % size_t(dim);
      uint16_t bits = 0;
      if (e4m3()) {
        all[i] = value_of_e4m3(bytes[i]);
        continue;
      }
      std::memcpy(&bits, &bytes[blocks() ? scales_at(slot, dim) + d / 32 * 2 : i * 2], 2);
      if (blocks())
        all[i] = f16_to_float(bits) * float(int8_t(bytes[codes_at(slot, dim) + d]));
      else
        all[i] = shape_.form == KvForm::f16 ? f16_to_float(bits) : bf16_to_float(bits);
    }
    return all;
  }

  size_t slot(size_t sequence, int64_t token, int head) const {
    return (size_t(tables_[sequence][size_t(token / shape_.page)]) * size_t(shape_.kv_heads) + size_t(head)) *
               size_t(shape_.page) +
           size_t(token % shape_.page);
  }

  // The last rows of some sequences (index, rows, class), each up to `length` tokens (0: all).
  struct Part {
    size_t sequence = 0;
    int32_t rows = 1;
    RowClass row_class = RowClass::decode;
    int64_t length = 0;
    std::vector<uint32_t> mask = {};
    int64_t mask_begin = 0;
  };
  AttentionPlan plan(const std::vector<Part>& parts, std::vector<RowClass>& classes) const {
    AttentionPlan plan;
    int64_t row = 0;
    classes.clear();
    for (const Part& p : parts) {
      const int64_t length = p.length ? p.length : lengths_[p.sequence];
      plan.sequences.push_back({.row_begin = row,
                                .rows = p.rows,
                                .position = length - p.rows,
                                .kv_len = length,
                                .block_table = tables_[p.sequence],
                                .mask = p.mask,
                                .mask_begin = p.mask_begin});
      classes.push_back(p.row_class);
      row += p.rows;
    }
    return plan;
  }

  struct Result {
    std::vector<uint16_t> y;
    std::vector<float> lse;
  };
  Result run(const std::vector<Part>& parts, const std::vector<uint16_t>& q, bool overlap = false) {
    std::vector<RowClass> classes;
    const AttentionPlan p = plan(parts, classes);
    const auto rows = size_t(p.rows());
    const Buffer q_device = gpu_.upload(q);
    const Buffer y = gpu_.poisoned(rows * size_t(shape_.heads() * shape_.v()) * 2);
    const Buffer lse = gpu_.poisoned(rows * size_t(shape_.heads()) * 4);
    engine_->plan(p, classes);
    engine_->upload(gpu_.stream);
    AttentionCall call = this->call(q_device, y);
    call.lse = lse.address();
    call.decode = engine_->has_decode(), call.prompt = engine_->has_prompt();
    call.decode_rows = engine_->decode_rows(), call.merge = engine_->has_chunks();
    call.shared = engine_->has_shared();
    call.overlap_previous = overlap;
    engine_->run(gpu_.stream, kv_, call);
    return {gpu_.download<uint16_t>(y), gpu_.download<float>(lse)};
  }
  AttentionCall call(const Buffer& q, const Buffer& y) const {
    AttentionCall call;
    call.layer = 1;
    call.q = q.address(), call.y = y.address();
    call.q_stride = shape_.heads() * shape_.dim, call.y_stride = shape_.heads() * shape_.v();
    if (shape_.sinks) call.sinks = sinks_device_.address();
    if (shape_.alibi) call.slopes = slopes_device_.address();
    return call;
  }

  std::vector<uint16_t> queries(int64_t rows) {
    std::vector<uint16_t> q(size_t(rows * shape_.heads() * shape_.dim));
    for (uint16_t& x : q) x = float_to_bf16(normal_(random_));
    return q;
  }

  // Largest |y - ref| / bound and |lse - ref|. Probabilities and the output are rounded to bf16, half an ulp
  // of each is 2^-8 (f16 probabilities less); a logit's error (f32 sums of dim products, exp2 and tanh off by
  // 2^-22) moves a probability by less than 2^-12 here. Codes of q8_0
  // times their scales are rounded to f16: 2^-11 of every key element moves a logit by up to 2^-8 here.
  struct Worst {
    double y = 0, y_absolute = 0, lse = 0;
  };
  Worst compare(const std::vector<Part>& parts, const std::vector<uint16_t>& q, const Result& got) const {
    std::vector<RowClass> classes;
    const AttentionPlan p = plan(parts, classes);
    const AttentionKind kind = shape_.kind();
    const attention::MaskShape mask{shape_.heads(), shape_.kv_heads, shape_.window, shape_.causal};
    Worst worst;
    std::vector<double> logits, sum(size_t(shape_.v())), magnitude(size_t(shape_.v()));
    for (size_t s = 0; s < parts.size(); ++s)
      for (int r = 0; r < parts[s].rows; ++r)
        for (int h = 0; h < shape_.heads(); ++h) {
          const auto& rows = p.sequences[s];
          const int64_t position = rows.position + r;
          const auto seen = attention::visible(mask, position, rows.kv_len);
          const size_t at = size_t(rows.row_begin + r) * size_t(shape_.heads()) + size_t(h);
          std::vector<float> query(static_cast<size_t>(shape_.dim));
          for (int d = 0; d < shape_.dim; ++d)
            query[size_t(d)] = bf16_to_float(q[at * size_t(shape_.dim) + size_t(d)]);
          double most = shape_.sinks ? double(sinks_[size_t(h)]) : -std::numeric_limits<double>::infinity();
          logits.clear();
          for (int64_t t = seen.begin; t < seen.end; ++t) {
            if (rows.masks(r, t)) {
              logits.push_back(-std::numeric_limits<double>::infinity());
              continue;
            }
            const float* k = k_.data() + slot(parts[s].sequence, t, h / shape_.group) * size_t(shape_.dim);
            double x = 0;
            for (int d = 0; d < shape_.dim; ++d) x += double(query[size_t(d)]) * double(k[d]);
            x *= kind.scale;
            if (kind.softcap != 0) x = kind.softcap * std::tanh(x / kind.softcap);
            if (shape_.alibi) x += double(slopes_[size_t(h)]) * double(t - position);
            logits.push_back(x), most = std::max(most, x);
          }
          double denominator = shape_.sinks ? std::exp(sinks_[size_t(h)] - most) : 0;
          std::fill(sum.begin(), sum.end(), 0.0), std::fill(magnitude.begin(), magnitude.end(), 0.0);
          for (int64_t t = seen.begin; t < seen.end; ++t) {
            const double weight = std::exp(logits[size_t(t - seen.begin)] - most);
            const float* v = v_.data() + slot(parts[s].sequence, t, h / shape_.group) * size_t(shape_.v());
            denominator += weight;
            for (int d = 0; d < shape_.v(); ++d) {
              sum[size_t(d)] += weight * double(v[d]);
              magnitude[size_t(d)] += weight * std::abs(double(v[d]));
            }
          }
          for (int d = 0; d < shape_.v(); ++d) {
            const double y = bf16_to_float(got.y[at * size_t(shape_.v()) + size_t(d)]);
            const double error = std::abs(y - sum[size_t(d)] / denominator);
            const double bound =
                (0x1p-8 + 0x1p-8 + (blocks() ? 0x1p-7 : 0x1p-12)) * magnitude[size_t(d)] / denominator +
                1e-30;
            worst.y = std::isnan(y) ? 1e9 : std::max(worst.y, error / bound);
            worst.y_absolute = std::isnan(y) ? 1e9 : std::max(worst.y_absolute, error);
          }
          const double error = std::abs(got.lse[at] - (most + std::log(denominator)));
          worst.lse = std::isnan(got.lse[at]) ? 1e9 : std::max(worst.lse, error);
        }
    return worst;
  }

  AttentionEngine& engine() { return *engine_; }
  const DeviceKv& kv() const { return kv_; }
  const std::vector<int32_t>& table(size_t s) const { return tables_[s]; }
  const std::vector<float>& k() const { return k_; }
  const std::vector<float>& v() const { return v_; }
  const kv::KvConfig& config() const { return config_; }

 private:
  testing::Gpu& gpu_;
  Shape shape_;
  kv::KvConfig config_;
  std::vector<int64_t> lengths_;
  std::mt19937_64 random_;
  std::normal_distribution<float> normal_;
  std::vector<std::vector<int32_t>> tables_;
  Buffer memory_, sinks_device_, slopes_device_;
  DeviceKv kv_;
  std::vector<uint8_t> k_bytes_, v_bytes_;  // of layer 1
  std::vector<float> k_, v_;                // their values
  std::vector<float> sinks_, slopes_;
  std::unique_ptr<AttentionEngine> engine_;
};

using Part = World::Part;

const std::vector<Shape>& all_shapes() {
  static const std::vector<Shape> all = {
      Shape{},
      Shape{.kv_heads = 1, .group = 1, .dim = 64, .page = 1},
      Shape{.kv_heads = 3, .group = 8, .dim = 80, .page = 16, .window = 100, .softcap = 5},
      Shape{.kv_heads = 1, .group = 16, .dim = 96, .page = 64, .sinks = true},
      Shape{.kv_heads = 2, .group = 4, .dim = 256, .page = 16, .window = 700, .softcap = 30},
      Shape{.kv_heads = 1, .group = 7, .dim = 128, .page = 32, .alibi = true},
      Shape{.kv_heads = 1, .group = 16, .dim = 256, .page = 64, .sinks = true, .alibi = true},
      Shape{.kv_heads = 2, .group = 4, .dim = 128, .page = 16, .form = KvForm::f16},
      Shape{.kv_heads = 1, .group = 8, .dim = 64, .page = 32, .window = 128, .sinks = true},
      Shape{.kv_heads = 2, .group = 1, .dim = 64, .page = 32, .causal = false},
      Shape{.plain_prompt = true},
      Shape{.kv_heads = 2, .group = 1, .dim = 64, .window = 100, .softcap = 20, .plain_prompt = true},
      Shape{.kv_heads = 1, .group = 5, .dim = 128, .page = 16, .window = 70, .softcap = 20},
      Shape{.kv_heads = 2, .group = 2, .dim = 64, .page = 128, .form = KvForm::f16, .alibi = true},
      Shape{.kv_heads = 2, .group = 4, .dim = 128, .form = KvForm::q8_0},
      Shape{.kv_heads = 1,
            .group = 8,
            .dim = 64,
            .page = 16,
            .form = KvForm::q8_0,
            .window = 300,
            .softcap = 10},
      Shape{.kv_heads = 1, .group = 2, .dim = 256, .page = 64, .form = KvForm::q8_0, .sinks = true},
      Shape{.kv_heads = 1, .group = 4, .dim = 128, .form = KvForm::e4m3},
      Shape{.kv_heads = 1, .group = 4, .dim = 64, .page = 16, .form = KvForm::e4m3, .window = 90},
      Shape{.kv_heads = 1, .group = 12, .dim = 192, .page = 32, .dim_v = 128},
      Shape{.cluster = 2},
      Shape{
          .kv_heads = 2, .group = 5, .dim = 64, .page = 128, .form = KvForm::f16, .window = 70, .cluster = 2},
      Shape{.kv_heads = 1, .group = 1, .page = 64, .softcap = 20, .causal = false, .cluster = 2}};
  return all;
}

// Compiled together, on all cores.
void prepare_kernels(testing::Gpu& gpu) {
  static const bool once = [&] {
    std::vector<Variant> variants;
    for (const Shape& s : all_shapes()) {
      const kv::KvConfig config{.layers = 2,
                                .kv_heads = s.kv_heads,
                                .head_dim_k = s.dim,
                                .head_dim_v = s.v(),
                                .page_tokens = s.page,
                                .form = s.form,
                                .pages = 1};
      const AttentionKind kind = s.kind();
      for (Variant& v : AttentionEngine::variants(gpu.device.facts(), config, {&kind, 1}, {}, s.tuning()))
        if (std::find(variants.begin(), variants.end(), v) == variants.end())
          variants.push_back(std::move(v));
    }
    gpu.kernels.prepare(variants);
    return true;
  }();
  (void)once;
}

class Shapes : public ::testing::TestWithParam<Shape> {};

TEST_P(Shapes, AgreeWithTheDefinition) {
  CAIRN_NEED_GPU(gpu);
  const Shape shape = GetParam();
  SCOPED_TRACE(shape.name());
  prepare_kernels(gpu);
  const std::vector<int64_t> lengths = {1, 5, 63, 64, 65, 700, 1300, 5000, 97, 300, 33};
  World world(gpu, shape, lengths, 17);
  std::vector<Part> parts;
  if (shape.causal)
    for (size_t s = 0; s < 8; ++s) parts.push_back({s, s == 5 ? 3 : s == 2 ? 5 : 1, RowClass::decode});
  parts.push_back({8, 97, RowClass::prompt});
  parts.push_back({9, 40, RowClass::prompt});  // a later chunk of a prompt
  parts.push_back({10, 33, RowClass::prompt});
  std::vector<RowClass> classes;
  const auto q = world.queries(world.plan(parts, classes).rows());
  const auto first = world.run(parts, q), second = world.run(parts, q, true);
  const auto worst = world.compare(parts, q, first);
  EXPECT_LE(worst.y, 1.0);
  EXPECT_LE(worst.y_absolute, shape.form == KvForm::q8_0 ? 4e-2 : 2e-2);  // its values reach 6 here
  EXPECT_LE(worst.lse, shape.form == KvForm::q8_0 ? 4e-3 : 1e-4);
  EXPECT_EQ(first.y, second.y) << "two runs differ";
}

INSTANTIATE_TEST_SUITE_P(AttentionOnGpu, Shapes, ::testing::ValuesIn(all_shapes()));

// The same row alone, among 64 sequences, with its neighbours, and for prompts in chunks: the same bits.
TEST(AttentionOnGpu, ARowDoesNotSeeItsCompany) {
  CAIRN_NEED_GPU(gpu);
  for (const Shape& shape : {Shape{}, Shape{.kv_heads = 2, .group = 1, .dim = 64, .page = 16, .window = 300},
                             Shape{.cluster = 2}}) {
    SCOPED_TRACE(shape.name());
    std::vector<int64_t> lengths;
    for (int i = 0; i < 64; ++i) lengths.push_back(1 + i * 7919 % 3000);
    World world(gpu, shape, lengths, 23);
    const size_t row_size = size_t(shape.heads() * shape.v()), q_size = size_t(shape.heads() * shape.dim);
    std::vector<Part> all;
    for (size_t s = 0; s < 64; ++s) all.push_back({s, lengths[s] >= 4 ? 4 : 1, RowClass::decode});
    std::vector<RowClass> classes;
    const AttentionPlan plan = world.plan(all, classes);
    const auto q = world.queries(plan.rows());
    const auto together = world.run(all, q);
    for (const size_t s : {size_t(0), size_t(7), size_t(33), size_t(63)})
      for (int r = 0; r < all[s].rows; ++r) {
        const auto row = size_t(plan.sequences[s].row_begin + r);
        const std::vector<uint16_t> own(q.begin() + std::ptrdiff_t(row * q_size),
                                        q.begin() + std::ptrdiff_t((row + 1) * q_size));
        const auto alone = world.run({{s, 1, RowClass::decode, lengths[s] - all[s].rows + 1 + r}}, own);
        EXPECT_TRUE(
            std::equal(alone.y.begin(), alone.y.end(), together.y.begin() + std::ptrdiff_t(row * row_size)))
            << "sequence " << s << " row " << r;
      }

    const auto longest = size_t(std::max_element(lengths.begin(), lengths.end()) - lengths.begin());
    const int32_t rows = 500;
    const auto prompt = world.queries(rows);
    const auto whole = world.run({{longest, rows, RowClass::prompt}}, prompt);
    for (int32_t begin = 0; begin < rows;) {
      const int32_t count = std::min(rows - begin, begin == 0 ? 1 : begin == 1 ? 77 : 200);
      const std::vector<uint16_t> own(prompt.begin() + std::ptrdiff_t(size_t(begin) * q_size),
                                      prompt.begin() + std::ptrdiff_t(size_t(begin + count) * q_size));
      const auto piece =
          world.run({{longest, count, RowClass::prompt, lengths[longest] - rows + begin + count}}, own);
      EXPECT_TRUE(std::equal(piece.y.begin(), piece.y.end(),
                             whole.y.begin() + std::ptrdiff_t(size_t(begin) * row_size)))
          << "rows " << begin << " to " << begin + count;
      begin += count;
    }
  }
}

// Rows that read the same pages read them together, and have the bits that they have alone.
TEST(AttentionOnGpu, SharingPagesDoesNotShow) {
  CAIRN_NEED_GPU(gpu);
  // 0 to 4 and 8 begin alike, 5 to 7 go on alike; 8 is cut in smaller chunks than the others.
  const std::vector<int64_t> lengths = {6000, 5200, 4700, 7000, 8000, 4200, 5000, 6500, 3900, 700, 4500};
  const std::vector<World::Fork> forks = {{1, 0, 4608}, {2, 0, 4608}, {3, 0, 3200}, {4, 0, 5200},
                                          {6, 5, 4096}, {7, 6, 5000}, {8, 0, 3072}, {9, 0, 600}};
  for (const Shape& shape :
       {Shape{}, Shape{.kv_heads = 1, .group = 8, .dim = 64, .page = 16, .form = KvForm::q8_0, .softcap = 20},
        Shape{.kv_heads = 1, .group = 2, .dim = 256, .page = 64, .sinks = true},
        Shape{.kv_heads = 2, .group = 1, .dim = 64, .page = 1, .alibi = true},
        Shape{.kv_heads = 1, .group = 4, .dim = 128, .form = KvForm::e4m3}}) {
    SCOPED_TRACE(shape.name());
    World world(gpu, shape, lengths, 41, forks);
    const size_t row_size = size_t(shape.heads() * shape.v()), q_size = size_t(shape.heads() * shape.dim);
    std::vector<Part> parts;
    for (size_t s = 0; s < lengths.size(); ++s) parts.push_back({s, s == 2 ? 3 : 1});
    std::vector<RowClass> classes;
    const AttentionPlan plan = world.plan(parts, classes);
    const auto q = world.queries(plan.rows());
    const auto together = world.run(parts, q, true);
    EXPECT_TRUE(world.engine().has_shared());
    EXPECT_LE(world.compare(parts, q, together).y, 1.0);
    for (size_t s = 0; s < lengths.size(); ++s)
      for (int r = 0; r < parts[s].rows; ++r) {
        const auto row = size_t(plan.sequences[s].row_begin + r);
        const std::vector<uint16_t> own(q.begin() + std::ptrdiff_t(row * q_size),
                                        q.begin() + std::ptrdiff_t((row + 1) * q_size));
        const auto alone = world.run({{s, 1, RowClass::decode, lengths[s] - parts[s].rows + 1 + r}}, own);
        EXPECT_FALSE(world.engine().has_shared());
        const auto* wanted = &together.y[row * row_size];
        const auto wrong = std::mismatch(alone.y.begin(), alone.y.end(), wanted).first - alone.y.begin();
        EXPECT_EQ(size_t(wrong), row_size)
            << "sequence " << s << " row " << r << " element " << wrong << ": alone "
            << bf16_to_float(alone.y[size_t(wrong)]) << ", together " << bf16_to_float(wanted[wrong]);
      }
  }
}

// Random masks of rows of both classes; some hide whole chunks, all let a row see itself.
TEST(AttentionOnGpu, MasksHideTokens) {
  CAIRN_NEED_GPU(gpu);
  for (const Shape& shape :
       {Shape{.masked = true}, Shape{.kv_heads = 1, .group = 8, .dim = 64, .window = 900, .masked = true},
        Shape{.kv_heads = 1, .group = 16, .dim = 64, .page = 16, .form = KvForm::q8_0, .masked = true}}) {
    SCOPED_TRACE(shape.name());
    const std::vector<int64_t> lengths = {1700, 40, 5000, 3000, 300, 97, 700};
    World world(gpu, shape, lengths, 43, {{3, 2, 2560}});
    std::vector<Part> parts;
    std::mt19937 random(9);
    for (size_t s = 0; s < lengths.size(); ++s) {
      const bool prompt = s >= 4;
      Part p{s, prompt ? int32_t(lengths[s] / 2) : int32_t(1 + s * 2),
             prompt ? RowClass::prompt : RowClass::decode};
      const int64_t mask_begin[] = {100, 3, 5000 - 64, 2600, 0, 60, 690};
      p.mask_begin = mask_begin[s];
      const int64_t words = (lengths[s] - p.mask_begin + 31) / 32;
      for (int64_t i = 0; i < words * p.rows; ++i)
        p.mask.push_back(s == 0 && i % words < 30 ? 0 : uint32_t(random()));
      for (int r = 0; r < p.rows; ++r)
        if (const int64_t bit = lengths[s] - p.rows + r - p.mask_begin; bit >= 0)
          p.mask[size_t(r * words + bit / 32)] |= 1u << bit % 32;
      parts.push_back(p);
    }
    std::vector<RowClass> classes;
    const auto q = world.queries(world.plan(parts, classes).rows());
    const auto got = world.run(parts, q);
    const auto worst = world.compare(parts, q, got);
    EXPECT_LE(worst.y, 1.0);
    EXPECT_LE(worst.lse, shape.form == KvForm::q8_0 ? 4e-3 : 1e-4);
    parts[1].mask.pop_back();
    try {
      world.run(parts, q);
      ADD_FAILURE() << "a mask that is too short was accepted";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("the mask of sequence 1 has"), std::string::npos) << e.what();
    }
  }
}

TEST(AttentionOnGpu, AGraphServesOtherLengths) {
  CAIRN_NEED_GPU(gpu);
  const Shape shape;
  std::vector<int64_t> lengths(16, 4000);
  World world(gpu, shape, lengths, 29);
  const auto q = world.queries(16);
  const Buffer q_device = gpu.upload(q);
  const Buffer y = gpu.poisoned(q.size() * 2);
  std::mt19937 random(5);
  Graph graph;
  for (int trial = 0; trial < 20; ++trial) {
    std::vector<Part> parts;
    for (size_t s = 0; s < 1 + random() % 16; ++s)
      parts.push_back({s, 1, RowClass::decode, 1 + int64_t(random() % 4000)});
    std::vector<RowClass> classes;
    const AttentionPlan plan = world.plan(parts, classes);
    world.engine().plan(plan, classes, 16);
    world.engine().upload(gpu.stream);
    if (!graph) {
      AttentionCall call = world.call(q_device, y);
      call.prompt = false, call.decode_rows = 16, call.overlap_previous = true;
      graph = Graph::capture(gpu.stream, [&] { world.engine().run(gpu.stream, world.kv(), call); });
    }
    gpu.stream.fill(y.address(), 0xff, y.size());
    graph.launch(gpu.stream);
    const auto replayed = gpu.download<uint16_t>(y);
    const auto eager = world.run(parts, q);
    EXPECT_TRUE(std::equal(eager.y.begin(),
                           eager.y.begin() + std::ptrdiff_t(parts.size()) * shape.heads() * shape.v(),
                           replayed.begin()))
        << "trial " << trial;
  }
}

TEST(AttentionOnGpu, AppendsAndRotates) {
  CAIRN_NEED_GPU(gpu);
  using program::RopePairing;
  for (const Shape& shape :
       {Shape{.rope = {128, RopePairing::half}},
        Shape{.dim = 64, .page = 1, .rope = {64, RopePairing::adjacent}},
        Shape{.dim = 80, .page = 16, .form = KvForm::f16, .rope = {20, RopePairing::half}},
        Shape{.dim = 96, .page = 64}, Shape{.form = KvForm::q8_0, .rope = {128, RopePairing::half}},
        Shape{.page = 64, .form = KvForm::e4m3, .rope = {64, RopePairing::half}},
        Shape{.dim = 64, .page = 16, .form = KvForm::q8_0, .rope = {32, RopePairing::adjacent}},
        Shape{.dim = 64, .dim_v = 128, .rope = {32, RopePairing::half}}}) {
    SCOPED_TRACE(shape.name() + fmt::format(" rotary {}", shape.rope.rotary_dim));
    World world(gpu, shape, {40, 7, 200}, 31);
    const std::vector<Part> parts = {
        {0, 1, RowClass::decode}, {1, 7, RowClass::prompt}, {2, 130, RowClass::prompt}};
    std::vector<RowClass> classes;
    const AttentionPlan plan = world.plan(parts, classes);
    const int64_t rows = plan.rows(), padded = rows + 6;
    const auto q = testing::as_bf16(testing::normal(size_t(padded * shape.heads() * shape.dim), 1));
    const auto k = testing::as_bf16(testing::normal(size_t(padded * shape.kv_heads * shape.dim), 2));
    const auto v = testing::as_bf16(testing::normal(size_t(padded * shape.kv_heads * shape.v()), 3));
    const int half = shape.rope.rotary_dim / 2;
    std::vector<float> angles;
    for (const float a : testing::normal(size_t(padded * std::max(1, half)), 4, 3)) {
      angles.push_back(1.25f * std::cos(a)), angles.push_back(1.25f * std::sin(a));
    }
    const Buffer qd = gpu.upload(q), kd = gpu.upload(k), vd = gpu.upload(v), ad = gpu.upload(angles);
    const Buffer q_out = gpu.poisoned(q.size() * 2);
    world.engine().plan(plan, classes, padded);
    world.engine().upload(gpu.stream);
    AppendCall call;
    call.rope = shape.rope, call.layer = 1, call.rows = padded, call.heads = shape.heads();
    call.q = qd.address(), call.k = kd.address(), call.v = vd.address(), call.q_out = q_out.address();
    call.q_stride = call.q_out_stride = shape.heads() * shape.dim;
    call.k_stride = shape.kv_heads * shape.dim, call.v_stride = shape.kv_heads * shape.v();
    call.angles = ad.address();
    world.engine().append(gpu.stream, world.kv(), call);

    const auto rotated = [&](const std::vector<uint16_t>& x, size_t head, int64_t row, int d) {
      const uint16_t* at = x.data() + head * size_t(shape.dim);
      if (d >= 2 * half) return double(bf16_to_float(at[d]));
      const bool adjacent = shape.rope.pairing == RopePairing::adjacent;
      const int i = adjacent ? d / 2 : d % half;
      const double a = bf16_to_float(at[adjacent ? 2 * i : i]),
                   b = bf16_to_float(at[adjacent ? 2 * i + 1 : i + half]);
      const double c = angles[size_t(row * half + i) * 2], s = angles[size_t(row * half + i) * 2 + 1];
      return (adjacent ? d % 2 : d / half) ? b * c + a * s : a * c - b * s;
    };
    // One rounding to the stored type; the sum may cancel, so an absolute part of f32's.
    const auto close = [](double got, double wanted) {
      return std::abs(got - wanted) <= std::abs(wanted) / 256 + 2e-6;
    };
    const auto q_got = gpu.download<uint16_t>(q_out);
    int wrong = 0;
    for (int64_t row = 0; row < padded; ++row)
      for (int h = 0; h < shape.heads(); ++h)
        for (int d = 0; d < shape.dim; ++d) {
          const size_t head = size_t(row * shape.heads() + h);
          wrong +=
              !close(bf16_to_float(q_got[head * size_t(shape.dim) + size_t(d)]), rotated(q, head, row, d));
        }
    EXPECT_EQ(wrong, 0) << "queries";
    // The rest of the cache must be as it was.
    auto k_got = world.download_cache(kv::Part::K), v_got = world.download_cache(kv::Part::V);
    wrong = 0;
    for (size_t s = 0; s < parts.size(); ++s)
      for (int r = 0; r < parts[s].rows; ++r)
        for (int h = 0; h < shape.kv_heads; ++h) {
          const int64_t row = plan.sequences[s].row_begin + r;
          const size_t to = world.slot(parts[s].sequence, plan.sequences[s].position + r, h);
          const size_t head = size_t(row * shape.kv_heads + h);
          // Compares a row and puts back what was there.
          const auto check = [&](std::vector<float>& got, const std::vector<float>& before, int dim,
                                 auto wanted) {
            for (int d = 0; d < dim; ++d) {
              double largest = 0;  // of the block: half a step of q8_0 is 1 / 254 of it
              for (int e = d / 32 * 32; world.blocks() && e < d / 32 * 32 + 32; ++e)
                largest = std::max(largest, std::abs(wanted(e)));
              const size_t at = to * size_t(dim) + size_t(d);
              wrong +=
                  world.blocks() ? !(std::abs(got[at] - wanted(d)) <= largest * (1.0 / 254 + 1.0 / 2048))
                  : world.e4m3()
                      ? !(std::abs(got[at] - wanted(d)) <= std::max(std::abs(wanted(d)) / 16, 0x1p-10) + 1e-5)
                      : !close(got[at], wanted(d));
              got[at] = before[at];
            }
          };
          check(k_got, world.k(), shape.dim, [&](int d) { return rotated(k, head, row, d); });
          check(v_got, world.v(), shape.v(),
                [&](int d) { return double(bf16_to_float(v[head * size_t(shape.v()) + size_t(d)])); });
        }
    EXPECT_EQ(wrong, 0) << "keys and values";
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
    };
    EXPECT_TRUE(same(k_got, world.k()) && same(v_got, world.v())) << "rows of others were written";
  }
}

TEST(AttentionOnGpu, RefusesBadPlans) {
  CAIRN_NEED_GPU(gpu);
  const Shape shape;
  World world(gpu, shape, {100, 50}, 37);
  const auto refuse = [&](const AttentionPlan& plan, const char* words) {
    std::vector<RowClass> classes(plan.sequences.size(), RowClass::decode);
    try {
      world.engine().plan(plan, classes);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::invalid_argument);
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what();
    }
  };
  std::vector<RowClass> classes;
  AttentionPlan plan = world.plan({{0, 1}, {1, 1}}, classes);
  std::vector<int32_t> pages = world.table(1);
  pages[1] = 77777;
  plan.sequences[1].block_table = pages;
  refuse(plan, "page 1 of sequence 1 is 77777");
  pages[1] = -1;
  refuse(plan, "page 1 of sequence 1 is -1");
  plan = world.plan({{0, 1}, {1, 1}}, classes);
  plan.sequences[0].block_table = plan.sequences[0].block_table.first(3);
  refuse(plan, "sequence 0 has 100 tokens but only 3 pages of 32");
  plan = world.plan({{0, 1}}, classes);
  plan.sequences[0].kv_len = 99999;
  refuse(plan, "99999 tokens in the cache (at most 8192)");
  plan.sequences[0].kv_len = 50;
  refuse(plan, "from position 99 and 50 tokens");
  plan = world.plan({{0, 1}}, classes);
  plan.sequences[0].row_begin = 5000;
  refuse(plan, "5001 rows, at most 1024");
  kv::KvConfig config = world.config();
  for (const int heads : {30, 7}) {
    config.kv_heads = 4;
    try {
      AttentionEngine(gpu.device, gpu.kernels, config, {{.heads = heads}},
                      {.rows = 1, .decode_rows = 1, .sequences = 1, .table_pages = 1, .longest = 1});
      ADD_FAILURE() << heads;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(fmt::format("{} heads over 4 KV heads", heads)), std::string::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace cairn::cuda
