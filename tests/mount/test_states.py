#!/usr/bin/env python3
"""An image's states, as users see them: which follows which, what they permit, and what `status --wait` says."""
import errno
import json
import os
import random
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import (REKEYFS, MountedStore, TestCase, attribute, attribute_or_none, needs_root, rekeyfs, run,
                     wait_until)
from images import MIB

SIZE = 32 * MIB


class States(TestCase):
    def setUp(self):
        super().setUp()
        self.plain, self.one = self.store.plain("plain"), self.store.encrypted("one", "tenant-one")

    def test_an_imported_image(self):
        path = self.one / "image"
        with open(path, "wb", buffering=0) as file:
            self.assertEqual(self.store.status(path), "creating")
            file.write(b"content")
            self.assertEqual((self.store.status(path), attribute_or_none(path, "format")), ("creating", None))
        self.assertEqual(self.store.status(path), "normal-uninitialized")
        self.assertEqual(attribute(path, "progress"), "100.0")
        time.sleep(1)
        self.assertEqual(self.store.status(path), "normal-uninitialized", "it has not been left alone for long")
        self.store.wait_normal(path, timeout=10)
        self.assertEqual(attribute(path, "format"), "raw")
        with open(path, "r+b", buffering=0) as file:
            self.assertEqual(self.store.status(path), "normal")
            file.write(b"C")
            self.assertEqual(self.store.status(path), "creating")
        self.assertEqual(self.store.status(path), "normal-uninitialized")
        self.store.wait_normal(path, timeout=10)

    def test_a_replica(self):
        source = self.store.original("original", SIZE)
        run("cp", source, self.plain / "image")
        with self.store.replicating(self.plain / "image", self.one / "replica") as replica:
            seen = [float(attribute(replica, "progress"))]
            while seen[-1] < 99.9:
                self.assertEqual(self.store.status(replica), "replicating")
                seen.append(float(attribute(replica, "progress")))
            self.assertEqual(self.store.status(replica), "replicating")
        wait_until(lambda: self.store.status(replica) != "replicating", 20, "the replication being complete")
        self.assertEqual(attribute(replica, "progress"), "100.0")
        self.store.wait_normal(self.one / "replica")  # its source had no digest yet
        self.assertEqual(seen, sorted(seen))
        self.assertEqual(seen[-1], 99.9)
        self.assertIsNone(attribute_or_none(self.one / "replica", "error"))

    def test_copied_the_moment_it_was_imported(self):
        """The kernel's release of the first cp may come after the second one has begun."""
        source = self.store.original("original", MIB)
        script = 'for i in $(seq 40); do cp "$1" "$2/$i" && cp "$2/$i" "$3/$i" || exit 1; done'
        run("sh", "-c", script, "sh", source, self.plain, self.one)
        for number in range(1, 41):
            self.assertTrue(attribute(self.one / f"{number}", "source"), "it was copied as data")
        self.assertSame(source, self.one / "40")

    def test_waiting(self):
        source = self.store.original("original", SIZE)
        run("cp", source, self.plain / "image")
        rekeyfs("status", "--wait", self.plain / "image")
        self.assertEqual(self.store.status(self.plain / "image"), "normal")
        with self.store.replicating(self.plain / "image", self.one / "replica"):
            rekeyfs("status", "--wait", self.plain)  # nothing replicates below it
            self.assertEqual(self.store.status(self.one / "replica"), "replicating")
            waiting = subprocess.Popen([REKEYFS, "status", "--wait", self.mnt], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.DEVNULL)
            self.addCleanup(waiting.kill)
            with self.assertRaises(subprocess.TimeoutExpired):
                waiting.wait(timeout=1)
        self.assertEqual(waiting.wait(timeout=60), 0)
        self.assertEqual(self.store.status(self.one / "replica"), "normal")
        self.assertEqual(rekeyfs("status", "--wait", self.one / "absent", check=False).returncode, 14)

    def test_waiting_on_a_read_only_mount_ends(self):
        source = self.store.original("original", SIZE)
        run("cp", source, self.plain / "image")
        rekeyfs("status", "--wait", self.plain / "image")
        with self.store.replicating(self.plain / "image", self.one / "replica"):
            (self.plain / "fresh").write_bytes(b"not examined yet")
            self.store.kill9()
        self.store.mount_arguments = ("-o", "ro")
        self.store.mount()
        for path in self.mnt, self.one / "replica", self.plain / "fresh":
            for option in "--wait", "--watch":
                done = rekeyfs("status", option, path, check=False, timeout=20)
                self.assertEqual((done.returncode, "mounted to be written to" in done.stderr),
                                 (0, False) if (option, path) == ("--watch", self.plain / "fresh") else (20, True),
                                 (path, option, done))
        self.assertEqual(rekeyfs("status", "--wait", self.plain / "image").returncode, 0)
        self.assertIn("mounted read-only", json.loads(rekeyfs("status", "--json", self.mnt).stdout)["stopped"])


