#include "plan/tune.h"

#include <gtest/gtest.h>

#include <unistd.h>

#include <fstream>

#include "base/error.h"
#include "plan/landscape.h"
#include "plan/profile.h"

namespace cairn::plan {
namespace {

const std::filesystem::path kModel =
    std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories/cairn-stories-q8_0.gguf";

TEST(Tune, MeasuresALoadAndSaysWhatDoesNotFit) {
  engine::EngineOptions base;
  base.place = engine::Place::cpu;
  Load load;
  load.clients = 3, load.prompt_tokens = 20, load.answer_tokens = 8, load.seconds = 0.2;
  ServerSettings settings;
  set(settings, "threads", "1");
  set(settings, "sequences", "2");
  const auto m = measure(kModel, settings, load, base);
  EXPECT_EQ(m.refused, "");
  EXPECT_GT(m.answer_tokens_per_second, 0);
  EXPECT_LE(m.quartile_low, m.answer_tokens_per_second);
  EXPECT_GE(m.quartile_high, m.answer_tokens_per_second);
  EXPECT_LE(m.mean_rows, 2);
  EXPECT_GE(m.first_token_p95, 0);
  base.memory_limit = 1 << 20;
  EXPECT_NE(measure(kModel, settings, load, base).refused.find("bytes"), std::string::npos);
  base.memory_limit = 0;
  settings.page_tokens = 24;
  EXPECT_NE(measure(kModel, settings, load, base).refused.find("24"), std::string::npos);
}

TEST(Tune, RefusesSettingsThatAreNone) {
  ServerSettings s;
  for (const auto& [name, value] :
       std::initializer_list<std::pair<const char*, const char*>>{{"threads", "0"},
                                                                  {"threads", "two"},
                                                                  {"threads", "1.5"},
                                                                  {"sequences", "-1"},
                                                                  {"gap", "0"},
                                                                  {"gap", "nan"},
                                                                  {"kv", "f8"},
                                                                  {"colour", "red"},
                                                                  {"step", "1e99"}})
    EXPECT_THROW(set(s, name, value), Error) << name << "=" << value;
}

class ProfileFile : public ::testing::Test {
 protected:
  ProfileFile()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("cairn-profile-{}", getpid())) {
    std::filesystem::create_directories(folder_);
    setenv("CAIRN_PROFILES", folder_.c_str(), 1);
  }
  ~ProfileFile() override {
    unsetenv("CAIRN_PROFILES");
    std::filesystem::remove_all(folder_);
  }
  std::filesystem::path folder_;
};

TEST_F(ProfileFile, ComesBackAsItWasWritten) {
  Profile p;
  p.model = "m.gguf", p.fingerprint = "ab12", p.machine = "a box", p.when = "2026-11-23";
  p.settings = {2, 24, 256, 0.05, 16, "q8_0"};
  p.load.clients = 77;
  const auto path = profile_path(p.fingerprint, p.machine);
  EXPECT_NE(path, profile_path(p.fingerprint, "another box"));
  EXPECT_FALSE(read_profile(path));
  write_profile(path, p);
  const auto back = read_profile(path);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->fingerprint, p.fingerprint);
  EXPECT_EQ(back->load.clients, 77);
  EXPECT_EQ(back->settings.threads, 2);
  EXPECT_EQ(back->settings.max_sequences, 24);
  EXPECT_EQ(back->settings.step_tokens, 256);
  EXPECT_DOUBLE_EQ(back->settings.max_token_gap, 0.05);
  EXPECT_EQ(back->settings.page_tokens, 16);
  EXPECT_EQ(back->settings.kv, "q8_0");
}

TEST_F(ProfileFile, RefusesWhatIsNoProfile) {
  const auto path = folder_ / "x.json";
  for (const char* text : {"", "[]", "{}", "{\"settings\": 3}", "{\"settings\": {\"kv\": \"f8\"}}",
                           "{\"settings\": {\"threads\": 1.5}}", "{\"settings\": {\"step\": \"many\"}}"}) {
    std::ofstream(path) << text;
    EXPECT_THROW(read_profile(path), Error) << text;
  }
}

TEST(Landscape, ShowsEveryTrial) {
  Search search({{"a", {"1", "2"}}, {"b", {"<x>", "y"}}}, SearchMethod::grid, 1);
  EXPECT_NE(landscape(search, "nothing yet", "", "tok/s").find("</svg>"), std::string::npos);
  search.tell({0, 0}, 5);
  search.tell({1, 1}, 9);
  search.tell({1, 0}, std::nullopt);
  const auto svg = landscape(search, "a & b", "", "tok/s");
  EXPECT_NE(svg.find("a &amp; b"), std::string::npos);
  EXPECT_EQ(svg.find("<x>"), std::string::npos);
  size_t dots = 0;
  for (size_t at = 0; (at = svg.find("r=\"3.0\"", at)) != std::string::npos; ++at) ++dots;
  EXPECT_EQ(dots, 4u);  // two trials in two strips
}

}  // namespace
}  // namespace cairn::plan
