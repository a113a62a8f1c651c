#!/usr/bin/env python3
"""Events of the audit log go to systemd's journal: a socket of the test's own stands in its place, in a mount namespace
of this process's own."""
import ctypes
import os
import select
import socket
import struct
import unittest
from pathlib import Path

from harness import TestCase, needs_root, run

SOCKET = Path("/run/systemd/journal/socket")
CLONE_NEWNS = 0x20000


def in_a_namespace_of_its_own():
    """Only this process and its children see what is mounted from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")


def fields_of(datagram):
    """Fields in the journal's native protocol, in the form with lengths."""
    fields = {}
    while datagram:
        name, _, rest = datagram.partition(b"\n")
        size = struct.unpack_from("<Q", rest)[0]
        fields[name.decode()] = rest[8:8 + size].decode()
        assert rest[8 + size:9 + size] == b"\n"
        datagram = rest[9 + size:]
    return fields


@needs_root
class Journal(TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        in_a_namespace_of_its_own()

    def setUp(self):
        SOCKET.parent.mkdir(parents=True, exist_ok=True)
        self.listen()
        super().setUp()

    def listen(self):
        SOCKET.unlink(missing_ok=True)
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.journal.close)
        self.journal.bind(str(SOCKET))

    def next_event(self):
        self.assertTrue(select.select([self.journal], [], [], 30)[0], "the journal got nothing")
        return fields_of(self.journal.recv(1 << 20))

    def test_fields(self):
        self.store.key("tenant-key")
        event = self.next_event()
        self.assertEqual((event["SYSLOG_IDENTIFIER"], event["REKEYFS_EVENT"], event["REKEYFS_UID"], event["REKEYFS_KEY"]),
                         ("rekeyfs", "key-created", "0", "tenant-key"))
        self.assertEqual((event["MESSAGE"], event["PRIORITY"], event["REKEYFS_STORE"]),
                         ("root: created the key tenant-key", "5", str(self.store.store)))
        self.assertNotIn("REKEYFS_PATH", event)

    def test_a_name_is_one_value(self):
        path = self.mnt / "a\nREKEYFS_UID=7\nb"
        path.mkdir()
        os.setxattr(path, "user.rekeyfs.type", b"data-disk")
        event = self.next_event()
        self.assertEqual((event["REKEYFS_EVENT"], event["REKEYFS_UID"], event["REKEYFS_PATH"]),
                         ("policy-changed", "0", "/a\nREKEYFS_UID=7\nb"))
        self.assertNotIn("\n", event["MESSAGE"])

    def test_a_journal_that_does_not_read_holds_up_nothing(self):
        for i in range(1000):
            os.setxattr(self.mnt, "user.rekeyfs.type", (b"data-disk", b"system-disk")[i % 2])
        self.store.umount()
        self.store.mount()

    def test_a_journal_that_is_started_anew_gets_the_next_events(self):
        self.store.key("one")
        self.assertEqual(self.next_event()["REKEYFS_KEY"], "one")
        self.listen()
        self.store.key("two")
        self.assertEqual(self.next_event()["REKEYFS_KEY"], "two")

    def test_the_last_events_are_sent_at_the_end(self):
        self.store.key("one")
        self.store.umount()
        self.assertEqual(self.next_event()["REKEYFS_KEY"], "one")
        self.store.mount()
        self.store.key("two")
        self.assertEqual(self.next_event()["REKEYFS_KEY"], "two", "an event is sent once")


if __name__ == "__main__":
    unittest.main()
