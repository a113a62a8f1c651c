#!/usr/bin/env python3
"""Synchronous writes: what O_SYNC, O_DSYNC and RWF_DSYNC promise is on the store's disk when the call returns."""
import mmap
import os
import tempfile
import unittest
from pathlib import Path

from asynchronous import Writer
from harness import ROOT, MountedStore
from images import KIB
from syscalls import FALLOC_ZERO_RANGE, fallocate

SYNC_COUNTER = os.environ.get("REKEYFS_TEST_SYNC_COUNTER") or str(ROOT / "build/release/tests/sync_counter.so")


class Synchronous:
    """The tests, run with and without a write-back cache."""
    mount_arguments = ()

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp"))
        self.addCleanup(folder.cleanup)
        self.count = Path(folder.name) / "count"
        self.store = MountedStore(*self.mount_arguments, environment={"LD_PRELOAD": SYNC_COUNTER,
                                                                      "REKEYFS_TEST_SYNC_COUNT": str(self.count)})
        self.addCleanup(self.store.close)
        self.path = self.store.plain("plain") / "image"
        self.block = mmap.mmap(-1, 16 * KIB)
        self.block.write(b"synced" * 2000)

    def open(self, flags, access=os.O_RDWR):
        fd = os.open(self.path, flags | access | os.O_CREAT, 0o600)
        self.addCleanup(os.close, fd)
        return fd

    def with_content(self):
        self.path.write_bytes(os.urandom(64 * KIB))

    def syncs(self):
        return self.count.stat().st_size if self.count.exists() else 0

    def assertEachIsDurable(self, change, least=2):
        """`change` is called with 0, 1, 2: each time the data and the journal reach the disk, or, where there is no data,
        the journal alone. (A checkpoint, every three seconds, syncs as well.)"""
        for number in range(3):
            before = self.syncs()
            change(number)
            self.assertGreaterEqual(self.syncs(), before + least, f"change {number}")

    def writes(self, fd):
        return lambda number: os.pwrite(fd, self.block, number * len(self.block))

    def test_a_new_file(self):
        self.assertEachIsDurable(self.writes(self.open(os.O_DSYNC, os.O_WRONLY)))

    def test_a_new_file_that_is_read_too(self):
        self.assertEachIsDurable(self.writes(self.open(os.O_DSYNC)))

    def test_a_file_that_is_replaced(self):
        self.with_content()
        self.assertEachIsDurable(self.writes(self.open(os.O_SYNC | os.O_TRUNC, os.O_WRONLY)))

    def test_a_file_with_content(self):
        self.with_content()
        self.assertEachIsDurable(self.writes(self.open(os.O_SYNC)))

    def test_direct(self):
        self.with_content()
        self.assertEachIsDurable(self.writes(self.open(os.O_DSYNC | os.O_DIRECT)))

    def test_direct_and_asynchronous(self):
        self.with_content()
        fd = self.open(os.O_DSYNC | os.O_DIRECT)
        writer = Writer()
        self.addCleanup(writer.close)
        self.assertEachIsDurable(lambda number: writer.pwrite(fd, self.block, number * len(self.block)))

    def test_one_write_that_asks_for_it(self):
        for name, access in ("new", os.O_WRONLY), ("read too", os.O_RDWR):
            with self.subTest(name):
                self.path = self.path.with_name(name)
                fd = self.open(0, access)
                for flag in os.RWF_DSYNC, os.RWF_SYNC:
                    self.assertEachIsDurable(lambda number: os.pwritev(fd, [self.block], number * len(self.block), flag))

    def test_a_mapping(self):
        self.with_content()
        mapped = mmap.mmap(self.open(0), 64 * KIB)
        self.addCleanup(mapped.close)

        def change(number):
            mapped[number * 16 * KIB] = 1 + number
            mapped.flush()
        self.assertEachIsDurable(change)

    def test_allocating(self):
        self.with_content()
        fd = self.open(os.O_DSYNC)
        self.assertEachIsDurable(lambda number: fallocate(fd, FALLOC_ZERO_RANGE, number * 16 * KIB, 16 * KIB), least=1)

    def test_copying_a_range(self):
        self.with_content()
        source, fd = self.open(0), os.open(self.path.with_name("copy"), os.O_WRONLY | os.O_CREAT | os.O_SYNC)
        self.addCleanup(os.close, fd)
        self.assertEachIsDurable(
            lambda number: os.copy_file_range(source, fd, 4 * KIB, 16 * KIB + number * 4 * KIB, 8 * KIB * (1 + number)))

    def test_nothing_is_synced_that_nobody_asked_for(self):
        before = self.syncs()
        fd = self.open(0, os.O_WRONLY)
        for number in range(8):
            os.pwrite(fd, self.block, number * len(self.block))
        self.assertLess(self.syncs(), before + 6)  # a checkpoint may have come between


class WriteThrough(Synchronous, unittest.TestCase):
    pass


class WriteBack(Synchronous, unittest.TestCase):
    mount_arguments = ("-o", "writeback_cache")


if __name__ == "__main__":
    unittest.main()
