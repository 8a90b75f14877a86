#include "serve/http/request_parser.h"

#include <boost/beast/http/parser.hpp>
#include <charconv>
#include <functional>

#include "serve/http/text.h"

namespace cairn::serve {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr size_t kRequestLine = 8 << 10;
constexpr size_t kMethod = 32;  // no method is longer
constexpr size_t kFieldLines = 128;
constexpr size_t kChunkHeader = 8 << 10;  // with extensions, or the trailer
constexpr size_t kLastChunk = 5;          // "0", CRLF, CRLF
constexpr size_t kEmptyLines = 4;         // bytes of them that some clients send before a request

std::string text_of(beast::string_view text) { return {text.data(), text.size()}; }

// Beast's own string_body reserves what Content-Length announces; this one takes memory for what came.
struct ReceivedBody {
  using value_type = std::string;
  class reader {
   public:
    template <bool is_request, class Fields>
    reader(http::header<is_request, Fields>&, value_type& body) : body_(body) {}
    template <class Length>
    void init(const Length&, error_code& error) {
      error = {};
    }
    template <class Buffers>
    size_t put(const Buffers& buffers, error_code& error) {
      error = {};
      size_t size = 0;
      for (auto part = boost::asio::buffer_sequence_begin(buffers);
           part != boost::asio::buffer_sequence_end(buffers); ++part) {
        const boost::asio::const_buffer bytes(*part);
        body_.append(static_cast<const char*>(bytes.data()), bytes.size());
        size += bytes.size();
      }
      return size;
    }
    void finish(error_code& error) { error = {}; }

   private:
    value_type& body_;
  };
};

bool is_field_value(char c) { return c == '\t' || (uint8_t(c) >= 0x20 && uint8_t(c) != 0x7f); }

}  // namespace

struct RequestParser::Beast {
  http::request_parser<ReceivedBody> parser;
  // Beast lets any byte pass inside the quotes of a chunk's extension, line breaks too.
  std::function<void(uint64_t, beast::string_view, error_code&)> check_extension =
      [](uint64_t, beast::string_view extension, error_code& error) {
        if (!std::all_of(extension.begin(), extension.end(), is_field_value))
          error = http::error::bad_chunk_extension;
      };
  Beast() { parser.on_chunk_header(check_extension); }
};

std::string_view RequestHead::field(std::string_view name) const { return find_field(fields, name); }

size_t RequestHead::count(std::string_view name) const {
  size_t count = 0;
  for (const auto& [found, value] : fields) count += same_ignoring_case(found, name);
  return count;
}

RequestParser::RequestParser(size_t header_limit, size_t body_limit)
    : header_limit_(header_limit), body_limit_(body_limit) {}
RequestParser::~RequestParser() = default;

bool RequestParser::refuse(int status, const char* code, const char* message) {
  state_ = State::failed;
  status_ = status;
  code_ = code;
  message_ = message;
  return false;
}

size_t RequestParser::body_size() const { return beast_ ? beast_->parser.get().body().size() : 0; }

std::string RequestParser::take_body() {
  return beast_ ? std::move(beast_->parser.get().body()) : std::string();
}

size_t RequestParser::feed(std::string_view bytes) {
  if (state_ == State::head) return feed_head(bytes);
  if (state_ == State::body) return feed_body(bytes);
  return 0;
}

