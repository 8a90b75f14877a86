#include "command.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <new>

#include "base/error.h"
#include "completion.h"

namespace cairn::app {
namespace {

// A command that fails in the way its argument names.
const RegisterCommand registered(
    {"test-fail", "fail on request", [](CLI::App& app) -> std::function<int()> {
       auto how = std::make_shared<std::string>();
       auto number = std::make_shared<int>(0);
       app.add_option("how", *how, "what to throw");
       app.add_option("-n,--number", *number, "a number; it's 'quoted' [here]");
       app.add_option("--count", *number, "a count")->check(CLI::NonNegativeNumber);
       app.add_option("--share", *number, "a share")->check(CLI::Range(0, 100));
       auto talk = std::make_shared<bool>(false);
       app.add_flag("--verbose", *talk, "talk");
       return [how, number, talk]() -> int {
         if (*how == "memory") throw std::bad_alloc();
         if (*how == "bug") throw std::logic_error("surprise");
         if (*how == "hint") fail(ErrorKind::not_found, "no \x1b[31m{}\nhint: look", "x\ny");
         if (*how == "file") fail(ErrorKind::invalid_file, "bad file");
         return *number;
       };
     }});

struct Outcome {
  int code;
  std::string out, err;
};

Outcome run(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "cairn");
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const int code = run_program(int(arguments.size()), arguments.data());
  std::string out = ::testing::internal::GetCapturedStdout();
  return {code, out, ::testing::internal::GetCapturedStderr()};
}

TEST(Command, NearestAcceptsSlipsAndRefusesStrangers) {
  const std::vector<std::string> known{"run", "bench", "inspect", "tokenize"};
  EXPECT_EQ(nearest("rnu", known), "run");
  EXPECT_EQ(nearest("tokenise", known), "tokenize");
  EXPECT_EQ(nearest("inspcet", known), "inspect");
  EXPECT_EQ(nearest("bnch", known), "bench");
  EXPECT_EQ(nearest("serve", known), "");
  EXPECT_EQ(nearest("", known), "");
}

TEST(Command, UnknownCommandNamesTheNearest) {
  const auto outcome = run({"completoin"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "error: there is no command 'completoin'\nhint: did you mean `cairn completion`?\n");
  EXPECT_EQ(outcome.out, "");
}

TEST(Command, UnknownFlagNamesTheNearest) {
  const auto outcome = run({"test-fail", "--verbos=3"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_EQ(outcome.err, "error: cairn test-fail has no option '--verbos'\nhint: did you mean --verbose?\n");
}

TEST(Command, BadValueIsAUsageError) {
  const auto outcome = run({"test-fail", "-n", "many"});
  EXPECT_EQ(outcome.code, 2);
  EXPECT_NE(outcome.err.find("many"), std::string::npos) << outcome.err;
}

TEST(Command, ValueOutOfItsRangeNamesTheRange) {
  EXPECT_EQ(run({"test-fail", "--count", "-4"}).err.substr(0, 43),
            "error: --count is -4; it must be 0 or more\n");
  EXPECT_EQ(run({"test-fail", "--share", "101"}).err.substr(0, 55),
            "error: --share is 101; it must lie between 0 and 100\nhi");
}

TEST(Command, ValuesThatLookOddArriveUnchanged) {
  EXPECT_EQ(run({"test-fail", "-n", "-7"}).code, -7);
  EXPECT_EQ(run({"test-fail", "--number=12"}).code, 12);
  EXPECT_EQ(run({"test-fail", "bug", "extra"})
                .err.find("error: cairn test-fail does not expect the argument 'extra'"),
            0u);
}

TEST(Command, ErrorsBecomeOneSentenceAndAnExitCode) {
  EXPECT_EQ(run({"test-fail", "file"}).code, 4);
  EXPECT_EQ(run({"test-fail", "file"}).err, "error: bad file\n");
  EXPECT_EQ(run({"test-fail", "memory"}).code, 6);
  EXPECT_EQ(run({"test-fail", "bug"}).code, 1);
}

TEST(Command, HintIsSplitOffAndControlCharactersStayVisible) {
  const auto outcome = run({"test-fail", "hint"});
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.err, "error: no \\x1b[31mx y\nhint: look\n");
}

TEST(Command, EveryCommandExplainsItself) {
  for (const auto& command : commands()) {
    const std::string name(command.name);
    const auto outcome = run({name.c_str(), "--help"});
    EXPECT_EQ(outcome.code, 0) << name;
    EXPECT_NE(outcome.out.find(command.help), std::string::npos) << name;
    EXPECT_EQ(run({"help", name.c_str()}).out, outcome.out) << name;
    EXPECT_NE(run({"--help"}).out.find(name), std::string::npos);
    CLI::App app;
    command.setup(app);
    for (const auto* option : app.get_options())
      EXPECT_FALSE(option->get_description().empty()) << name << " " << option->get_name();
  }
}

TEST(Command, TwoWordsNameACommandOfTheirOwn) {
  const auto serve = run({"bench", "serve", "--help"});
  EXPECT_EQ(serve.code, 0);
  EXPECT_NE(serve.out.find("cairn bench serve"), std::string::npos);
  EXPECT_EQ(run({"help", "bench", "serve"}).out, serve.out);
  EXPECT_NE(run({"bench", "--help"}).out, serve.out);
  EXPECT_EQ(run({"bench", "serve", "--concurrency", "0"}).code, 2);
}

TEST(Command, CompletionScriptsListEveryCommandAndFlag) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto script = completion_script(shell);
    for (const auto& command : commands()) EXPECT_NE(script.find(command.name), std::string::npos) << shell;
    EXPECT_NE(script.find("verbose"), std::string::npos) << shell;
  }
}

}  // namespace
}  // namespace cairn::app
