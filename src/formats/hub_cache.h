// The cache of huggingface_hub, so that what other programs have downloaded is found and the other way round:
//   models--org--name/blobs/<etag>                     contents, named by their sha256 or git sha1
//   models--org--name/snapshots/<commit>/<file>        symbolic links to them
//   models--org--name/refs/<revision>                  the commit that a branch or tag was at
// Every name that came from a server is checked before it becomes part of a path.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace cairn::formats {

// These throw Error naming the value when it could leave its folder, is too long, or has odd characters.
void check_repo(std::string_view repo);          // "org/name" or "name"
void check_revision(std::string_view revision);  // "main", "refs/pr/1", a commit
void check_hub_file(std::string_view file);      // "config.json", "q4/model.gguf"
void check_commit(std::string_view commit);      // 40 hexadecimal digits
void check_etag(std::string_view etag);          // 40 (git blob sha1) or 64 (sha256) hexadecimal digits

class HubCache {
 public:
  HubCache(const std::filesystem::path& root, const std::string& repo);  // touches nothing

  std::filesystem::path blob(const std::string& etag) const;
  std::filesystem::path incomplete(
      const std::string& etag) const;  // as huggingface_hub names it: it resumes ours
  std::filesystem::path snapshot(const std::string& commit) const;

  std::optional<std::string> commit_of(const std::string& revision) const;  // a commit is its own
  std::vector<std::string> files_of(const std::string& commit) const;       // whose contents are there
  bool has(const std::string& commit, const std::string& file, const std::string& etag, uint64_t size) const;

  void link(const std::string& commit, const std::string& file, const std::string& etag) const;
  void set_ref(const std::string& revision, const std::string& commit) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace cairn::formats
