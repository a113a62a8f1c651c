#!/usr/bin/env python3
"""A full disk: reads, deleting, small changes, unmounting and recovery work, from the store's reserve; nothing that was
acknowledged is lost; and what stopped for want of space goes on by itself. And a disk that fails: the store turns
read-only and says so. Each on a file system of its own, ext4 and tmpfs."""
import errno
import fcntl
import json
import os
import random
import shutil
import struct
import tempfile
import time
import unittest
from pathlib import Path

from harness import MountedStore, TestCase, attribute, needs_root, rekeyfs, run, wait_until
from images import KIB, MIB
from syscalls import punch_hole

NOT_DURABLE = 19  # exit code, rekeyfs(1)
EXT4_IOC_SHUTDOWN = 0x8004587D
SHUT_DOWN_WITHOUT_JOURNAL = struct.pack("I", 2)


class SmallDisk(TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-disk-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder)
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        self.make_disk()
        self.mount_disk()
        self.addCleanup(run, "umount", self.disk)
        self.store = MountedStore(within=self.disk)
        self.addCleanup(self.store.close)
        self.mnt = self.store.mnt
        self.plain, self.one = self.store.plain("plain"), self.store.encrypted("one", "tenant-one")
        self.random = random.Random(5)

    def make_disk(self):
        raise NotImplementedError

    def mount_disk(self):
        raise NotImplementedError

    def room(self):
        """On the disk, the reserve included."""
        reserve = self.store.store / "reserve"
        return os.statvfs(self.disk).f_bavail * os.statvfs(self.disk).f_frsize + os.stat(reserve).st_blocks * 512

    def spare(self):
        """What users may still write."""
        return os.statvfs(self.mnt).f_bavail * os.statvfs(self.mnt).f_frsize

    def fill_by_writing(self, name="ballast"):
        """Through the mount, until it says ENOSPC: the content acknowledged."""
        written = bytearray()
        with open(self.plain / name, "wb", buffering=0) as file:
            for size in (256 * KIB, 16 * KIB):  # whole blocks: a block that is written again gives space back later
                with self.assertRaises(OSError) as caught:
                    while True:
                        piece = self.random.randbytes(size)
                        written += piece[:file.write(piece)]
                self.assertEqual(caught.exception.errno, errno.ENOSPC)
        return bytes(written)

    def fill_from_outside(self):
        """By another program on the same disk, to the last byte."""
        with open(self.disk / "other", "ab", buffering=0) as file:
            for piece in (MIB, 4 * KIB, 1):
                try:
                    while True:
                        file.write(bytes(piece))
                except OSError as full:
                    self.assertEqual(full.errno, errno.ENOSPC)
            try:
                os.fsync(file.fileno())
            except OSError:
                pass

    def reserve_is_held(self):
        reserve = self.store.store / "reserve"
        return reserve.exists() and os.stat(reserve).st_blocks * 512 >= MIB

    def assertContent(self, path, content):
        got = path.read_bytes()
        self.assertTrue(got == content, f"{path}: {len(got)} bytes, {len(content)} expected, or other bytes")


