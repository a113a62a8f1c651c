"""Faults of the system below the daemon: tests/faults/faults.h, switched on and off while it runs."""
import ctypes
import mmap
import os
from pathlib import Path

LIBRARY = os.environ.get("REKEYFS_TEST_FAULTS_LIBRARY") or \
    str(Path(__file__).resolve().parent.parent.parent / "build/release/tests/librekeyfs_faults.so")

READ, WRITE, SYNC, OPEN, SPACE, NAMES, MEMORY = (1 << bit for bit in range(7))
FOR_EVER = 1 << 60


class _Layout(ctypes.Structure):
    _fields_ = [("kinds", ctypes.c_uint32), ("error", ctypes.c_int32), ("first", ctypes.c_int64), ("last", ctypes.c_int64),
                ("calls", ctypes.c_int64), ("failed", ctypes.c_int64), ("one_in", ctypes.c_int64), ("short_transfers", ctypes.c_uint32)]


class Faults:
    """`environment` is for the daemon; `folder` is where the file is that both see."""

    def __init__(self, folder):
        path = Path(folder) / "faults"
        path.write_bytes(bytes(4096))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 4096)
        self.now = _Layout.from_buffer(self._memory)
        self.environment = {"LD_PRELOAD": LIBRARY, "REKEYFS_TEST_FAULTS_FILE": str(path)}

    def arm(self, kinds, error, first=0, many=FOR_EVER):
        """Of the calls of these kinds from now on, `many` fail after the first `first`."""
        self.disarm()
        self.now.calls = self.now.failed = 0
        self.now.error, self.now.first, self.now.last = error, first, first + many - 1
        self.now.kinds = kinds

    def disarm(self):
        self.now.kinds = 0
