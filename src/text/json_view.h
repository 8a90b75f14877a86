// A JSON value together with the place it came from, so that a wrong type is reported as "file:
// /model/merges/3 is a number, expected a string".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/error.h"

namespace cairn::text {

class JsonView {
 public:
  using Json = nlohmann::json;
  JsonView(const Json& value, std::string place) : value_(&value), place_(std::move(place)) {}

  const std::string& place() const { return place_; }
  const Json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  bool is_object() const { return value_->is_object(); }

  // A member that must be there; the value must be an object.
  JsonView at(const char* name) const {
    auto member = find(name);
    if (!member) fail(ErrorKind::invalid_file, "{} has no field \"{}\"", place_, name);
    return *member;
  }
  // nullopt when absent or null.
  std::optional<JsonView> find(const char* name) const {
    if (!value_->is_object()) wrong("an object");
    const auto member = value_->find(name);
    if (member == value_->end() || member->is_null()) return std::nullopt;
    return JsonView(*member, place_ + "/" + name);
  }
  size_t size() const {
    if (!value_->is_array()) wrong("an array");
    return value_->size();
  }
  JsonView operator[](size_t i) const {
    if (!value_->is_array() || i >= value_->size()) wrong("an array with more elements");
    return {(*value_)[i], place_ + "/" + std::to_string(i)};
  }

  // A list of steps that run one after the other on every text.
  void check_steps() const {
    if (size() > 256) fail(ErrorKind::unsupported, "{}: {} steps, at most 256 are supported", place_, size());
  }

  const std::string& string() const {
    if (!value_->is_string()) wrong("a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    if (!value_->is_boolean()) wrong("true or false");
    return value_->get<bool>();
  }
  int64_t integer() const {
    if (!value_->is_number_integer() ||
        (value_->is_number_unsigned() && value_->get<uint64_t>() > uint64_t{INT64_MAX}))
      wrong("an integer");
    return value_->get<int64_t>();
  }
  double number() const {
    if (!value_->is_number()) wrong("a number");
    return value_->get<double>();
  }

  std::string string_or(const char* name, std::string otherwise) const {
    const auto member = find(name);
    return member ? member->string() : otherwise;
  }
  bool boolean_or(const char* name, bool otherwise) const {
    const auto member = find(name);
    return member ? member->boolean() : otherwise;
  }
  int64_t integer_or(const char* name, int64_t otherwise) const {
    const auto member = find(name);
    return member ? member->integer() : otherwise;
  }

  [[noreturn]] void wrong(const char* expected) const {
    fail(ErrorKind::invalid_file, "{} is {}, expected {}", place_, kind(), expected);
  }
  [[noreturn]] void unsupported(const char* what, const std::string& name) const {
    fail(ErrorKind::unsupported, "{}: {} \"{}\" is not supported", place_, what, name);
  }

 private:
  const char* kind() const {
    if (value_->is_number()) return "a number";
    if (value_->is_string()) return "a string";
    if (value_->is_array()) return "an array";
    if (value_->is_object()) return "an object";
    return value_->is_boolean() ? "a boolean" : "null";
  }
  const Json* value_;
  std::string place_;
};

}  // namespace cairn::text