class FullDisk:
    """What holds on any file system."""

    def check_small_changes(self, path):
        os.chmod(path, 0o640)
        os.setxattr(path, "user.colour", b"blue")
        os.rename(path, path.with_name("renamed"))
        os.rename(path.with_name("renamed"), path)
        os.truncate(path, os.stat(path).st_size)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o640)
        self.assertEqual(os.getxattr(path, "user.colour"), b"blue")

    def check_deleting_gives_space_back(self, path):
        size, before = os.stat(path).st_size, self.room()
        path.unlink()
        wait_until(lambda: self.room() >= before + size * 0.8, 8, "the space of a deleted image coming back")

    def test_more_than_is_free_is_not_promised(self):
        for size in (10 << 40, self.spare() + MIB):
            with open(self.plain / "promised", "wb") as file:
                before = self.spare()
                with self.assertRaises(OSError) as caught:
                    os.posix_fallocate(file.fileno(), 0, size)
                self.assertEqual(caught.exception.errno, errno.ENOSPC)
                self.assertEqual(os.fstat(file.fileno()).st_size, 0)
            self.assertGreater(self.spare(), before - MIB)

    def test_filled_through_the_mount(self):
        small = self.random.randbytes(3 * MIB + 5)
        (self.plain / "small").write_bytes(small)
        ballast = self.fill_by_writing()
        self.assertTrue(self.reserve_is_held(), "users' writes must not eat the reserve")
        self.assertContent(self.plain / "ballast", ballast)
        self.check_small_changes(self.plain / "small")
        for attempt in (lambda: (self.plain / "new").write_bytes(b"x"), lambda: (self.plain / "folder").mkdir(),
                        lambda: os.symlink("x", self.plain / "link"),
                        lambda: os.setxattr(self.plain / "small", "user.big", bytes(60000))):
            self.assertErrno(errno.ENOSPC, attempt)
        self.assertLess(self.spare(), 64 * KIB)
        self.check_deleting_gives_space_back(self.plain / "ballast")
        self.assertContent(self.plain / "small", small)
        (self.plain / "new").write_bytes(small)
        self.store.remount()
        self.assertContent(self.plain / "new", small)

    def test_filled_from_outside(self):
        small = self.random.randbytes(3 * MIB + 5)
        for name in ("small", "doomed"):
            (self.plain / name).write_bytes(small)
        self.store.remount()
        self.fill_from_outside()
        self.assertErrno(errno.ENOSPC, (self.plain / "new").write_bytes, b"x")
        for round in range(20):
            self.check_small_changes(self.plain / "small")
        self.assertContent(self.plain / "small", small)
        self.check_deleting_gives_space_back(self.plain / "doomed")
        self.fill_from_outside()
        self.store.umount()
        self.store.mount()
        self.assertContent(self.plain / "small", small)
        self.assertFalse((self.plain / "doomed").exists())
        (self.disk / "other").unlink()
        wait_until(self.is_writable, 10, "writing after there is room again")
        os.unlink(self.plain / "probe")
        wait_until(self.reserve_is_held, 10, "the reserve being taken again")

    def is_writable(self):
        try:
            (self.plain / "probe").write_bytes(b"x" * 100_000)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENOSPC)
            return False
        return True

    def test_killed_while_full(self):
        small = self.random.randbytes(MIB + 5)
        for number in range(6):
            (self.plain / f"image-{number}").write_bytes(small)
        ballast = self.fill_by_writing()
        self.fill_from_outside()
        for number in range(6):
            os.rename(self.plain / f"image-{number}", self.plain / f"kept-{number}")
            os.setxattr(self.plain / f"kept-{number}", "user.round", b"%d" % number)
            if number % 2:
                os.unlink(self.plain / f"kept-{number}")
            self.store.kill9()
            self.store.mount()
            self.assertEqual((self.plain / f"kept-{number}").exists(), number % 2 == 0)
            self.fill_from_outside()
        self.assertContent(self.plain / "ballast", ballast)
        for number in (0, 2, 4):
            self.assertContent(self.plain / f"kept-{number}", small)
            self.assertEqual(os.getxattr(self.plain / f"kept-{number}", "user.round"), b"%d" % number)
        self.check_deleting_gives_space_back(self.plain / "ballast")
        self.store.umount()
        self.store.mount()
        self.assertContent(self.plain / "kept-0", small)

    def test_a_replication_stops_and_goes_on(self):
        (self.plain / "small").write_bytes(b"")
        original = self.random.randbytes(16 * MIB)
        (self.plain / "image").write_bytes(original)
        self.store.wait_normal(self.plain / "image")
        (self.plain / "ballast").write_bytes(self.random.randbytes(self.spare() - 8 * MIB))
        replica = self.one / "replica"
        run("cp", self.plain / "image", replica)
        wait_until(lambda: self.store.status(replica) == "error", 30, "the replication stopping")
        self.assertIn(os.strerror(errno.ENOSPC), attribute(replica, "error"))
        self.assertContent(replica, original)  # copy-on-read serves without storing
        self.fill_from_outside()
        self.assertContent(replica, original)
        (self.disk / "other").unlink()

        # What a deletion gives back the replication takes, and not the reserve.
        wait_until(self.reserve_is_held, 10, "the reserve being taken back, if a checkpoint needed it meanwhile")
        for _ in range(2):
            os.chmod(self.plain / "small", 0o600)
            time.sleep(1.5)
        self.assertTrue(self.reserve_is_held(), "the filler must not eat the reserve")
        self.store.remount()
        self.store.kill9()
        self.store.mount()
        self.assertContent(replica, original)
        os.unlink(self.plain / "ballast")
        wait_until(lambda: self.store.status(replica) == "normal", 30, "the replication going on by itself")
        self.assertContent(replica, original)

    def test_a_store_that_is_more_than_half_full_is_rotated(self):
        size = 5 * MIB
        images = {}
        while self.spare() > 2 * size + 3 * MIB:
            path = self.one / f"image-{len(images)}"
            images[path] = self.random.randbytes(size)
            path.write_bytes(images[path])
        self.assertGreater(len(images) * size, 32 * MIB)
        self.store.key("new")
        plan = json.loads(rekeyfs("rotate", self.one, "--key", "new", "--dry-run", "--json").stdout)
        self.assertEqual(plan["images"], len(images))
        self.assertTrue(size <= plan["space_needed"] <= size + MIB, plan)
        self.assertEqual(attribute(self.one, "key"), "tenant-one", "a dry run changes nothing")
        rekeyfs("rotate", self.one, "--key", "new")
        uses = ("key", "show", "tenant-one", self.mnt, "--json")
        wait_until(lambda: not json.loads(rekeyfs(*uses).stdout)["uses"], 120, "all images being complete")
        self.assertTrue(self.reserve_is_held())
        for path, content in images.items():
            self.assertContent(path, content)
            self.assertEqual(attribute(path, "key"), "new")

    def test_a_rotation_that_does_not_fit_is_refused_beforehand(self):
        (self.one / "image").write_bytes(self.random.randbytes(self.spare() * 2 // 3))
        self.store.key("new")
        self.assertIn("NOT ENOUGH", rekeyfs("rotate", self.one, "--key", "new", "--dry-run").stdout)
        done = rekeyfs("rotate", self.one, "--key", "new", check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertRegex(done.stderr, os.strerror(errno.ENOSPC) + r".* \d+ MiB more are needed")
        self.assertEqual([attribute(path, "key") for path in (self.one, self.one / "image")], ["tenant-one", "tenant-one"])

    def test_names_by_the_thousand_leave_room_to_delete(self):
        self.fill_by_writing()
        os.truncate(self.plain / "ballast", 0)
        made = 0
        with self.assertRaises(OSError) as caught:
            while made < 3000:
                (self.plain / f"folder-{made}").mkdir()
                made += 1
            self.fill_by_writing("more")
            (self.plain / "one-more").mkdir()
        self.assertEqual(caught.exception.errno, errno.ENOSPC)
        self.fill_from_outside()
        deadline = time.monotonic() + 60
        for number in range(made):
            (self.plain / f"folder-{number}").rmdir()
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual([p.name for p in self.plain.iterdir() if p.name.startswith("folder")], [])
        self.store.umount()
        self.store.mount()


@needs_root
class OnExt4(FullDisk, SmallDisk):
    def make_disk(self):
        self.image = self.folder / "ext4"
        with open(self.image, "wb") as file:
            file.truncate(64 * MIB)
        run("mkfs.ext4", "-q", "-F", self.image)

    def mount_disk(self):
        run("mount", "-o", "loop", self.image, self.disk)

    def promise(self, size, name="promised"):
        path = self.one / name
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return path

    def write_all(self, path, size):
        content = self.random.randbytes(size)
        with open(path, "r+b", buffering=0) as file:
            for at in range(0, size, 64 * KIB):
                self.assertEqual(os.pwrite(file.fileno(), content[at:at + 64 * KIB], at), len(content[at:at + 64 * KIB]))
            os.fsync(file.fileno())
        self.assertContent(path, content)
        return content

    def test_promised_space_is_kept(self):
        size = 8 * MIB
        path = self.promise(size)
        ballast = self.fill_by_writing()
        content = self.write_all(path, size)
        self.store.remount()
        self.assertContent(path, content)
        self.assertContent(self.plain / "ballast", ballast)

    def test_promised_space_is_kept_over_a_mount_and_a_kill(self):
        size = 8 * MIB
        path = self.promise(size)
        self.store.remount()
        self.fill_by_writing()
        self.store.kill9()
        self.store.mount()
        content = self.write_all(path, size)
        self.store.remount()
        self.assertContent(path, content)

    def test_promised_space_comes_back(self):
        size, before = 8 * MIB, self.spare()
        for give_back in (os.unlink, lambda path: os.truncate(path, 100), self.punch):
            path = self.promise(size)
            self.assertLess(self.spare(), before - size // 2)
            give_back(path)
            wait_until(lambda: self.spare() >= before - MIB, 10, "promised space coming back")
            if path.exists():
                path.unlink()

    def punch(self, path):
        with open(path, "r+b") as file:
            punch_hole(file.fileno(), 0, os.stat(path).st_size)

    def test_what_was_punched_just_now_can_be_promised(self):
        size = 8 * MIB
        path = self.one / "image"
        path.write_bytes(self.random.randbytes(size))
        self.punch(path)
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        time.sleep(8)  # checkpoints, which give back what was punched
        self.fill_by_writing()
        self.write_all(path, size)

    def test_stored_blocks_are_promised_on_a_full_disk(self):
        path = self.one / "image"
        content = self.random.randbytes(4 * MIB)
        path.write_bytes(content)
        self.fill_by_writing()
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, len(content))
        self.assertContent(path, content)


@needs_root
class OnTmpfs(FullDisk, SmallDisk):
    def make_disk(self):
        pass

    def mount_disk(self):
        run("mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", self.disk)


@needs_root
class FaultyDisk(SmallDisk):
    make_disk, mount_disk = OnExt4.make_disk, OnExt4.mount_disk

    def shut_down(self):
        """Nothing reaches the disk from now on."""
        descriptor = os.open(self.disk, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, EXT4_IOC_SHUTDOWN, SHUT_DOWN_WITHOUT_JOURNAL)
        finally:
            os.close(descriptor)

    def test_a_failed_sync_turns_the_store_read_only_until_the_next_mount(self):
        content = self.random.randbytes(MIB)
        with open(self.plain / "image", "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
            file.write(content)
            self.shut_down()
            file_error = None
            try:
                os.fsync(file.fileno())
            except OSError as error:
                file_error = error.errno
        self.assertEqual(file_error, errno.EIO)
        self.assertErrno(errno.EROFS, (self.plain / "new").write_bytes, b"x")
        self.assertErrno(errno.EROFS, os.chmod, self.plain / "image", 0o600)
        self.assertErrno(errno.EROFS, os.unlink, self.plain / "image")
        for command in ("status", "info"):
            self.assertRegex(rekeyfs(command, self.mnt).stdout, "read-only since a failed sync: .*Input/output error")
            self.assertIn("failed sync", json.loads(rekeyfs(command, "--json", self.mnt).stdout)["read_only"])
        done = rekeyfs("umount", self.mnt, check=False)
        self.assertEqual(done.returncode, NOT_DURABLE, done.stderr)
        self.assertIn("failed sync", done.stderr)
        self.assertNotEqual(self.store.process.wait(timeout=60), 0)
        self.store.process = None

        run("umount", self.disk)
        self.mount_disk()
        self.store.mount()
        self.assertIsNone(json.loads(rekeyfs("status", "--json", self.mnt).stdout)["read_only"])
        self.assertIn((self.plain / "image").read_bytes(), (content, content + content))
        (self.plain / "new").write_bytes(b"x")


if __name__ == "__main__":
    unittest.main()
