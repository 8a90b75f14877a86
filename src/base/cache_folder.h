// Where cairn keeps what it can make again: compiled kernels, packed weights.
#pragma once

#include <filesystem>
#include <string_view>

namespace cairn {

// $CAIRN_CACHE, else $XDG_CACHE_HOME/cairn, else ~/.cache/cairn; empty when there is none of them. Not
// created.
std::filesystem::path cache_folder();

// Writes a file so that readers see all of it or none: a temporary beside it, then a rename; folders are
// made. False (and nothing left behind) when the disk is full or the place not writable: a cache that cannot
// be kept is no error.
bool write_cache_file(const std::filesystem::path&, std::string_view contents);

}  // namespace cairn
