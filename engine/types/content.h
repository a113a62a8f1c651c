// Seek and Allocate: the operations on ranges of content.
#pragma once


namespace rekeyfs {

enum class Seek { data, hole };
enum class Allocate { reserve, punch, zero };

}  // namespace rekeyfs
