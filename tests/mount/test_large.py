#!/usr/bin/env python3
"""Large images: a copy costs the same whatever the size, and pieces of the kernel's 4 GiB are one replica."""
import os
import random
import time
import unittest

from harness import TestCase, attribute, run
from images import GIB, KIB, MIB

KERNEL_PIECE = 4294963200  # the most bytes that one copy_file_range request of the kernel has


class Large(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.encrypted = self.store.encrypted("encrypted", "tenant")

    def sparse(self, name, size, places):
        """A sparse image with random data at `places`; {offset: data}."""
        content = {}
        with open(self.plain / name, "wb") as file:
            file.truncate(size)
            for offset in places:
                content[offset] = random.Random(offset).randbytes(min(100_000, size - offset))
                os.pwrite(file.fileno(), content[offset], offset)
        return content

    def test_a_copy_takes_the_same_time_whatever_the_size(self):
        for name, size in (("small", 1 * GIB), ("large", 20 * GIB)):
            self.sparse(name, size, range(0, size, size // 100))
            self.store.wait_normal(self.plain / name, 240)  # its digest is computed at the lowest priority
        best = {"small": 1e9, "large": 1e9}
        for number in range(5):
            for name in best:
                target = self.encrypted / f"{name}-{number}"
                started = time.monotonic()
                run("cp", self.plain / name, target)
                best[name] = min(best[name], time.monotonic() - started)
                self.assertTrue(attribute(target, "source"))
        # 20 ms are process start and scheduling on a busy machine; copying 19 GiB more takes seconds.
        self.assertLess(best["large"], 1.5 * best["small"] + 0.020)

    def test_the_kernels_pieces_are_one_replica(self):
        places = [0, KERNEL_PIECE - 50_000, 2 * KERNEL_PIECE - 200_000, 2 * KERNEL_PIECE - 16 * KIB, 9 * GIB - 100_000]
        content = self.sparse("image", 9 * GIB, places)
        target = self.encrypted / "replica"
        run("cp", self.plain / "image", target)
        os.truncate(self.plain / "image", 0)
        self.assertEqual(os.stat(target).st_size, 9 * GIB)
        self.assertTrue(attribute(target, "source"), "it was copied as data, not replicated")
        self.check(target, content)
        self.store.wait_normal(target)
        self.store.remount()
        self.check(target, content)

    def check(self, path, content):
        with open(path, "rb") as file:
            for offset, data in content.items():
                self.assertEqual(os.pread(file.fileno(), len(data), offset), data, f"at {offset}")
            for offset in (1 * GIB, 3 * GIB + 5, KERNEL_PIECE + 200_000, 8 * GIB + 10 * MIB):
                self.assertEqual(os.pread(file.fileno(), MIB, offset), bytes(MIB), f"at {offset}")


if __name__ == "__main__":
    unittest.main()
