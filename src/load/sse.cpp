#include "load/sse.h"

#include <cstring>

namespace cairn::load {

size_t SseParser::line_end(std::string_view bytes) {
  const void* feed = std::memchr(bytes.data(), '\n', bytes.size());
  const size_t lf = feed ? size_t(static_cast<const char*>(feed) - bytes.data()) : bytes.npos;
  const void* back = std::memchr(bytes.data(), '\r', feed ? lf : bytes.size());
  return back ? size_t(static_cast<const char*>(back) - bytes.data()) : lf;
}

void SseParser::keep(std::string& where, std::string_view what) {
  if (where.size() + what.size() > limit_) {
    too_long_ = true;
    return;
  }
  where += what;
}

void SseParser::take(std::string_view line) {
  if (first_line_) {
    first_line_ = false;
    if (line.substr(0, 3) == "\xef\xbb\xbf") line.remove_prefix(3);
  }
  const size_t colon = line.find(':');
  if (colon == 0) {
    ++comments_;
    return;
  }
  const std::string_view field = line.substr(0, colon);
  std::string_view value = colon == line.npos ? std::string_view() : line.substr(colon + 1);
  if (!value.empty() && value.front() == ' ') value.remove_prefix(1);
  if (field == "data") {
    if (has_data_) keep(data_, "\n");
    keep(data_, value);
    has_data_ = true;
  } else if (field == "event") {
    type_.clear();
    keep(type_, value);
  }
}

}  // namespace cairn::load
