#include "formats/json_file.h"

#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "formats/untrusted_text.h"

namespace cairn::formats {
namespace {

using nlohmann::json;

// Builds the tree from parser events; that is where depth and repeated names are seen before they cost
// anything.
class TreeBuilder : public nlohmann::json_sax<json> {
 public:
  TreeBuilder(json& root, const std::string& name) : root_(root), name_(name) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(json::number_integer_t value) override { return put(value); }
  bool number_unsigned(json::number_unsigned_t value) override { return put(value); }
  bool number_float(json::number_float_t value, const json::string_t&) override { return put(value); }
  bool string(json::string_t& value) override { return put(std::move(value)); }
  bool binary(json::binary_t&) override { return false; }

  bool start_object(size_t) override { return open(json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(json::array()); }
  bool end_array() override { return close(); }

  bool key(json::string_t& text) override {
    auto& object = stack_.back()->get_ref<json::object_t&>();
    const auto [place, inserted] = object.try_emplace(std::move(text));
    if (!inserted)
      fail(ErrorKind::invalid_file, "{}: the name '{}' appears twice in one object", name_,
           shown(place->first));
    member_ = &place->second;
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& error) override {
    fail(ErrorKind::invalid_file, "{} is not valid JSON: {}", name_, json_error_text(error));
  }

 private:
  template <typename T>
  json* place(T&& value) {
    if (stack_.empty()) {
      root_ = std::forward<T>(value);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      auto& array = stack_.back()->get_ref<json::array_t&>();
      array.emplace_back(std::forward<T>(value));
      return &array.back();
    }
    *member_ = std::forward<T>(value);
    return member_;
  }
  template <typename T>
  bool put(T&& value) {
    place(std::forward<T>(value));
    return true;
  }
  bool open(json container) {
    if (stack_.size() >= kJsonDepth)
      fail(ErrorKind::invalid_file, "{}: values are nested deeper than {} levels", name_, kJsonDepth);
    stack_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    stack_.pop_back();
    return true;
  }

  json& root_;
  const std::string& name_;
  std::vector<json*> stack_;  // only the innermost container grows, so the pointers stay valid
  json* member_ = nullptr;
};

}  // namespace

std::string json_error_text(const std::exception& error) {
  const std::string_view text = error.what();
  const size_t end = text.starts_with('[') ? text.find("] ") : std::string_view::npos;
  return shown(end == std::string_view::npos ? text : text.substr(end + 2));
}

json parse_json(std::string_view text, const std::string& name) {
  json root;
  TreeBuilder builder(root, name);
  json::sax_parse(text.begin(), text.end(), &builder);
  return root;
}

json read_json_file(const std::filesystem::path& path, size_t limit) {
  return parse_json(read_text_file(path, limit), path.string());
}

}  // namespace cairn::formats
