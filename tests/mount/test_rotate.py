#!/usr/bin/env python3
"""`rekeyfs rotate`: a directory's images are encrypted with a new key, read and written all the while."""
import json
import os
import subprocess
import sys
import unittest

from harness import NOBODY, TestCase, attribute, needs_root, rekeyfs, run, wait_until
from images import KIB, MIB

EXIT_DENIED = 16
# Writes known bytes at random places until it is told to stop; prints nothing.
WRITER = """import os, random, select, sys
dice, path = random.Random(int(sys.argv[2])), sys.argv[1]
fd = os.open(path, os.O_RDWR)
size = os.fstat(fd).st_size
while not select.select([sys.stdin], [], [], 0)[0]:
    at = dice.randrange(size - 40000)
    data = dice.randbytes(dice.randrange(1, 40000))
    os.pwrite(fd, data, at)
    with open(sys.argv[3], "r+b") as copy:
        copy.seek(at)
        copy.write(data)
"""


class Rotate(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.folder = self.store.encrypted("folder", "old")
        self.store.key("new")
        self.originals = {}

    def image(self, path, size=2 * MIB):
        original = self.store.original(str(path).replace("/", "_"), size, seed=len(self.originals))
        run("cp", original, path)
        self.originals[path] = original
        return path

    def rotate(self, folder=None, key="new", **options):
        return rekeyfs("rotate", folder or self.folder, "--key", key, **options)

    def wait_done(self):
        wait_until(lambda: rekeyfs("status", "--wait", self.mnt, check=False).returncode == 0
                   and not self.needs("old"), 120, "the rotation ending")

    def needs(self, alias):
        return json.loads(rekeyfs("key", "show", alias, self.mnt, "--json").stdout)["uses"]

    def assertAllRight(self):
        for path, original in self.originals.items():
            self.assertSame(original, path)
            self.assertEqual(attribute(path, "key"), "new")

    def test_all_images_get_the_new_key_and_nothing_needs_the_old_one(self):
        (self.folder / "below").mkdir()
        for name in ("a", "b", "below/c"):
            self.image(self.folder / name)
        self.assertIn("3 images", self.rotate().stdout)
        for path in self.originals:
            self.assertIn(self.store.status(path), ("replicating", "normal"))
        self.assertAllRight()
        self.wait_done()
        self.assertEqual([attribute(folder, "key") for folder in (self.folder, self.folder / "below")], ["new", "new"])
        self.assertEqual(self.needs("old"), [])
        rekeyfs("key", "delete", "old", self.mnt)
        rekeyfs("key", "cancel-deletion", "old", self.mnt)
        rekeyfs("key", "delete", "old", self.mnt, "--after", "0s", "--force")
        self.store.remount()
        self.assertAllRight()

    def test_an_image_is_written_meanwhile(self):
        path = self.image(self.folder / "busy", 48 * MIB)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, path, "7", self.originals[path]], stdin=subprocess.PIPE)
        self.addCleanup(writer.communicate)
        self.rotate()
        self.wait_done()
        writer.communicate(b"\n")
        self.assertEqual(writer.returncode, 0)
        self.assertAllRight()

    def test_it_goes_on_after_a_kill(self):
        for number in range(6):
            self.image(self.folder / f"image{number}", 24 * MIB)
        self.rotate()
        for _ in range(3):
            self.store.kill9()
            self.store.mount()
        self.assertAllRight()
        self.wait_done()
        self.assertEqual(self.needs("old"), [])
        self.store.kill9()
        self.store.mount()
        self.assertAllRight()

    def test_a_replication_under_way_is_taken_along(self):
        source = self.store.plain("plain") / "source"
        self.originals[source] = self.store.original("source", 64 * MIB)
        run("cp", self.originals[source], source)
        run("cp", source, self.folder / "replica")
        self.rotate()
        self.originals[self.folder / "replica"] = self.originals.pop(source)
        source.unlink()
        self.wait_done()
        self.assertAllRight()

    def test_clones_and_replicas_elsewhere_keep_their_key(self):
        path = self.image(self.folder / "base")
        other = self.store.policy("other", "old")
        run("cp", path, other / "clone")
        self.rotate()
        rekeyfs("status", "--wait", self.mnt)
        self.assertEqual(attribute(other / "clone", "key"), "old")
        self.assertSame(self.originals[path], other / "clone")
        self.assertSame(self.originals[path], path)

    def test_subdirectories_of_another_policy_stay(self):
        self.store.policy("folder/own", "old").rmdir()
        self.store.key("third")
        own = self.store.policy("folder/own", "third")
        original = self.store.original("own", 256 * KIB)
        run("cp", original, own / "image")
        self.rotate()
        self.assertEqual(attribute(own, "key"), "third")
        self.assertEqual(attribute(own / "image", "key"), "third")
        self.assertSame(original, own / "image")

    def test_a_plain_directory_gets_a_key(self):
        plain = self.store.plain("plain")
        path = self.image(plain / "image")
        path.chmod(0o644)
        self.rotate(plain)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        rekeyfs("status", "--wait", path)
        self.assertAllRight()

    def test_again_changes_nothing(self):
        self.image(self.folder / "image")
        self.rotate()
        self.wait_done()
        self.assertIn("already", self.rotate().stdout)
        self.assertAllRight()

    def test_what_cannot_be_rotated(self):
        path = self.image(self.folder / "image")
        self.assertNotEqual(self.rotate(path, check=False).returncode, 0)
        done = self.rotate(key="nobody-made-it", check=False)
        self.assertIn("nobody-made-it", done.stderr)
        rekeyfs("key", "disable", "new", self.mnt)
        done = self.rotate(check=False)
        self.assertIn("enable", done.stderr)
        self.assertEqual(attribute(self.folder, "key"), "old")
        self.assertEqual(self.store.status(path) in ("normal", "normal-uninitialized"), True)

    @needs_root
    def test_only_for_its_owner_with_both_grants(self):
        self.mnt.chmod(0o755)
        self.folder.chmod(0o755)
        self.assertEqual(self.rotate(uid=NOBODY, check=False).returncode, EXIT_DENIED)
        os.chown(self.folder, NOBODY, NOBODY)
        for alias in ("old", "new"):
            self.assertEqual(self.rotate(uid=NOBODY, check=False).returncode, EXIT_DENIED)
            rekeyfs("key", "grant", alias, "nobody", self.mnt)
        self.rotate(uid=NOBODY)


if __name__ == "__main__":
    unittest.main()
