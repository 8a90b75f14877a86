// Bytes in and out of a non-blocking socket, plain or through TLS. Who waits for the socket is the
// connection's business, so that both kinds share one state machine and an idle connection needs no buffers
// of ours.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct ssl_ctx_st;
struct ssl_st;

namespace cairn::serve {

class TlsContext {
 public:
  // PEM files: a chain beginning with the server's certificate, and its key. TLS 1.2 or newer, forward
  // secrecy, no renegotiation. Throws Error(invalid_file) naming the file.
  TlsContext(const std::string& certificate, const std::string& key);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

  ssl_ctx_st* get() const { return context_; }

 private:
  ssl_ctx_st* context_;
};

class Transport {
 public:
  enum class Status { moved, wants_read, wants_write, ended, broken };
  struct Result {
    Status status;
    size_t bytes = 0;
  };

  Transport(int socket, const TlsContext*);  // the socket stays the caller's
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  Result read(char* into, size_t size);  // makes the TLS handshake on its way
  Result write(std::string_view);
  void end_sending();    // TLS close alert and FIN; what is on its way still arrives
  bool hung_up() const;  // asks the kernel whether the other side has closed

 private:
  const int socket_;
  ssl_st* tls_ = nullptr;
};

}  // namespace cairn::serve
