#!/usr/bin/env python3
"""The life of a key: disabled and enabled, rotated, deleted, granted, and what its images do meanwhile."""
import errno
import hashlib
import json
import os
import subprocess
import sys
import time
import unittest

from harness import MAPPED_READER, NOBODY, TestCase, attribute, attribute_or_none, needs_root, rekeyfs, run, wait_until
from images import KIB, MIB

EXIT_BUSY, EXIT_NO_KEY, EXIT_DENIED = 8, 10, 16
LARGE = 256 * MIB  # the filler is still busy with it when the next command runs


class Keys(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.one = self.store.encrypted("one", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")

    def key(self, *arguments, **options):
        return rekeyfs("key", *arguments, self.mnt, **options)

    def facts(self, alias):
        return json.loads(self.key("show", alias, "--json").stdout)

    def image(self, folder, name="image", size=2 * MIB):
        original = self.store.original(name, size)
        run("cp", original, folder / name)
        return original, folder / name

    # Disabled.

    def test_a_disabled_key_closes_open_and_cached_images(self):
        original, path = self.image(self.one)
        self.assertSame(original, path)  # now in the page cache
        opened = os.open(path, os.O_RDWR)
        self.addCleanup(os.close, opened)
        self.key("disable", "tenant-one", "--force")
        self.assertErrno(errno.EKEYREVOKED, os.pread, opened, 4096, 0)
        self.assertErrno(errno.EKEYREVOKED, os.pwrite, opened, b"x" * 4096, 0)
        self.assertErrno(errno.EKEYREVOKED, os.open, path, os.O_RDONLY)
        self.assertErrno(errno.EKEYREVOKED, os.open, self.one / "new", os.O_RDWR | os.O_CREAT)
        self.assertFalse((self.one / "new").exists())
        self.assertEqual(path.stat().st_size, 2 * MIB)
        self.key("enable", "tenant-one")
        self.assertEqual(os.pread(opened, 4096, 0), original.read_bytes()[:4096])
        self.assertSame(original, path)

    def test_a_disabled_key_takes_mapped_pages_away(self):
        _, path = self.image(self.one)
        reader = subprocess.Popen([sys.executable, "-c", MAPPED_READER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(reader.communicate)
        self.assertEqual(reader.stdout.readline(), b"mapped\n")
        self.key("disable", "tenant-one", "--force")
        reader.communicate(b"\n")
        self.assertEqual(reader.returncode, -7, "no SIGBUS: the pages of a disabled key were still mapped")

    def test_other_keys_are_not_touched(self):
        original, path = self.image(self.two)
        self.image(self.one)
        self.key("disable", "tenant-one", "--force")
        self.assertSame(original, path)

    def test_a_needed_key_is_not_disabled_or_deleted_without_force(self):
        self.image(self.one)
        for verb in ("disable", "delete"):
            done = self.key(verb, "tenant-one", check=False)
            self.assertEqual(done.returncode, EXIT_BUSY, done.stderr)
            self.assertIn("\n  /one/image (encrypted with it, until it is deleted)\n", done.stderr)
            self.assertIn("--force", done.stderr)
            self.assertEqual(self.facts("tenant-one")["state"], "enabled")
        os.unlink(self.one / "image")
        self.key("disable", "tenant-one")
        self.assertEqual(self.facts("tenant-one")["state"], "disabled")

    def test_a_replication_waits_for_its_key_and_goes_on(self):
        original, source = self.image(self.one, size=LARGE)
        replica = self.two / "replica"
        run("cp", source, replica)
        self.key("disable", "tenant-one", "--force")
        wait_until(lambda: self.store.status(replica) == "error", 30, "the replication noticing that the key is disabled")
        self.assertIn("tenant-one", attribute(replica, "error"))
        self.assertIn("enable", attribute(replica, "error"))
        uses = {use["path"]: use for use in self.facts("tenant-one")["uses"]}
        self.assertEqual(uses["/two/replica"]["reason"], "source of a replication")
        self.assertIn("until its replication is complete", uses["/two/replica"]["until"])
        self.store.remount()
        self.assertEqual(self.store.status(replica), "error")
        self.key("enable", "tenant-one")
        self.store.wait_normal(replica, 120) if self.store.status(replica) != "error" else wait_until(
            lambda: self.store.status(replica) == "normal", 120, "the replication going on")
        self.key("disable", "tenant-one", "--force")
        self.assertSame(original, replica)

    def test_what_was_acknowledged_survives_a_kill_while_the_key_is_disabled(self):
        original, path = self.image(self.one)
        self.key("disable", "tenant-one", "--force")
        self.store.kill9()
        self.store.mount()
        self.assertErrno(errno.EKEYREVOKED, os.open, path, os.O_RDONLY)
        self.store.remount()
        self.key("enable", "tenant-one")
        self.assertSame(original, path)

    def test_an_image_whose_key_is_disabled_is_examined_once_it_can_be(self):
        original, path = self.image(self.one)
        clone = self.one / "clone"
        run("cp", path, clone)
        self.key("disable", "tenant-one", "--force")
        # Both are due now, and cannot be read. That keeps nobody from being told that the clone cannot be shared.
        wait_until(lambda: self.refuses_sharing(clone), 10, "the first attempt to examine the clone")
        for _ in range(40):
            self.assertTrue(self.refuses_sharing(clone), "it counts as just written")
            time.sleep(0.05)
        self.assertIsNone(attribute_or_none(path, "digest"))
        self.key("enable", "tenant-one")
        digest = hashlib.sha256(original.read_bytes()).hexdigest()
        for image in (path, clone):
            wait_until(lambda image=image: attribute_or_none(image, "digest") == digest, 20, f"the digest of {image}")
        self.assertEqual(self.store.status(path), "normal")
        self.assertNotIn("cannot examine", self.store.log())

    @staticmethod
    def refuses_sharing(path):
        try:
            path.chmod(0o640)
        except PermissionError:
            return True
        return False

    def test_who_needs_a_key_is_told_while_replications_end(self):
        """A layer below an image goes while it is looked at."""
        _, source = self.image(self.one, size=64 * KIB)
        copier = subprocess.Popen(["sh", "-c", 'for i in $(seq 300); do cp "$1" "$2/$i"; done', "sh", source, self.two])
        self.addCleanup(copier.wait)
        while copier.poll() is None:
            self.assertIn("/one/image", {use["path"] for use in self.facts("tenant-one")["uses"]})

    def test_an_image_of_a_disabled_key_can_be_deleted(self):
        _, path = self.image(self.one)
        self.key("disable", "tenant-one", "--force")
        path.unlink()
        self.store.remount()
        self.assertEqual(os.listdir(self.one), [])

    # Rotated.

    def test_rotation_wraps_data_keys_and_leaves_blocks(self):
        original, path = self.image(self.one)
        self.store.wait_normal(path)
        before = self.facts("tenant-one")
        self.store.remount()
        blocks = {file: file.read_bytes() for file in (self.store.store / "layers").rglob("*.data*")}
        self.assertTrue(any(blocks.values()))
        self.key("rotate", "tenant-one")
        after = self.facts("tenant-one")
        self.assertEqual((after["id"], after["version"]), (before["id"], 2))
        info = json.loads(rekeyfs("info", path, "--json").stdout)
        self.assertEqual([layer["key_version"] for layer in info["layers"]], [2])
        self.assertEqual(blocks, {file: file.read_bytes() for file in blocks})
        self.assertSame(original, path)
        self.store.remount()
        self.assertSame(original, path)
        self.assertEqual(self.facts("tenant-one")["oldest_version"], 2, "an old version was kept although nothing needs it")

    def test_rotation_survives_a_kill(self):
        original, path = self.image(self.one)
        self.key("rotate", "tenant-one")
        self.store.kill9()
        self.store.mount()
        self.assertSame(original, path)
        self.key("rotate", "tenant-one")
        self.assertEqual(self.facts("tenant-one")["version"], 3)
        self.store.remount()
        self.assertSame(original, path)

    # Deleted.

    def test_a_deletion_can_be_cancelled(self):
        original, path = self.image(self.one)
        self.key("delete", "tenant-one", "--force")
        facts = self.facts("tenant-one")
        self.assertEqual(facts["state"], "pending-deletion")
        self.assertGreater(facts["deletion"], facts["created"])
        self.assertErrno(errno.EKEYREVOKED, os.open, path, os.O_RDONLY)
        self.assertNotEqual(self.key("enable", "tenant-one", check=False).returncode, 0)
        self.key("cancel-deletion", "tenant-one")
        self.assertSame(original, path)

    def test_a_deleted_key_is_gone_after_its_delay(self):
        _, path = self.image(self.one)
        self.key("delete", "tenant-one", "--after", "1s", "--force")
        wait_until(lambda: self.key("show", "tenant-one", check=False).returncode == EXIT_NO_KEY, 30, "the deletion")
        self.assertErrno(errno.ENOKEY, os.open, path, os.O_RDONLY)
        self.assertErrno(errno.ENOKEY, os.open, self.one / "new", os.O_RDWR | os.O_CREAT)
        self.store.remount()
        self.assertErrno(errno.ENOKEY, os.open, path, os.O_RDONLY)
        path.unlink()
        self.assertFalse(path.exists())

    def test_a_delay_has_a_unit(self):
        for delay in ("7", "-1d", "1y", "400d", ""):
            self.assertNotEqual(self.key("delete", "tenant-one", "--after", delay, check=False).returncode, 0, delay)
        self.assertEqual(self.facts("tenant-one")["state"], "enabled")

    # Granted.

    @needs_root
    def test_grants_decide_who_creates_opens_and_replicates(self):
        for folder in (self.one, self.two):
            folder.chmod(0o777)
        plain = self.store.plain("plain")
        plain.chmod(0o777)
        run("dd", "if=/dev/urandom", f"of={plain}/source", "bs=64K", "count=4", uid=NOBODY)
        denied = os.strerror(errno.EACCES)

        def as_nobody(*command):
            return run(*command, uid=NOBODY, check=False)
        for command in (["cp", plain / "source", self.one / "image"], ["touch", self.one / "image"]):
            done = as_nobody(*command)
            self.assertEqual((done.returncode, denied in done.stderr), (1, True), done.stderr)
        self.assertFalse((self.one / "image").exists())

        self.key("grant", "tenant-one", "nobody")
        self.assertEqual(as_nobody("cp", plain / "source", self.one / "image").returncode, 0)
        self.assertEqual(self.facts("tenant-one")["grantees"], [NOBODY])
        self.assertEqual(as_nobody("cmp", plain / "source", self.one / "image").returncode, 0)
        done = as_nobody("cp", self.one / "image", self.two / "image")  # no grant for the target's key
        self.assertEqual((done.returncode, denied in done.stderr), (1, True), done.stderr)

        self.key("revoke", "tenant-one", str(NOBODY))
        for command in (["cat", self.one / "image"], ["cp", self.one / "image", plain / "again"], ["truncate", "-s", "0", self.one / "image"]):
            done = as_nobody(*command)
            self.assertEqual((done.returncode, denied in done.stderr), (1, True), done.stderr)
        self.assertSame(plain / "source", self.one / "image")
        self.assertIn("has no grant for key", rekeyfs("status", self.mnt).stdout)

    @needs_root
    def test_only_the_owner_and_root_manage_a_key(self):
        self.mnt.chmod(0o755)
        for verb in (["disable", "tenant-one"], ["rotate", "tenant-one"], ["delete", "tenant-one"], ["grant", "tenant-one", "nobody"]):
            self.assertEqual(self.key(*verb, uid=NOBODY, check=False).returncode, EXIT_DENIED, verb)
        self.key("create", "his-own", uid=NOBODY)
        self.key("disable", "his-own", uid=NOBODY)
        self.assertEqual(self.facts("his-own")["state"], "disabled")

    def test_on_an_unmounted_store(self):
        original, path = self.image(self.one)
        self.store.umount()
        unlock = ("--key-file", self.store.key_file)
        rekeyfs("key", "disable", "tenant-one", self.store.store, "--force", *unlock)
        self.store.mount()
        self.assertErrno(errno.EKEYREVOKED, os.open, path, os.O_RDONLY)
        self.key("enable", "tenant-one")
        self.assertSame(original, path)

    def test_unknown_names(self):
        self.assertEqual(self.key("disable", "nobody-made-it", check=False).returncode, EXIT_NO_KEY)
        done = self.key("grant", "tenant-one", "no-such-user", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("no-such-user", done.stderr)
        self.assertNotEqual(self.key("revoke", "tenant-one", "nobody", check=False).returncode, 0)


if __name__ == "__main__":
    unittest.main()
