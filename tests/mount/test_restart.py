#!/usr/bin/env python3
"""Restarts: umount and mount, and kill -9 at moments nobody chose. What was acknowledged is there afterwards."""
import ctypes
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
import unittest
from contextlib import contextmanager, suppress

from harness import (NOBODY, ROOT, MountedStore, TestCase, attribute, is_mounted, needs_mounting_users, needs_root, rekeyfs,
                     run)
from images import KIB, MIB

SIGNAL_AT_MOUNT = os.environ.get("REKEYFS_TEST_SIGNAL_AT_MOUNT") or str(ROOT / "build/release/tests/signal_at_mount.so")
SLOW_DISK = os.environ.get("REKEYFS_TEST_SLOW_DISK") or str(ROOT / "build/release/tests/slow_disk.so")
STORE_IN_USE, BUSY, NOT_DURABLE = 4, 8, 19  # exit codes, rekeyfs(1)


@contextmanager
def opened(paths):
    """Descriptors of the new files of `paths`, which may have lost their file system when they are closed."""
    descriptors = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) for path in paths]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.close(descriptor)


class Remount(TestCase):
    def test_killed_the_moment_it_is_mounted(self):
        """No thread of the daemon may wait for the daemon itself: it could not die, and would keep the store."""
        for _ in range(30):
            self.store.kill9()
            self.store.mount()
        (self.mnt / "image").write_bytes(b"content")

    def test_everything_is_there_after_a_remount(self):
        folder = self.store.encrypted("folder", "tenant")
        original = self.store.original("original", 20 * MIB)
        run("cp", original, folder / "image")
        (folder / "link").symlink_to("image")
        for _ in range(3):
            self.store.remount()
            self.assertSame(original, folder / "image")
            self.assertEqual(os.readlink(folder / "link"), "image")
            self.assertEqual(attribute(folder, "key"), "tenant")
            self.assertIn("tenant", rekeyfs("key", "list", self.mnt).stdout)

    def test_umount_does_not_wait_for_replications_which_resume(self):
        plain, target = self.store.plain("plain"), self.store.encrypted("folder", "tenant") / "replica"
        original = self.store.original("original", 256 * MIB)
        run("cp", original, plain / "image")
        self.store.wait_normal(plain / "image")
        run("cp", plain / "image", target)
        self.store.remount()
        self.assertIn(self.store.status(target), ("replicating", "normal"))
        self.assertSame(original, target)
        self.store.wait_normal(target)
        self.assertSame(original, target)

    def test_a_busy_mount_is_not_detached(self):
        with open(self.mnt / "open", "wb") as file:
            done = rekeyfs("umount", self.mnt, check=False)
            self.assertEqual(done.returncode, BUSY, done.stderr)
            file.write(b"still mounted")
        self.assertEqual((self.mnt / "open").read_bytes(), b"still mounted")

    def test_umount_says_if_not_everything_is_durable(self):
        (self.mnt / "file").write_bytes(b"kept in the journal")
        # What a failing disk does: the block table of the new layer cannot be made.
        obstacles = [path.with_suffix(".table") for path in self.store.store.glob("layers/*/*.data0")]
        self.assertEqual(len(obstacles), 1)
        obstacles[0].mkdir()
        done = rekeyfs("umount", self.mnt, check=False)
        self.assertEqual(done.returncode, NOT_DURABLE, done.stderr)
        self.assertRegex(done.stderr, r"unmounted, but .* may not be durable: .*\.table")
        self.assertNotEqual(self.store.process.wait(timeout=60), 0)
        self.store.process = None
        obstacles[0].rmdir()
        self.store.mount()
        self.assertEqual((self.mnt / "file").read_bytes(), b"kept in the journal")


