#!/bin/bash
# Every tracked C++ file is as clang-format leaves it. Debian 12's clang-format 14 is the reference: other versions
# break lines differently, so they are skipped like an absent one, loudly (exit code 77). --fix rewrites the files.
set -eu
cd "$(dirname "$0")/.."
reference=14

tool=
for candidate in clang-format-$reference clang-format; do
  if command -v "$candidate" >/dev/null && "$candidate" --version | grep -q "version $reference\."; then
    tool=$candidate
    break
  fi
done
if [ -z "$tool" ]; then
  echo "*** SKIPPED, NO clang-format $reference: the format of the sources was not checked ***" >&2
  exit 77
fi
if [ -n "$(git rev-parse --git-dir 2>/dev/null)" ]; then
  list() { git ls-files -z -- '*.cpp' '*.h' '*.cu' '*.cuh'; }
else
  list() { find src include apps bench \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0; }
fi
count=$(list | tr -cd '\0' | wc -c)
[ "$count" -gt 0 ] || { echo "check_format: found no sources" >&2; exit 1; }
if [ "${1:-}" = --fix ]; then
  list | xargs -0 "$tool" -i
else
  list | xargs -0 "$tool" --dry-run -Werror
fi
echo "check_format: $count files"
