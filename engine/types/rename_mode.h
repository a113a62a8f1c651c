// RenameMode: what rename does with a target that exists.
#pragma once


namespace rekeyfs {

enum class RenameMode { replace, no_replace, exchange };

}  // namespace rekeyfs
