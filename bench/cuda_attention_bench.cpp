// Attention of one layer after the other on a GPU: TB/s of keys and values in decode, TFLOP/s in prefill,
// beside the rate of a device-to-device copy measured in the same run. Times are medians of graph replays;
// each replay runs over enough layers that the second-level cache holds none of what it reads.
//
//   cuda_attention_bench [decode|shared|mixed|prompt|all] [--tune] [--json FILE]
//
// Prints one line per case; the peers are in cuda_attention_peer.py.
// Links: cairn_backends_cuda
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "backends/cuda/attention.h"
#include "base/checked.h"
#include "base/error.h"

namespace {

using namespace cairn;
using namespace cairn::cuda;

struct Bench {
  Device device{0};
  KernelCache kernels{device};
  Stream stream{device};
  Event start{device, true}, stop{device, true};
  std::string json;

  // Seconds of f, median; f is captured once and replayed.
  double seconds(const std::function<void()>& f, int times = 9) {
    f();
    stream.synchronize();
    const Graph graph = Graph::capture(stream, f);
    for (int i = 0; i < 2; ++i) graph.launch(stream);
    std::vector<double> all;
    for (int i = 0; i < times; ++i) {
      start.record(stream);
      graph.launch(stream);
      stop.record(stream);
      stop.synchronize();
      all.push_back(double(stop.since(start)) * 1e-3);
    }
    std::sort(all.begin(), all.end());
    return all[all.size() / 2];
  }
  void report(const std::string& what, double value, const char* unit) {
    fmt::print("{:<64} {:9.3f} {}\n", what, value, unit);
    std::fflush(stdout);
    json += fmt::format("{}  {{\"case\": \"{}\", \"value\": {:.4f}, \"unit\": \"{}\"}}",
                        json.empty() ? "" : ",\n", what, value, unit);
  }
};

// Values like those of a model, everywhere: a block of random bf16 numbers repeated.
void fill(Bench& b, Address to, size_t bytes, unsigned seed) {
  const size_t block = std::min<size_t>(bytes, size_t{32} << 20);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(block / 2);
  std::vector<uint16_t> some(1 << 16);
  for (uint16_t& x : some) {
    const float f = normal(random);
    uint32_t u;
    std::memcpy(&u, &f, 4);
    x = uint16_t(u >> 16);
  }
  for (size_t i = 0; i < values.size(); ++i) values[i] = some[(i * 7 + i / some.size()) % some.size()];
  b.stream.upload(to, values.data(), block);
  for (size_t at = block; at < bytes; at += block) b.stream.copy(to + at, to, std::min(block, bytes - at));
  b.stream.synchronize();
}

struct Case {
  std::string name;
  std::vector<int64_t> lengths;
  int32_t rows = 1;  // of each sequence
  RowClass row_class = RowClass::decode;
  int heads = 32, kv_heads = 8, dim = 128, page = 32;
  int layers = 4;
  kv::KvForm form = kv::KvForm::bf16;
  int64_t shared = 0;       // tokens that all sequences begin with, in the same pages
  int64_t prompt = 0;       // a sequence of class prompt besides: its tokens,
  int32_t prompt_rows = 0;  // and rows
};

kv::KvConfig config_of(const Case& c) {
  return {.layers = c.layers,
          .kv_heads = c.kv_heads,
          .head_dim_k = c.dim,
          .head_dim_v = c.dim,
          .page_tokens = c.page,
          .form = c.form,
          .pages = 0};
}
AttentionKind kind_of(const Case& c) { return {.heads = c.heads, .scale = 1 / std::sqrt(float(c.dim))}; }

// Compiles what the cases need with all cores.
void prepare(Bench& b, std::span<const Case> cases, std::span<const AttentionTuning> tunings) {
  std::vector<Variant> all;
  for (const Case& c : cases)
    for (const AttentionTuning& t : tunings) {
      kv::KvConfig config = config_of(c);
      config.pages = 1;
      const AttentionKind kind = kind_of(c);
      for (Variant& v : AttentionEngine::variants(b.device.facts(), config, {&kind, 1}, {}, t))
        if (std::find(all.begin(), all.end(), v) == all.end()) all.push_back(std::move(v));
    }
  b.kernels.prepare(all);
}

struct Layers {
  Bench& b;
  const Case& c;
  kv::KvConfig config;
  Buffer memory, q, y;
  DeviceKv kv;
  std::vector<std::vector<int32_t>> tables;
  attention::AttentionPlan plan;
  std::vector<RowClass> classes;
  AttentionLimits limits;
  double tokens = 0, pairs = 0;

