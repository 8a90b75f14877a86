#include "backends/cuda/sample.h"

#include <fmt/format.h>

#include "base/checked.h"

namespace cairn::cuda {
namespace {

// Blocks that share a row: a cluster where there are such.
unsigned blocks_per_row(int capability) { return capability >= 90 ? 8 : 1; }
unsigned threads(int capability) { return capability >= 90 ? 512 : 1024; }

Variant variant(int capability) {
  return {"sample.cu",
          {fmt::format("CLUSTER={}", blocks_per_row(capability)),
           fmt::format("THREADS={}", threads(capability))}};
}

}  // namespace

std::vector<Variant> sample_stock(int capability) { return {variant(capability)}; }

RowDraw row_draw(const text::Draw& how, int32_t edits, int32_t mask) {
  RowDraw row;
  row.random = how.random;
  row.top_p = how.top_p;
  row.scale = how.scale;
  row.min_p = how.min_p;
  row.repetition = how.repetition_penalty;
  row.presence = how.presence_penalty;
  row.frequency = how.frequency_penalty;
  row.top_k = how.top_k;
  row.edits = edits;
  row.edit_count = int32_t(how.edits.size());
  row.mask = how.mask.empty() ? -1 : mask;
  row.flags = 1 + (how.count_input ? 2 : 0);
  return row;
}

void SampleLauncher::sample(Stream& stream, const SampleCall& c) {
  const int capability = stream.device().facts().capability;
  LaunchShape shape;
  shape.cluster = blocks_per_row(capability);
  shape.grid[0] = unsigned(c.rows) * shape.cluster;
  shape.block = threads(capability);
  shape.overlap_previous = c.overlap_previous;
  stream.launch(cache_.get(variant(capability), "sample"), shape, c.scores, int(c.vocabulary), c.draws,
                c.edits, c.masks, c.ids, c.logit_rows, c.tokens);
}

void SampleLauncher::take_drawn(Stream& stream, Address ids, Address from, Address drawn, int64_t rows,
                                bool overlap_previous) {
  LaunchShape shape;
  shape.grid[0] = unsigned(ceil_div(rows, 256));
  shape.block = 256;
  shape.overlap_previous = overlap_previous;
  stream.launch(cache_.get(variant(stream.device().facts().capability), "take_drawn"), shape, ids, from,
                drawn, int(rows));
}

void SampleLauncher::note_time(Stream& stream, Address to) {
  LaunchShape shape;
  shape.block = 1;
  stream.launch(cache_.get(variant(stream.device().facts().capability), "note_time"), shape, to);
}

}  // namespace cairn::cuda
