"""A disk that remembers the order of its writes and flushes, and what a power cut at any of them leaves of it.

LoggedDisk is a loop device over a file that qemu-storage-daemon exports, which logs each write and each flush in the
format of Linux's dm-log-writes. Replay makes disks of that log: with what was durable at a flush, and any part of what
was written after it. Needs root and loop devices.
"""
import mmap
import os
import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import NamedTuple

from harness import is_mounted, run, wait_until

SECTOR, PIECE = 512, 4096
FLUSH, DISCARD = 1, 4  # of an entry's flags
HEADER = struct.Struct("<QQQI")  # of the log: magic, version, entries, sector size
ENTRY = struct.Struct("<QQQQ")   # sector, sectors, flags, length of what no write has
MAGIC = 0x6A736677736872
LONGEST_LOG = 16 << 30  # bytes, sparse


def missing():
    """What this machine lacks for a LoggedDisk; None if nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.path.exists("/dev/loop-control"):
        return "needs loop devices"
    if not shutil.which("qemu-storage-daemon"):
        return "needs qemu-storage-daemon (package qemu-system-common)"
    return None


class Entry(NamedTuple):
    offset: int  # bytes on the disk
    size: int
    at: int      # where the bytes are in the log
    flags: int


class LoopDevice:
    """A file as a disk."""

    def __init__(self, file):
        self.path = run("losetup", "--find", "--show", file).stdout.strip()

    def close(self):
        run("losetup", "--detach", self.path)


class LoggedDisk:
    def __init__(self, folder, size):
        """In the empty directory `folder`, of `size` bytes."""
        self.log = folder / "log"
        export = folder / "disk"
        export.touch()
        for file, length in ((folder / "raw", size), (self.log, LONGEST_LOG)):
            with open(file, "wb") as made:
                made.truncate(length)
        # The files themselves need not be synced: no power is cut here.
        self.qemu = subprocess.Popen(
            ["qemu-storage-daemon",
             "--blockdev", f"driver=file,node-name=raw,filename={folder}/raw,cache.no-flush=on",
             "--blockdev", f"driver=file,node-name=log,filename={self.log},cache.no-flush=on",
             "--blockdev", f"driver=blklogwrites,node-name=disk,file=raw,log=log,log-sector-size={SECTOR}",
             "--export", f"type=fuse,id=disk,node-name=disk,mountpoint={export},writable=on"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        try:
            wait_until(lambda: self.qemu.poll() is not None or is_mounted(export), 30, "the disk's export")
            if self.qemu.poll() is not None:
                raise AssertionError(f"qemu-storage-daemon: {self.qemu.stderr.read().decode()}")
            self.loop = LoopDevice(export)
        except BaseException:
            self._stop()
            raise

    def flushed(self):
        """How many entries the log had at the latest flush: what a sync has made durable by now is among them."""
        with open(self.log, "rb") as log:
            return HEADER.unpack(log.read(HEADER.size))[2]

    def close(self):
        """The log stays, and is whole."""
        try:
            self.loop.close()
        finally:
            self._stop()

    def _stop(self):
        self.qemu.terminate()
        self.qemu.wait(timeout=60)
        self.qemu.stderr.close()


class Log:
    """The log of a disk that is closed."""

    def __init__(self, path, size, tears=True):
        """Of a disk that tears pieces of 4 KiB, or not."""
        self.size, self.tears = size, tears
        with open(path, "rb") as file:
            magic, _, count, sector = HEADER.unpack(file.read(HEADER.size))
            assert (magic, sector) == (MAGIC, SECTOR), "not a log of writes"
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.entries, at = [], SECTOR
        for _ in range(count):
            start, sectors, flags, _ = ENTRY.unpack_from(self.bytes, at)
            at += SECTOR
            self.entries.append(Entry(start * SECTOR, sectors * SECTOR, at, flags))
            at += 0 if flags & DISCARD else sectors * SECTOR
        self.flushes = [number for number, entry in enumerate(self.entries) if entry.flags & FLUSH]

    def close(self):
        self.bytes.close()

    def write(self, disk, entry, kept=100, dice=None):
        """Puts an entry into the file `disk`, or so many percent of it."""
        if entry.flags & DISCARD:
            return  # what is discarded may as well be there still
        for at, size in [(0, entry.size)] if kept == 100 else self._pieces(entry, kept, dice):
            os.pwrite(disk, self.bytes[entry.at + at:entry.at + at + size], entry.offset + at)

    def _pieces(self, entry, kept, dice):
        """(offset, size) of the survivors; a quarter of them are torn between sectors, if any is."""
        for at in range(0, entry.size, PIECE):
            if dice.randrange(100) < kept:
                size = min(PIECE, entry.size - at)
                yield at, dice.randrange(size // SECTOR) * SECTOR if self.tears and dice.randrange(4) == 0 else size


class Cut(NamedTuple):
    flush: int  # entries before this one are durable
    end: int    # entries from here on had not been written
    kept: int   # percent of those between, which are there

    def __str__(self):
        return f"cut at write {self.end}, flushed up to {self.flush}, {self.kept} % of the rest kept"


class Replay:
    """Makes disks as they were at power cuts, which must be asked for in ascending order."""

    def __init__(self, log, folder):
        self.log, self.folder, self.done = log, folder, 0
        self.durable = folder / "durable"
        with open(self.durable, "wb") as file:
            file.truncate(log.size)

    def disk(self, cut, seed):
        """A file with what is left after the cut; a new one each time."""
        with open(self.durable, "r+b") as file:
            for entry in self.log.entries[self.done:cut.flush]:
                self.log.write(file.fileno(), entry)
        self.done = cut.flush
        path = self.folder / "cut"
        run("cp", "--sparse=always", self.durable, path)
        dice = random.Random(seed)
        with open(path, "r+b") as file:
            for entry in self.log.entries[cut.flush:cut.end]:
                self.log.write(file.fileno(), entry, cut.kept, dice)
        return path
