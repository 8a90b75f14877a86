// The shipped model as DFloat11: every weight bit for bit, and folders with one thing changed.
#include "models/df11_groups.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "formats/testing.h"
#include "models/df11_testing.h"
#include "models/model.h"
#include "program/decode_groups.h"

namespace cairn::models {
namespace {

using formats::testing::Bytes;
using formats::testing::message_of;
using formats::testing::TemporaryFolder;
using nlohmann::json;

const std::filesystem::path kModel = std::filesystem::path(CAIRN_SOURCE_DIR) / "models/cairn-stories";

std::vector<std::byte> rows_of(const codecs::StoredWeight& weight) {
  std::vector<std::byte> room;
  const auto* rows = codecs::stored_rows(weight, 0, 0, weight.rows, room);
  return {rows, rows + weight.rows * weight.cols * 2};
}

TEST(Df11Folder, HoldsTheSameBitsInTwoThirds) {
  const TemporaryFolder folder;
  const auto sizes = testing::write_df11_folder(kModel, folder.path() / "df11", true);
  std::printf("shipped model: %.2f %% of bf16, entropy bound %.2f %%\n",
              100 * double(sizes.after) / double(sizes.before),
              100 * sizes.entropy_bytes / double(sizes.before));
  EXPECT_LT(double(sizes.after), 0.69 * double(sizes.before));
  const Model plain = open_model(kModel), grouped = open_model(folder.path() / "df11");
  ASSERT_EQ(plain.weights.size(), grouped.weights.size());
  size_t in_groups = 0;
  for (size_t i = 0; i < plain.weights.size(); ++i) {
    const auto& weight = grouped.weights[i];
    EXPECT_EQ(weight.codec, codecs::CodecId::bf16);
    if (plain.program.weights[i].shape.size() != 2) continue;
    in_groups += weight.group != nullptr;
    ASSERT_EQ(rows_of(plain.weights[i]), rows_of(weight)) << plain.program.weights[i].name;
  }
  EXPECT_EQ(in_groups, 4 * 7 + 1u);
  // One group before the first lookup, one per block, and the table's again for the scores.
  std::vector<program::DecodeGroup> decodes;
  for (const auto& instruction : grouped.program.instructions)
    if (const auto* op = std::get_if<program::DecodeGroup>(&instruction.operation)) decodes.push_back(*op);
  ASSERT_EQ(decodes.size(), 6u);
  for (size_t i = 0; i < 6; ++i) EXPECT_EQ(decodes[i].place, int(i % 2));
  EXPECT_TRUE(decodes.front().for_lookup);
  EXPECT_FALSE(decodes.back().for_lookup);
  EXPECT_EQ(decodes[1].weights.size(), 7u);
  EXPECT_EQ(program::without_decode_groups(grouped.program).instructions, plain.program.instructions);
}

TEST(Df11Folder, ABlockMayStayPlain) {
  const TemporaryFolder folder;
  testing::write_df11_folder(kModel, folder.path() / "df11", false, "model.layers.2");
  const Model model = open_model(folder.path() / "df11");
  for (size_t i = 0; i < model.weights.size(); ++i) {
    const auto& name = model.program.weights[i].name;
    const bool grouped =
        name.find("_proj") != std::string::npos && name.find("layers.2.") == std::string::npos;
    EXPECT_EQ(model.weights[i].group != nullptr, grouped) << name;
  }
}

// Opens the folder after edits of its config and of the header of its tensors.
std::string edited(const std::function<void(json& config, json& header, std::string& data)>& edit) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "df11";
  testing::write_df11_folder(kModel, path, false);
  json config = json::parse(read_text_file(path / "config.json"));
  const std::string file = read_text_file(path / "model.safetensors");
  uint64_t size = 0;
  std::memcpy(&size, file.data(), 8);
  json header = json::parse(file.substr(8, size));
  std::string data = file.substr(8 + size);
  edit(config, header, data);
  const std::string text = header.dump();
  const std::string fields = config.dump();
  write_file_atomically(path / "config.json", std::as_bytes(std::span(fields)));
  const std::string whole = Bytes().put(uint64_t{text.size()}).raw(text).string() + data;
  write_file_atomically(path / "model.safetensors", std::as_bytes(std::span(whole)));
  const std::string message = message_of([&] { open_model(path); });
  return message.empty() ? "opened" : message;
}
void rename(json& header, const std::string& from, const std::string& to) {
  header[to] = header.at(from);
  header.erase(from);
}
bool says(const std::string& message, std::initializer_list<const char*> parts) {
  for (const char* part : parts)
    if (message.find(part) == std::string::npos) {
      ADD_FAILURE() << "'" << part << "' is not in: " << message;
      return false;
    }
  return true;
}

TEST(Df11Folder, RefusesWhatDoesNotFitTogether) {
  EXPECT_EQ(edited([](json&, json&, std::string&) {}), "opened");
  for (const char* field : {"encoded_exponent", "sign_mantissa", "output_positions", "gaps"}) {
    const auto message = edited([&](json&, json& header, std::string&) {
      rename(header, std::string("model.layers.1.") + field, "elsewhere");
    });
    EXPECT_TRUE(says(message, {"group model.layers.1: field", field, "is missing"}));
  }
  const auto with_splits = [](size_t at, int64_t value) {
    return edited([&](json&, json& header, std::string& data) {
      const auto begin = header["model.layers.1.split_positions"]["data_offsets"][0].get<size_t>();
      std::memcpy(data.data() + begin + 8 * at, &value, 8);
    });
  };
  EXPECT_TRUE(says(with_splits(0, 5),
                   {"group model.layers.1: field split_positions gives", "a matrix of [1024, 512]"}));
  EXPECT_TRUE(says(with_splits(2, -1), {"group model.layers.1: field split_positions puts"}));
  EXPECT_TRUE(says(with_splits(2, INT64_MAX), {"group model.layers.1: field split_positions puts"}));
  const auto with = [](const char* field, const json& value) {
    return edited([&](json& config, json&, std::string&) { config["dfloat11_config"][field] = value; });
  };
  EXPECT_TRUE(says(with("threads_per_block", {256}), {"dfloat11_config.threads_per_block is not 512"}));
  EXPECT_TRUE(says(with("bytes_per_thread", 4), {"dfloat11_config.bytes_per_thread is not 8"}));
  EXPECT_TRUE(says(with("pattern_dict", {{"model\\.layers\\.[02-9]", {"mlp.down_proj"}}}),
                   {"split_positions has 6 numbers; 1 matrices need 0"}));
  EXPECT_TRUE(says(with("pattern_dict", {{"layers", json::array()}}), {"no pattern", "model.layers.0"}));
  EXPECT_TRUE(says(with("pattern_dict", {{"((", json::array()}}), {"pattern_dict"}));
  EXPECT_TRUE(says(with("pattern_dict", 3), {"pattern_dict"}));
}

}  // namespace
}  // namespace cairn::models
