#!/usr/bin/env python3
"""Wrong keys, wrong paths and damaged stores: the documented exit code, a sentence on stderr, nothing changed."""
import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from harness import MountedStore, REKEYFS, is_mounted, rekeyfs, run
from images import MIB

# Exit codes of rekeyfs(1).
OK, FAILURE, USAGE, WRONG_SECRET, STORE_IN_USE, NOT_A_STORE, UNKNOWN_VERSION, DAMAGED = range(8)
BAD_MOUNTPOINT, NOT_MOUNTED, NOT_FOUND, EXISTS = 12, 13, 14, 15


def snapshot(folder):
    """Names and contents of a tree, but for the lock, which names the last process that tried."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in sorted(folder.rglob("*")) if path.name != "lock"}


class BadInput(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-test-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.store, self.mnt, self.key_file = self.folder / "store", self.folder / "mnt", self.folder / "key"
        self.mnt.mkdir()
        rekeyfs("init", self.store, "--key-file", self.key_file)

    def mount(self, store=None, mnt=None, *options):
        options = options or ("--key-file", self.key_file)
        return rekeyfs("mount", store or self.store, mnt or self.mnt, "-f", *options, check=False, timeout=60)

    def assertFails(self, done, *codes):
        self.assertIn(done.returncode, codes, done.stderr)
        self.assertRegex(done.stderr, r"\w+ \w+ \w+", "no sentence says why")
        self.assertFalse(is_mounted(self.mnt))

    def assertFailsUnchanged(self, code, *mount_arguments):
        before = snapshot(self.store)
        self.assertFails(self.mount(*mount_arguments), code)
        self.assertEqual(snapshot(self.store), before)


class Secrets(BadInput):
    def test_a_wrong_key_file(self):
        (self.folder / "wrong").write_bytes(bytes(64))
        self.assertFailsUnchanged(WRONG_SECRET, self.store, self.mnt, "--key-file", self.folder / "wrong")

    def test_a_missing_key_file_is_not_made_by_mount(self):
        done = self.mount(self.store, self.mnt, "--key-file", self.folder / "missing")
        self.assertNotEqual(done.returncode, OK)
        self.assertIn("missing", done.stderr)
        self.assertFalse((self.folder / "missing").exists())

    def test_a_passphrase_where_a_key_file_is_needed(self):
        (self.folder / "passphrase").write_text("a good passphrase\n")
        self.assertFailsUnchanged(WRONG_SECRET, self.store, self.mnt, "--passphrase-file", self.folder / "passphrase")

    def test_passphrases(self):
        good, wrong = self.folder / "good", self.folder / "wrong"
        good.write_text("correct horse battery\n")
        wrong.write_text("incorrect horse battery\n")
        other = self.folder / "other"
        rekeyfs("init", other, "--passphrase-file", good)
        rekeyfs("key", "create", "tenant", other, "--passphrase-file", good)
        done = rekeyfs("key", "list", other, "--passphrase-file", wrong, check=False)
        self.assertFails(done, WRONG_SECRET)
        self.assertIn("tenant", rekeyfs("key", "list", other, "--passphrase-file", good).stdout)

    def test_the_key_file_is_private_and_a_short_one_refused(self):
        self.assertEqual(os.stat(self.key_file).st_mode & 0o077, 0)
        (self.folder / "short").write_bytes(b"short")
        done = rekeyfs("init", self.folder / "new", "--key-file", self.folder / "short", check=False)
        self.assertNotEqual(done.returncode, OK)
        self.assertFalse((self.folder / "new/rekeyfs.store").exists())


class Paths(BadInput):
    def test_not_a_store(self):
        empty = self.folder / "empty"
        empty.mkdir()
        self.assertFails(self.mount(empty), NOT_A_STORE)
        self.assertEqual(os.listdir(empty), [])
        self.assertFails(self.mount(self.folder / "nowhere"), NOT_A_STORE, NOT_FOUND)
        self.assertFails(self.mount(self.key_file), NOT_A_STORE)

    def test_mount_points(self):
        self.assertFailsUnchanged(BAD_MOUNTPOINT, self.store, self.folder / "nowhere")
        self.assertFailsUnchanged(BAD_MOUNTPOINT, self.store, self.key_file)

    def test_init_leaves_what_is_there(self):
        before = snapshot(self.store)
        self.assertFails(rekeyfs("init", self.store, "--key-file", self.key_file, check=False), EXISTS)
        self.assertEqual(snapshot(self.store), before)
        full = self.folder / "full"
        full.mkdir()
        (full / "file").write_bytes(b"mine")
        self.assertFails(rekeyfs("init", full, "--key-file", self.key_file, check=False), EXISTS)
        self.assertEqual(snapshot(full), {"file": b"mine"})

    def test_init_that_was_killed_is_begun_anew(self):
        """At whatever moment: the directory is a whole store, or none, and then the next init makes one."""
        rng, interrupted = random.Random(5), 0
        started = time.monotonic()
        rekeyfs("init", self.folder / "timed", "--key-file", self.key_file)
        whole = time.monotonic() - started
        for number in range(40):
            store = self.folder / f"killed-{number}"
            process = subprocess.Popen([REKEYFS, "init", store, "--key-file", self.key_file], stdout=subprocess.DEVNULL)
            time.sleep(rng.uniform(0, whole))
            process.kill()
            process.wait()
            if not (store / "rekeyfs.store").exists():
                interrupted += store.exists() and bool(os.listdir(store))
                self.assertFails(self.mount(store), NOT_A_STORE, NOT_FOUND)
                rekeyfs("init", store, "--key-file", self.key_file)
            rekeyfs("key", "list", store, "--key-file", self.key_file)
            self.assertNotIn("rekeyfs.store.new", os.listdir(store))
        self.assertGreater(interrupted, 0, "no init was killed half-way")

    def test_init_keeps_a_store_that_has_lost_its_superblock(self):
        (self.store / "rekeyfs.store").rename(self.folder / "superblock")
        before = snapshot(self.store)
        self.assertFails(rekeyfs("init", self.store, "--key-file", self.key_file, check=False), EXISTS)
        (self.folder / "foreign").mkdir()
        (self.folder / "foreign/rekeyfs.store.new").write_bytes(b"")
        (self.folder / "foreign/lock").write_bytes(b"")
        (self.folder / "foreign/thesis").write_bytes(b"mine")
        self.assertFails(rekeyfs("init", self.folder / "foreign", "--key-file", self.key_file, check=False), EXISTS)
        self.assertEqual(len(os.listdir(self.folder / "foreign")), 3)
        self.assertEqual(snapshot(self.store), before)
        (self.folder / "superblock").rename(self.store / "rekeyfs.store")
        rekeyfs("key", "list", self.store, "--key-file", self.key_file)

    def test_umount_of_what_is_not_mounted(self):
        self.assertFails(rekeyfs("umount", self.mnt, check=False), NOT_MOUNTED)

    def test_paths_outside_any_mount(self):
        for command in (["status"], ["info"], ["key", "list"]):
            self.assertFails(rekeyfs(*command, self.folder, check=False), NOT_MOUNTED, NOT_A_STORE)

    def test_usage(self):
        for command in ([], ["frobnicate"], ["mount"], ["mount", self.store, self.mnt, "-o", "no_such_option"],
                        ["init"], ["init", self.folder / "x", "--no-such-option"]):
            self.assertFails(rekeyfs(*command, check=False), USAGE)

    def test_help(self):
        for command in ([], ["init"], ["mount"], ["umount"], ["key"], ["status"], ["info"]):
            done = rekeyfs(*command, "--help")
            self.assertIn("rekeyfs", done.stdout)


class Damage(BadInput):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(3)

    def superblock(self):
        return self.store / "rekeyfs.store"

    def test_any_changed_byte_of_the_superblock(self):
        content = self.superblock().read_bytes()
        for at in self.rng.sample(range(len(content)), 40):
            changed = bytearray(content)
            changed[at] ^= 1 << self.rng.randrange(8)
            self.superblock().write_bytes(changed)
            self.assertFails(self.mount(), WRONG_SECRET, NOT_A_STORE, UNKNOWN_VERSION, DAMAGED)
            self.assertEqual(self.superblock().read_bytes(), changed)
        for size in (0, 1, 50, len(content) - 1):
            self.superblock().write_bytes(content[:size])
            self.assertFails(self.mount(), NOT_A_STORE, DAMAGED)

    def test_a_later_version(self):
        content = bytearray(self.superblock().read_bytes())
        content[8:12] = (3).to_bytes(4, "little")
        content[-64:-32] = hashlib.sha256(content[:-64]).digest()
        self.superblock().write_bytes(content)
        self.assertFailsUnchanged(UNKNOWN_VERSION)

    def test_a_superblock_of_another_store(self):
        other = self.folder / "other"
        rekeyfs("init", other, "--key-file", self.key_file)
        shutil.copy(other / "rekeyfs.store", self.superblock())
        self.assertFails(self.mount(), DAMAGED)

    def test_a_planted_link_is_not_followed(self):
        moved = self.folder / "moved"
        self.superblock().rename(moved)
        self.superblock().symlink_to(moved)
        self.assertNotEqual(self.mount().returncode, OK)


class DamagedCatalog(unittest.TestCase):
    """Bits flipped in a store with content: it opens and tells the truth, or it is refused; it never crashes."""

    def setUp(self):
        self.store = MountedStore()
        self.addCleanup(self.store.close)
        folder = self.store.encrypted("folder", "tenant")
        self.original = self.store.original("original", 4 * MIB)
        run("cp", self.original, folder / "image")
        for number in range(200):
            (folder / f"small-{number}").write_bytes(b"%d" % number)
        self.store.umount()
        self.catalogs = [path for path in self.store.store.rglob("*")
                         if path.is_file() and path.read_bytes()[16:20] == bytes.fromhex("dec0efbe")]  # LMDB's magic

    def key_list(self):
        """A command that opens the store without mounting it."""
        return rekeyfs("key", "list", self.store.store, "--key-file", self.store.key_file, check=False)

    def check(self):
        done = self.key_list()
        self.assertIn(done.returncode, (OK, DAMAGED), f"{REKEYFS} key list: {done.returncode} {done.stderr}")
        if done.returncode == DAMAGED:
            self.assertRegex(done.stderr, r"\w+ \w+ \w+")
            return
        self.assertIn("tenant", done.stdout)

    def test_flipped_bits(self):
        self.assertTrue(self.catalogs, "no catalog found")
        rng = random.Random(4)
        for path in self.catalogs:
            content = path.read_bytes()
            for _ in range(60):
                changed = bytearray(content)
                for _ in range(rng.choice((1, 1, 8, 64))):
                    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                path.write_bytes(changed)
                self.check()
            path.write_bytes(content)

    def test_truncated_and_overwritten(self):
        for path in self.catalogs:
            content = path.read_bytes()
            for size in (0, 100, 4096, 8192, len(content) // 2):
                path.write_bytes(content[:size])
                self.check_refused()
            path.write_bytes(bytes(len(content)))
            self.check_refused()
            path.write_bytes(content)
            self.check()

    def check_refused(self):
        done = self.key_list()
        self.assertEqual(done.returncode, DAMAGED, done.stderr)

    def test_flipped_bits_in_the_images_blocks_are_errors_or_nothing(self):
        files = [path for path in self.store.store.rglob("*") if path.is_file() and path.stat().st_size > 2 * MIB
                 and path not in self.catalogs]
        self.assertTrue(files, "no data file found")
        for path in files:
            with open(path, "r+b") as file:
                for offset in range(1 * MIB, 2 * MIB, 64 * 1024):
                    byte = os.pread(file.fileno(), 1, offset)
                    os.pwrite(file.fileno(), bytes([byte[0] ^ 0x10]), offset)
        self.store.mount()
        image = self.store.mnt / "folder/image"
        failed = 0
        with open(self.original, "rb") as expected, open(image, "rb", buffering=0) as got:
            for offset in range(0, 4 * MIB, 4096):
                try:
                    data = os.pread(got.fileno(), 4096, offset)
                except OSError as error:
                    self.assertEqual(error.errno, 5)
                    failed += 1
                    continue
                self.assertEqual(data, os.pread(expected.fileno(), 4096, offset))
        self.assertGreater(failed, 0, "damage was not noticed")


if __name__ == "__main__":
    unittest.main()
