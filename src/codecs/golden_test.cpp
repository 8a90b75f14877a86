// Random blocks decoded by the independent Python package `gguf` (tools/make_codec_goldens.py), compared bit
// for bit.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/mapped_file.h"
#include "codecs/codec.h"

namespace cairn::codecs {
namespace {

std::filesystem::path golden_folder() {
  if (const char* folder = std::getenv("CAIRN_CODEC_GOLDENS")) return folder;
  return std::filesystem::path(CAIRN_SOURCE_DIR) / "src/codecs/testdata";
}

uint64_t hash(const std::vector<float>& values) {
  uint64_t h = 0xcbf29ce484222325;
  for (float v : values) h = (h ^ (std::isnan(v) ? 0x7fc00000u : std::bit_cast<uint32_t>(v))) * 0x100000001b3;
  return h;
}

class Golden : public ::testing::TestWithParam<CodecId> {};

TEST_P(Golden, RandomBlocksDecodeAsThePythonPackageDecodesThem) {
  const Codec& c = codec(GetParam());
  const MappedFile file(golden_folder() / (std::string(c.name) + ".golden"));
  const auto bytes = file.bytes();
  const size_t record = size_t(c.block_bytes) + sizeof(uint64_t), blocks = bytes.size() / record;
  ASSERT_GE(blocks, 64u);
  ASSERT_EQ(bytes.size() % record, 0u);
  std::vector<float> values(size_t(c.block_elements));
  for (size_t i = 0; i < blocks; ++i) {
    c.decode(bytes.data() + i * size_t(c.block_bytes), values.data(), c.block_elements);
    uint64_t want = 0;
    std::memcpy(&want, bytes.data() + blocks * size_t(c.block_bytes) + i * sizeof want, sizeof want);
    ASSERT_EQ(hash(values), want) << c.name << " block " << i << " of " << blocks << ", first value "
                                  << values[0];
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, Golden,
                         ::testing::Values(CodecId::q4_0, CodecId::q4_1, CodecId::q5_0, CodecId::q5_1,
                                           CodecId::q8_0, CodecId::q2_k, CodecId::q3_k, CodecId::q4_k,
                                           CodecId::q5_k, CodecId::q6_k, CodecId::iq4_nl, CodecId::iq4_xs,
                                           CodecId::mxfp4, CodecId::nvfp4, CodecId::tq1_0, CodecId::tq2_0),
                         [](const auto& test) { return std::string(codec(test.param).name); });

}  // namespace
}  // namespace cairn::codecs
