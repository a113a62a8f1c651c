#!/usr/bin/env python3
"""The life of a key: disabled and enabled, rotated, deleted, granted, and what its images do meanwhile."""
import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from harness import MAPPED_READER, NOBODY, MountedStore, TestCase, attribute, attribute_or_none, needs_root, rekeyfs, run, wait_until
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

    @needs_root
    def test_an_order_takes_as_long_with_many_images_as_with_none(self):
        """Clones by an ordinary user, one of the other, each changed: layers upon layers."""
        self.mnt.chmod(0o755)
        self.one.chmod(0o777)
        self.key("grant", "tenant-one", "nobody")
        original = self.store.original("image", 64 * KIB)
        run("cp", original, self.one / "0", uid=NOBODY)
        run("sh", "-c", 'cd "$1" && for i in $(seq 500); do cp --reflink=auto $((i - 1)) $i; printf x | dd of=$i conv=notrunc status=none; done; '
            'for i in $(seq 1000); do cp --reflink=auto 0 c$i; done', "sh", self.one, uid=NOBODY)

        def order(alias):
            began = time.monotonic()
            self.key("disable", alias, "--force")
            took = time.monotonic() - began
            self.assertErrno(errno.EKEYREVOKED, os.open, self.mnt / alias.removeprefix("tenant-") / "new", os.O_RDWR | os.O_CREAT)
            self.key("enable", alias)
            return took
        took = {alias: sorted(order(alias) for _ in range(5))[2] for alias in ("tenant-two", "tenant-one")}
        self.assertLess(took["tenant-one"], took["tenant-two"] + 0.05, took)

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
            self.assertIn("needed by 1 image", done.stderr)
            self.assertNotIn("/one/image", done.stderr)
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

    @needs_root
    def test_keys_are_made_by_operators(self):
        self.mnt.chmod(0o755)
        done = self.key("create", "his-own", uid=NOBODY, check=False)
        self.assertEqual(done.returncode, EXIT_DENIED)
        self.assertIn("-o user_keys=N", done.stderr)

    @needs_root
    def test_declassification_is_a_right_of_its_own(self):
        self.key("grant", "tenant-one", "nobody")
        self.assertEqual(self.facts("tenant-one")["declassifiers"], [])
        done = self.key("grant", "tenant-one", "nobody", "--right", "declassify")
        self.assertIn("declassified by the former two, and: nobody", done.stdout)
        self.assertEqual(self.facts("tenant-one")["declassifiers"], [NOBODY])
        self.store.remount()
        self.assertEqual(self.facts("tenant-one")["declassifiers"], [NOBODY])
        self.key("revoke", "tenant-one", "nobody", "--right", "declassify")
        facts = self.facts("tenant-one")
        self.assertEqual((facts["grantees"], facts["declassifiers"]), ([NOBODY], []))
        self.key("grant", "tenant-one", "nobody", "--right", "declassify")
        self.key("revoke", "tenant-one", "nobody")
        facts = self.facts("tenant-one")
        self.assertEqual((facts["grantees"], facts["declassifiers"]), ([], []), "a revoked user has no right left")
        self.assertNotEqual(self.key("grant", "tenant-one", "nobody", "--right", "own", check=False).returncode, 0)
        self.assertIn("user 65534, the right to declassify", rekeyfs("log", self.mnt).stdout)

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


FAKETIME = Path("/usr/lib") / f"{os.uname().machine}-linux-gnu" / "faketime/libfaketimeMT.so.1"


