// Text between tags: whitespace that touches a tag is layout, all other text is passed on as it is.
#pragma once

#include <string>
#include <string_view>

#include "text/answer/tag_pattern.h"

namespace cairn::text::answer {

class Prose {
 public:
  void add(std::string_view text, std::string& out) {
    if (tag_before_) {
      while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
      if (text.empty()) return;
      tag_before_ = false;
      if (said_) out += '\n';  // another block of the same kind
    }
    size_t end = text.size();
    while (end > 0 && is_space(text[end - 1])) --end;
    if (end > 0) {
      out += space_;
      out += text.substr(0, end);
      space_.clear();
      said_ = true;
    }
    space_ += text.substr(end);
  }
  void after_tag() {
    space_.clear();
    tag_before_ = true;
  }
  void finish(std::string& out) {
    out += space_;
    space_.clear();
  }
  bool blank() const { return !said_; }
  bool holds() const { return tag_before_ || !space_.empty(); }

 private:
  std::string space_;  // not yet known to be inside of the text
  bool tag_before_ = false, said_ = false;
};

}  // namespace cairn::text::answer