@needs_root
class Terminated(TestCase):
    mount_arguments = ("-o", "writeback_cache")

    def test_killed_while_it_ends_a_mount_that_is_in_use(self):
        """At SIGTERM pages that the kernel still holds are written back, by another process than the daemon: a thread
        that waits for an answer of its own process cannot be killed."""
        rng = random.Random(int(os.environ.get("REKEYFS_TEST_SEED", "1")))
        for _ in range(12):
            died = False
            with suppress(OSError), open(self.mnt / "image", "wb", buffering=0) as file:  # closing it fails
                for _ in range(32):
                    file.write(bytes(MIB))
                self.store.process.terminate()
                time.sleep(rng.uniform(0.0, 0.1))
                self.store.process.kill()
                died = self.dies()
            self.assertTrue(died, "a thread of the daemon that waits for the daemon keeps it from dying")
            self.store.mount()

    def dies(self):
        try:
            self.store.process.wait(timeout=20)
            return True
        except subprocess.TimeoutExpired:
            ctypes.CDLL(None).umount2(os.fsencode(self.mnt), 1)  # MNT_FORCE: the kernel gives its requests up
            return False
        finally:
            self.store.process.wait(timeout=60)
            self.store.process = None
            run("umount", "-l", self.mnt, check=False)

    def test_sigterm_the_moment_it_is_mounted_unmounts_it(self):
        self.store.umount()
        done = rekeyfs("mount", self.store.store, self.mnt, "-f", "--key-file", self.store.key_file, check=False,
                       env=os.environ | {"LD_PRELOAD": SIGNAL_AT_MOUNT})
        self.assertFalse(is_mounted(self.mnt), "a dead mount is left")
        self.assertEqual(done.returncode, 0, done.stderr)

    @needs_root
    @needs_mounting_users
    def test_ctrl_c_does_not_reach_the_program_that_mounts_for_an_ordinary_user(self):
        """It could die between mounting and handing the device over; the mount that it leaves behind would be dead."""
        store = MountedStore(uid=NOBODY)
        self.addCleanup(store.close)
        store.umount()
        library = shutil.copy(SIGNAL_AT_MOUNT, store.folder)  # where that user can read it
        for _ in range(4):  # on a busy machine the answer may be there before it is waited for
            done = rekeyfs("mount", store.store, store.mnt, "-f", "--key-file", store.key_file, uid=NOBODY, check=False,
                           env=os.environ | {"LD_PRELOAD": library}, start_new_session=True)
            self.assertFalse(is_mounted(store.mnt), "a dead mount is left")
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_what_open_images_were_given_is_there_after_sigterm(self):
        """More than the kernel sends at a time, and more images than are named to one program."""
        store = MountedStore(*self.mount_arguments, environment={"LD_PRELOAD": SLOW_DISK})
        self.addCleanup(store.close)
        given = {f"image-{number}": b"given" for number in range(300)}
        given |= {name: name.encode() * MIB for name in ("mapped", "another\nuser's", "-large-image")}
        with opened(store.mnt / name for name in given) as descriptors:
            files = dict(zip(given, descriptors))
            os.fchown(files["another\nuser's"], NOBODY, NOBODY)
            os.fchmod(files["another\nuser's"], 0o600)
            os.ftruncate(files["mapped"], len(given["mapped"]))
            with mmap.mmap(files["mapped"], 0) as view:
                view[:] = given["mapped"]
                for name, content in given.items():
                    if name != "mapped":
                        self.assertEqual(os.write(files[name], content), len(content))
                store.process.terminate()
                self.assertEqual(store.process.wait(timeout=120), 0)
                store.process = None
        store.mount()
        self.assertEqual([name for name in given if (store.mnt / name).read_bytes() != given[name]], [])


class Lock(TestCase):
    def second_mount(self):
        elsewhere = self.store.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return rekeyfs("mount", self.store.store, elsewhere, "-f", "--key-file", self.store.key_file, check=False,
                       timeout=30)

    def test_a_second_mount_is_refused_and_told_who_has_the_store(self):
        done = self.second_mount()
        self.assertEqual(done.returncode, STORE_IN_USE, done.stderr)
        self.assertIn(str(self.store.process.pid), done.stderr)
        (self.mnt / "file").write_bytes(b"not disturbed")
        self.assertEqual((self.mnt / "file").read_bytes(), b"not disturbed")

    def test_no_process_keeps_the_lock_of_a_killed_daemon(self):
        for _ in range(5):
            self.store.kill9()
            self.store.mount()


