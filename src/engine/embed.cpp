#include "engine/embed.h"

#include "base/error.h"

namespace cairn::engine {
namespace {

using Texts = std::span<const std::vector<int32_t>>;

// A text of a model that reads in pieces.
std::vector<float> embed_alone(Engine& engine, const std::vector<int32_t>& text) {
  kv::Sequence sequence(engine.kv());
  models::PooledRows pooled(engine.model().pooling);
  const size_t most = size_t(std::min(engine.bounds().tokens, engine.bounds().logits));
  for (size_t done = 0; done < text.size(); done += most) {
    const auto piece = std::span(text).subspan(done, std::min(most, text.size() - done));
    const auto step = engine.feed(sequence, piece, int64_t(piece.size()), int64_t(text.size()));
    pooled.add(step.hidden, step.rows, engine.model().hidden_size);
  }
  return pooled.result();
}

// The first of `texts` that fit into one step.
void embed_together(Engine& engine, Texts texts, std::vector<std::vector<float>>& embeddings) {
  std::vector<std::unique_ptr<kv::Sequence>> sequences;
  std::vector<backends::SequenceStep> steps;
  int64_t tokens = 0, pages = 0;
  for (const auto& text : texts) {
    tokens += int64_t(text.size()), pages += engine.kv().pages_of(int64_t(text.size()));
    if (tokens > engine.bounds().tokens || pages > engine.kv().free_pages()) break;
    sequences.push_back(std::make_unique<kv::Sequence>(engine.kv()));
    steps.push_back({sequences.back().get(), 0, text, int64_t(text.size()), int64_t(text.size())});
  }
  const auto result = engine.step(steps);
  const int64_t dim = engine.model().hidden_size;
  const float* rows = result.hidden;
  for (const auto& step : steps) {
    models::PooledRows pooled(engine.model().pooling);
    pooled.add(rows, step.logit_rows, dim);
    rows += step.logit_rows * dim;
    embeddings.push_back(pooled.result());
  }
}

}  // namespace

std::vector<std::vector<float>> embed(Engine& engine, Texts texts,
                                      const std::function<void(size_t)>& on_progress) {
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto tokens = int64_t(texts[i].size());
    if (tokens == 0) fail(ErrorKind::invalid_argument, "text {} to embed has no tokens", i + 1);
    if (tokens > engine.context())
      fail(ErrorKind::invalid_argument,
           "text {} to embed has {} tokens, the context holds {}; shorten it or raise --ctx (this model goes "
           "up to {})",
           i + 1, tokens, engine.context(), engine.model().context_length);
  }
  std::vector<std::vector<float>> embeddings;
  while (embeddings.size() < texts.size()) {
    if (engine.model().encoder())
      embed_together(engine, texts.subspan(embeddings.size()), embeddings);
    else
      embeddings.push_back(embed_alone(engine, texts[embeddings.size()]));
    if (on_progress) on_progress(embeddings.size());
  }
  return embeddings;
}

}  // namespace cairn::engine
