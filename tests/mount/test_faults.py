#!/usr/bin/env python3
"""The real daemon on a failing system: calls that come short or are interrupted, descriptors and memory that run out,
reads, writes and syncs that fail, those of LMDB among them. Every call is answered, nothing acknowledged is lost, the
daemon lives, and what may pass is over when its cause is."""
import errno
import json
import os
import random
import resource
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from faults import FOR_EVER, LIBRARY, MEMORY, NAMES, OPEN, READ, SPACE, SYNC, WRITE, Faults
from harness import MountedStore, TestCase, attribute, rekeyfs, run, wait_until
from images import KIB, MIB

NOT_DURABLE = 19  # exit code, rekeyfs(1)


@unittest.skipUnless(os.path.exists(LIBRARY), "the sanitizer builds have no library of faults")
class Faulty(TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-faults-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder)
        self.faults = Faults(self.folder)
        self.store = MountedStore(environment=self.faults.environment)
        self.addCleanup(self.store.close)
        self.addCleanup(self.faults.disarm)
        self.mnt = self.store.mnt
        self.plain, self.one = self.store.plain("plain"), self.store.encrypted("one", "tenant")
        self.random = random.Random(int(os.environ.get("REKEYFS_TEST_SEED", "7")))
        self.contents = {}

    def write(self, path, content):
        """What it was told about `path` is in self.contents: all it may be."""
        before = self.contents.get(path, [None])
        self.contents[path] = [*before, None, b"", content]
        path.write_bytes(content)
        self.contents[path] = [content]

    def assertContents(self):
        for path, allowed in self.contents.items():
            got = path.read_bytes() if path.exists() else None
            if not any(got == one for one in allowed):
                # An import that failed may have left a beginning.
                begun = len(allowed) > 1 and got is not None and any(one and one.startswith(got) for one in allowed)
                self.assertTrue(begun, f"{path} is something else")

    def assertLives(self):
        self.assertIsNone(self.store.process.poll(), "the daemon has ended")

    def health(self):
        return json.loads(rekeyfs("status", "--json", self.mnt).stdout)["read_only"]


class ShortTransfers(Faulty):
    def test_transfers_that_come_short_or_are_interrupted_are_gone_on_with(self):
        self.faults.now.short_transfers = 1
        original = self.store.original("original", 5 * MIB + 123)
        run("cp", original, self.plain / "image")
        self.store.wait_normal(self.plain / "image")
        run("cp", self.plain / "image", self.one / "replica")
        self.store.wait_normal(self.one / "replica")
        with open(self.plain / "image", "r+b", buffering=0) as file:
            file.seek(100_001)
            file.write(b"changed" * 3000)
            os.fsync(file.fileno())
        for restart in (self.store.remount, lambda: (self.store.kill9(), self.store.mount())):
            (self.plain / "more").write_bytes(b"more" * 10_000)
            restart()
            self.assertSame(original, self.one / "replica")
            changed = bytearray(original.read_bytes())
            changed[100_001:100_001 + 21_000] = b"changed" * 3000
            self.assertTrue((self.plain / "image").read_bytes() == changed)
            self.assertEqual((self.plain / "more").read_bytes(), b"more" * 10_000)


class Memory(Faulty):
    def some_calls(self, number):
        path = self.one / f"image-{number % 7}"
        steps = (lambda: self.write(path, self.random.randbytes(self.random.choice((10, 20_000, 300_000)))),
                 lambda: os.listdir(self.one), lambda: os.stat(path), lambda: attribute(path, "status"),
                 lambda: os.setxattr(path, "user.colour", b"blue"), lambda: path.read_bytes(),
                 lambda: os.rename(self.plain / "a", self.plain / "b"), lambda: os.rename(self.plain / "b", self.plain / "a"),
                 lambda: os.sync())
        for step in steps:
            try:
                step()
            except OSError as error:
                # A list of names or an attribute that cannot be had is an error, too, never a wrong answer.
                self.assertIn(error.errno, (errno.ENOMEM, errno.EIO, errno.ENOENT), error)

    def test_memory_that_is_not_there_is_an_error_and_nothing_more(self):
        self.write(self.plain / "a", b"a" * 100_000)
        for number in range(int(os.environ.get("REKEYFS_TEST_FAULT_ROUNDS", "60"))):
            self.faults.arm(MEMORY, errno.ENOMEM, self.random.randrange(3000), self.random.choice((1, 1, 5, 100)))
            self.some_calls(number)
            self.assertLives()
        self.faults.disarm()
        self.assertIsNone(self.health())
        self.contents.pop(self.plain / "a")
        self.assertContents()
        self.store.remount()
        self.assertContents()

    def test_without_any_memory_every_call_is_answered(self):
        self.write(self.plain / "a", b"a" * 100_000)
        self.faults.arm(MEMORY, errno.ENOMEM)
        failed = 0
        for number in range(200):
            try:
                os.stat(self.plain / f"never-{number}")
            except OSError as error:
                failed += error.errno == errno.ENOMEM
        time.sleep(3.5)  # a checkpoint, a step of each thread in the background
        self.faults.disarm()
        self.assertGreater(failed, 100)
        self.assertLives()
        self.write(self.plain / "b", b"b")
        self.assertContents()