  Layers(Bench& bench, const Case& which) : b(bench), c(which) {
    config = config_of(c);
    std::vector<int64_t> lengths = c.lengths;
    if (c.prompt > 0) lengths.push_back(c.prompt);
    int64_t table_pages = 0;
    for (const int64_t n : lengths) table_pages += ceil_div(n, c.page);
    config.pages = table_pages - c.shared / c.page * int64_t(c.shared ? lengths.size() - 1 : 0);
    std::vector<int32_t> ids(static_cast<size_t>(config.pages));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i);
    std::mt19937 random(1);
    std::shuffle(ids.begin(), ids.end(), random);
    size_t at = 0;
    int64_t row = 0;
    for (const int64_t n : lengths) {
      std::vector<int32_t> table;
      if (!tables.empty()) table.assign(tables[0].begin(), tables[0].begin() + c.shared / c.page);
      while (int64_t(table.size()) < ceil_div(n, c.page)) table.push_back(ids[at++]);
      tables.push_back(std::move(table));
    }
    for (size_t i = 0; i < lengths.size(); ++i) {
      const int64_t n = lengths[i];
      const bool prompt = i == c.lengths.size();
      const int32_t rows = std::min<int32_t>(prompt ? c.prompt_rows : c.rows, int32_t(n));
      plan.sequences.push_back(
          {.row_begin = row, .rows = rows, .position = n - rows, .kv_len = n, .block_table = tables[i]});
      classes.push_back(prompt ? RowClass::prompt : c.row_class);
      row += rows;
      tokens += double(n);
      for (int32_t r = 0; r < rows; ++r) pairs += double(n - rows + r + 1);
    }
    memory = Buffer(b.device, device_kv_bytes(config));
    kv = DeviceKv::at(memory.address(), config);
    fill(b, memory.address(), memory.size(), 2);
    q = Buffer(b.device, size_t(row * c.heads * c.dim * 2));
    y = Buffer(b.device, q.size());
    fill(b, q.address(), q.size(), 3);
    limits = {.rows = row,
              .decode_rows = c.row_class == RowClass::decode ? row : 0,
              .sequences = int64_t(lengths.size()),
              .table_pages = table_pages,
              .longest = *std::max_element(lengths.begin(), lengths.end())};
    if (c.row_class == RowClass::decode)
      limits.decode_rows += 64;  // room for the finer chunks of comparisons
  }

  // Seconds per layer.
  double seconds(const AttentionTuning& tuning, int64_t forced_chunk = 0, int times = 9) {
    AttentionEngine engine(b.device, b.kernels, config, {kind_of(c)}, limits, tuning);
    engine.force_chunks(forced_chunk);
    engine.plan(plan, classes);
    engine.upload(b.stream);
    AttentionCall call;
    call.q = q.address(), call.y = y.address();
    call.q_stride = call.y_stride = c.heads * c.dim;
    call.decode = engine.has_decode(), call.prompt = engine.has_prompt(),
    call.decode_rows = engine.decode_rows();
    call.merge = engine.has_chunks(), call.shared = engine.has_shared();
    call.overlap_previous = true;
    return b.seconds(
               [&] {
                 for (int layer = 0; layer < c.layers; ++layer) {
                   call.layer = layer;
                   engine.run(b.stream, kv, call);
                 }
               },
               times) /
           c.layers;
  }
  double bytes() const { return tokens * c.kv_heads * 2 * double(kv::row_bytes(c.form, c.dim)); }
  double flops() const { return pairs * c.heads * c.dim * 4; }
};

std::vector<int64_t> zipf(int count, double mean) {
  std::vector<double> shares;
  double sum = 0;
  for (int i = 0; i < count; ++i) shares.push_back(1.0 / (i + 1)), sum += shares.back();
  std::vector<int64_t> lengths;
  for (const double s : shares) lengths.push_back(std::max<int64_t>(1, int64_t(s / sum * mean * count)));
  std::shuffle(lengths.begin(), lengths.end(), std::mt19937(7));
  return lengths;
}

