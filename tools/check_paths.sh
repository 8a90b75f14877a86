#!/bin/bash
# No tracked text file names a place that exists only on the machine where it was written.
set -eu
cd "$(dirname "$0")/.."
if ! git rev-parse --git-dir >/dev/null 2>&1; then
  echo "*** SKIPPED, NO GIT CHECKOUT: tracked files were not searched for local paths ***" >&2
  exit 77
fi
# A path starts after something that cannot be part of a longer path or of an address.
start='(^|[^A-Za-z0-9_./~$}>-])'
places='/(work|root|Users|home/[A-Za-z0-9_-]+|opt/(ref|peers)|workspace|mnt/[A-Za-z0-9_-]+)/[A-Za-z0-9_.]'
if git grep -nIE "$start$places"; then
  echo "check_paths: the lines above name a path of one machine; use a relative path or an environment variable" >&2
  exit 1
fi
echo "check_paths: $(git ls-files | wc -l) files"
