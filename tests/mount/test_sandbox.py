#!/usr/bin/env python3
"""What the daemon of a mount has given up: capabilities, gaining any, system calls; and that it still does its work."""
import os
import signal
import unittest
from pathlib import Path

from harness import NOBODY, MountedStore, is_mounted, needs_mounting_users, needs_root, run, wait_until

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK, CAP_SYS_ADMIN, CAP_SETFCAP = 1, 2, 14, 21, 31


def bits(*capabilities):
    return sum(1 << capability for capability in capabilities)


def statuses(process):
    """{thread: {field: value}} of all threads."""
    found = {}
    for task in Path(f"/proc/{process}/task").iterdir():
        found[task.name] = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
    return found


@needs_root
class Roots(unittest.TestCase):
    def setUp(self):
        self.store = MountedStore()
        self.addCleanup(self.store.close)

    def sandboxed(self, process):
        return all(status["Seccomp"] == "2" for status in statuses(process).values())

    def check(self, allowed):
        process = self.store.process.pid
        wait_until(lambda: self.sandboxed(process), 10, "the filter of system calls")
        mine = int(Path("/proc/self/status").read_text().split("CapPrm:")[1].split()[0], 16)
        (self.store.mnt / "file").write_bytes(b"x" * 100_000)  # so that all threads have served something
        for status in statuses(process).values():
            self.assertEqual(int(status["CapEff"], 16), allowed & mine)
            self.assertEqual(int(status["CapPrm"], 16), allowed & mine)
            self.assertEqual(int(status["CapInh"], 16), 0)
            self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))

    def test_all_threads_have_given_up_what_they_do_not_need(self):
        self.check(bits(CAP_SYS_ADMIN, CAP_IPC_LOCK, CAP_SETFCAP, CAP_DAC_READ_SEARCH))

    def test_another_users_store_is_served_and_stays_his(self):
        self.store.umount()
        for path in (self.store.store, *self.store.store.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        self.store.mount()
        self.check(bits(CAP_SYS_ADMIN, CAP_IPC_LOCK, CAP_SETFCAP, CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE))
        self.store.remount()
        self.assertEqual((self.store.mnt / "file").read_bytes(), b"x" * 100_000)

    def test_a_private_directory_of_another_user_is_no_obstacle(self):
        private = self.store.folder / "private"
        (private / "mnt").mkdir(parents=True)
        os.chown(private, NOBODY, NOBODY)
        private.chmod(0o700)
        self.store.umount()
        self.store.mnt = private / "mnt"
        self.store.mount()
        (self.store.mnt / "file").write_bytes(b"content")
        for stop in (signal.SIGTERM, signal.SIGINT):
            self.store.process.send_signal(stop)  # unmounting is the daemon's own work here
            self.assertEqual(self.store.process.wait(timeout=30), 0)
            self.store.process = None
            self.assertFalse(is_mounted(self.store.mnt))
            self.store.mount()
            self.assertEqual((self.store.mnt / "file").read_bytes(), b"content")


@needs_root
@needs_mounting_users
class AnOrdinaryUsers(unittest.TestCase):
    def test_has_no_capability_and_unmounts_when_it_is_told_to_stop(self):
        store = MountedStore(uid=NOBODY)
        self.addCleanup(store.close)
        for status in statuses(store.process.pid).values():
            self.assertEqual([int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh")], [0, 0, 0])
        run("ls", store.mnt, uid=NOBODY)  # it serves, so it hears of signals, too
        store.process.send_signal(signal.SIGTERM)
        self.assertEqual(store.process.wait(timeout=30), 0)
        store.process = None
        self.assertFalse(is_mounted(store.mnt))


if __name__ == "__main__":
    unittest.main()