void decode(Bench& b, bool tune) {
  using kv::KvForm;
  const std::vector<int64_t> same(64, 4096);
  const Case cases[] = {
      {.name = "decode 64 x 4096", .lengths = same},
      {.name = "decode 1 x 131072", .lengths = {131072}, .layers = 8},
      {.name = "decode 64, Zipf, mean 4096", .lengths = zipf(64, 4096)},
      {.name = "decode 1 x 4096", .lengths = {4096}, .layers = 32},
      {.name = "decode 256 x 1024", .lengths = std::vector<int64_t>(256, 1024)},
      {.name = "decode 16 x 32768", .lengths = std::vector<int64_t>(16, 32768), .layers = 2},
      {.name = "decode 1 x 512", .lengths = {512}, .layers = 128},
      {.name = "decode 64 x 512", .lengths = std::vector<int64_t>(64, 512), .layers = 16},
      {.name = "decode 64 x 4096, 32 KV heads of 64",
       .lengths = same,
       .kv_heads = 32,
       .dim = 64,
       .layers = 2},
      {.name = "decode 64 x 4096, 4 KV heads of 256", .lengths = same, .kv_heads = 4, .dim = 256},
      {.name = "decode 64 x 4096, pages of 16", .lengths = same, .page = 16},
      {.name = "decode 64 x 4096, q8_0", .lengths = same, .layers = 8, .form = KvForm::q8_0},
      {.name = "decode 64 x 4096, e4m3", .lengths = same, .layers = 8, .form = KvForm::e4m3},
      {.name = "decode 1 x 131072, q8_0", .lengths = {131072}, .layers = 16, .form = KvForm::q8_0},
      {.name = "decode 1 x 131072, e4m3", .lengths = {131072}, .layers = 16, .form = KvForm::e4m3},
  };
  const AttentionTuning tilings[] = {{},
                                     {.decode_warps = 4, .decode_stages = 2, .decode_tile = 32},
                                     {.decode_warps = 4, .decode_stages = 3, .decode_tile = 32},
                                     {.decode_warps = 6, .decode_stages = 2, .decode_tile = 16},
                                     {.decode_warps = 6, .decode_stages = 3, .decode_tile = 16}};
  prepare(b, cases, std::span(tilings).first(1));
  if (tune) prepare(b, std::span(cases).first(1), tilings);
  int number = 0;
  for (const Case& c : cases) {
    Layers l(b, c);
    const double s = l.seconds({});
    b.report(c.name, l.bytes() / s * 1e-12, "TB/s");
    b.report(c.name + " (time)", s * 1e6, "us");
    if (tune && number < 4) {
      for (const AttentionTuning& t : std::span(tilings).subspan(1))
        b.report(fmt::format("{}, {} warps x {} tiles of {}", c.name, t.decode_warps, t.decode_stages,
                             t.decode_tile),
                 l.bytes() / l.seconds(t) * 1e-12, "TB/s");
      for (const int64_t chunk : {256, 512, 1024, 2048, 4096})
        if (number != 1 || chunk >= 1024)
          b.report(fmt::format("{}, chunks of {}", c.name, chunk), l.bytes() / l.seconds({}, chunk) * 1e-12,
                   "TB/s");
    }
    if (tune && number == 0)
      for (const int blocks : {66, 88, 99, 110, 121})
        b.report(fmt::format("{}, {} blocks", c.name, blocks),
                 l.bytes() / l.seconds({.decode_blocks = blocks}) * 1e-12, "TB/s");
    if (number == 0 || number == 2) {
      const double whole = l.seconds({}, int64_t{1} << 24);
      b.report(c.name + ", one block per (sequence, head)", l.bytes() / whole * 1e-12, "TB/s");
    }
    ++number;
  }
}

// Sequences that begin with the same pages: read together, each for itself, and with pages of their own.
void shared(Bench& b) {
  for (const int64_t prefix : {8192, 32768})
    for (const int count : {16, 32, 64}) {
      const std::vector<int64_t> lengths(size_t(count), prefix + 256);
      Case c{.name = fmt::format("decode {} x ({} shared + 256)", count, prefix), .lengths = lengths};
      c.layers = prefix > 8192 ? 2 : 4, c.shared = prefix;
      prepare(b, {&c, 1}, std::vector<AttentionTuning>(1, {.share = true}));
      double together = 0, apart = 0;
      {
        Layers l(b, c);
        together = l.seconds({.share = true}), apart = l.seconds({});
      }
      c.shared = 0, c.layers = 1;
      Layers l(b, c);
      const double own = l.seconds({});
      b.report(c.name + ", together", together * 1e6, "us");
      b.report(c.name + ", each for itself", apart * 1e6, "us");
      b.report(c.name + ", pages of their own", own * 1e6, "us");
      b.report(c.name + ", gain over each for itself", apart / together, "x");
    }
}

