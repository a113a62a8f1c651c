#!/usr/bin/env python3
"""`rekeyfs check`: damage in each kind of file of a store is found and named, and after --repair the store can be mounted,
with every other image right byte for byte."""
import contextlib
import json
import os
import pty
import shutil
import subprocess
import unittest

from harness import REKEYFS, TestCase, rekeyfs, run
from images import MIB, same

DAMAGED, BUSY = 7, 8
BLOCK = 16384


class Check(TestCase):
    def setUp(self):
        super().setUp()
        self.originals = {}
        folder = self.store.encrypted("folder", "tenant")
        for number, place in enumerate((self.mnt, self.mnt, folder)):
            original = self.store.original(f"original-{number}", 4 * MIB, seed=number)
            run("cp", original, place / f"image-{number}")
            self.originals[place / f"image-{number}"] = original

    def check(self, *options, code=0, path=None):
        done = rekeyfs("check", path or self.store.store, "--key-file", self.store.key_file, "--json", *options, check=False)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def damage(self, path, offset, size=1):
        with open(path, "r+b") as file:
            file.seek(offset)
            before = file.read(size)
            file.seek(offset)
            file.write(bytes(byte ^ 0x55 for byte in before))

    def files(self, ending):
        return sorted(path for path in self.store.store.rglob(f"*{ending}"))

    def whole(self):
        """The images that are there and right."""
        return [path.name for path, original in self.originals.items() if path.exists() and self.is_right(path, original)]

    def is_right(self, path, original):
        try:
            return same(original, path) is None
        except OSError:
            return False

    def test_a_sound_store_mounted_and_not(self):
        report = self.check("--read-data", path=self.mnt)
        self.assertTrue(report["sound"])
        self.assertEqual((report["images"], report["bytes_read"]), (3, 12 * MIB))
        done = rekeyfs("check", self.store.store, "--repair", check=False)
        self.assertEqual(done.returncode, BUSY)
        self.store.umount()
        report = self.check("--read-data")
        self.assertEqual((report["sound"], report["images"], report["directories"]), (True, 3, 2))
        text = rekeyfs("check", self.store.store, "--key-file", self.store.key_file).stdout
        self.assertIn("sound:", text)
        self.assertIn("anchor: rekeyfs1:", text)

    def test_a_killed_store_is_sound(self):
        self.store.kill9()
        self.assertTrue(self.check("--read-data")["sound"])

    def test_replicas_clones_and_deleted_files_are_no_damage(self):
        other = self.store.encrypted("other", "tenant-b")
        run("cp", self.mnt / "image-0", other / "replica")
        run("cp", self.mnt / "image-0", self.mnt / "clone")
        run("cp", self.mnt / "clone", self.mnt / "clone-of-it")
        with open(self.mnt / "clone", "r+b") as clone:
            clone.write(b"changed")
        os.link(self.mnt / "image-1", self.mnt / "second-name")
        os.rename(self.mnt / "image-1", other.parent / "moved")
        os.setxattr(self.mnt / "moved", "user.note", b"kept")
        os.symlink("moved", self.mnt / "link")
        self.store.key("tenant-c")
        rekeyfs("rotate", self.mnt / "folder", "--key", "tenant-c")
        os.unlink(self.mnt / "image-0")
        self.store.kill9()
        self.assertEqual(self.check("--read-data")["problems"], [])
        self.store.mount()
        self.store.umount()
        self.assertEqual(self.check("--read-data")["problems"], [])

    def test_a_damaged_block_is_named(self):
        self.store.umount()
        self.damage(self.files(".data0")[0], 3 * BLOCK + 5)
        [problem] = self.check("--read-data", code=DAMAGED)["problems"]
        self.assertEqual((problem["kind"], problem["path"]), ("block", "/image-0"))
        self.assertEqual((problem["offset"], problem["size"]), (3 * BLOCK, BLOCK))
        self.store.mount()
        [problem] = self.check("--read-data", path=self.mnt, code=DAMAGED)["problems"]
        self.assertEqual((problem["path"], problem["offset"], problem["size"]), ("/image-0", 3 * BLOCK, BLOCK))
        self.assertEqual(self.whole(), ["image-1", "image-2"])

    def test_a_damaged_table(self):
        self.store.umount()
        table = self.files(".table")[1]
        self.damage(table, 4096, table.stat().st_size - 4096)
        self.assertEqual(self.check(code=DAMAGED)["problems"][0]["kind"], "table")
        self.check("--repair", code=DAMAGED)  # the content does not come back
        self.store.mount()
        self.assertEqual(self.whole(), ["image-0", "image-2"])
        run("cp", self.originals[self.mnt / "image-1"], self.mnt / "image-1")
        self.assertEqual(len(self.whole()), 3)
        self.store.umount()
        self.assertTrue(self.check("--read-data")["sound"])

    def test_a_damaged_catalog(self):
        self.store.umount()
        catalog = self.store.store / "catalog/data.mdb"
        content = catalog.read_bytes()
        for page in range(len(content) // 4096):
            self.damage(catalog, page * 4096, 4096)
            report = json.loads(rekeyfs("check", self.store.store, "--key-file", self.store.key_file, "--repair", "--json", check=False).stdout)
            if report["sound"]:  # a page that is not used
                catalog.write_bytes(content)
                continue
            self.assertTrue(report["repaired"], report)
            self.assertEqual(report["problems"][0]["path"], "catalog/data.mdb")
            self.store.mount()
            for path, original in self.originals.items():
                if path.exists():
                    self.assertSame(original, path)
            self.store.umount()
            self.check("--read-data")
            break
        else:
            self.fail("no damage was found")

    def test_a_file_of_no_layer_and_a_missing_one(self):
        self.store.umount()
        orphan = self.store.store / "layers/fe/00000000000000fe.data0"
        orphan.write_bytes(b"left over")
        self.assertEqual(self.check(code=DAMAGED)["problems"][0]["kind"], "file")
        self.assertTrue(orphan.exists(), "a check changed the store")
        self.assertTrue(self.check("--repair")["repaired"])
        self.assertFalse(orphan.exists())
        os.unlink(self.files(".data0")[0])
        self.assertEqual(self.check(code=DAMAGED)["problems"][0]["path"], "/image-0")

    def test_progress_is_shown_on_a_terminal_only(self):
        self.store.umount()
        command = [REKEYFS, "check", self.store.store, "--key-file", self.store.key_file, "--read-data", "--json"]
        ours, theirs = pty.openpty()
        with open(ours, "rb", buffering=0) as screen:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60, check=True)
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # EIO: nobody writes to it any more
                while part := screen.read(4096):
                    shown += part
        self.assertTrue(json.loads(done.stdout)["sound"])
        for stage in (b"checking catalog", b"checking tables", b"checking data"):
            self.assertIn(stage, shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), "the last line stays")
        self.assertNotIn("checking", run(*command).stderr)

    def test_a_repair_of_a_sound_store_is_told_as_such(self):
        self.store.kill9()
        report = self.check("--repair")
        self.assertEqual((report["sound"], report["repaired"], report["problems"]), (True, True, []))
        self.assertTrue(report["anchor"])
        self.store.mount()
        self.assertEqual(len(self.whole()), 3)

    def test_an_old_copy_is_a_rollback(self):
        self.store.umount()
        shutil.copytree(self.store.store, self.store.scratch / "old")
        self.store.mount()
        (self.mnt / "new").mkdir()
        self.store.umount()
        anchor = self.check()["anchor"]
        self.check("--anchor", anchor)
        [problem] = self.check("--anchor", anchor, code=DAMAGED, path=self.store.scratch / "old")["problems"]
        self.assertEqual(problem["kind"], "rollback")


if __name__ == "__main__":
    unittest.main()
