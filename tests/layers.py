#!/usr/bin/env python3
"""Checks that the include rules hold (CONTRIBUTING.md draws them): which folder may include which, and which
foreign header may appear where. Prints every breach as file:line and fails if there is one."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (".h", ".cpp")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]')

# Folder -> folders right below it: it may include their headers and those of all folders below them.
RIGHT_BELOW = {
    "engine/base": [],
    "engine/types": ["engine/base"],
    "engine/contract": ["engine/types"],
    "engine/crypto": ["engine/base"],
    "engine/io": ["engine/base"],
    "engine/kms": ["engine/crypto"],
    "engine/formats": ["engine/io"],
    "engine/catalog": ["engine/crypto", "engine/io"],
    "engine/blocks": ["engine/catalog", "engine/formats", "engine/kms"],
    "engine/audit": ["engine/catalog", "engine/kms", "engine/types"],
    "engine/store": ["engine/blocks"],
    "engine/boot": ["engine/store"],
    "engine/namespace": ["engine/store", "engine/types"],
    "engine/replication": ["engine/audit", "engine/boot", "engine/namespace"],
    "engine/keys": ["engine/replication"],
    "engine/quota": ["engine/replication"],
    "engine/images": ["engine/keys", "engine/quota"],
    "engine/check": ["engine/replication"],
    "engine/services": ["engine/contract", "engine/images"],
    "engine": ["engine/check", "engine/services"],  # engine.h, engine.cpp
    "fs": ["engine/contract"],
    "tools": ["fs"],
}
# The one header above engine/contract that fs/ and tools/ see.
CONTRACT = "engine/engine.h"
CONTRACT_USERS = {"fs", "tools"}


def below(folder):
    """All folders whose headers `folder` may include, besides its own."""
    return {name for direct in RIGHT_BELOW[folder] for name in {direct} | below(direct)}


# Foreign header -> the only folders that may include it. Two filter system calls: the format readers' processes, and
# the program itself.
FOREIGN = {"fuse": {"fs"}, "lmdb": {"engine/catalog"}, "openssl/": {"engine/crypto"}, "libnbd": {"engine/formats"},
           "seccomp": {"engine/formats", "tools"}, "spawn": {"engine/base"}}


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
        for prefix, owners in FOREIGN.items():
            if header.startswith(prefix) and folder not in owners:
                return f"<{header}> belongs in {' and '.join(sorted(owners))} only"
        return None
    if "/" not in header or not (ROOT / header).exists():
        return f'"{header}" is not a path from the top of the repository'
    target = folder_of(header)
    if target == folder or target in below(folder) or (header == CONTRACT and folder in CONTRACT_USERS):
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
            if folder not in RIGHT_BELOW:
                breaches.append(f"{name}:1: tests/layers.py does not know {folder}/; say what it may include")
                continue
            for line, foreign, header in included(path):
                if reason := breach(folder, foreign, header):
                    breaches.append(f"{name}:{line}: {reason}")
                elif not foreign and folder_of(header) != folder:
                    edges.setdefault(folder, set()).add(folder_of(header))
    if ring := cycle(edges):
        breaches.append("folders include each other: " + " -> ".join(ring))
    if not files:
        breaches.append("no source files found; is this the repository?")
    print("\n".join(breaches) if breaches else f"{files} files keep the include rules")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
