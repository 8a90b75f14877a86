// TLS: which certificates are trusted. The protocol itself is tested through hub_test.cpp.
#include "formats/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/error.h"
#include "formats/testing.h"

namespace cairn::formats {
namespace {

using testing::message_of;
using testing::TemporaryFolder;

struct Certificate {
  std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key{EVP_EC_gen("P-256"), EVP_PKEY_free};
  std::unique_ptr<X509, decltype(&X509_free)> x509{X509_new(), X509_free};

  // Signed by itself, for `names` such as "IP:127.0.0.1" or "DNS:localhost", valid from now for `seconds`.
  explicit Certificate(const std::string& names, long seconds = 3600) {
    X509_set_version(x509.get(), 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509.get()), std::min(0L, seconds * 2));
    X509_gmtime_adj(X509_getm_notAfter(x509.get()), seconds);
    X509_set_pubkey(x509.get(), key.get());
    X509_NAME* subject = X509_get_subject_name(x509.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"),
                               -1, -1, 0);
    X509_set_issuer_name(x509.get(), subject);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, names.c_str());
    X509_add_ext(x509.get(), extension, -1);
    X509_EXTENSION_free(extension);
    X509_sign(x509.get(), key.get(), EVP_sha256());
  }

  std::string pem() const {
    std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), BIO_free);
    PEM_write_bio_X509(bio.get(), x509.get());
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return {data, size_t(size)};
  }
};

// Answers every connection with the same bytes over TLS.
class TlsServer {
 public:
  TlsServer(const Certificate& certificate, std::string answer)
      : answer_(std::move(answer)), context_(SSL_CTX_new(TLS_server_method()), SSL_CTX_free) {
    SSL_CTX_use_certificate(context_.get(), certificate.x509.get());
    SSL_CTX_use_PrivateKey(context_.get(), certificate.key.get());
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(listener_, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener_, 16) != 0 ||
        getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) != 0)
      std::abort();
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { serve(); });
  }
  ~TlsServer() {
    stop_ = true;
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }
  int requests() const { return requests_; }

 private:
  void serve() {
    while (!stop_) {
      pollfd ready{listener_, POLLIN, 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context_.get()), SSL_free);
      SSL_set_fd(ssl.get(), client);
      char piece[4096];
      if (SSL_accept(ssl.get()) == 1 && SSL_read(ssl.get(), piece, sizeof piece) > 0) {
        ++requests_;
        SSL_write(ssl.get(), answer_.data(), int(answer_.size()));
        SSL_shutdown(ssl.get());
      }
      close(client);
    }
  }

  std::string answer_;
  std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::thread thread_;
};

class HttpsTest : public ::testing::Test {
 protected:
  HttpsTest() { signal(SIGPIPE, SIG_IGN); }  // SSL_write to a client that hung up
  ~HttpsTest() override { unsetenv("SSL_CERT_FILE"); }

  void trust(const Certificate& certificate) {
    setenv("SSL_CERT_FILE", folder_.write("ca.pem", certificate.pem()).c_str(), 1);
  }
  // The body, or the error.
  static std::string get(const std::string& host, int port) {
    std::string body;
    HttpRequest request{.url = parse_url(fmt::format("https://{}:{}/x", host, port)), .body_limit = 1000};
    request.wants_body = [](const HttpHead& head) { return head.status == 200; };
    request.on_body = [&](std::string_view bytes) { body += bytes; };
    const std::string error = message_of([&] { HttpClient().fetch(request); });
    return error.empty() ? body : error;
  }

  TemporaryFolder folder_;
  const std::string answer_ = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
};

TEST_F(HttpsTest, ACertificateOfATrustedAuthorityForThisHostIsAccepted) {
  const Certificate certificate("IP:127.0.0.1,DNS:localhost");
  TlsServer server(certificate, answer_);
  trust(certificate);
  EXPECT_EQ(get("127.0.0.1", server.port()), "hi");
  EXPECT_EQ(get("localhost", server.port()), "hi");
}

TEST_F(HttpsTest, OthersAreRefusedBeforeAnythingIsSent) {
  const Certificate other_host("DNS:other.example"), unknown("IP:127.0.0.1"), expired("IP:127.0.0.1", -3600);
  for (const Certificate* certificate : {&other_host, &unknown, &expired}) {
    TlsServer server(*certificate, answer_);
    if (certificate == &unknown)
      unsetenv("SSL_CERT_FILE");
    else
      trust(*certificate);
    const std::string error = get("127.0.0.1", server.port());
    EXPECT_NE(error.find("https://127.0.0.1"), std::string::npos) << error;
    EXPECT_NE(error.find("certificate is not trusted"), std::string::npos) << error;
    EXPECT_EQ(server.requests(), 0);
  }
}

TEST_F(HttpsTest, RedirectsToPlainHttpAreNotFollowed) {
  const Certificate certificate("IP:127.0.0.1");
  TlsServer server(certificate,
                   "HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
  trust(certificate);
  EXPECT_NE(get("127.0.0.1", server.port()).find("redirects from https to http://127.0.0.1:1"),
            std::string::npos);
}

TEST_F(HttpsTest, ACutConnectionIsNoCompleteAnswer) {
  const Certificate certificate("IP:127.0.0.1");
  TlsServer server(certificate, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhi");
  trust(certificate);
  EXPECT_NE(get("127.0.0.1", server.port()).find("before its answer was complete"), std::string::npos);
}

}  // namespace
}  // namespace cairn::formats
