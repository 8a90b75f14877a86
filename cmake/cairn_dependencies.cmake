# Every dependency has its line in docs/dependencies.md. Static archives where Debian ships them, so that the
# program needs only glibc and libstdc++ at run time.
find_package(Threads REQUIRED)
if(CAIRN_TESTS)
  find_package(GTest REQUIRED)
  include(GoogleTest)
  enable_testing()
endif()

function(cairn_static_library target archive header)
  find_library(${target}_archive NAMES ${archive} REQUIRED)
  find_path(${target}_include NAMES ${header} REQUIRED)
  add_library(${target} INTERFACE)
  target_link_libraries(${target} INTERFACE ${${target}_archive})
  target_include_directories(${target} SYSTEM INTERFACE ${${target}_include})
endfunction()

cairn_static_library(pcre2 libpcre2-8.a pcre2.h)
target_compile_definitions(pcre2 INTERFACE PCRE2_STATIC PCRE2_CODE_UNIT_WIDTH=8)
cairn_static_library(utf8proc libutf8proc.a utf8proc.h)
target_compile_definitions(utf8proc INTERFACE UTF8PROC_STATIC)
cairn_static_library(libedit libedit.a histedit.h)
find_library(libbsd_archive NAMES libbsd.a REQUIRED)
find_library(libmd_archive NAMES libmd.a REQUIRED)
find_library(libtinfo_archive NAMES libtinfo.a REQUIRED)
target_link_libraries(libedit INTERFACE ${libtinfo_archive} ${libbsd_archive} ${libmd_archive})

add_library(nlohmann_json INTERFACE)
find_path(nlohmann_json_include NAMES nlohmann/json.hpp REQUIRED)
add_library(cli11 INTERFACE)
find_path(cli11_include NAMES CLI/CLI.hpp REQUIRED)
add_library(fmt_headers INTERFACE)
find_path(fmt_include NAMES fmt/core.h REQUIRED)
add_library(eigen INTERFACE)
find_path(eigen_include NAMES Eigen/Core PATH_SUFFIXES eigen3 REQUIRED)
target_include_directories(eigen SYSTEM INTERFACE ${eigen_include})
# Every thread factorises its own matrix.
target_compile_definitions(eigen INTERFACE EIGEN_DONT_PARALLELIZE)

set(OPENSSL_USE_STATIC_LIBS ON)
find_package(OpenSSL REQUIRED)
set(Boost_USE_STATIC_LIBS ON)
find_package(Boost 1.74 REQUIRED)  # headers only; Debian 12 has 1.81, Ubuntu 22.04 1.74, 24.04 1.83