// A chunk of a prompt beside rows that extend answers.
void mixed(Bench& b) {
  for (const int64_t prompt : {2048, 8192}) {
    Case c{.name = fmt::format("63 x 4096 and 2048 rows of a prompt of {}", prompt),
           .lengths = std::vector<int64_t>(63, 4096)};
    Case alone{.name = "prompt", .lengths = {prompt}, .rows = 2048, .row_class = RowClass::prompt};
    prepare(b, {&c, 1}, std::vector<AttentionTuning>(1));
    const double decode = Layers(b, c).seconds({}), read = Layers(b, alone).seconds({});
    c.prompt = prompt, c.prompt_rows = 2048;
    const double both = Layers(b, c).seconds({});
    b.report(c.name + ", decode alone", decode * 1e6, "us");
    b.report(c.name + ", prompt alone", read * 1e6, "us");
    b.report(c.name + ", both", both * 1e6, "us");
    b.report(c.name + ", gain", (decode + read) / both, "x");
  }
}

void prompt(Bench& b, bool tune) {
  for (const int64_t n : {512, 2048, 8192, 16384, 32768}) {
    const Case c{.name = fmt::format("prompt {} causal", n),
                 .lengths = {n},
                 .rows = int32_t(n),
                 .row_class = RowClass::prompt,
                 .layers = n > 8192 ? 1 : 4};
    Layers l(b, c);
    const double s = l.seconds({});
    b.report(c.name, l.flops() / s * 1e-12, "TFLOP/s");
    if (tune)
      b.report(c.name + ", clusters of 2", l.flops() / l.seconds({.prompt_cluster = 2}) * 1e-12, "TFLOP/s");
    if (tune && n == 8192) {
      b.report(c.name + ", 3 stages", l.flops() / l.seconds({.prompt_stages = 3}) * 1e-12, "TFLOP/s");
      b.report(c.name + ", mma.sync", l.flops() / l.seconds({.plain_prompt = true}) * 1e-12, "TFLOP/s");
    }
  }
  const Case c{.name = "prompt 2048 after 30720",
               .lengths = {32768},
               .rows = 2048,
               .row_class = RowClass::prompt,
               .layers = 1};
  Layers l(b, c);
  b.report(c.name, l.flops() / l.seconds({}) * 1e-12, "TFLOP/s");
  if (tune)  // long enough for the device to reach its power limit
    for (int i = 0; i < 2; ++i)
      for (const int cluster : {1, 2})
        b.report(fmt::format("{}, clusters of {}, for a second", c.name, cluster),
                 l.flops() / l.seconds({.prompt_cluster = cluster}, 0, 600) * 1e-12, "TFLOP/s");
  const Case d{.name = "prompt 8192 causal, heads of 64",
               .lengths = {8192},
               .rows = 8192,
               .row_class = RowClass::prompt,
               .kv_heads = 8,
               .dim = 64,
               .layers = 2};
  Layers m(b, d);
  b.report(d.name, m.flops() / m.seconds({}) * 1e-12, "TFLOP/s");
}

void copy_ceiling(Bench& b) {
  const size_t bytes = size_t{2} << 30;
  const Buffer from(b.device, bytes), to(b.device, bytes);
  fill(b, from.address(), bytes, 1);
  const double s = b.seconds([&] { b.stream.copy(to.address(), from.address(), bytes); });
  b.report("copy on the device, read and written", 2 * double(bytes) / s * 1e-12, "TB/s");
}

}  // namespace

int main(int argc, char** argv) {
  std::string what = "all", file;
  bool tune = false;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    if (a == "--tune")
      tune = true;
    else if (a == "--json" && i + 1 < argc)
      file = argv[++i];
    else
      what = a;
  }
  try {
    Bench b;
    fmt::print("{}\n", b.device.facts().name);
    copy_ceiling(b);
    const auto wanted = [&](const char* part) { return what == "all" || what == part; };
    if (wanted("decode")) decode(b, tune);
    if (wanted("shared")) shared(b);
    if (wanted("mixed")) mixed(b);
    if (wanted("prompt")) prompt(b, tune);
    if (!file.empty())
      std::ofstream(file) << fmt::format("{{\"device\": \"{}\", \"driver\": {}, \"results\": [\n{}\n]}}\n",
                                         b.device.facts().name, b.device.facts().driver_version, b.json);
  } catch (const Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