class Descriptors(Faulty):
    def limit(self, most):
        resource.prlimit(self.store.process.pid, resource.RLIMIT_NOFILE, (most, self.hard))

    def test_running_out_of_descriptors_is_an_error_while_it_lasts(self):
        pid = self.store.process.pid
        self.soft, self.hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        for number in range(4):
            self.write(self.plain / f"image-{number}", self.random.randbytes(300_000))
        self.store.remount()
        pid = self.store.process.pid
        with open(self.plain / "image-0", "rb", buffering=0) as file:
            self.assertEqual(file.read(), self.contents[self.plain / "image-0"][0])
            self.limit(len(os.listdir(f"/proc/{pid}/fd")))  # a file that is open is closed for each that is needed
            for number in range(1, 4):
                self.assertEqual((self.plain / f"image-{number}").read_bytes(), self.contents[self.plain / f"image-{number}"][0])
            for number in range(10):
                self.write(self.one / f"more-{number}", bytes([number]) * 100_000)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self.assertEqual(os.pread(file.fileno(), 300_000, 0), self.contents[self.plain / "image-0"][0])
            self.limit(3)  # and now none can be had
            refused = 0
            for number in range(10):
                try:
                    self.write(self.one / f"new-{number}", bytes([number]) * 100_000)
                except OSError as error:
                    self.assertEqual(error.errno, errno.EMFILE)
                    refused += 1
            self.assertGreater(refused, 5)
            run("cp", self.plain / "image-1", self.one / "replica", check=False)
            time.sleep(4)  # checkpoints meanwhile
        self.assertLives()
        self.assertIsNone(self.health(), "what could not be begun has not failed")
        self.limit(self.soft)
        for number in range(3):
            self.write(self.one / f"again-{number}", bytes([number]) * 100_000)
        run("cp", self.plain / "image-1", self.one / "replica")
        self.store.wait_normal(self.one / "replica")
        self.assertContents()
        self.store.remount()
        self.assertContents()
        self.assertEqual((self.one / "replica").read_bytes(), self.contents[self.plain / "image-1"][0])


class FaultyCalls(Faulty):
    def test_each_kind_of_call_failing_for_a_while(self):
        for kind, error in ((READ, errno.EIO), (READ, errno.ENOMEM), (OPEN, errno.EMFILE), (OPEN, errno.ENFILE),
                            (WRITE, errno.ENOSPC), (WRITE, errno.EDQUOT), (SPACE, errno.ENOSPC), (NAMES, errno.ENOSPC),
                            (SYNC, errno.ENOSPC)):
            for first, many in ((0, 1), (self.random.randrange(20), 1), (self.random.randrange(20), FOR_EVER)):
                with self.subTest(kind=kind, error=errno.errorcode[error], first=first, many=many):
                    self.faults.arm(kind, error, first, many)
                    for number in range(3):
                        try:
                            self.write(self.plain / f"image-{number}", self.random.randbytes(50_000))
                            with open(self.plain / f"image-{number}", "rb") as file:
                                os.fsync(file.fileno())
                        except OSError as caught:
                            allowed = {errno.EDQUOT: errno.ENOSPC, errno.ENFILE: errno.EMFILE}.get(error, error)
                            self.assertEqual(caught.errno, allowed)
                    self.faults.disarm()
                    self.assertLives()
                    self.assertIsNone(self.health(), "it passes")
                    self.assertContents()
                    wait_until(self.is_writable, 10, "the store being written again")
        self.store.remount()
        self.assertContents()

    def is_writable(self):
        try:
            self.write(self.one / "probe", b"probe")
            os.sync()
            return True
        except OSError:
            return False

    def test_a_failed_sync_of_any_file_turns_the_store_read_only(self):
        """Those of the journal, of an image's data and tables, and LMDB's."""
        for first in range(int(os.environ.get("REKEYFS_TEST_FAULT_SYNCS", "6"))):
            with self.subTest(sync=first):
                self.write(self.plain / "image", self.random.randbytes(40 * KIB))
                self.faults.arm(SYNC, errno.EIO, first, 1)
                with open(self.plain / "image", "r+b", buffering=0) as file:
                    wait_until(lambda: self.health() or not self.touch(file), 30, "a failed sync")
                wait_until(self.health, 5, "read-only in the status")
                self.faults.disarm()
                self.assertRegex(self.health(), "read-only since a failed sync: .*Input/output error")
                self.assertIn("failed sync", rekeyfs("info", self.mnt).stdout)
                self.assertIn("failed sync", self.store.log())
                self.assertErrno(errno.EROFS, (self.plain / "new").write_bytes, b"x")
                self.assertContents()
                done = rekeyfs("umount", self.mnt, check=False)
                self.assertEqual(done.returncode, NOT_DURABLE, done.stderr)
                self.assertNotEqual(self.store.process.wait(timeout=60), 0)
                self.store.process = None
                self.store.mount()
                self.assertIsNone(self.health())
                self.assertContents()

    @staticmethod
    def touch(file):
        try:
            os.utime(file.fileno())
            os.fsync(file.fileno())
            return True
        except OSError:
            return False


if __name__ == "__main__":
    unittest.main()
