// The part of Engine::open() after the store is open. Also for tests that open a store on their own storage.
#pragma once

#include <memory>
#include <string>

#include "engine/engine.h"
#include "engine/store/store.h"

namespace rekeyfs {

// Starts threads. `path` is the store's directory.
Result<std::unique_ptr<Engine>> make_engine(const std::string& path, std::unique_ptr<store::Store> store, const OpenOptions& options);

}  // namespace rekeyfs
