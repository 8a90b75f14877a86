#include <bit>
#include <cstring>

#include "base/error.h"
#include "text/loaders.h"
#include "text/spm_bpe.h"
#include "text/utf8.h"

namespace cairn::text {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581, SentencePiece's visible space

std::string spaces_to_marks(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == ' ')
      out += kSpace;
    else
      out += c;
  }
  return out;
}

}  // namespace

Pipeline parse_llama2c_tokenizer(std::string_view bytes, const std::string& file) {
  static_assert(std::endian::native == std::endian::little);
  size_t at = 0;
  const auto read = [&]<typename T>(T& value, const char* what) {
    if (bytes.size() - at < sizeof value)
      fail(ErrorKind::invalid_file, "{}: ends at byte {} inside the {}", file, bytes.size(), what);
    std::memcpy(&value, bytes.data() + at, sizeof value);
    at += sizeof value;
  };
  int32_t longest = 0;
  read(longest, "header");
  std::vector<std::string> texts;
  std::vector<float> scores;
  while (at < bytes.size()) {
    float score = 0;
    int32_t length = 0;
    read(score, "score of a token");
    read(length, "length of a token");
    if (length < 0 || size_t(length) > bytes.size() - at)
      fail(ErrorKind::invalid_file, "{}: token {} at byte {} has length {}, but {} bytes are left", file,
           texts.size(), at - 4, length, bytes.size() - at);
    texts.push_back(spaces_to_marks(replace_invalid_utf8(bytes.substr(at, size_t(length)))));
    scores.push_back(score);
    at += size_t(length);
  }
  // Ids 0 to 2 are fixed by llama2.c's code, which also calls byte b token b + 3.
  if (texts.size() < 259)
    fail(ErrorKind::invalid_file,
         "{}: {} tokens, but llama2.c's format begins with 3 special and 256 byte tokens", file,
         texts.size());
  texts[0] = "<unk>", texts[1] = "<s>", texts[2] = "</s>";
  std::vector<Piece> pieces;
  for (size_t i = 0; i < texts.size(); ++i) {
    const bool byte = i >= 3 && i < 259;
    if (byte) texts[i] = token_of_byte(uint8_t(i - 3));
    pieces.push_back({texts[i], scores[i],
                      i == 0  ? PieceType::unknown
                      : i < 3 ? PieceType::control
                      : byte  ? PieceType::byte
                              : PieceType::normal});
  }

  Pipeline pipeline;
  pipeline.model = std::make_unique<SpmBpe>(pieces, 0, true, file);
  std::vector<std::unique_ptr<Normalizer>> steps;
  steps.push_back(prepend_normalizer(" "));
  steps.push_back(replace_normalizer(" ", std::string(kSpace)));
  pipeline.normalizer = sequence_normalizer(std::move(steps));
  pipeline.added.set({{.id = 1, .text = "<s>", .special = true}, {.id = 2, .text = "</s>", .special = true}},
                     nullptr, file);
  pipeline.post.before = {1};
  pipeline.decoder.add(replace_decoder(std::string(kSpace), " "));
  pipeline.decoder.add(byte_fallback_decoder());
  pipeline.decoder.add(fuse_decoder());
  pipeline.decoder.add(strip_decoder(' ', 1, 0));
  // Its tools stop at either: stories are separated by <s>.
  pipeline.special = {.bos = 1, .eos = 2, .unk = 0, .pad = {}, .end_of_turn = {1, 2}};
  return pipeline;
}

}  // namespace cairn::text