@needs_root
class OnASmallDisk(unittest.TestCase):
    """A replication that stops because the disk is full says so, and goes on when there is room."""
    SIZE = 48 * MIB

    def setUp(self):
        self.disk = Path(tempfile.mkdtemp(prefix="rekeyfs-disk-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(self.disk.rmdir)
        run("mount", "-t", "tmpfs", "-o", "size=192m,mode=755", "tmpfs", self.disk)
        self.addCleanup(run, "umount", self.disk)
        self.store = MountedStore(within=self.disk)
        self.addCleanup(self.store.close)
        self.plain, self.one = self.store.plain("plain"), self.store.encrypted("one", "tenant-one")
        self.content = random.Random(3).randbytes(self.SIZE)
        (self.plain / "image").write_bytes(self.content)
        (self.plain / "copy").write_bytes(b"made while there was room")
        self.ballast = self.disk / "ballast"
        self.replica = self.one / "replica"

    def fill_disk(self, leave):
        free = os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_bsize
        with open(self.ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - leave)

    def make_room(self):
        self.ballast.unlink()
        wait_until(lambda: self.store.status(self.replica) != "error", 10, "the replication going on by itself")

    def stop_replication(self):
        self.fill_disk(leave=12 * MIB)
        run("cp", self.plain / "image", self.replica)
        wait_until(lambda: self.store.status(self.replica) == "error", 20, "the replication stopping")

    def test_it_says_why_and_what_to_do_and_goes_on_by_itself(self):
        self.stop_replication()
        why = attribute(self.replica, "error")
        self.assertIn(os.strerror(errno.ENOSPC), why)
        self.assertIn("rekeyfs resumes it when", why)
        self.assertLess(float(attribute(self.replica, "progress")), 100)
        waited = rekeyfs("status", "--wait", self.replica, check=False)
        self.assertEqual(waited.returncode, 9)
        self.assertIn(os.strerror(errno.ENOSPC), waited.stderr)
        self.assertEqual(rekeyfs("status", "--wait", self.store.mnt, check=False).returncode, 9)
        facts = json.loads(rekeyfs("status", "--json", self.store.mnt).stdout)
        self.assertEqual([(one["state"], one["error"]) for one in facts["replications"]], [("error", why)])
        self.assertEqual(self.replica.read_bytes(), self.content, "it can be read all the while")
        copied = run("cp", self.replica, self.plain / "copy", check=False)
        self.assertIn(os.strerror(errno.EBUSY), copied.stderr)
        time.sleep(2.5)  # longer than an image is left alone before it is examined
        self.assertEqual(self.store.status(self.replica), "error")

        self.make_room()
        rekeyfs("status", "--wait", self.replica)
        self.assertEqual(self.store.status(self.replica), "normal")
        self.assertIsNone(attribute_or_none(self.replica, "error"))
        wait_until(lambda: attribute_or_none(self.replica, "receipt"), 10, "the receipt")
        os.unlink(self.plain / "image")
        self.store.remount()
        self.assertEqual(self.replica.read_bytes(), self.content)

    def test_where_there_is_no_room_to_record_it_either(self):
        """On a disk with nothing left the errors of so many do not all fit into the journal's last page."""
        self.fill_disk(leave=40 * MIB)
        replicas = [self.one / f"{number}" for number in range(16)]
        with open(self.plain / "image", "rb") as source:
            for path in replicas:
                with open(path, "wb") as out:
                    os.copy_file_range(source.fileno(), out.fileno(), self.SIZE, 0, 0)
        for path in replicas:
            wait_until(lambda path=path: self.store.status(path) == "error", 20, f"{path} stopping")
            self.assertIn(os.strerror(errno.ENOSPC), attribute(path, "error"))
        facts = json.loads(rekeyfs("status", "--json", self.store.mnt).stdout)
        self.assertEqual([one["state"] for one in facts["replications"]], ["error"] * len(replicas))
        self.ballast.unlink()
        for path in replicas[1:]:
            path.unlink()
        wait_until(lambda: self.store.status(replicas[0]) == "normal", 30, "the one left being finished")
        self.assertEqual(replicas[0].read_bytes(), self.content)

    def test_a_source_deleted_meanwhile(self):
        self.stop_replication()
        os.unlink(self.plain / "image")
        self.assertEqual(self.replica.read_bytes(), self.content)
        self.make_room()
        rekeyfs("status", "--wait", self.replica)
        self.assertEqual(self.replica.read_bytes(), self.content)


if __name__ == "__main__":
    unittest.main()
