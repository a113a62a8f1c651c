#!/usr/bin/env python3
"""The bytes of files: every way of reading and writing them, against a model held in memory."""
import errno
import hashlib
import mmap
import os
import random
import subprocess
import sys
import time
import unittest

from asynchronous import Writer
from harness import TestCase, attribute, attribute_or_none, run, wait_until
from images import GIB, KIB, MIB, make
from syscalls import FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE, fallocate, punch_hole

TIB = 1 << 40


class Content:
    """The tests, run in a plain and in an encrypted directory."""

    def setUp(self):
        super().setUp()
        self.descriptors = []
        self.addCleanup(self.close_all)

    def open(self, name="image", flags=os.O_RDWR | os.O_CREAT):
        fd = os.open(self.folder / name, flags, 0o600)
        self.descriptors.append(fd)
        return fd

    def close_all(self):
        while self.descriptors:
            os.close(self.descriptors.pop())

    def remount(self):
        self.close_all()
        self.store.remount()

    def assertContent(self, fd, expected):
        self.assertEqual(os.fstat(fd).st_size, len(expected))
        got = os.pread(fd, len(expected) + 1, 0)
        if got != expected:
            at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            self.fail(f"byte {at} of {len(expected)} is wrong, or {len(got)} bytes came")

    def test_random_changes_against_a_model(self):
        rng = random.Random(7)
        fd, model = self.open(), bytearray()
        for step in range(400):
            offset, size = rng.randrange(0, 900 * KIB), rng.choice((1, 511, 4096, 16 * KIB, 100_001))
            what = rng.choice(("write", "write", "write", "truncate", "punch", "zero"))
            if what == "write":
                data = rng.randbytes(size)
                os.pwrite(fd, data, offset)
                model.extend(bytes(max(0, offset + size - len(model))))
                model[offset:offset + size] = data
            elif what == "truncate":
                os.ftruncate(fd, offset)
                model = model[:offset].ljust(offset, b"\0")
            elif offset < len(model):
                size = min(size, len(model) - offset)
                if what == "punch":
                    punch_hole(fd, offset, size)
                else:
                    fallocate(fd, FALLOC_ZERO_RANGE, offset, size)
                model[offset:offset + size] = bytes(size)
            if step % 40 == 39:
                self.assertContent(fd, bytes(model))
        os.fsync(fd)
        self.assertContent(fd, bytes(model))
        self.remount()
        with open(self.folder / "image", "rb") as again:
            self.assertContent(again.fileno(), bytes(model))

    def test_truncate_then_extend_reads_zeros(self):
        fd = self.open()
        for size in (100 * KIB, 1, 16 * KIB, 16 * KIB + 1):
            os.pwrite(fd, b"\xff" * 200 * KIB, 0)
            os.ftruncate(fd, size)
            os.ftruncate(fd, 200 * KIB)
            self.assertContent(fd, b"\xff" * size + bytes(200 * KIB - size))

    def test_write_beyond_the_end_leaves_zeros(self):
        fd = self.open()
        os.pwrite(fd, b"start", 0)
        os.pwrite(fd, b"end", 1 * MIB)
        self.assertContent(fd, b"start" + bytes(MIB - 5) + b"end")
        self.assertEqual(os.pread(fd, 10, 2 * MIB), b"")

    def test_seek_finds_data_and_only_true_holes(self):
        fd = self.open()
        written = [(1 * MIB, 100 * KIB), (3 * MIB + 5, 1), (8 * MIB, MIB)]
        for offset, size in written:
            os.pwrite(fd, b"x" * size, offset)
        os.ftruncate(fd, 16 * MIB)
        covered, position = [], 0
        while True:
            try:
                data = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENXIO)
                break
            hole = os.lseek(fd, data, os.SEEK_HOLE)
            self.assertGreater(hole, data)
            self.assertEqual(os.pread(fd, data - position, position).strip(b"\0"), b"", "a hole does not read zero")
            covered.append((data, hole))
            position = hole
        for offset, size in written:
            self.assertTrue(any(data <= offset and offset + size <= hole for data, hole in covered), (offset, covered))
        self.assertLess(sum(hole - data for data, hole in covered), 4 * MIB, "holes are reported as data")
        self.assertEqual(os.lseek(fd, 12 * MIB, os.SEEK_HOLE), 12 * MIB)
        self.assertErrno(errno.ENXIO, os.lseek, fd, 16 * MIB, os.SEEK_HOLE)

    def test_direct_reads_and_writes(self):
        source = self.store.original("original", 8 * MIB)
        target = self.folder / "direct"
        run("dd", f"if={source}", f"of={target}", "bs=256K", "oflag=direct", "status=none")
        run("dd", f"if={target}", f"of={self.store.scratch / 'back'}", "bs=512K", "iflag=direct", "status=none")
        self.assertSame(source, self.store.scratch / "back")
        part = ("bs=4K", "count=3", "skip=7", "seek=5", "conv=notrunc", "status=none")
        run("dd", f"if={source}", f"of={target}", "oflag=direct", *part)
        run("dd", f"if={source}", f"of={source}", *part)
        self.assertSame(source, target)

    def test_direct_and_cached_see_each_other(self):
        cached = self.open()
        os.pwrite(cached, b"a" * 64 * KIB, 0)
        self.assertEqual(os.pread(cached, 4096, 0), b"a" * 4096)
        direct = self.open(flags=os.O_RDWR | os.O_DIRECT)
        page = mmap.mmap(-1, 4096)
        page.write(b"b" * 4096)
        os.pwrite(direct, page, 4096)
        self.assertEqual(os.pread(cached, 4096, 4096), b"b" * 4096)
        os.pwrite(cached, b"c" * 4096, 8192)
        self.assertEqual(os.preadv(direct, [page], 8192), 4096)
        self.assertEqual(page[:], b"c" * 4096)

    def test_cached_reads_beside_asynchronous_direct_writes(self):
        """As xfstests' generic/451: readers through the page cache fetch pages all the time; what a write has brought when
        it is complete is what everybody reads from then on."""
        size = 256 * KIB
        cached = self.open()
        os.pwrite(cached, bytes(size), 0)
        direct = self.open(flags=os.O_RDWR | os.O_DIRECT)
        writer = Writer()
        self.addCleanup(writer.close)
        script = "import os, sys\nfd = os.open(sys.argv[1], os.O_RDONLY)\nwhile True:\n os.pread(fd, 1 << 18, 0)"
        for _ in range(2):
            reader = subprocess.Popen([sys.executable, "-c", script, self.folder / "image"])
            self.addCleanup(reader.wait)
            self.addCleanup(reader.kill)
        block = mmap.mmap(-1, 16 * KIB)
        for number in range(1, 301):
            block[:] = bytes([number % 255 + 1]) * len(block)
            offset = number * len(block) % size
            writer.pwrite(direct, block, offset)
            self.assertEqual(os.pread(cached, len(block), offset), block[:], f"write {number}")

    def assertDataAt(self, fd, offset):
        """SEEK_DATA from the start goes no farther than `offset`, and SEEK_HOLE there beyond it."""
        self.assertLessEqual(os.lseek(fd, 0, os.SEEK_DATA), offset)
        self.assertGreater(os.lseek(fd, offset, os.SEEK_HOLE), offset)

    def test_seek_finds_what_a_mapping_has_changed(self):
        fd = self.open()
        os.ftruncate(fd, 16 * MIB)
        other = self.open(flags=os.O_RDONLY)
        mapped = mmap.mmap(fd, 16 * MIB)
        self.addCleanup(mapped.close)
        for offset in 5 * MIB, 1 * MIB, 16 * MIB - 4:
            mapped[offset:offset + 4] = b"DATA"
            self.assertDataAt(other, offset)
        self.assertGreater(os.lseek(other, 0, os.SEEK_DATA), 1 * MIB - 64 * KIB, "a hole is reported as data")
        self.assertEqual(os.lseek(other, 8 * MIB, os.SEEK_HOLE), 8 * MIB)
        self.assertEqual(os.pread(other, 4, 1 * MIB), b"DATA")

    def test_no_digest_that_a_mapping_may_belie(self):
        path = self.folder / "image"
        path.write_bytes(b"x" * 64 * KIB)
        self.store.wait_normal(path)
        before = attribute(path, "digest")
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            file.close()
            mapped[0] = 1
            self.assertIsNone(attribute_or_none(path, "digest"))
            with open(path, "rb") as reader:
                self.assertEqual(reader.read(1), b"\1")
        wait_until(lambda: attribute_or_none(path, "digest"), 60, "a new digest")
        self.assertNotEqual(attribute(path, "digest"), before)
        with open(path, "r+b"):
            self.assertIsNone(attribute_or_none(path, "digest"))
        wait_until(lambda: attribute_or_none(path, "digest"), 10, "the kernel releasing the handle, which it does on its own time")
        self.assertEqual(attribute(path, "digest"), hashlib.sha256(path.read_bytes()).hexdigest())

    def test_appending(self):
        one, two = (self.open(flags=os.O_WRONLY | os.O_CREAT | os.O_APPEND) for _ in range(2))
        for number in range(100):
            os.write(one if number % 2 else two, b"%03d\n" % number)
        with open(self.folder / "image", "rb") as file:
            self.assertEqual(file.read(), b"".join(b"%03d\n" % number for number in range(100)))

    def test_shared_mapping(self):
        fd = self.open()
        os.ftruncate(fd, 1 * MIB)
        with mmap.mmap(fd, 1 * MIB) as mapping:
            mapping[100:105] = b"hello"
            mapping[300 * KIB:300 * KIB + 5] = b"world"
            mapping.flush()
            self.assertEqual(os.pread(fd, 5, 100), b"hello")
            os.pwrite(fd, b"below", 500 * KIB)
            self.assertEqual(mapping[500 * KIB:500 * KIB + 5], b"below")
        self.remount()
        content = (self.folder / "image").read_bytes()
        self.assertEqual((content[100:105], content[300 * KIB:300 * KIB + 5]), (b"hello", b"world"))
        self.assertEqual(len(content.replace(b"\0", b"")), 15)

    def test_fallocate(self):
        fd = self.open()
        fallocate(fd, 0, 0, 1 * MIB)
        self.assertContent(fd, bytes(MIB))
        fallocate(fd, FALLOC_KEEP_SIZE, 1 * MIB, 1 * MIB)
        self.assertEqual(os.fstat(fd).st_size, MIB)
        os.pwrite(fd, b"x" * 100, 0)
        fallocate(fd, 0, 0, 1 * MIB)
        self.assertEqual(os.pread(fd, 100, 0), b"x" * 100)

    def test_very_large_sparse_files(self):
        fd = self.open()
        os.ftruncate(fd, 16 * TIB)
        os.pwrite(fd, b"far away", 15 * TIB + 12345)
        self.assertEqual(os.pread(fd, 8, 15 * TIB + 12345), b"far away")
        self.assertEqual(os.pread(fd, 100, 7 * TIB), bytes(100))
        first = os.lseek(fd, 0, os.SEEK_DATA)
        self.assertTrue(15 * TIB + 12345 - 64 * KIB <= first <= 15 * TIB + 12345, first)
        self.assertErrno(errno.EFBIG, os.pwrite, fd, b"x", 16 * TIB)
        self.assertErrno(errno.EFBIG, os.ftruncate, fd, 16 * TIB + 1)
        self.assertEqual(os.fstat(fd).st_size, 16 * TIB)
        os.ftruncate(fd, 0)
        self.assertContent(fd, b"")

    def test_blocks_cover_the_size(self):
        fd = self.open()
        for size in (1, 100 * KIB + 1, 20 * GIB):
            os.ftruncate(fd, size)
            self.assertGreaterEqual(os.fstat(fd).st_blocks * 512, size)

    def test_synchronous_handles(self):
        fd = self.open(flags=os.O_RDWR | os.O_CREAT | os.O_SYNC)
        os.pwrite(fd, b"synced" * 1000, 17)
        os.fdatasync(fd)
        self.assertContent(fd, bytes(17) + b"synced" * 1000)

    def test_truncating_open(self):
        path = self.folder / "image"
        path.write_bytes(b"old" * 10000)
        path.write_bytes(b"new")
        self.assertEqual(path.read_bytes(), b"new")
        with open(path, "wb"):
            pass
        self.assertEqual(os.stat(path).st_size, 0)

    def test_truncated_by_an_open_that_outlives_its_directory(self):
        (self.folder / "below").mkdir()
        (self.folder / "below/image").write_bytes(b"old" * 10000)
        fd = self.open("below/image", os.O_RDWR | os.O_TRUNC)
        os.unlink(self.folder / "below/image")
        os.rmdir(self.folder / "below")
        os.pwrite(fd, b"new", 0)
        self.assertContent(fd, b"new")

    def test_becomes_normal_with_format_and_digest(self):
        path = make(self.folder / "image", 3 * MIB)
        self.store.wait_normal(path)
        digest = run("sha256sum", path).stdout.split()[0]
        self.assertIn(digest, os.getxattr(path, "user.rekeyfs.digest").decode())
        self.assertEqual(os.getxattr(path, "user.rekeyfs.format"), b"raw")

    def test_creating_then_normal(self):
        fd = self.open()
        os.pwrite(fd, b"x" * 100 * KIB, 0)
        self.assertEqual(self.store.status(self.folder / "image"), "creating")
        self.close_all()
        self.assertIn(self.store.status(self.folder / "image"), ("normal-uninitialized", "normal"))
        self.store.wait_normal(self.folder / "image")


class PlainContent(Content, TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.store.plain("folder")

    def test_statfs(self):
        below, here = os.statvfs(self.store.store), os.statvfs(self.mnt)
        self.assertEqual(here.f_blocks * here.f_frsize, below.f_blocks * below.f_frsize)
        self.assertLessEqual(here.f_bavail * here.f_frsize, below.f_blocks * below.f_frsize)
        self.assertGreater(here.f_bavail, 0)
        self.assertEqual(here.f_namemax, 255)


class EncryptedContent(Content, TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.store.encrypted("folder", "tenant")


if __name__ == "__main__":
    unittest.main()
