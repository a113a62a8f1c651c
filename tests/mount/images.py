"""Deterministic files that look like disk images to a storage engine: the same seed gives the same bytes.

Extents of 64 KiB to 2 MiB; of ten of them six are incompressible, two text and two holes. The text carries MARKER,
which must not be found in a store that holds the image encrypted only.
"""
import atexit
import functools
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

MARKER = b"REKEYFS-PLAINTEXT-MARKER"
_CYCLE = ["random"] * 6 + ["text"] * 2 + ["hole"] * 2


def text(size, rng):
    """`size` bytes of configuration-like lines, MARKER in each 4 KiB of them."""
    lines = []
    length = 0
    while length < 4 * KIB - 64:
        line = f"option_{rng.randrange(1000)} = /usr/share/value-{rng.randrange(1000)}\n".encode()
        lines.append(line)
        length += len(line)
    page = (MARKER + b"\n" + b"".join(lines)).ljust(4 * KIB, b"#")[:4 * KIB]
    return (page * (size // len(page) + 1))[:size]


def extents(size, seed):
    """(kind, offset, size) of each extent of an image."""
    rng = random.Random(seed)
    offset = 0
    while offset < size:
        length = 64 * KIB << rng.randrange(6)
        for kind in rng.sample(_CYCLE, len(_CYCLE)):
            if offset < size:
                yield kind, offset, min(length, size - offset)
            offset += length


def make(path, size, seed=1):
    """Writes an image of `size` bytes to `path`; its holes are holes of the file."""
    rng = random.Random(seed)
    with open(path, "wb") as image:
        for kind, offset, length in extents(size, seed):
            image.seek(offset)
            if kind == "random":
                image.write(rng.randbytes(length))
            elif kind == "text":
                image.write(text(length, rng))
        image.truncate(size)
    return path


@functools.cache
def _templates():
    """The folder of images that copy_of() copies; it goes when the program ends."""
    folder = tempfile.mkdtemp(prefix="rekeyfs-images-", dir=os.environ.get("TMPDIR", "/var/tmp"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


@functools.cache
def _template(size, seed):
    return make(_templates() / f"{size}-{seed}", size, seed)


def copy_of(path, size, seed=1):
    """make() for programs that want the same image again and again: it is computed once."""
    subprocess.run(["cp", "--sparse=auto", _template(size, seed), path], check=True)
    return path


def same(left, right, chunk=MIB):
    """None if two files have equal bytes, else a sentence about the first difference."""
    with open(left, "rb") as a, open(right, "rb") as b:
        sizes = os.fstat(a.fileno()).st_size, os.fstat(b.fileno()).st_size
        offset = 0
        while True:
            x, y = a.read(chunk), b.read(chunk)
            if x != y:
                at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
                return f"{left} and {right} differ at byte {offset + at} (sizes {sizes[0]} and {sizes[1]})"
            if not x:
                return None if sizes[0] == sizes[1] else f"sizes differ: {sizes[0]} and {sizes[1]}"
            offset += len(x)


def holds_bytes(folder, needle):
    """The files below `folder` that contain `needle`."""
    found = []
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                tail = b""
                while chunk := file.read(4 * MIB):
                    if needle in tail + chunk:
                        found.append(path)
                        break
                    tail = chunk[-len(needle):]
    return found
