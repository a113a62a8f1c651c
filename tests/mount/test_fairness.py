#!/usr/bin/env python3
"""One user's work costs another little: each story lets alice do what is expensive, and measures what bob notices.

Bob's `ls`, his copy of 8 MiB to another key and its way to `normal` may take twice as long as on the same store when
nobody else works, or FLOOR, whichever is more.
"""
import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from harness import REKEYFS, TestCase, attribute_or_none, needs_root, rekeyfs, run, wait_until
from images import MIB, copy_of

ALICE, BOB = 10001, 10002
FLOOR = 1.0  # seconds: below this a user does not mind


def seconds(function, *arguments, **options):
    begun = time.monotonic()
    function(*arguments, **options)
    return time.monotonic() - begun


def processes():
    """(pid, parent, name) of each process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue  # it has ended
        name, rest = text[text.index("(") + 1:text.rindex(")")], text[text.rindex(")") + 2:].split()
        yield int(folder.name), int(rest[1]), name


def format_readers(daemon):
    """The pids of the daemon's format readers."""
    parents, names = {}, {}
    for pid, parent, name in processes():
        parents[pid], names[pid] = parent, name
    def belongs(pid):
        while pid in parents and pid != daemon:
            pid = parents[pid]
        return pid == daemon
    return [pid for pid, name in names.items() if name.startswith("qemu-storage") and belongs(pid)]


@needs_root
class FairnessCase(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.work = self.store.folder / "work"  # both users' originals
        self.work.mkdir(mode=0o777)
        self.work.chmod(0o777)
        self.store.key("alice")
        self.store.key("bob")
        self.store.key("bob2")
        for alias, user in (("alice", ALICE), ("bob", BOB), ("bob2", BOB)):
            rekeyfs("key", "grant", alias, str(user), self.mnt)
        self.alice = self.home("alice-home", ALICE, "alice")
        self.bob = self.home("bob-home", BOB, "bob")
        self.bob2 = self.home("bob-replicas", BOB, "bob2")
        self.copies = 0
        run("cp", self.store.original("eight", 8 * MIB, seed=7), self.bob / "source")
        os.chown(self.bob / "source", BOB, BOB)
        self.store.wait_normal(self.bob / "source")
        self.idle = self.bobs_times()

    def home(self, name, user, alias):
        path = self.store.policy(name, alias)
        os.chown(path, user, user)
        path.chmod(0o755)
        return path

    def bobs_times(self):
        """What bob waits for: ls, the copy, and normal."""
        self.copies += 1
        replica, written = self.bob2 / f"replica{self.copies}", self.bob / f"written{self.copies}"
        original = self.store.scratch / "eight"
        return {"ls": seconds(run, "ls", "-la", self.bob, uid=BOB),
                "replica": seconds(run, "cp", self.bob / "source", replica, uid=BOB),
                "replica normal": seconds(self.store.wait_normal, replica),
                "write": seconds(run, "cp", "--sparse=never", original, written, uid=BOB),
                "write normal": seconds(self.store.wait_normal, written)}

    def assertBobUndisturbed(self, times=None):
        times = times or self.bobs_times()
        for what, took in times.items():
            self.assertLessEqual(took, max(FLOOR, 2 * self.idle[what]),
                                 f"{what} takes {took:.2f} s, {self.idle[what]:.2f} s when nobody else works: {times}")

    def memory(self):
        """The daemon's highest resident memory so far, in bytes."""
        for line in Path(f"/proc/{self.store.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the daemon has ended")

    def as_user(self, uid, *command, **options):
        """A process that the test ends."""
        process = subprocess.Popen(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--",
                                    *(str(part) for part in command)],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
        def end():
            process.kill()
            process.wait(timeout=120)
        self.addCleanup(end)
        return process


class HungFormatReaders(FairnessCase):
    """Reads that get no answer from the format reader do not use up the threads that others need."""

    def disks(self, count):
        """Alice's disks inside qcow2 images, which are read through a format reader each."""
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", copy_of(self.store.scratch / "raw", 64 * MIB),
            self.store.scratch / "qcow2")
        os.setxattr(self.alice, "user.rekeyfs.fast_create", b"1")
        source = self.bob.parent / "qcow2"
        run("cp", self.store.scratch / "qcow2", source)
        self.store.wait_normal(source)
        paths = [self.alice / f"disk{number}" for number in range(count)]
        for path in paths:
            run("cp", source, path)
            os.chown(path, ALICE, ALICE)
        return paths

    @contextmanager
    def stopped_readers(self):
        """Within the block each format reader is stopped as soon as it runs."""
        over = threading.Event()
        daemon = self.store.process.pid
        def stop_them():
            while not over.is_set():
                for pid in format_readers(daemon):
                    os.kill(pid, signal.SIGSTOP)
                time.sleep(0.01)
        stopper = threading.Thread(target=stop_them)
        stopper.start()
        try:
            yield
        finally:
            over.set()
            stopper.join()
            for pid in format_readers(daemon):
                os.kill(pid, signal.SIGCONT)

    def test_hung_reads_leave_the_others_alone(self):
        with self.stopped_readers():
            disks = self.disks(10)
            for disk in disks:
                for offset in (0, 4000):
                    self.as_user(ALICE, "dd", f"if={disk}", "of=/dev/null", "bs=4k", "count=1", f"skip={offset}", "iflag=direct")
            time.sleep(1)
            for command in (["ls", "-la", self.alice], [REKEYFS, "status", self.mnt], [REKEYFS, "info", self.bob / "source"],
                            [REKEYFS, "umount", self.mnt]):
                took = seconds(run, *command, check=False)
                print(command, took)
                self.assertLess(took, FLOOR, f"{command} while reads hang")
            self.assertBobUndisturbed()


if __name__ == "__main__":
    import unittest
    unittest.main()
