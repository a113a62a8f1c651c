# Compiler warnings and sanitizers.
#
# rekeyfs_warnings: every target of ours links it PRIVATE, so that other people's headers are not judged by it.
# REKEYFS_SANITIZER: applied to everything, because all objects of a program must agree on it.

add_library(rekeyfs_warnings INTERFACE)
target_compile_options(rekeyfs_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wnon-virtual-dtor -Woverloaded-virtual
  # gcc 12 reports std::string's own memcpy (gcc bug 105651); clang builds have these checks.
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict;-Wno-array-bounds;-Wno-stringop-overflow>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Werror=thread-safety>)

set(REKEYFS_SANITIZER "" CACHE STRING
  "Sanitizer for the whole build: address (with undefined), thread, fuzzer (with address and undefined), or empty")
set_property(CACHE REKEYFS_SANITIZER PROPERTY STRINGS "" address thread fuzzer)

if(REKEYFS_SANITIZER STREQUAL "address")
  set(sanitizer_flags -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(REKEYFS_SANITIZER STREQUAL "thread")
  set(sanitizer_flags -fsanitize=thread -fno-omit-frame-pointer)
elseif(REKEYFS_SANITIZER STREQUAL "fuzzer")  # the targets alone link libFuzzer's main()
  set(sanitizer_flags -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
elseif(REKEYFS_SANITIZER)
  message(FATAL_ERROR "REKEYFS_SANITIZER is '${REKEYFS_SANITIZER}'; it can be address, thread, fuzzer or empty.")
endif()
add_compile_options(${sanitizer_flags})
add_link_options(${sanitizer_flags})
