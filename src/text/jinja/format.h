// Python's two ways to format: "%s" % values and "{}".format(values).
#pragma once

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace cairn::text::jinja {

Value percent_format(Runtime&, const Value& format, const Value& values);
Value brace_format(Runtime&, const Value& format, const Args& args);
Value brace_format_map(Runtime&, const Value& format, const Value& mapping);
std::string format_value(const Value&, const std::string& spec);  // format(value, spec)

}  // namespace cairn::text::jinja
