// Encoding speed on one core: whole texts from std::string_view to ids.
//   tokenize_bench TOKENIZER TEXT... [--seconds S]
// Prints the machine, then per text its bytes, tokens, the median and best MB/s of repeated runs, and a hash
// of the ids.
// Links: cairn_text
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "base/mapped_file.h"
#include "text/tokenizer.h"

namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

int main(int count, char** arguments) {
  double limit = 2;
  std::vector<std::string> paths;
  for (int i = 1; i < count; ++i) {
    if (!std::strcmp(arguments[i], "--seconds") && i + 1 < count)
      limit = std::atof(arguments[++i]);
    else
      paths.push_back(arguments[i]);
  }
  if (paths.size() < 2) {
    std::fprintf(stderr, "usage: tokenize_bench TOKENIZER TEXT... [--seconds S]\n");
    return 2;
  }
  try {
    auto start = std::chrono::steady_clock::now();
    const auto tokenizer = cairn::text::load_tokenizer(paths[0]);
    std::printf("%s, one thread; %s loaded in %.0f ms\n", processor().c_str(), paths[0].c_str(),
                seconds_since(start) * 1e3);
    std::printf("%-40s %10s %10s %9s %9s  %s\n", "text", "bytes", "tokens", "median", "best", "hash of ids");
    for (size_t i = 1; i < paths.size(); ++i) {
      const std::string text = cairn::read_text_file(paths[i]);
      std::vector<double> speeds;
      std::vector<cairn::text::TokenId> ids;
      const auto begin = std::chrono::steady_clock::now();
      do {
        start = std::chrono::steady_clock::now();
        ids = tokenizer->encode(text);
        speeds.push_back(double(text.size()) / seconds_since(start) / 1e6);
      } while (seconds_since(begin) < limit || speeds.size() < 3);
      uint64_t hash = 0xcbf29ce484222325;
      for (const auto id : ids) hash = (hash ^ uint32_t(id)) * 0x100000001b3;
      std::sort(speeds.begin(), speeds.end());
      std::printf("%-40s %10zu %10zu %4.1f MB/s %4.1f MB/s  %016llx\n",
                  paths[i].substr(paths[i].rfind('/') + 1).c_str(), text.size(), ids.size(),
                  speeds[speeds.size() / 2], speeds.back(), static_cast<unsigned long long>(hash));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tokenize_bench: %s\n", error.what());
    return 1;
  }
  return 0;
}
