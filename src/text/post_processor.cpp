#include "text/post_processor.h"

namespace cairn::text {
namespace {

TokenId token_id(const JsonView& json) {
  const int64_t id = json.integer();
  if (id < 0 || id > INT32_MAX) json.wrong("a token id");
  return TokenId(id);
}

// ["[CLS]", 101]
TokenId named_token(const JsonView& json) { return token_id(json[1]); }

PostProcessor parse_template(const JsonView& json) {
  PostProcessor post;
  const JsonView parts = json.at("single");
  bool seen = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i].find("Sequence")) {
      if (seen)
        fail(ErrorKind::unsupported, "{}: a template with the sequence twice is not supported",
             parts[i].place());
      seen = true;
      continue;
    }
    const std::string& name = parts[i].at("SpecialToken").at("id").string();
    const JsonView ids = json.at("special_tokens").at(name.c_str()).at("ids");
    for (size_t k = 0; k < ids.size(); ++k) (seen ? post.after : post.before).push_back(token_id(ids[k]));
  }
  if (!seen)
    fail(ErrorKind::unsupported, "{}: a template without the sequence is not supported", parts.place());
  return post;
}

}  // namespace

PostProcessor parse_post_processor(const JsonView& json) {
  const std::string& type = json.at("type").string();
  if (type == "TemplateProcessing") return parse_template(json);
  if (type == "ByteLevel") return {};  // moves offsets only
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return {{named_token(json.at("cls"))}, {named_token(json.at("sep"))}};
  if (type == "Sequence") {
    PostProcessor all;
    const JsonView list = json.at("processors");
    for (size_t i = 0; i < list.size(); ++i) {
      const PostProcessor step = parse_post_processor(list[i]);
      all.before.insert(all.before.begin(), step.before.begin(), step.before.end());
      all.after.insert(all.after.end(), step.after.begin(), step.after.end());
    }
    return all;
  }
  json.unsupported("post-processor", type);
}

}  // namespace cairn::text