class Clock(TestCase):
    """The daemon's wall clock is set; CLOCK_BOOTTIME is not."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.offset = Path(folder.name) / "offset"
        self.set_clock("+0")
        self.store = MountedStore(environment={"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.offset),
                                               "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"})
        self.addCleanup(self.store.close)
        self.mnt = self.store.mnt
        self.store.key("tenant")

    def set_clock(self, offset):
        new = self.offset.with_suffix(".new")
        new.write_text(offset)
        new.rename(self.offset)

    def told(self):
        return [event["text"] for event in map(json.loads, rekeyfs("log", self.mnt, "--json").stdout.splitlines())
                if event["kind"] == "clock-jumped"]

    def exists(self):
        return rekeyfs("key", "show", "tenant", self.mnt, check=False).returncode == 0

    def test_a_clock_that_is_ahead_deletes_nothing(self):
        rekeyfs("key", "delete", "tenant", self.mnt)
        self.set_clock("+8d")
        wait_until(self.told, 20, "the daemon noticing that its clock was set")
        self.assertIn("set forward by 8d", self.told()[0])
        self.assertIn("set forward by 8d", self.store.log())
        time.sleep(2.5)
        self.assertTrue(self.exists())
        self.store.umount()
        self.set_clock("+16d")
        self.store.mount()
        time.sleep(2.5)
        self.assertTrue(self.exists())
        rekeyfs("key", "cancel-deletion", "tenant", self.mnt)

    def test_at_a_mount(self):
        rekeyfs("key", "delete", "tenant", self.mnt)
        self.store.umount()
        self.set_clock("+8d")
        self.store.mount()
        self.assertIn("8d later than when the store was last in use", self.told()[0])
        time.sleep(2.5)
        self.assertTrue(self.exists())
        shown = json.loads(rekeyfs("key", "show", "tenant", self.mnt, "--json").stdout)
        self.assertGreater(shown["deletion"], time.strftime("%Y-%m-%dT", time.gmtime(time.time() + 14.5 * 86400)))

    def test_a_clock_that_is_set_back_delays_nothing(self):
        rekeyfs("key", "delete", "tenant", "--after", "8s", "--force", self.mnt)
        self.set_clock("-30d")
        wait_until(self.told, 20, "the daemon noticing that its clock was set")
        self.assertIn("set back by 30d", self.told()[0])
        wait_until(lambda: not self.exists(), 30, "the deletion")


class LeastDelay(TestCase):
    mount_arguments = ("-o", "allow_other,user_keys=1")

    @needs_root
    def test_only_operators_go_below_it(self):
        self.mnt.chmod(0o755)

        def delete(*arguments, uid=None):
            return rekeyfs("key", "delete", "his-own", self.mnt, *arguments, uid=uid, check=False)
        rekeyfs("key", "create", "his-own", self.mnt, uid=NOBODY)
        for force in ((), ("--force",)):
            done = delete("--after", "0s", *force, uid=NOBODY)
            self.assertEqual(done.returncode, EXIT_DENIED)
            self.assertIn("after 7d at the earliest", done.stderr)
        self.assertEqual(delete("--after", "0s").returncode, EXIT_DENIED)
        name = "user.rekeyfs.min_deletion_delay"
        done = run("setfattr", "-n", name, "-v", "1d", self.mnt, uid=NOBODY, check=False)
        self.assertEqual(done.returncode, 1)
        os.setxattr(self.mnt, name, b"2d")
        self.store.remount()
        self.assertEqual(os.getxattr(self.mnt, name), b"2d")
        self.assertIn("after 2d at the earliest", delete("--after", "47h", uid=NOBODY).stderr)
        self.assertEqual(delete("--after", "48h", uid=NOBODY).returncode, 0)
        self.assertEqual(delete("--after", "0s", "--force").returncode, 0)
        wait_until(lambda: rekeyfs("key", "show", "his-own", self.mnt, check=False).returncode == EXIT_NO_KEY, 30, "the deletion")


@needs_root
class UserKeys(TestCase):
    mount_arguments = ("-o", "allow_other,user_keys=2")

    def test_users_make_so_many_keys(self):
        self.mnt.chmod(0o755)

        def create(alias):
            return rekeyfs("key", "create", alias, self.mnt, uid=NOBODY, check=False)
        for alias in ("one", "two"):
            self.assertEqual(create(alias).returncode, 0)
        self.store.key("of-an-operator")
        done = create("three")
        self.assertEqual(done.returncode, EXIT_DENIED)
        self.assertIn("has 2 of 2 keys", done.stderr)
        rekeyfs("key", "disable", "one", self.mnt, uid=NOBODY)
        self.assertEqual(json.loads(rekeyfs("key", "show", "one", self.mnt, "--json").stdout)["state"], "disabled")


if __name__ == "__main__":
    unittest.main()
