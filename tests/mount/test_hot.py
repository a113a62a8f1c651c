#!/usr/bin/env python3
"""Hot images: the same bytes from memory, past the daemon; never after a change or without the key; memory bounded."""
import errno
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

from harness import MAPPED_READER, NOBODY, REKEYFS, MountedStore, TestCase, needs_root, rekeyfs, run, wait_until
from images import KIB, MIB

KERNEL = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
needs_hot_images = unittest.skipUnless(os.geteuid() == 0 and KERNEL >= (6, 9), "needs root and Linux 6.9")

SIZE = 12 * MIB + 5 * KIB + 7  # of which four fifths are data
EXIT_USAGE = 2


class HotTest(TestCase):
    def setUp(self):
        super().setUp()
        self.descriptors = []
        self.addCleanup(self.close_all)

    def open(self, path, flags=os.O_RDONLY):
        self.descriptors.append(os.open(path, flags))
        return self.descriptors[-1]

    def close(self, descriptor):
        self.descriptors.remove(descriptor)
        try:
            os.close(descriptor)
        except OSError as error:
            self.assertEqual(error.errno, errno.EIO)  # of an image that was withdrawn

    def close_all(self):
        for descriptor in list(self.descriptors):
            self.close(descriptor)

    def image(self, folder, name="image", size=SIZE, seed=1):
        original = self.store.original(name, size, seed)
        run("cp", original, folder / name)
        return original, folder / name

    def times_hot(self, path):
        return self.store.log().count(f"node {path.stat().st_ino} is hot")

    def heat(self, path, makes=True):
        """Two who read it, one after the other; returns when it is hot, or after a while if it is not to become so."""
        before = self.times_hot(path)
        for _ in range(2):
            os.close(os.open(path, os.O_RDONLY))
        if makes:
            wait_until(lambda: self.times_hot(path) > before, 20, f"{path} becoming hot")
        else:
            time.sleep(0.5)
            self.assertEqual(self.times_hot(path), before)

    def heated(self, path):
        self.store.wait_normal(path)
        self.heat(path)
        return path

    def passes_by(self, descriptor, offset=0):
        """Whether a read that the page cache knows nothing of is answered while the daemon is stopped."""
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        reader = threading.Thread(target=os.pread, args=(descriptor, 4 * KIB, offset))
        self.store.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(self.is_stopped, 20, "the daemon stopping")
            reader.start()
            reader.join(0.5)
            return not reader.is_alive()
        finally:
            self.store.process.send_signal(signal.SIGCONT)
            reader.join()

    def is_stopped(self):
        threads = Path(f"/proc/{self.store.process.pid}/task").iterdir()
        return all((thread / "stat").read_text().rpartition(")")[2].split()[0] == "T" for thread in threads)

    def assertHot(self, path, hot=True):
        descriptor = self.open(path)
        self.assertEqual(self.passes_by(descriptor), hot)
        return descriptor

    def memory(self):
        """Bytes that the daemon holds in files without a name in memory."""
        total = 0
        for link in Path(f"/proc/{self.store.process.pid}/fd").iterdir():
            try:
                if os.readlink(link).endswith(" (deleted)"):
                    total += link.stat().st_blocks * 512
            except FileNotFoundError:
                pass  # closed meanwhile
        return total


@needs_hot_images
class Reading(HotTest):
    mount_arguments = ("-o", "hot=512M")

    def test_same_bytes_past_the_daemon(self):
        original, path = self.image(self.store.encrypted("one", "tenant-one"))
        self.store.wait_normal(path)
        clone, plain = path.with_name("clone"), self.store.plain("plain") / "plain"
        run("cp", path, clone)
        run("cp", original, plain)
        first = self.open(plain)
        self.assertFalse(self.passes_by(first), "the first reader")
        self.close(first)
        for image in (path, clone, plain):
            self.heated(image)
            self.assertHot(image)
            self.assertSame(original, image)
        self.compare(original, path)
        replica = self.store.encrypted("two", "tenant-two") / "replica"
        run("cp", path, replica)
        self.store.wait_normal(replica)
        self.assertSame(original, replica)

    def compare(self, original, path):
        expected, hot = self.open(original), self.assertHot(path)
        self.assertEqual(os.fstat(hot).st_size, SIZE)
        rng = random.Random(5)
        for _ in range(2000):
            offset, size = rng.randrange(SIZE + 64 * KIB), rng.randrange(1, 128 * KIB)
            self.assertEqual(os.pread(hot, size, offset), os.pread(expected, size, offset), f"{size} at {offset}")
        self.assertEqual(os.lseek(hot, 0, os.SEEK_END), SIZE)
        content = os.pread(expected, SIZE, 0)
        for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
            with mmap.mmap(hot, 0, kind, mmap.PROT_READ) as view:
                self.assertEqual(view[:], content)
        direct, page = self.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 64 * KIB)
        self.assertTrue(self.passes_by(direct))
        for offset in range(0, SIZE - 64 * KIB, 64 * KIB):
            self.assertEqual(os.preadv(direct, [page], offset), 64 * KIB)
            self.assertEqual(page[:], content[offset:offset + 64 * KIB])
        exported = self.store.scratch / "exported"
        for command in ('cp --sparse=always "$1" "$2"', 'cat "$1" >"$2"', 'dd bs=64k status=none if="$1" of="$2"'):
            run("sh", "-c", command, "sh", path, exported)
            self.assertSame(original, exported)

    def test_an_image_that_is_open_for_writing(self):
        folder = self.store.encrypted("one", "tenant-one")
        original, path = self.image(folder)
        writer = self.open(path, os.O_RDWR)
        self.store.wait_normal(path)
        self.heat(path, makes=False)
        os.pwrite(writer, b"written", 1000)
        self.assertEqual(os.pread(self.assertHot(path, False), 7, 1000), b"written")


