#!/usr/bin/env python3
"""A store that is mounted read-only: read in every way, and not one byte of it is changed."""
import hashlib
import json
import os
import unittest

from harness import TestCase, attribute, rekeyfs, run
from images import MIB

LOCK = "lock"  # says which process has the store open


class ReadOnly(TestCase):
    def setUp(self):
        super().setUp()
        self.one = self.store.encrypted("one", "one")
        self.two = self.store.encrypted("two", "two")
        self.original = self.store.original("original", 24 * MIB)
        run("cp", self.original, self.one / "source")
        self.store.wait_normal(self.one / "source")
        os.setxattr(self.one / "source", "user.colour", b"blue")
        os.link(self.one / "source", self.one / "other name")

    def files(self):
        """What tells whether anything was written, of each file and directory of the store."""
        found = {}
        for folder, _, names in os.walk(self.store.store):
            for path in [folder, *(os.path.join(folder, name) for name in names)]:
                facts = os.lstat(path)
                digest = hashlib.sha256(open(path, "rb").read()).hexdigest() if os.path.isfile(path) else ""
                name = os.path.relpath(path, self.store.store)
                if name != LOCK:
                    found[name] = (digest, facts.st_mtime_ns, facts.st_size, facts.st_blocks, facts.st_ino, facts.st_mode)
        return found

    def read_all(self):
        for path in (self.one / "source", self.one / "other name", self.two / "replica"):
            self.assertSame(self.original, path)
            os.listxattr(path)
            attribute(path, "status")
        os.listdir(self.mnt)
        with open(self.two / "replica", "rb") as file:
            os.fsync(file.fileno())
        os.sync()
        for command in (("info", self.mnt), ("status", self.mnt), ("info", self.two / "replica"), ("key", "list", self.mnt),
                        ("key", "show", "one", self.mnt), ("log", self.mnt)):
            rekeyfs(*command)
        for refused in (("key", "create", "three", self.mnt), ("key", "disable", "one", self.mnt), ("key", "rotate", "two", self.mnt),
                        ("key", "grant", "one", "nobody", self.mnt), ("rotate", self.one, "--key", "two")):
            self.assertNotEqual(rekeyfs(*refused, check=False).returncode, 0, refused)
        with self.assertRaises(OSError):
            (self.one / "new").write_bytes(b"new")

    def test_nothing_is_written(self):
        with self.store.replicating(self.one / "source", self.two / "replica"):
            self.store.kill9()  # the replica has most of its blocks from its source
        self.store.mount_arguments = ("-o", "ro")
        self.store.mount()  # what the journal held is recovered, once
        self.assertEqual(attribute(self.two / "replica", "status"), "replicating")
        self.read_all()
        self.store.umount()
        before = self.files()
        self.assertGreater(len(before), 10)
        self.store.mount()
        self.assertEqual(attribute(self.two / "replica", "status"), "replicating")
        self.read_all()
        self.store.umount()
        self.assertEqual(self.files(), before)
        self.store.mount()
        self.store.kill9()
        self.assertEqual(self.files(), before)

        self.store.mount_arguments = ()
        self.store.mount()  # and then all goes on
        self.store.wait_normal(self.two / "replica")
        self.read_again()

    def read_again(self):
        self.assertSame(self.original, self.two / "replica")
        (self.one / "new").write_bytes(b"new")
        self.assertEqual((self.one / "new").read_bytes(), b"new")
        self.assertEqual({use["path"] for use in json.loads(rekeyfs("key", "show", "two", self.mnt, "--json").stdout)["uses"]},
                         {"/two/replica"})

    def test_what_was_open_and_deleted_waits_for_a_mount_that_may_write(self):
        file = os.open(self.one / "orphan", os.O_RDWR | os.O_CREAT)
        os.write(file, b"x" * 100_000)
        os.unlink(self.one / "orphan")
        os.sync()
        self.store.kill9()
        try:
            os.close(file)
        except OSError:  # there is nobody to tell
            pass
        self.store.mount_arguments = ("-o", "ro")
        self.store.mount()
        self.store.umount()
        before = self.files()
        self.store.mount()
        self.store.umount()
        self.assertEqual(self.files(), before)
        self.store.mount_arguments = ()
        self.store.mount()
        self.store.umount()
        self.assertEqual(rekeyfs("check", self.store.store, "--key-file", self.store.key_file, check=False).returncode, 0)
        self.store.mount()


if __name__ == "__main__":
    unittest.main()
