// What /v1/chat/completions writes.
#pragma once

#include <memory>
#include <string>

#include "serve/api/facade.h"

namespace cairn::serve {

struct ChatOptions {
  bool stream = false, include_usage = false, logprobs = false;
  int top_logprobs = 0, n = 1;
};

std::unique_ptr<Facade> chat_facade(const Serving&, std::shared_ptr<Reply>, const ChatOptions&,
                                    std::string request_id);

}  // namespace cairn::serve