@needs_hot_images
class Changing(HotTest):
    mount_arguments = ("-o", "hot=512M")

    def setUp(self):
        super().setUp()
        self.folder = self.store.encrypted("one", "tenant-one")
        self.original, self.path = self.image(self.folder)

    def test_nobody_changes_what_is_hot_and_open(self):
        other_original, other = self.image(self.folder, "other", seed=2)
        self.store.wait_normal(self.path)
        held = self.open_before_it_is_hot()
        self.assertHot(self.path, False)  # shares the page cache with the one who has it open
        self.assertSame(self.original, self.path)
        with mmap.mmap(held, 0, prot=mmap.PROT_READ) as view:
            self.assertEqual(view[:], self.original.read_bytes())
        self.close_all()
        hot = self.assertHot(self.path)
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC):
            self.assertErrno(errno.EBUSY, os.open, self.path, flags)
        self.assertErrno(errno.EBUSY, os.truncate, self.path, 0)
        self.assertIn(os.strerror(errno.EBUSY), run("cp", other_original, self.path, check=False).stderr)
        self.assertSame(self.original, self.path)
        self.path.chmod(0o400)
        os.utime(self.path, (1, 1))
        os.link(self.path, self.folder / "link")
        self.assertHot(self.folder / "link")
        os.rename(other, self.path)
        self.assertSame(other_original, self.path)
        os.unlink(self.folder / "link")
        self.assertTrue(self.passes_by(hot, 8 * MIB))
        self.assertEqual(os.pread(hot, SIZE, 0), self.original.read_bytes())

    def open_before_it_is_hot(self):
        """Opens the image while it is decrypted."""
        for _ in range(20):
            before = self.times_hot(self.path)
            self.heat_in_vain()
            held = self.open(self.path)
            wait_until(lambda: self.times_hot(self.path) > before, 20, "becoming hot")
            if not self.passes_by(held):
                return held
            self.close(held)
            os.truncate(self.path, SIZE + 1)  # not hot any more
            os.truncate(self.path, SIZE)
            self.store.wait_normal(self.path)
        self.fail("it is decrypted faster than it can be opened")

    def test_a_change_is_seen_at_once(self):
        self.heated(self.path)
        self.close(self.assertHot(self.path))
        for number in range(20):  # at once after a close, and in the middle of being made hot again
            text = f"change {number:4}".encode()
            offset = random.Random(number).randrange(SIZE - 100)
            descriptor = os.open(self.path, os.O_RDWR)
            self.heat_in_vain()
            os.pwrite(descriptor, text, offset)
            os.close(descriptor)
            with open(self.path, "rb") as reader:
                self.assertEqual(os.pread(reader.fileno(), len(text), offset), text)
            self.heat_in_vain()
        self.store.wait_normal(self.path)
        self.heat_in_vain()
        time.sleep(0.02)  # while it is decrypted
        os.truncate(self.path, 4 * MIB + 1)
        with open(self.path, "r+b") as file:
            file.write(b"begin")
        before = self.path.read_bytes()
        self.assertEqual((len(before), before[:5]), (4 * MIB + 1, b"begin"))
        self.heated(self.path)
        self.assertHot(self.path)
        self.assertEqual(self.path.read_bytes(), before)

    def heat_in_vain(self):
        for _ in range(2):
            os.close(os.open(self.path, os.O_RDONLY))


