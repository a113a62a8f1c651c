// RenameMode: what rename does if the target exists.
#pragma once


namespace rekeyfs {

enum class RenameMode { replace, no_replace, exchange };

}  // namespace rekeyfs
