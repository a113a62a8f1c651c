// What is looked for in, and done to, a range of content.
#pragma once


namespace rekeyfs {

enum class Seek { data, hole };
enum class Allocate { reserve, punch, zero };

}  // namespace rekeyfs