size_t RequestParser::feed_head(std::string_view bytes) {
  if (lines_ == 0 && checked_ == 0) {
    size_t empty = 0;
    while (bytes.substr(empty, 2) == "\r\n") empty += 2;
    skipped_ += empty;
    if (skipped_ > kEmptyLines) {
      refuse(400, "bad_request", "Too many empty lines before the request.");
      return 0;
    }
    if (empty > 0) return empty;
    if (bytes.empty() || bytes == "\r") return 0;
    started_ = true;
  }
  if (!check_lines(bytes)) return 0;
  if (state_ == State::head) return 0;  // not complete yet
  const size_t size = checked_;
  beast_ = std::make_unique<Beast>();
  auto& parser = beast_->parser;
  parser.header_limit(uint32_t(header_limit_ + 4));
  // Checked here, where the head can still be judged first. Boost 1.74 takes boost::none for 0.
  parser.body_limit(UINT64_MAX);
  error_code error;
  const size_t used = parser.put(boost::asio::const_buffer(bytes.data(), size), error);
  if (error == http::error::bad_content_length || error == http::error::bad_transfer_encoding) {
    refuse(400, "bad_request", "The length of the body is malformed.");
    return 0;
  }
  if (error || used != size || !parser.is_header_done()) {
    refuse(400, "bad_request", "The request's head is malformed.");
    return 0;
  }
  const auto& message = parser.get();
  head_.method = text_of(message.method_string());
  head_.target = text_of(message.target());
  head_.minor_version = int(message.version() % 10);
  for (const auto& field : message)
    head_.fields.emplace_back(text_of(field.name_string()), text_of(field.value()));
  head_.keep_alive = message.keep_alive();
  if (!read_framing()) return 0;
  state_ = parser.is_done() ? State::done : State::body;
  return size;
}

// Goes through the lines that are new. On the empty line that ends the head, state() is no longer `head`.
bool RequestParser::check_lines(std::string_view bytes) {
  for (;;) {
    const std::string_view rest = bytes.substr(checked_);
    const size_t end = rest.find('\n');
    const size_t allowed = lines_ == 0 ? std::min(kRequestLine, header_limit_) : header_limit_;
    const size_t so_far = end == rest.npos ? bytes.size() : checked_ + end + 1;
    if (so_far > allowed)
      return lines_ == 0 ? refuse(414, "uri_too_long", "The request line is too long.")
                         : refuse(431, "headers_too_large", "The request's headers are too large.");
    // Bytes that no line may hold are refused before its end comes: it may never come. Each is looked at
    // once.
    std::string_view line = rest.substr(0, end);
    const bool has_end = end != rest.npos, has_return = !line.empty() && line.back() == '\r';
    if (has_end && !has_return)
      return refuse(400, "bad_request", "A line of the request's head ends without CR.");
    if (has_return) line.remove_suffix(1);
    if (!std::all_of(line.begin() + ptrdiff_t(std::min(scanned_, line.size())), line.end(), is_field_value))
      return refuse(400, "bad_request", "The request's head holds a control character.");
    scanned_ = has_end ? 0 : line.size();
    if (!has_end) {
      const std::string_view begin = line.substr(0, kMethod);
      if (lines_ == 0 && !line.empty() && !is_token(begin.substr(0, begin.find(' '))))
        return refuse(400, "bad_request", "The request line is malformed.");
      return true;
    }
    checked_ += end + 1;
    if (line.empty() && lines_ > 0) {
      state_ = State::body;
      return true;
    }
    if (++lines_ > kFieldLines) return refuse(431, "headers_too_large", "The request has too many headers.");
    if (!(lines_ == 1 ? check_request_line(line) : check_field_line(line))) return false;
  }
}

bool RequestParser::check_request_line(std::string_view line) {
  const size_t first = line.find(' '), second = line.find(' ', first + 1);
  if (first == line.npos || second == line.npos || second == first + 1)
    return refuse(400, "bad_request", "The request line is malformed.");
  if (!is_token(line.substr(0, first)))
    return refuse(400, "bad_request", "The request's method is malformed.");
  for (const char c : line.substr(first + 1, second - first - 1))
    if (c < 0x21 || c > 0x7e || c == '#')
      return refuse(400, "bad_request",
                    "The request's target holds a character that must be percent-encoded.");
  const std::string_view version = line.substr(second + 1);
  if (version.size() != 8 || !version.starts_with("HTTP/") || !is_digit(version[5]) || version[6] != '.' ||
      !is_digit(version[7]))
    return refuse(400, "bad_request", "The request's protocol version is malformed.");
  if (version[5] != '1' || version[7] > '1')
    return refuse(505, "version_not_supported", "This server speaks HTTP/1.1.");
  return true;
}

