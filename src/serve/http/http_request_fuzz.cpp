// Raw bytes, as a connection would get them: the first byte chooses the pieces they come in. Whatever they
// are, the parser ends, keeps to its limits, and says the same however they were cut.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "serve/http/access.h"
#include "serve/http/request_parser.h"
#include "serve/http/target.h"

namespace {

using namespace cairn::serve;

constexpr size_t kHead = 4096, kBody = 1 << 16;

std::string read_all(std::string_view bytes, size_t piece) {
  std::string said;
  auto parser = std::make_unique<RequestParser>(kHead, kBody);
  std::string waiting;
  for (size_t at = 0; at < bytes.size(); at += piece) {
    waiting += bytes.substr(at, piece);
    for (;;) {
      const size_t used = parser->feed(waiting);
      if (used > waiting.size()) std::abort();
      waiting.erase(0, used);
      if (parser->state() == RequestParser::State::failed) {
        if (parser->status() < 400 || parser->status() > 505) std::abort();
        return said + "!";  // which of two mistakes is named may depend on the pieces
      }
      if (parser->state() == RequestParser::State::done) {
        const RequestHead& head = parser->head();
        const std::string body = parser->take_body();
        if (body.size() > kBody) std::abort();
        if (head.has_length && body.size() != head.length) std::abort();
        if (head.has_length && head.chunked) std::abort();
        said += head.method + " " + head.target + "\n" + body + "\n";
        Target target;
        if (!parse_target(head.method, head.target, target)) {
          for (const auto& segment : target.segments)
            if (segment.empty() || segment == "." || segment == ".." || segment.find('\0') != segment.npos)
              std::abort();
          said += target.path + "\n";
        }
        host_name(head.field("Host"));
        if (!head.keep_alive) return said;
        parser = std::make_unique<RequestParser>(kHead, kBody);
        if (waiting.empty()) break;
        continue;
      }
      if (used == 0 || waiting.empty()) break;
    }
    if (waiting.size() > kHead + kBody + piece) std::abort();
  }
  return said;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  const size_t piece = 1 + data[0] % 64;
  const std::string whole = read_all(bytes, bytes.size() + 1), cut = read_all(bytes, piece);
  // Cut, the parser may not have seen yet what is wrong with an unfinished line; what it did say must agree.
  if (!whole.starts_with(cut) && !cut.starts_with(whole)) std::abort();
  return 0;
}
