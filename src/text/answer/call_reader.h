// Reads one tool call of a CallForm while it arrives.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "text/answer/formats.h"
#include "text/answer/tag_pattern.h"
#include "text/answer/tool_schema.h"

namespace cairn::text::answer {

enum class Progress {
  more,    // the rest has not come yet
  done,    // the call is complete, or nothing more belongs to it
  failed,  // this is no call; only ever before CallSink::begin
};

// Where a call goes. From begin on it is a call, whatever comes.
class CallSink {
 public:
  virtual ~CallSink() = default;
  virtual void begin(std::string_view name, std::string_view id) = 0;  // id: what the model wrote, or empty
  virtual void arguments(std::string_view json) = 0;                   // to be appended
};

class CallReader {
 public:
  virtual ~CallReader() = default;
  // Consumes from the cursor what is certain. At in.last a call that began is finished as far as it came.
  virtual Progress read(Cursor& in, CallSink& sink) = 0;
};

struct CallContext {
  const ToolRow& row;
  const ToolSchemas& tools;
  bool only_known = false;  // a call of a tool that is not among the tools is no call
};

constexpr size_t kMostName = 256;  // bytes of a tool's or parameter's name, with what stands around it

// A new reader that expects the call at the cursor, whitespace allowed. `in` decides only between forms.
std::unique_ptr<CallReader> make_reader(const CallForm&, const CallContext&);

std::unique_ptr<CallReader> json_call(const CallContext&);
std::unique_ptr<CallReader> value_call(const CallForm&, const CallContext&);
std::unique_ptr<CallReader> parameter_call(const CallForm&, const CallContext&);
std::unique_ptr<CallReader> python_call(const CallForm&, const CallContext&);
// The arguments alone, for a call whose name stood in a header.
std::unique_ptr<CallReader> arguments_only(std::string name);

// The name as the model wrote it, taken apart.
struct CallName {
  std::string name, id;
};
CallName call_name(std::string_view written, const CallForm&, const ToolRow&);
bool is_name(std::string_view);  // what a tool may be called: no whitespace, quotes, brackets

}  // namespace cairn::text::answer
