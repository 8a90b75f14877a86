// Every stock variant of every kernel family compiles for every architecture that cairn supports, without
// spilled registers or arrays in local memory. Needs NVRTC but no GPU.
#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "backends/cuda/nvrtc.h"
#include "backends/cuda/registry.h"
#include "base/error.h"

namespace cairn::cuda {
namespace {

std::optional<std::string> nvrtc_problem() {
  try {
    Nvrtc::instance();
    return std::nullopt;
  } catch (const Error& e) {
    return e.what();
  }
}

// What ptxas -v says of stack frames and spills that are not zero, or empty.
std::string local_memory(const std::string& log) {
  std::string found;
  for (size_t begin = 0; begin < log.size();) {
    size_t end = log.find('\n', begin);
    if (end == std::string::npos) end = log.size();
    const auto line = log.substr(begin, end - begin);
    begin = end + 1;
    if (line.find("bytes stack frame") == std::string::npos) continue;
    if (line.find(" 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads") == std::string::npos)
      found += line + '\n';
  }
  return found;
}

class KernelFamilies : public ::testing::TestWithParam<int> {};

TEST_P(KernelFamilies, CompileWithoutSpilling) {
  if (const auto problem = nvrtc_problem()) GTEST_SKIP() << "no kernel is compiled: " << *problem;
  const int capability = GetParam();
  DeviceFacts facts;
  facts.capability = capability;
  const auto architecture = facts.architecture();
  if (!Nvrtc::instance().supports(architecture)) GTEST_SKIP() << "this NVRTC does not know " << architecture;
  for (const auto& family : kernel_families()) {
    for (const auto& variant : family.stock(capability)) {
      SCOPED_TRACE(variant.id() + " for " + architecture);
      try {
        const auto compiled = compile(variant, architecture);
        EXPECT_EQ(compiled.cubin.substr(0, 4),
                  "\x7f"
                  "ELF");
        EXPECT_NE(compiled.log.find("registers"), std::string::npos)
            << "the report is missing: nothing was checked";
        EXPECT_EQ(local_memory(compiled.log), "");
      } catch (const Error& e) {
        ADD_FAILURE() << e.what();
      }
    }
  }
}
INSTANTIATE_TEST_SUITE_P(All, KernelFamilies, ::testing::Values(80, 86, 89, 90),
                         [](const auto& p) { return "sm_" + std::to_string(p.param); });

TEST(KernelCompiler, SaysWhichVariantFailsAndWhy) {
  if (const auto problem = nvrtc_problem()) GTEST_SKIP() << "no kernel is compiled: " << *problem;
  try {
    compile({"rows.cu", {"X=no_such_type"}}, "sm_80");
    FAIL() << "a type that does not exist was compiled";
  } catch (const Error& e) {
    EXPECT_NE(std::strstr(e.what(), "rows.cu X=no_such_type"), nullptr) << e.what();
    EXPECT_NE(std::strstr(e.what(), "no_such_type"), nullptr) << e.what();
  }
}

}  // namespace
}  // namespace cairn::cuda
