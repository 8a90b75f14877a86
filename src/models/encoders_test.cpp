// Encoders against Hugging Face transformers: the program that a config becomes, executed the plain way; what
// a person reads when their files do not fit; and how rows become an embedding.
#include <gtest/gtest.h>

#include <functional>

#include "formats/testing.h"
#include "models/encoder_goldens.h"
#include "models/plain_executor.h"

namespace cairn::models {
namespace {

using formats::testing::message_of;
using formats::testing::TemporaryFolder;
using nlohmann::json;

class Encoder : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(Encoder, ComputesWhatTransformersComputes) {
  const auto golden = testing::read_encoder_golden(GetParam());
  const Model model = open_model(golden.model);
  EXPECT_TRUE(model.encoder());
  EXPECT_EQ(model.vocabulary_size, 96);
  ASSERT_GE(golden.texts.size(), 5u);
  for (size_t i = 0; i < golden.texts.size(); ++i) {
    const auto hidden = testing::plain_hidden(model, golden.texts[i]);
    ASSERT_EQ(hidden.size(), golden.hidden[i].size());
    EXPECT_LE(testing::largest_difference(hidden.data(), golden.hidden[i]), 1e-5 * golden.scale)
        << "text " << i;
    PooledRows pooled(model.pooling);
    const int64_t dim = model.hidden_size, rows = int64_t(golden.texts[i].size());
    for (int64_t r = 0; r < rows; r += 3)
      pooled.add(&hidden[size_t(r * dim)], std::min<int64_t>(3, rows - r), dim);
    EXPECT_LE(testing::largest_difference(pooled.result().data(), golden.embeddings[i]), 1e-5)
        << "text " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Goldens, Encoder, ::testing::ValuesIn(testing::golden_encoders()),
                         [](const auto& tested) { return testing::test_name(tested.param); });

// What opening a golden encoder says after an edit of its config.json, or with another file beside it.
std::string with(const std::string& name, const std::function<void(json&)>& edit,
                 const std::string& file = "", const std::string& text = "") {
  const TemporaryFolder folder;
  const auto source = testing::goldens_folder() / "encoders" / name;
  std::filesystem::copy(source, folder.path(), std::filesystem::copy_options::recursive);
  if (!file.empty()) std::ofstream(folder.path() / file) << text;
  json config = json::parse(std::ifstream(source / "config.json"));
  if (edit) edit(config);
  std::ofstream(folder.path() / "config.json") << config.dump();
  const std::string message = message_of([&] { open_model(folder.path()); });
  return message.empty() ? "opened" : message;
}
std::string with(const std::string& name, const char* field, const json& value) {
  return with(name, [&](json& config) { config[field] = value; });
}

TEST(Encoder, HostileConfigsAreRefused) {
  struct Case {
    const char *name, *field;
    json value;
    const char* part;
  };
  const Case cases[] = {
      {"bert", "hidden_size", 0, "hidden_size"},
      {"bert", "hidden_size", "32", "hidden_size"},
      {"bert", "hidden_size", 33, "not a multiple"},
      {"bert", "hidden_size", 64, "has shape [96, 32]"},
      {"bert", "num_attention_heads", -4, "num_attention_heads"},
      {"bert", "num_hidden_layers", 1e12, "num_hidden_layers"},
      {"bert", "num_hidden_layers", 3, "encoder.layer.2.attention.self.query.weight is missing"},
      {"bert", "vocab_size", 97, "has shape [96, 32]"},
      {"bert", "type_vocab_size", 3, "token_type_embeddings"},
      {"bert", "max_position_embeddings", 1 << 30, "max_position_embeddings"},
      {"bert", "layer_norm_eps", -1, "layer_norm_eps"},
      {"bert", "hidden_act", "swiglu", "swiglu"},
      {"bert", "is_decoder", true, "is_decoder"},
      {"bert", "position_embedding_type", "relative_key", "relative_key"},
      {"roberta", "max_position_embeddings", 2, "none are left"},
      {"roberta", "pad_token_id", -1, "pad_token_id"},
      {"roberta", "pad_token_id", int64_t{1} << 40, "pad_token_id"},
      {"distilbert", "n_heads", 5, "not a multiple"},
      {"distilbert", "dim", nullptr, "'dim' is missing"},
      {"modernbert", "local_attention", 0, "local_attention"},
      {"modernbert", "global_attn_every_n_layers", 0, "global_attn_every_n_layers"},
      {"modernbert", "num_key_value_heads", 2, "KV heads"},
      {"modernbert", "layer_types", json::array({"full_attention"}), "layer_types"},
  };
  for (const auto& c : cases) {
    const auto message = with(c.name, c.field, c.value);
    EXPECT_NE(message.find(c.part), std::string::npos) << c.name << ' ' << c.field << ": " << message;
  }
}

TEST(Encoder, ReadsHowToPool) {
  const auto pooling = [](const char* text) { return with("bert", {}, "1_Pooling/config.json", text); };
  EXPECT_EQ(pooling(R"({"pooling_mode_lasttoken": true})"), "opened");
  EXPECT_NE(pooling(R"({"pooling_mode_max_tokens": true})").find("'max'"), std::string::npos);
  EXPECT_NE(pooling(R"({"pooling_mode": "other"})").find("'other'"), std::string::npos);
  EXPECT_NE(
      pooling(R"({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true})").find("one at a time"),
      std::string::npos);
  EXPECT_NE(pooling(R"({"pooling_mode_cls_token": 1})").find("pooling_mode_cls_token"), std::string::npos);
  EXPECT_NE(pooling("[]").find("1_Pooling/config.json"), std::string::npos);
  const auto modules = [](const char* text) { return with("bert", {}, "modules.json", text); };
  EXPECT_NE(modules(R"([{"type": "sentence_transformers.models.Dense"}])").find("Dense"), std::string::npos);
  EXPECT_NE(modules("{}").find("array"), std::string::npos);
  EXPECT_NE(modules(R"(["x"])").find("modules.json"), std::string::npos);
  EXPECT_EQ(open_model(testing::goldens_folder() / "encoders/bert").pooling, Pooling::cls);
  EXPECT_EQ(open_model(testing::goldens_folder() / "encoders/roberta").pooling, Pooling::mean);
}

TEST(Pooling, TakesTheRowsItSays) {
  const float rows[] = {3, 4, 0, 5, 6, 8};
  const auto pooled = [&](Pooling how) {
    PooledRows p(how);
    p.add(rows, 2, 2), p.add(rows + 4, 1, 2);
    return p.result();
  };
  EXPECT_EQ(pooled(Pooling::cls), (std::vector<float>{0.6f, 0.8f}));
  EXPECT_EQ(pooled(Pooling::last), (std::vector<float>{0.6f, 0.8f}));
  const auto mean = pooled(Pooling::mean);
  EXPECT_NEAR(mean[0], 9 / std::hypot(9.0, 17.0), 1e-7);
  const float zeros[] = {0, 0};
  PooledRows none;
  none.add(zeros, 1, 2);
  EXPECT_EQ(none.result(), (std::vector<float>{0, 0}));
}

}  // namespace
}  // namespace cairn::models
