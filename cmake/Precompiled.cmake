# Precompiled headers: other people's headers are parsed once a target and not once a file. Our own are not among them,
# so that a change to one rebuilds what includes it and nothing else.
#
# For targets of large files only: gcc takes up to a second to load one of 80 MiB, longer than the headers of a small
# file take. CLI11 never belongs in one: its constants bring seconds of code into every file that sees them.
#
# Every file still includes what it uses: CMAKE_DISABLE_PRECOMPILE_HEADERS (the presets `clang` and `asan`) builds
# without any.

# rekeyfs_precompile(TARGET [<HEADER>...]): the standard library's usual ones and those named.
function(rekeyfs_precompile target)
  target_precompile_headers(${target} PRIVATE
    <algorithm> <array> <atomic> <cerrno> <charconv> <chrono> <compare> <condition_variable> <cstddef> <cstdint>
    <cstdio> <cstring> <deque> <filesystem> <functional> <map> <memory> <mutex> <optional> <set> <shared_mutex> <span>
    <string> <string_view> <thread> <unordered_map> <utility> <vector> <tl/expected.hpp> <fmt/core.h> ${ARGN})
  # So that a cache of compilations knows a precompiled header again: gcc preprocesses past it, and clang leaves
  # the time of the headers out of it.
  target_compile_options(${target} PRIVATE
    $<$<CXX_COMPILER_ID:GNU>:-fpch-preprocess>
    $<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>)
endfunction()
