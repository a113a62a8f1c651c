#!/usr/bin/env python3
"""A daemon that may have few descriptors, with many more files of the store in use than that."""
import json
import os
import unittest

from harness import REKEYFS, MountedStore, TestCase, attribute, rekeyfs, run, wait_until

FEW, USUAL = 256, 1024  # the second is the soft limit that most systems set


class Descriptors(TestCase):
    def mount(self, most):
        self.store = MountedStore(descriptors=most)
        self.addCleanup(self.store.close)
        self.mnt = self.store.mnt
        self.contents = {}

    def setUp(self):
        pass  # each test says how many

    def write(self, path, size=1000):
        self.contents[path] = f"{path.name} ".encode() * (size // (len(path.name) + 1))
        path.write_bytes(self.contents[path])

    def assertContents(self):
        for path, content in self.contents.items():
            self.assertTrue(path.read_bytes() == content, path)

    def assertSound(self):
        self.store.umount()
        run("prlimit", f"--nofile={FEW}:{FEW}", "--", REKEYFS, "check", self.store.store,
            "--key-file", self.store.key_file)
        self.store.mount()
        self.assertContents()

    def assertManyFiles(self, count):
        plain = self.store.plain("plain")
        for number in range(count):
            self.write(plain / f"file-{number}")
        self.assertContents()
        for path in list(self.contents)[::2]:
            self.write(path, 30_000)
        self.store.kill9()
        self.store.mount()
        self.assertContents()
        self.assertSound()

    def test_three_thousand_files_at_the_usual_limit(self):
        self.mount(USUAL)
        self.assertManyFiles(3000)

    def test_a_thousand_files_with_few_descriptors(self):
        self.mount(FEW)
        self.assertManyFiles(1000)

    def test_images_that_are_open_together(self):
        self.mount(FEW)
        folder = self.store.encrypted("folder", "key")
        files = [os.open(folder / f"disk-{number}", os.O_RDWR | os.O_CREAT) for number in range(400)]
        try:
            for number, file in enumerate(files):
                os.pwrite(file, bytes([number % 256]) * 65536, 0)
            for file in files[::20]:
                os.fsync(file)
            for number, file in enumerate(files):
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                self.assertEqual(os.pread(file, 70_000, 0), bytes([number % 256]) * 65536)
        finally:
            for file in files:
                os.close(file)
        self.assertSound()

    def test_a_rotation_of_more_images_than_descriptors(self):
        self.mount(FEW)
        folder = self.store.encrypted("folder", "old")
        self.store.key("new")
        for number in range(300):
            self.write(folder / f"image-{number}", 20_000)
        rekeyfs("rotate", folder, "--key", "new")

        def needs_old():
            return json.loads(rekeyfs("key", "show", "old", self.mnt, "--json").stdout)["uses"]
        wait_until(lambda: rekeyfs("status", "--wait", self.mnt, check=False).returncode == 0 and not needs_old(), 120,
                   "the rotation ending")
        for path in self.contents:
            self.assertEqual(attribute(path, "key"), "new")
        self.assertSound()


if __name__ == "__main__":
    unittest.main()
