// One HTTP response, fed with bytes as they come.
#pragma once

#include <boost/beast/http/basic_parser.hpp>
#include <string>
#include <string_view>

namespace cairn::load {

// Beast's parser with the few things of a response that matter to a load test; body bytes go on at once.
class ResponseReader final : public boost::beast::http::basic_parser<false> {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void on_body(std::string_view bytes) = 0;  // the head is complete by then
  };

  explicit ResponseReader(Listener& listener) : listener_(listener) {
    eager(true);
    body_limit(UINT64_MAX);  // Boost 1.74 takes boost::none for 0
    header_limit(64 << 10);
  }

  int status() const { return status_; }
  const std::string& content_type() const { return content_type_; }
  const std::string& server() const { return server_; }

 private:
  using error_code = boost::system::error_code;
  using View = boost::beast::string_view;
  using Field = boost::beast::http::field;

  void on_request_impl(boost::beast::http::verb, View, View, int, error_code&) override {}
  void on_response_impl(int code, View, int, error_code&) override { status_ = code; }
  void on_field_impl(Field name, View, View value, error_code&) override {
    if (name == Field::content_type) content_type_.assign(value.data(), value.size());
    if (name == Field::server) server_.assign(value.data(), value.size());
  }
  void on_header_impl(error_code&) override {}
  void on_body_init_impl(boost::optional<std::uint64_t> const&, error_code&) override {}
  std::size_t on_body_impl(View bytes, error_code&) override { return take(bytes); }
  void on_chunk_header_impl(std::uint64_t, View, error_code&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, View bytes, error_code&) override { return take(bytes); }
  void on_finish_impl(error_code&) override {}

  std::size_t take(View bytes) {
    listener_.on_body({bytes.data(), bytes.size()});
    return bytes.size();
  }

  Listener& listener_;
  int status_ = 0;
  std::string content_type_, server_;
};

}  // namespace cairn::load
