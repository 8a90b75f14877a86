#include "text/sentencepiece.h"

#include "base/error.h"
#include "text/unigram.h"
#include "text/utf8.h"
#include "text/wire_reader.h"

namespace cairn::text {
namespace {

constexpr std::string_view kSpaceMark = "\xe2\x96\x81";  // U+2581

// SentencePieceProcessor::Decode: byte pieces are joined and read as UTF-8 with U+FFFD for each broken byte,
// unknown pieces have a surface of their own, and the space mark that the dummy prefix made is dropped from
// the front.
class SpmDecoderStep final : public DecoderStep {
 public:
  SpmDecoderStep(std::vector<PieceType> types, bool drops_prefix, bool drops_all_leading,
                 std::string unk_surface)
      : types_(std::move(types)),
        drops_prefix_(drops_prefix),
        drops_all_leading_(drops_all_leading),
        unk_surface_(std::move(unk_surface)) {}

  std::unique_ptr<DecodeStage> start(bool) const override { return std::make_unique<Stage>(*this); }
  std::string piece(std::string text) const override {
    if (const auto byte = byte_of_token(text)) return std::string(1, char(*byte));
    return replace_all(text, kSpaceMark, " ");
  }

 private:
  PieceType type(TokenId id) const {
    return id >= 0 && size_t(id) < types_.size() ? types_[size_t(id)] : PieceType::normal;
  }

  struct Stage : DecodeStage {
    explicit Stage(const SpmDecoderStep& s) : step(s) {}

    void emit(std::string text, Tokens& next) {
      if (text.empty()) return;
      any = true;
      next.push_back({-1, std::move(text)});
    }

    // Complete characters of the bytes so far; at the end, everything.
    void flush(bool all, Tokens& next) {
      std::string out;
      size_t at = 0;
      const size_t limit = all ? bytes.size() : bytes.size() - unfinished_utf8(bytes);
      while (at < limit) {
        const CodePoint c = decode_utf8(std::string_view(bytes).substr(at));
        if (c.value == kInvalid) {
          out += kReplacementUtf8;
          at += 1;
        } else {
          out.append(bytes, at, c.bytes);
          at += c.bytes;
        }
      }
      bytes.erase(0, at);
      emit(std::move(out), next);
    }

    void add(DecodedToken token, Tokens& next) override {
      const PieceType type = step.type(token.id);
      if (type == PieceType::byte) {
        bytes += char(*byte_of_token(token.text));
        flush(false, next);
        return;
      }
      skip(next);
      if (type == PieceType::unknown) return emit(step.unk_surface_, next);
      // Shown only when special tokens are not skipped; the reference gives no text at all.
      if (type == PieceType::control) return emit(std::move(token.text), next);
      std::string_view text = token.text;
      if (at_start && step.drops_prefix_ && text.starts_with(kSpaceMark)) {
        text.remove_prefix(kSpaceMark.size());
        prefix_dropped = !step.drops_all_leading_;
      }
      emit(replace_all(text, kSpaceMark, " "), next);
    }
    // What every token that is no byte does first: it ends a run of bytes.
    void skip(Tokens& next) override {
      flush(true, next);
      if (prefix_dropped || any) at_start = false;
      prefix_dropped = false;
    }
    void finish(Tokens& next) override { flush(true, next); }

    const SpmDecoderStep& step;
    std::string bytes;
    bool at_start = true, prefix_dropped = false, any = false;
  };

