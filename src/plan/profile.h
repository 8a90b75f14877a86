// Settings that were found for one model on one machine, kept in a small file that may be deleted.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "plan/tune.h"

namespace cairn::plan {

struct Profile {
  std::string model, fingerprint;  // its file's name, for people; models::fingerprint
  std::string machine;             // machine_name()
  std::string when;                // 2026-11-23
  ServerSettings settings;
  Load load;
  double answer_tokens_per_second = 0;
};

// What must be the same for a profile to hold: processor, cores, instruction set, device.
std::string machine_name(const std::string& device);

// $CAIRN_PROFILES, else $XDG_CONFIG_HOME/cairn/profiles, else ~/.config/cairn/profiles; empty when there is
// none of them. Not created.
std::filesystem::path profile_folder();
std::filesystem::path profile_path(const std::string& fingerprint, const std::string& machine);

// Throws Error(io) naming the file.
void write_profile(const std::filesystem::path&, const Profile&);
// Absent when there is no such file. Throws Error(invalid_file) naming file and field when it is not one of
// ours: settings that are silently ignored would be worse.
std::optional<Profile> read_profile(const std::filesystem::path&);

}  // namespace cairn::plan
