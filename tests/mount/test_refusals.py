#!/usr/bin/env python3
"""Copies that are refused: with the rule's errno, leaving no target, losing none, and staying refused."""
import errno
import json
import os
import subprocess
import sys
import unittest

from harness import TestCase, rekeyfs, run
from images import KIB, MIB

WRITER = """import os, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
os.write(fd, b"x" * 262144)
print("written", flush=True)
sys.stdin.read()
"""


class Refusals(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.one = self.store.encrypted("one", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")

    def image(self, folder, name="image", content=b"content" * 100_000):
        path = folder / name
        path.write_bytes(content)
        return path

    def being_created(self):
        """An image that is open and has been written since its last flush.

        By a process of its own: each process started from here would close its copy of our descriptor, a flush."""
        path = self.plain / "creating"
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(writer.communicate)
        self.assertEqual(writer.stdout.readline(), b"written\n")
        return path

    def ecs_image(self):
        os.setxattr(self.plain, "user.rekeyfs.type", b"full-ecs")
        return self.image(self.plain, "ecs")

    def assertRefused(self, number, source, target):
        for command in (["cp"], ["cp", "-a"], ["mv"]):
            done = run(*command, source, target, check=False)
            self.assertEqual(done.returncode, 1, f"{command}: {done.stderr}")
            self.assertIn(os.strerror(number), done.stderr)
            self.assertFalse(target.exists(), f"{command} left a target")
            self.assertTrue(source.exists(), f"{command} lost the source")

    def test_a_reader_beside_does_not_make_a_truncation_final(self):
        """O_TRUNC keeps the content until the handle's own data or close, whoever else closes the image."""
        source, target = self.being_created(), self.image(self.one, content=b"old" * 100_000)
        opened = os.open(target, os.O_WRONLY | os.O_TRUNC)
        reader = os.open(target, os.O_RDONLY)
        os.fsync(reader)
        os.close(reader)
        with open(source, "rb") as file:
            self.assertErrno(errno.EBUSY, os.copy_file_range, file.fileno(), opened, 1000)
        os.close(opened)
        self.assertEqual(target.read_bytes(), b"old" * 100_000)

    def test_a_source_that_is_being_created(self):
        path = self.being_created()
        self.assertEqual(self.store.status(path), "creating")
        self.assertRefused(errno.EBUSY, path, self.one / "target")

    def test_a_source_that_is_replicating(self):
        source = self.store.original("original", 8 * MIB)
        run("cp", source, self.plain / "image")
        self.store.wait_normal(self.plain / "image")
        with self.store.replicating(self.plain / "image", self.one / "image"):
            done = run("cp", self.one / "image", self.two / "image", check=False)
            self.assertEqual((done.returncode, self.store.status(self.one / "image")), (1, "replicating"))
            self.assertIn(os.strerror(errno.EBUSY), done.stderr)
            self.assertEqual(os.listdir(self.two), [])
        self.store.wait_normal(self.one / "image")
        run("cp", self.one / "image", self.two / "image")
        self.assertSame(source, self.two / "image")

    def test_a_full_ecs_image(self):
        self.assertRefused(errno.EMEDIUMTYPE, self.ecs_image(), self.one / "target")

    def test_a_full_ecs_image_can_still_be_read(self):
        run("cp", self.ecs_image(), self.store.scratch / "exported")
        self.assertEqual((self.store.scratch / "exported").read_bytes(), b"content" * 100_000)

    def test_qemu_img_does_not_succeed_on_a_refusal(self):
        source = self.ecs_image()
        os.truncate(source, 512 * KIB)
        done = run("qemu-img", "convert", "-C", "-f", "raw", "-O", "raw", source, self.one / "target", check=False)
        self.assertNotEqual(done.returncode, 0)

    def test_a_truncated_target_gets_its_content_back(self):
        source = self.ecs_image()
        for name, content in (("large", b"old" * 500_000), ("small", b"old")):
            target = self.image(self.one, name, content)
            self.assertEqual(run("cp", source, target, check=False).returncode, 1)
            self.assertEqual(target.read_bytes(), content)
            self.store.remount()
            self.assertEqual(target.read_bytes(), content)

    def test_a_target_that_held_data_stays(self):
        source = self.ecs_image()
        target = self.image(self.one, "target", b"kept" * 1000)
        with open(source, "rb") as opened, open(target, "r+b") as out:
            self.assertErrno(errno.EMEDIUMTYPE, os.copy_file_range, opened.fileno(), out.fileno(), MIB, 0, 0)
        self.assertEqual(target.read_bytes(), b"kept" * 1000)

    def test_the_targets_handle_stays_refused(self):
        for source, number in ((self.being_created(), errno.EBUSY), (self.ecs_image(), errno.EMEDIUMTYPE)):
            target = self.one / "target"
            fd = os.open(target, os.O_CREAT | os.O_WRONLY, 0o600)
            with open(source, "rb") as opened:
                self.assertErrno(number, os.copy_file_range, opened.fileno(), fd, MIB, 0, 0)
                self.assertErrno(number, os.pwrite, fd, b"data", 0)
                self.assertErrno(number, os.ftruncate, fd, 100)
                self.assertErrno(number, os.copy_file_range, opened.fileno(), fd, MIB, 0, 0)
            os.close(fd)
            self.assertFalse(target.exists())

    def test_another_handle_is_not_refused(self):
        source = self.ecs_image()
        target = self.image(self.one, "target", b"kept" * 1000)
        with open(source, "rb") as opened, open(target, "r+b") as poisoned, open(target, "r+b", buffering=0) as other:
            self.assertErrno(errno.EMEDIUMTYPE, os.copy_file_range, opened.fileno(), poisoned.fileno(), MIB, 0, 0)
            other.write(b"fine")
        self.assertEqual(target.read_bytes()[:8], b"finekept")

    def test_status_shows_the_latest_refusals(self):
        run("cp", self.ecs_image(), self.one / "target", check=False)
        self.assertIn("target", rekeyfs("status", self.mnt).stdout)
        facts = json.loads(rekeyfs("status", "--json", self.mnt).stdout)
        self.assertIn("/one/target", json.dumps(facts))


if __name__ == "__main__":
    unittest.main()
