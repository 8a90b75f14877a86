// Every template of the shared material over every conversation of testdata/conversations.json, against
// hashes of what Python's jinja2 made of them (tools/make_template_goldens.py).
#include <openssl/evp.h>

#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/testing.h"
#include "text/chat_template.h"

namespace cairn::text {
namespace {

using Json = nlohmann::ordered_json;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string digest(const std::string& text) {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  EVP_Digest(text.data(), text.size(), bytes, nullptr, EVP_sha256(), nullptr);
  std::string hex;
  for (int i = 0; i < 8; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

std::vector<std::string> split(const std::string& line) {
  std::vector<std::string> columns;
  std::istringstream in(line);
  for (std::string column; std::getline(in, column, '\t');) columns.push_back(column);
  return columns;
}

std::tm frozen() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 6;
  now.tm_mday = 26;
  now.tm_hour = 13;
  now.tm_min = 5;
  now.tm_sec = 9;
  now.tm_wday = 5;
  now.tm_yday = 207;
  return now;
}

std::string outcome(const ChatTemplate& chat_template, const Json& variables) {
  try {
    return digest(chat_template.render(variables, {}, frozen));
  } catch (const Error& e) {
    EXPECT_NE(e.kind(), ErrorKind::unsupported) << e.what();
    const std::string message = e.what(), marker = "the template refuses: ";
    const size_t at = message.find(marker);
    return at == std::string::npos ? "?" : "!" + digest(message.substr(at + marker.size()));
  }
}

TEST(ChatTemplateGoldens, EveryTemplateRendersAsInPython) {
  CAIRN_NEED_DATA("templates");
  const auto testdata = std::filesystem::path(CAIRN_SOURCE_DIR) / "src/text/jinja/testdata";
  const Json conversations = Json::parse(read(testdata / "conversations.json"));
  std::ifstream goldens(testdata / "goldens.tsv");
  std::string line;
  ASSERT_TRUE(std::getline(goldens, line));
  ASSERT_EQ(split(line).size(), conversations.size() + 2) << "goldens.tsv is older than conversations.json";
  size_t templates = 0, rendered = 0;
  while (std::getline(goldens, line)) {
    const auto columns = split(line);
    ASSERT_EQ(columns.size(), conversations.size() + 2);
    const std::string source = read(testing::data_folder() / "templates" / columns[0]);
    ASSERT_EQ(digest(source), columns[1]) << columns[0] << " is not the file the goldens came from";
    const ChatTemplate chat_template(source, columns[0]);
    ++templates;
    for (size_t i = 0; i < conversations.size(); ++i) {
      const std::string got = outcome(chat_template, conversations[i]["variables"]);
      EXPECT_EQ(got, columns[i + 2]) << columns[0] << " over " << conversations[i]["name"];
      rendered += got[0] != '?' && got[0] != '!';
    }
  }
  EXPECT_GE(templates, 54u);
  EXPECT_GT(rendered, templates * 30);
}

}  // namespace
}  // namespace cairn::text