class Killed(TestCase):
    def setUp(self):
        super().setUp()
        self.rng = random.Random(int(os.environ.get("REKEYFS_TEST_SEED", "1")))
        self.plain = self.store.plain("plain")
        self.encrypted = self.store.encrypted("encrypted", "tenant")

    def kill_during(self, work):
        """Runs `work` until the daemon, killed at a random moment, ends it; then mounts again."""
        def until_killed():
            try:
                work()
            except OSError:
                pass
        worker = threading.Thread(target=until_killed)
        worker.start()
        time.sleep(self.rng.uniform(0.0, 0.4))
        self.store.process.kill()
        worker.join(timeout=30)
        self.assertFalse(worker.is_alive(), "a call to a dead daemon hangs")
        self.store.kill9()
        self.store.mount()

    def test_acknowledged_writes(self):
        for number in range(8):
            path = self.encrypted / f"image-{number}"
            acknowledged = []

            def write():
                with open(path, "wb", buffering=0) as file:
                    rng = random.Random(number)
                    while True:
                        offset, data = rng.randrange(8 * MIB), rng.randbytes(rng.choice((100, 4096, 16 * KIB, 200_000)))
                        acknowledged.append([offset, data, False])
                        acknowledged[-1][2] = os.pwrite(file.fileno(), data, offset) == len(data)  # else it was cut short

            self.kill_during(write)
            self.check_writes(path, acknowledged)

    def check_writes(self, path, writes):
        """Only the last write, which was not acknowledged, may be there in part."""
        if not writes:
            return
        last = None if writes[-1][2] else writes.pop()
        model = bytearray()
        for offset, data, _ in writes:
            model.extend(bytes(max(0, offset + len(data) - len(model))))
            model[offset:offset + len(data)] = data
        got = bytearray(path.read_bytes())
        if last:
            offset, data = last[0], last[1]
            self.assertLessEqual(len(got), max(len(model), offset + len(data)))
            model.extend(bytes(len(got) - len(model)))
            for at in range(offset, min(offset + len(data), len(got))):
                if got[at] == data[at - offset]:
                    got[at] = model[at]
        self.assertEqual(len(got), len(model))
        wrong = next((at for at in range(len(got)) if got[at] != model[at]), None) if got != model else None
        self.assertIsNone(wrong, f"{path} after {len(writes)} acknowledged writes")

    def test_acknowledged_names(self):
        for number in range(8):
            folder = self.plain / f"folder-{number}"
            folder.mkdir()
            present, pending = set(), []

            def change():
                rng = random.Random(number)
                for step in range(1_000_000):
                    name = f"file-{step}"
                    what = rng.choice(("create", "create", "unlink", "rename"))
                    if what == "create" or not present:
                        pending[:] = [set(present) | {name}]
                        os.close(os.open(folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    else:
                        old = rng.choice(sorted(present))
                        after = present - {old} | ({name} if what == "rename" else set())
                        pending[:] = [after]
                        os.unlink(folder / old) if what == "unlink" else os.rename(folder / old, folder / name)
                    present.clear()
                    present.update(pending[0])

            self.kill_during(change)
            self.assertIn(set(os.listdir(folder)), [present, *pending])

    def test_during_an_import_by_cp(self):
        original = self.store.original("original", 128 * MIB)
        for number in range(4):
            target = self.encrypted / f"image-{number}"
            self.kill_during(lambda: run("cp", original, target, check=False))
            if target.exists():  # a beginning of it, right as far as it goes
                size = os.stat(target).st_size
                self.assertEqual(run("cmp", "-n", size, original, target, check=False).returncode, 0)
        self.assertSame(original, self.redone(original))

    def redone(self, original):
        target = self.encrypted / "again"
        run("cp", original, target)
        return target

    def test_during_replication(self):
        original = self.store.original("original", 192 * MIB)
        run("cp", original, self.plain / "image")
        self.store.wait_normal(self.plain / "image")
        for number in range(4):
            target = self.encrypted / f"replica-{number}"
            run("cp", self.plain / "image", target)
            for _ in range(2):
                self.kill_during(lambda: target.read_bytes())
            self.assertIn(self.store.status(target), ("replicating", "normal"))
            self.assertSame(original, target)
            self.store.wait_normal(target)
        os.unlink(self.plain / "image")
        self.store.remount()
        for number in range(4):
            self.assertSame(original, self.encrypted / f"replica-{number}")

    def test_replica_of_a_source_deleted_just_before(self):
        original = self.store.original("original", 96 * MIB)
        for number in range(3):
            run("cp", original, self.plain / "image")
            run("cp", self.plain / "image", self.encrypted / "replica")
            os.unlink(self.plain / "image")
            self.kill_during(lambda: None)
            self.assertSame(original, self.encrypted / "replica")
            self.store.wait_normal(self.encrypted / "replica")
            os.unlink(self.encrypted / "replica")

    def test_a_synced_truncation_of_an_open(self):
        image = self.encrypted / "image"
        image.write_bytes(b"old" * 10000)
        fd = os.open(image, os.O_WRONLY | os.O_TRUNC)
        os.fsync(fd)
        self.store.kill9()
        try:
            os.close(fd)
        except OSError:
            pass  # its daemon is gone
        self.store.mount()
        self.assertEqual(image.read_bytes(), b"")

    def test_keys_and_policies(self):
        self.store.key("another")
        folder = self.store.policy("another", "another")
        self.store.kill9()
        self.store.mount()
        self.assertEqual(attribute(folder, "key"), "another")
        (folder / "file").write_bytes(b"x")
        self.assertEqual(attribute(folder / "file", "key"), "another")


if __name__ == "__main__":
    unittest.main()
