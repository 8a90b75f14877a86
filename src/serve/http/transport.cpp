#include "serve/http/transport.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <new>

#include "base/error.h"

namespace cairn::serve {
namespace {

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

// OpenSSL's own socket BIO writes with write(), which kills the process with SIGPIPE when the client is gone.
int bio_write(BIO* bio, const char* bytes, int size) {
  const ssize_t sent =
      send(int(reinterpret_cast<intptr_t>(BIO_get_data(bio))), bytes, size_t(size), MSG_NOSIGNAL);
  BIO_clear_retry_flags(bio);
  if (sent < 0 && would_block()) BIO_set_retry_write(bio);
  return int(sent);
}

int bio_read(BIO* bio, char* bytes, int size) {
  const ssize_t got = recv(int(reinterpret_cast<intptr_t>(BIO_get_data(bio))), bytes, size_t(size), 0);
  BIO_clear_retry_flags(bio);
  if (got < 0 && would_block()) BIO_set_retry_read(bio);
  return int(got);
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

BIO* make_bio(int socket) {
  static BIO_METHOD* const method = [] {
    BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    BIO_meth_set_write(made, bio_write);
    BIO_meth_set_read(made, bio_read);
    BIO_meth_set_ctrl(made, bio_control);
    return made;
  }();
  BIO* bio = BIO_new(method);
  if (!bio) throw std::bad_alloc();
  BIO_set_data(bio, reinterpret_cast<void*>(intptr_t(socket)));
  BIO_set_init(bio, 1);
  return bio;
}

// Browsers and some clients offer h2 first; saying what we speak spares them a guess.
int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* size, const unsigned char* offered,
                    unsigned int offered_size, void*) {
  static const unsigned char ours[] = "\x08http/1.1";
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, size, ours, sizeof ours - 1, offered, offered_size) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_NOACK;
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

TlsContext::TlsContext(const std::string& certificate, const std::string& key)
    : context_(SSL_CTX_new(TLS_server_method())) {
  if (!context_) throw std::bad_alloc();
  SSL_CTX_set_min_proto_version(context_, TLS1_2_VERSION);
  SSL_CTX_set_options(context_, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                    SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET);
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context_, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                 SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_alpn_select_cb(context_, choose_protocol, nullptr);
  const char* wrong = nullptr;
  if (SSL_CTX_set_cipher_list(context_, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1)
    wrong = "no cipher with forward secrecy is available for";
  else if (SSL_CTX_use_certificate_chain_file(context_, certificate.c_str()) != 1)
    wrong = "no PEM certificate can be read from";
  if (wrong) {
    SSL_CTX_free(context_);
    fail(ErrorKind::invalid_file, "TLS: {} {}", wrong, certificate);
  }
  if (SSL_CTX_use_PrivateKey_file(context_, key.c_str(), SSL_FILETYPE_PEM) != 1 ||
      SSL_CTX_check_private_key(context_) != 1) {
    SSL_CTX_free(context_);
    fail(ErrorKind::invalid_file, "TLS: {} holds no PEM private key that belongs to {}", key, certificate);
  }
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Transport::Transport(int socket, const TlsContext* tls) : socket_(socket) {
  if (!tls) return;
  tls_ = SSL_new(tls->get());
  if (!tls_) throw std::bad_alloc();
  BIO* bio = make_bio(socket);
  SSL_set_bio(tls_, bio, bio);
  SSL_set_accept_state(tls_);
}

Transport::~Transport() { SSL_free(tls_); }

Transport::Result Transport::read(char* into, size_t size) {
  if (!tls_) {
    const ssize_t got = recv(socket_, into, size, 0);
    if (got > 0) return {Status::moved, size_t(got)};
    if (got == 0) return {Status::ended};
    return {would_block() ? Status::wants_read : Status::broken};
  }
  ERR_clear_error();
  const int got = SSL_read(tls_, into, int(std::min<size_t>(size, INT_MAX)));
  if (got > 0) return {Status::moved, size_t(got)};
  switch (SSL_get_error(tls_, got)) {
    case SSL_ERROR_WANT_READ: return {Status::wants_read};
    case SSL_ERROR_WANT_WRITE: return {Status::wants_write};
    case SSL_ERROR_ZERO_RETURN: return {Status::ended};
    default: return {Status::broken};
  }
}

Transport::Result Transport::write(std::string_view bytes) {
  if (!tls_) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return {Status::moved, size_t(sent)};
    return {would_block() ? Status::wants_write : Status::broken};
  }
  ERR_clear_error();
  const int sent = SSL_write(tls_, bytes.data(), int(std::min<size_t>(bytes.size(), INT_MAX)));
  if (sent > 0) return {Status::moved, size_t(sent)};
  switch (SSL_get_error(tls_, sent)) {
    case SSL_ERROR_WANT_READ: return {Status::wants_read};
    case SSL_ERROR_WANT_WRITE: return {Status::wants_write};
    default: return {Status::broken};
  }
}

void Transport::end_sending() {
  if (tls_ && SSL_is_init_finished(tls_)) {
    ERR_clear_error();
    SSL_shutdown(tls_);
  }
  shutdown(socket_, SHUT_WR);
}

bool Transport::hung_up() const {
  pollfd state{socket_, POLLRDHUP, 0};
  return poll(&state, 1, 0) > 0 && (state.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace cairn::serve
