// What a load test must know of a server before it starts: the model's name, how its tokenizer cuts the words
// of our prompts, and what it adds to them.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <string>

#include "load/client.h"
#include "load/prompts.h"

namespace cairn::load {

struct ServerFacts {
  std::string server;    // the Server field of its answers
  std::string owned_by;  // of the model, as /v1/models says: "llamacpp", "vllm", ...
  std::string model;
  int64_t context = 0;    // the longest prompt and answer that it says to take; 0: not said
  std::string tokenizer;  // how the prompts' lengths were found: "tokenize", "usage" or "words"
  Alphabet alphabet;
};

struct CalibrationOptions {
  Api api = Api::chat;
  std::string model;       // empty: the first that /v1/models names
  bool token_ids = false;  // ids are needed
  uint64_t seed = 0;
  std::chrono::milliseconds timeout{600'000};
  nlohmann::ordered_json extra;
};

// Asks /v1/models, /tokenize (llama.cpp's and vLLM's form) and sends two short requests, which also warm the
// server up. Throws Error(network) when the server does not answer a generation request, with what it said,
// and Error(unsupported) when token ids are wanted and /tokenize does not give any.
ServerFacts calibrate(boost::asio::io_context&, Client&, const CalibrationOptions&);

}  // namespace cairn::load