@needs_hot_images
class Withdrawing(HotTest):
    mount_arguments = ("-o", "hot=512M")

    @staticmethod
    def is_cut_off(descriptor):
        try:
            os.pread(descriptor, 4 * KIB, 0)
        except OSError as failure:
            return failure.errno == errno.EIO
        return False

    def test_a_key_disabled(self):
        folder = self.store.encrypted("one", "tenant-one")
        original, path = self.image(folder)
        _, deleted = self.image(folder, "deleted")
        descriptors = [self.assertHot(self.heated(image)) for image in (path, deleted)]
        os.unlink(deleted)
        reader = subprocess.Popen([sys.executable, "-c", MAPPED_READER, str(path)], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        self.addCleanup(reader.stdin.close)
        self.addCleanup(reader.stdout.close)
        self.assertEqual(reader.stdout.readline(), "mapped\n")
        rekeyfs("key", "disable", "tenant-one", self.mnt, "--force")
        self.assertErrno(errno.EKEYREVOKED, os.open, path, os.O_RDONLY)
        # The command waits for the copies in memory, but not for long, however busy the machine is.
        wait_until(lambda: all(self.is_cut_off(descriptor) for descriptor in descriptors), 2, "the hot images being cut off")
        wait_until(lambda: self.memory() == 0, 5, "the memory being given back")
        reader.stdin.write("\n")
        reader.stdin.flush()
        self.assertEqual(reader.wait(timeout=20), -signal.SIGBUS)
        rekeyfs("key", "enable", "tenant-one", self.mnt)
        self.assertSame(original, path)
        self.assertErrno(errno.EIO, os.pread, descriptors[0], 4 * KIB, 0)
        run("ls", "-l", folder)
        self.heated(path)
        self.assertHot(path)
        self.assertSame(original, path)

    def test_a_mount_taken_away(self):
        _, path = self.image(self.store.encrypted("one", "tenant-one"))
        hot = self.assertHot(self.heated(path))
        self.store.process.send_signal(signal.SIGTERM)
        self.store.process.wait(timeout=30)
        self.store.process = None
        with self.assertRaises(OSError):
            os.pread(hot, 4 * KIB, 0)


@needs_hot_images
class Memory(HotTest):
    mount_arguments = ("-o", "hot=20M,hot_idle=6")

    def test_bounded_and_given_back(self):
        folder = self.store.encrypted("one", "tenant-one")
        pairs = [self.full_image(folder, f"image{number}", 8 * MIB) for number in range(3)]
        large = self.full_image(folder, "large", 24 * MIB)
        paths = [path for _, path in pairs]
        held = [self.assertHot(self.heated(path)) for path in paths[:2]]
        self.assertEqual(self.memory(), 16 * MIB)
        self.store.wait_normal(paths[2])
        self.heat(paths[2], makes=False)  # the others are in use
        self.heat(large[1], makes=False)
        for original, path in [*pairs, large]:
            self.assertSame(original, path)
        self.assertEqual(self.memory(), 16 * MIB)
        self.close(held[0])
        wait_until(lambda: self.made_hot(paths[2]), 20, "the one out of use making room")
        self.assertNotIn("it is not open", self.store.log())  # nor was it time yet
        self.assertEqual(self.memory(), 16 * MIB)
        self.assertHot(paths[1])
        self.assertSame(*pairs[2])
        self.assertSame(*pairs[0])
        self.close_all()
        wait_until(lambda: self.memory() == 0, 15, "the memory being given back")
        for original, path in pairs:
            self.assertSame(original, path)

    def full_image(self, folder, name, size):
        """One without holes."""
        original = self.store.scratch / name
        original.write_bytes(random.Random(name).randbytes(size))
        run("cp", original, folder / name)
        return original, folder / name

    def made_hot(self, path):
        os.close(os.open(path, os.O_RDONLY))
        return self.times_hot(path) > 0


class Without(unittest.TestCase):
    """Where there can be no hot images everything else is as ever."""

    @needs_root
    def test_users_other_than_root(self):
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
            os.chown(folder, NOBODY, NOBODY)
            store, mnt, key = (Path(folder) / name for name in ("store", "mnt", "key"))
            run("mkdir", mnt, uid=NOBODY)
            rekeyfs("init", store, "--key-file", key, uid=NOBODY)
            done = rekeyfs("mount", store, mnt, "--key-file", key, "-o", "hot=1G", uid=NOBODY, check=False)
            self.assertEqual(done.returncode, EXIT_USAGE)
            self.assertIn("the mount option hot needs root", done.stderr)

    @needs_root
    def test_root_without_the_privilege(self):
        store = MountedStore()
        self.addCleanup(store.close)
        original = store.original("image", MIB)
        run("cp", original, store.mnt / "image")
        store.umount()
        done = run("unshare", "--user", "--map-root-user", "--mount", "sh", "-ec",
                   '"$1" mount "$2" "$3" --key-file "$4" -o "hot=1G,log=$5"; '
                   'for i in 1 2 3; do cmp "$3/image" "$6"; sleep 0.2; done; "$1" umount "$3"',
                   "sh", REKEYFS, store.store, store.mnt, store.key_file, store.log_file, original, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the option hot has no effect", store.log())
        store.mount()


if __name__ == "__main__":
    unittest.main()
