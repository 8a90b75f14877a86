# shellcheck shell=bash
# Sourced by ./cairn and ./test: what the build needs from Debian 12 or Ubuntu 22.04 and newer, in one place.
# docs/dependencies.md says what each library is for.

# Tools, as "command:package"; a command that is there is taken whatever brought it.
build_tools=(cmake:cmake ninja:ninja-build)
test_tools=(python3:python3 git:git clang-format:clang-format)
fuzz_tools=(clang++:clang)
# Only compiled against or linked statically; the program needs none of them at run time.
build_libraries=(libfmt-dev nlohmann-json3-dev libpcre2-dev libutf8proc-dev libssl-dev libedit-dev libbsd-dev
                 libmd-dev libncurses-dev libcli11-dev libeigen3-dev)
test_libraries=(libgtest-dev)

say() { echo "cairn: $*" >&2; }

has_package() { dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q '^install ok installed'; }

# g++ 12 or newer, from whatever package has it; prints nothing when a good one is there.
compiler_package() {
  if [ -n "${CXX:-}" ] && command -v "$CXX" >/dev/null; then return; fi
  if command -v g++ >/dev/null && [ "$(g++ -dumpversion | cut -d. -f1)" -ge 12 ]; then return; fi
  if command -v g++-12 >/dev/null; then return; fi
  # Debian 12 and Ubuntu 24.04 call a good one g++; Ubuntu 22.04's g++ is 11, and it has g++-12 beside it.
  case $(. /etc/os-release 2>/dev/null && echo "${ID:-}-${VERSION_ID:-}") in
    ubuntu-22.*) echo g++-12 libstdc++-12-dev ;;
    *) echo g++ ;;
  esac
}

# The oldest Boost that will do is 1.74; Debian 12 has that as the default and 1.81 beside it.
boost_package() {
  if [ -e /usr/include/boost/version.hpp ]; then return; fi
  if apt-cache policy libboost1.81-dev 2>/dev/null | grep -q 'Candidate: [0-9]'; then echo libboost1.81-dev; else echo libboost-dev; fi
}

# Prints the packages that are missing for "build", "test" or "fuzz" (each includes those before it).
missing_packages() {
  local tools=("${build_tools[@]}") libraries=("${build_libraries[@]}") entry
  case $1 in test|fuzz) tools+=("${test_tools[@]}"); libraries+=("${test_libraries[@]}") ;; esac
  if [ "$1" = fuzz ]; then tools+=("${fuzz_tools[@]}"); fi
  compiler_package
  boost_package
  for entry in "${tools[@]}"; do
    command -v "${entry%%:*}" >/dev/null || echo "${entry#*:}"
  done
  for entry in "${libraries[@]}"; do
    has_package "$entry" || echo "$entry"
  done
}

# Installs what is missing, saying so; returns 1 with the command to type when it may not.
install_packages() {
  if ! command -v apt-get >/dev/null; then
    say "this is not Debian or Ubuntu; if the build fails, install what docs/dependencies.md lists"
    return 0
  fi
  local missing run=()
  missing=$(missing_packages "$1" | tr '\n' ' ')
  missing=${missing% }
  if [ -z "$missing" ]; then return 0; fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      say "these packages are missing, and only root may install them:"
      say "  apt-get install $missing"
      return 1
    fi
    run=(sudo)
  fi
  say "installing packages that the build needs: $missing"
  run+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300)
  # stdin belongs to the command that was asked for, not to apt.
  "${run[@]}" update </dev/null >&2 || say "apt-get update failed; trying with the package lists that are here"
  missing=$(missing_packages "$1" | tr '\n' ' ')  # again: names may depend on the fresh lists
  # shellcheck disable=SC2086
  if ! "${run[@]}" install --no-install-recommends $missing </dev/null >&2; then
    say "apt-get could not install: $missing"
    return 1
  fi
}

# Debian's g++ when it is 12 or newer, else g++-12; CXX in the environment wins.
choose_compiler() {
  if [ -n "${CXX:-}" ]; then return; fi
  if command -v g++ >/dev/null && [ "$(g++ -dumpversion | cut -d. -f1)" -ge 12 ]; then return; fi
  if command -v g++-12 >/dev/null; then export CC=gcc-12 CXX=g++-12; fi
}