bool RequestParser::check_field_line(std::string_view line) {
  const size_t colon = line.find(':');
  if (line[0] == ' ' || line[0] == '\t')
    return refuse(400, "bad_request", "A header is folded over two lines, which HTTP no longer has.");
  if (colon == line.npos || !is_token(line.substr(0, colon)))
    return refuse(400, "bad_request", "The name of a header is malformed.");
  return true;
}

// How long the body is, and that nobody could read the same head otherwise (RFC 9112, 6.3).
bool RequestParser::read_framing() {
  const size_t lengths = head_.count("Content-Length"), encodings = head_.count("Transfer-Encoding");
  if (lengths > 1 || (lengths > 0 && encodings > 0))
    return refuse(400, "bad_request", "The request says more than once how long its body is.");
  for (const char* single : {"Host", "Authorization", "X-Api-Key", "Content-Type", "Origin", "Expect"})
    if (head_.count(single) > 1)
      return refuse(400, "bad_request", "A header that may come once was repeated.");
  if (lengths == 1) {
    const std::string_view text = head_.field("Content-Length");
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), head_.length);
    if (error == std::errc::result_out_of_range && end == text.data() + text.size())
      return refuse(413, "body_too_large", "The request's body is too large.");
    if (error != std::errc() || end != text.data() + text.size() || !is_digit(text[0]))
      return refuse(400, "bad_request", "Content-Length is malformed.");
    head_.has_length = true;
  }
  if (encodings > 0) {
    if (head_.minor_version == 0)
      return refuse(400, "bad_request", "Transfer-Encoding does not exist in HTTP/1.0.");
    const std::string_view coding = head_.field("Transfer-Encoding");
    if (encodings > 1 || !same_ignoring_case(coding, "chunked")) {
      // Without chunked at the end nobody knows where the body ends; with something before it, we cannot.
      const std::string_view last = trimmed(coding.substr(coding.rfind(',') + 1));
      if (encodings > 1 || !same_ignoring_case(last, "chunked"))
        return refuse(400, "bad_request", "Transfer-Encoding must end with chunked.");
      return refuse(501, "not_implemented", "No transfer coding but chunked is understood.");
    }
    head_.chunked = true;
  }
  head_.expects_continue =
      head_.minor_version == 1 && same_ignoring_case(head_.field("Expect"), "100-continue");
  return true;
}

size_t RequestParser::feed_body(std::string_view bytes) {
  if (head_.has_length && head_.length > body_limit_) {
    refuse(413, "body_too_large", "The request's body is too large.");
    return 0;
  }
  auto& parser = beast_->parser;
  size_t used = 0;
  // Beast asserts that it is not asked twice about less than the shortest last chunk when that comes first.
  if (unfinished_ && bytes.size() < kLastChunk && bytes.starts_with('0')) return 0;
  unfinished_ = false;
  while (used < bytes.size() && !parser.is_done()) {
    error_code error;
    const size_t took =
        parser.put(boost::asio::const_buffer(bytes.data() + used, bytes.size() - used), error);
    used += took;
    if (error == http::error::need_more) {
      // What is left is an unfinished chunk header or trailer.
      unfinished_ = true;
      const std::string_view left = bytes.substr(used);
      if (left.size() > kChunkHeader)
        refuse(400, "bad_request", "A chunk's header, or the trailer, is too long.");
      for (size_t end = left.find('\n'); end != left.npos; end = left.find('\n', end + 1))
        if (end == 0 || left[end - 1] != '\r')
          refuse(400, "bad_request", "A line of the body's chunks ends without CR.");
      break;
    }
    if (error) {
      refuse(400, "bad_request", "The chunks of the request's body are malformed.");
      return used;
    }
    if (took == 0) break;
  }
  if (state_ == State::failed) return used;
  framing_bytes_ += used;
  // The second sum is against chunks of one byte, each with a long extension.
  if (body_size() > body_limit_ || framing_bytes_ > 8 * body_limit_ + (64 << 10))
    refuse(413, "body_too_large", "The request's body is too large.");
  else if (parser.is_done())
    state_ = State::done;
  return used;
}

}  // namespace cairn::serve