  std::vector<PieceType> types_;
  bool drops_prefix_, drops_all_leading_;
  std::string unk_surface_;
};

SentencePieceModel::Entry parse_piece(std::string_view bytes, const std::string& file, size_t base) {
  WireReader reader(bytes, file, base);
  SentencePieceModel::Entry entry;
  while (const auto field = reader.next()) {
    if (field->number == 1) {
      entry.text = reader.text(*field);
    } else if (field->number == 2) {
      entry.score = reader.number(*field);
    } else if (field->number == 3) {
      const int64_t type = reader.integer(*field);
      if (type < 1 || type > 6)
        fail(ErrorKind::invalid_file, "{}: piece type {} at byte {} is not one of 1 to 6", file, type,
             field->offset);
      entry.type = PieceType(type);
    }
  }
  if (entry.text.empty()) fail(ErrorKind::invalid_file, "{}: the piece at byte {} has no text", file, base);
  return entry;
}

void parse_trainer(std::string_view bytes, const std::string& file, size_t base, SentencePieceModel& model) {
  WireReader reader(bytes, file, base);
  while (const auto field = reader.next()) {
    if (field->number == 3) {
      const int64_t type = reader.integer(*field);
      if (type != 1 && type != 2)
        fail(ErrorKind::unsupported, "{}: model type {} is not supported (unigram is 1, BPE is 2)", file,
             type);
      model.kind = type == 1 ? SentencePieceModel::Kind::unigram : SentencePieceModel::Kind::bpe;
    } else if (field->number == 24) {
      model.rules.whitespace_as_suffix = reader.boolean(*field);
    } else if (field->number == 35) {
      model.byte_fallback = reader.boolean(*field);
    } else if (field->number == 44) {
      model.unk_surface = replace_invalid_utf8(reader.text(*field));
    }
  }
}

void parse_normalizer_spec(std::string_view bytes, const std::string& file, size_t base, SpmRules& rules) {
  WireReader reader(bytes, file, base);
  while (const auto field = reader.next()) {
    if (field->number == 2) rules.rules = CharsMap(reader.text(*field), file);
    if (field->number == 3) rules.add_dummy_prefix = reader.boolean(*field);
    if (field->number == 4) rules.remove_extra_whitespaces = reader.boolean(*field);
    if (field->number == 5) rules.escape_whitespaces = reader.boolean(*field);
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file) {
  SentencePieceModel model;
  WireReader reader(bytes, file);
  while (const auto field = reader.next()) {
    if (field->number == 1) {
      model.pieces.push_back(parse_piece(reader.text(*field), file, field->offset));
    } else if (field->number == 2) {
      parse_trainer(reader.text(*field), file, field->offset, model);
    } else if (field->number == 3) {
      parse_normalizer_spec(reader.text(*field), file, field->offset, model.rules);
    } else if (field->number == 5) {
      SpmRules denormalizer;
      parse_normalizer_spec(reader.text(*field), file, field->offset, denormalizer);
      if (!denormalizer.rules.empty())
        fail(ErrorKind::unsupported, "{}: denormalisation rules are not supported", file);
    }
  }
  size_t unknown = 0;
  for (const auto& piece : model.pieces) unknown += piece.type == PieceType::unknown;
  if (unknown != 1)
    fail(ErrorKind::invalid_file, "{}: {} of {} pieces are of type unknown, expected one", file, unknown,
         model.pieces.size());
  return model;
}

Pipeline sentencepiece_pipeline(SentencePieceModel model, const std::string& file) {
  Pipeline pipeline;
  std::vector<AddedToken> added;
  std::vector<PieceType> types;
  TokenId unk = -1;
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    auto& piece = model.pieces[i];
    piece.text = replace_invalid_utf8(piece.text);
    types.push_back(piece.type);
    if (piece.type == PieceType::unknown) unk = TokenId(i);
    if (piece.type == PieceType::user_defined) model.rules.user_defined.push_back(piece.text);
    if (piece.type == PieceType::control && !piece.text.empty())
      added.push_back({.id = TokenId(i), .text = piece.text, .special = true});
    if (piece.type == PieceType::byte && !byte_of_token(piece.text))
      fail(ErrorKind::invalid_file,
           "{}: piece {} is of type byte, but its text \"{}\" is not <0x00> to <0xFF>", file, i, piece.text);
  }
  if (model.kind == SentencePieceModel::Kind::bpe) {
    std::vector<Piece> pieces;
    for (const auto& piece : model.pieces) pieces.push_back({piece.text, piece.score, piece.type});
    pipeline.model = std::make_unique<SpmBpe>(pieces, unk, model.byte_fallback, file);
  } else {
    std::vector<UnigramPiece> pieces;
    for (const auto& piece : model.pieces) pieces.push_back({piece.text, double(piece.score), piece.type});
    pipeline.model =
        std::make_unique<Unigram>(pieces, unk, model.byte_fallback, Unigram::Reference::sentencepiece, file);
  }
  pipeline.normalizer_takes_invalid_utf8 = true;
  pipeline.added.set(std::move(added), nullptr, file);
  pipeline.decoder.add(std::make_unique<SpmDecoderStep>(
      std::move(types), model.rules.add_dummy_prefix || model.rules.remove_extra_whitespaces,
      model.rules.remove_extra_whitespaces, model.unk_surface));
  pipeline.normalizer = spm_normalizer(std::move(model.rules));
  if (unk >= 0) pipeline.special.unk = unk;
  return pipeline;
}

}  // namespace cairn::text
