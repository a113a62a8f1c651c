#!/usr/bin/env python3
"""Checks that the include rules hold (CONTRIBUTING.md draws them): which folder may include which, and which
foreign header may appear where. Prints every breach as file:line and fails if there is one."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (".h", ".cpp")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')

# Folder -> folders whose headers it may include, besides its own. `engine` is the top: engine.h, engine.cpp.
BELOW = {
    "engine/base": [],
    "engine/crypto": ["engine/base"],
    "engine/io": ["engine/base"],
    "engine/kms": ["engine/crypto", "engine/base"],
    "engine/formats": ["engine/io", "engine/base"],
    "engine/catalog": ["engine/crypto", "engine/io", "engine/base"],
}
BELOW["engine/blocks"] = ["engine/catalog", "engine/formats", "engine/kms", "engine/crypto", "engine/io", "engine/base"]
BELOW["engine/audit"] = ["engine/catalog", *BELOW["engine/catalog"], "engine/kms"]
BELOW["engine/store"] = ["engine/blocks", *BELOW["engine/blocks"]]
BELOW["engine/boot"] = ["engine/store", *BELOW["engine/store"]]
BELOW["engine/namespace"] = ["engine/store", *BELOW["engine/store"]]
BELOW["engine/replication"] = ["engine/audit", "engine/boot", "engine/namespace", *BELOW["engine/namespace"]]
BELOW["engine/keys"] = ["engine/replication", *BELOW["engine/replication"]]
BELOW["engine/images"] = ["engine/keys", *BELOW["engine/keys"]]
BELOW["engine/check"] = ["engine/replication", *BELOW["engine/replication"]]
BELOW["engine"] = [folder for folder in BELOW if folder != "engine"]
BELOW["fs"] = ["engine/base"]
BELOW["tools"] = ["fs", "engine/base"]

# Who may include engine/engine.h, the contract: whoever implements it and whoever uses it.
CONTRACT = "engine/engine.h"
CONTRACT_USERS = {"engine", "engine/audit", "engine/check", "engine/images", "engine/keys", "engine/namespace", "engine/replication", "fs", "tools"}

# Foreign header -> the only folder that may include it.
FOREIGN = {"fuse": "fs", "lmdb": "engine/catalog", "openssl/": "engine/crypto",
           "libnbd": "engine/formats"}


def folder_of(path):
    """The unit of the rules: a folder of engine/, engine/ itself, or the whole of fs/ or tools/."""
    parts = Path(path).parent.parts
    return "/".join(parts[:2]) if parts[0] == "engine" else parts[0]


def included(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1] == "<", match[2]


def breach(folder, foreign, header):
    """Why `folder` may not include `header`, or None."""
    if foreign:
        for prefix, owner in FOREIGN.items():
            if header.startswith(prefix) and folder != owner:
                return f"<{header}> belongs in {owner}/ only"
        return None
    if "/" not in header or not (ROOT / header).exists():
        return f'"{header}" is not a path from the top of the repository'
    if header == CONTRACT:
        return None if folder in CONTRACT_USERS else f"{folder}/ is below {CONTRACT}"
    target = folder_of(header)
    if target == folder or target in BELOW[folder]:
        return None
    return f'{folder}/ may not see {target}/ ("{header}")'


def cycle(edges):
    """A list of folders that include each other in a ring, or None."""
    done = set()

    def walk(folder, path):
        if folder in path:
            return path[path.index(folder):] + [folder]
        if folder in done:
            return None
        for target in sorted(edges.get(folder, ())):
            if ring := walk(target, path + [folder]):
                return ring
        done.add(folder)
        return None

    for start in sorted(edges):
        if ring := walk(start, []):
            return ring
    return None


def main():
    breaches, edges, files = [], {}, 0
    for top in ("engine", "fs", "tools"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            files += 1
            name = path.relative_to(ROOT)
            folder = folder_of(name)
            if folder not in BELOW:
                breaches.append(f"{name}:1: tests/layers.py does not know {folder}/; say what it may include")
                continue
            for line, foreign, header in included(path):
                if reason := breach(folder, foreign, header):
                    breaches.append(f"{name}:{line}: {reason}")
                elif not foreign and header != CONTRACT and folder_of(header) != folder:
                    edges.setdefault(folder, set()).add(folder_of(header))
    if ring := cycle(edges):
        breaches.append("folders include each other: " + " -> ".join(ring))
    if not files:
        breaches.append("no source files found; is this the repository?")
    print("\n".join(breaches) if breaches else f"{files} files keep the include rules")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
