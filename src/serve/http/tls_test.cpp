// The same server over TLS, with a certificate made here.
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <fmt/format.h>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "serve/http/http_testing.h"

namespace cairn::serve {
namespace {

using namespace testing;

struct Certificate {
  std::filesystem::path folder =
      std::filesystem::temp_directory_path() / fmt::format("cairn_tls_{}", getpid());
  std::string chain = folder / "chain.pem", key = folder / "key.pem";

  Certificate() {
    std::filesystem::create_directories(folder);
    EVP_PKEY* pair = EVP_EC_gen("P-256");
    X509* x509 = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509), 0);
    X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
    X509_set_pubkey(x509, pair);
    X509_NAME* name = X509_get_subject_name(x509);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("localhost"),
                               -1, -1, 0);
    X509_set_issuer_name(x509, name);
    X509_sign(x509, pair, EVP_sha256());
    BIO* file = BIO_new_file(chain.c_str(), "w");
    PEM_write_bio_X509(file, x509);
    BIO_free(file);
    file = BIO_new_file(key.c_str(), "w");
    PEM_write_bio_PrivateKey(file, pair, nullptr, nullptr, 0, nullptr, nullptr);
    BIO_free(file);
    X509_free(x509);
    EVP_PKEY_free(pair);
  }
  ~Certificate() { std::filesystem::remove_all(folder); }
};

// A blocking client.
class TlsClient {
 public:
  TlsClient(uint16_t port, int newest = TLS1_3_VERSION) : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_security_level(context_, 0);
    SSL_CTX_set_max_proto_version(context_, newest);
    BIO* bio = BIO_new_connect(("127.0.0.1:" + std::to_string(port)).c_str());
    ssl_ = SSL_new(context_);
    const unsigned char protocols[] = "\x02h2\x08http/1.1";
    SSL_set_alpn_protos(ssl_, protocols, sizeof protocols - 1);
    SSL_set_bio(ssl_, bio, bio);
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  std::string protocol() const {
    const unsigned char* chosen = nullptr;
    unsigned int size = 0;
    SSL_get0_alpn_selected(ssl_, &chosen, &size);
    return {reinterpret_cast<const char*>(chosen), size};
  }
  bool send(std::string_view bytes) {
    return SSL_write(ssl_, bytes.data(), int(bytes.size())) == int(bytes.size());
  }
  // Until `text` has come or the connection ends.
  std::string read_to(std::string_view text) {
    std::string got;
    char piece[4096];
    while (got.find(text) == got.npos) {
      const int size = SSL_read(ssl_, piece, sizeof piece);
      if (size <= 0) break;
      got.append(piece, size_t(size));
    }
    return got;
  }
  int end() {
    char byte;
    return SSL_get_error(ssl_, SSL_read(ssl_, &byte, 1));
  }

 private:
  SSL_CTX* context_;
  SSL* ssl_;
  bool connected_;
};

TEST(Tls, ServesTheSameThing) {
  const Certificate certificate;
  HttpOptions options;
  options.tls_certificate = certificate.chain;
  options.tls_key = certificate.key;
  options.head_timeout = 300ms;
  std::shared_ptr<Reply> stream;
  std::atomic<bool> streaming{false}, gone{false};
  RunningServer running(options, [&](HttpServer& server) {
    server.route("POST", "/length", [](HttpRequest request, std::shared_ptr<Reply> reply) {
      reply->respond({200, "text/plain", request.body + std::to_string(request.body.size()) + "END"});
    });
    server.route("GET", "/stream", [&](HttpRequest, std::shared_ptr<Reply> reply) {
      reply->on_gone([&] { gone = true; });
      reply->start(200, "text/event-stream");
      stream = std::move(reply);
      streaming = true;
    });
  });
  Client silent = running.client();  // never begins its handshake
  Client plain = running.client();
  plain.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
  {
    TlsClient client(running.port());
    ASSERT_TRUE(client.connected());
    EXPECT_EQ(client.protocol(), "http/1.1");
    const std::string body(700'000, 'b');
    for (int i = 0; i < 2; ++i) {
      std::thread sender([&] {
        client.send("POST /length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 700000\r\n\r\n" + body);
      });
      sender.join();
      EXPECT_TRUE(client.read_to("END").ends_with("bbb700000END"));
    }
    client.send("GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ASSERT_TRUE(eventually([&] { return streaming.load(); }));
    for (int i = 0; i < 100; ++i) stream->write("data: " + std::to_string(i) + "\n\n");
    EXPECT_TRUE(client.read_to("data: 99\n\n").find("data: 42\n\n") != std::string::npos);
  }
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
  {
    TlsClient client(running.port(), TLS1_2_VERSION);
    ASSERT_TRUE(client.connected());
    client.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    EXPECT_TRUE(client.read_to("}}\n").starts_with("HTTP/1.1 404"));
    EXPECT_EQ(client.end(), SSL_ERROR_ZERO_RETURN);  // ended on purpose, not cut
  }
  EXPECT_FALSE(TlsClient(running.port(), TLS1_1_VERSION).connected());
  EXPECT_TRUE(plain.wait_for_close());
  EXPECT_TRUE(silent.wait_for_close());
  stream.reset();
}

TEST(Tls, NamesTheFileThatIsWrong) {
  const Certificate certificate;
  const auto message = [](const std::string& chain, const std::string& key) -> std::string {
    HttpOptions options;
    options.tls_certificate = chain;
    options.tls_key = key;
    try {
      HttpServer server(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message(certificate.chain, certificate.key), "");
  EXPECT_NE(message("/nowhere", certificate.key).find("/nowhere"), std::string::npos);
  EXPECT_NE(message(certificate.chain, certificate.chain).find("no PEM private key"), std::string::npos);
  EXPECT_NE(message(certificate.chain, "").find("both"), std::string::npos);
}

}  // namespace
}  // namespace cairn::serve
