// For tests only: where the shared test material lies, and a skip that nobody overlooks.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

namespace cairn::testing {

// CAIRN_DATA, or shared/data beside the checkout.
inline std::filesystem::path data_folder() {
  if (const char* folder = std::getenv("CAIRN_DATA")) return folder;
  return std::filesystem::path(CAIRN_SOURCE_DIR).parent_path() / "shared/data";
}

}  // namespace cairn::testing

// Skips the test, loudly, when a file of the shared test material is missing.
#define CAIRN_NEED_DATA(relative)                                                           \
  do {                                                                                      \
    if (!std::filesystem::exists(cairn::testing::data_folder() / (relative))) {             \
      std::fprintf(stderr, "\n*** SKIPPED, TEST DATA MISSING: %s (set CAIRN_DATA) ***\n\n", \
                   (cairn::testing::data_folder() / (relative)).c_str());                   \
      GTEST_SKIP() << "missing test data " << (relative);                                   \
    }                                                                                       \
  } while (false)
