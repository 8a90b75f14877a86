// safetensors (huggingface/safetensors, README "Format"): u64 header length, a JSON header, one byte buffer
// that the tensors fill without overlap or hole. Single files, and shards listed by
// model.safetensors.index.json.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/checkpoint.h"

namespace cairn::formats {

struct Safetensors {
  std::string name;                                            // for errors: the file's path
  std::vector<Tensor> tensors;                                 // in the order of their bytes
  std::map<std::string, std::string, std::less<>> unreadable;  // as in Checkpoint
  std::map<std::string, std::string, std::less<>> metadata;    // "__metadata__"
  MappedFile file;
};

Safetensors read_safetensors(const std::filesystem::path&);
Safetensors parse_safetensors(std::span<const std::byte>, const std::string& name);  // for tests and fuzzing

// The tensors of a model folder: by its index when there is one, else model.safetensors, else the only
// *.safetensors file. Fills files, tensors, index and unreadable; the config is the caller's.
void open_safetensors_folder(const std::filesystem::path& folder, Checkpoint&);
void open_safetensors_file(const std::filesystem::path&, Checkpoint&);
bool has_safetensors(const std::filesystem::path& folder);

// Bits of an element of a dtype as the format spells it ("BF16"); nullopt when there is none of this name.
std::optional<uint64_t> safetensors_type_bits(std::string_view dtype);
// The codec that reads elements of a dtype; nullopt when none does, or there is none of this name.
std::optional<codecs::CodecId> safetensors_codec(std::string_view dtype);
// How the format spells a codec; empty when no dtype holds it.
std::string_view safetensors_type(codecs::CodecId);

}  // namespace cairn::formats
