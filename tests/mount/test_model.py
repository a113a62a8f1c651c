#!/usr/bin/env python3
"""Random operations on a mount, compared with a model of files in memory.

Everything a program can do to images is drawn at random: writes, truncations, holes, copies between keys, names,
mappings, umount and mount, kill -9 of the daemon. What was acknowledged must be there, a hole must read zero, and in
the end everything becomes normal, outlives its sources, and leaves nothing of itself behind.

REKEYFS_TEST_SEED repeats a run, REKEYFS_TEST_MODEL_STEPS lengthens it (or: test_model.py --seed N --steps N).
"""
import collections
import errno
import hashlib
import mmap
import os
import random
import sys
import threading
import time
import unittest

from harness import TestCase, attribute, attribute_or_none, rekeyfs, run, wait_until
from images import KIB, MIB
from syscalls import (FALLOC_KEEP_SIZE, FALLOC_ZERO_RANGE, RENAME_EXCHANGE, RENAME_NOREPLACE, fallocate, punch_hole,
                      renameat2)

BLOCK = 16 * KIB
PAGE = 4096
MOST = 3 * MIB  # bytes of an image, nearly
FOLDERS = {"plain": "", "plain-2": "", "a": "key-a", "a-2": "key-a", "b": "key-b", "turning": ""}
NAMES = [f"image-{number}" for number in range(6)]
SECRET = b"REKEYFS-MODEL-SECRET"  # in what is encrypted all its life
PUBLIC = b"REKEYFS-MODEL-PUBLIC"  # in one plain image, to see that the search finds


class File:
    """An image of the model; its names and handles share it."""

    def __init__(self, key, secret):
        self.content = bytearray()
        self.key = key            # alias, empty for plain
        self.secret = secret      # holds SECRET and must not be copied to plain
        self.may_be_busy = False  # was a replica of another key, and has not been seen normal since
        self.copied_from = None
        self.note = None          # user.note


class Handle:
    def __init__(self, fd, file):
        self.fd, self.file = fd, file


class Bystander(threading.Thread):
    """Reads what is there all the time, so that copy-on-read, the filler and the writers meet. What it reads is not
    compared, but no read may fail. `with bystander:` it has nothing open."""

    def __init__(self, folders, seed):
        super().__init__(daemon=True)
        self.folders, self.rng = folders, random.Random(seed)
        self.between, self.stopping, self.failure = threading.Lock(), False, None
        self.daemon_dies = False  # from before it is killed until its store is mounted again: reads fail, in many ways
        self.images = self.bytes = 0

    def __enter__(self):
        self.between.acquire()

    def __exit__(self, *_):
        self.between.release()

    def run(self):
        while not self.stopping and not self.failure:
            with self.between:
                try:
                    self.read_one()
                except (FileNotFoundError, IndexError):
                    pass  # nothing there, or not any more
                except OSError as error:
                    if not self.daemon_dies:
                        self.failure = error
            time.sleep(0.001)

    def read_one(self):
        folder = self.rng.choice(self.folders)
        fd = os.open(folder / self.rng.choice(os.listdir(folder)), os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(fd).st_size
            for _ in range(self.rng.randrange(1, 5)):
                self.bytes += len(os.pread(fd, self.rng.choice((PAGE, 100_000, MIB)), self.rng.randrange(size + 1)))
            self.images += 1
        finally:
            os.close(fd)

    def stop(self):
        self.stopping = True
        if self.is_alive():
            self.join(30)
        if self.failure:
            raise AssertionError(f"a read beside the test failed: {self.failure}")


class Folder:
    def __init__(self, name, key):
        self.name, self.key, self.files = name, key, {}


class Model(TestCase):
    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("REKEYFS_TEST_SEED") or random.randrange(1 << 32))
        self.steps = int(os.environ.get("REKEYFS_TEST_MODEL_STEPS") or 15000)
        self.rng = random.Random(self.seed)
        self.handles, self.history, self.counts = [], collections.deque(maxlen=40), collections.Counter()
        self.addCleanup(self.close_handles)
        self.bystander = Bystander([self.mnt / name for name in FOLDERS], self.seed)
        self.addCleanup(self.bystander.stop)
        for alias in ("key-a", "key-b"):
            self.store.key(alias)
        self.folders = [Folder(name, key) for name, key in FOLDERS.items()]
        self.turning = self.folders[-1]  # its policy changes now and then
        for folder in self.folders:
            self.store.policy(folder.name, folder.key) if folder.key else self.store.plain(folder.name)

    def test_random_operations(self):
        print(f"REKEYFS_TEST_SEED={self.seed} REKEYFS_TEST_MODEL_STEPS={self.steps}", flush=True)
        self.bystander.start()
        step = 0
        try:
            for step in range(self.steps):
                self.rng = random.Random(f"{self.seed} {step}")  # what one step draws does not depend on timing
                self.step()
                if step % 250 == 249:
                    self.verify_all()
            self.finish()
        except BaseException as error:
            recent = "\n  ".join(self.history)
            error.add_note(f"REKEYFS_TEST_SEED={self.seed}, operation {step}; the latest:\n  {recent}")
            raise
        print(" ".join(f"{name}:{count}" for name, count in sorted(self.counts.items())))
        print(f"read beside: {self.bystander.images} images, {self.bystander.bytes >> 20} MiB")

    # What is drawn.

    def chance(self, percent):
        return self.rng.randrange(100) < percent

    def length(self):
        return self.rng.choice((self.rng.randrange(1, 300), BLOCK * self.rng.randrange(1, 7),
                                self.rng.randrange(1, 5 * BLOCK), self.rng.choice((1, PAGE - 1, PAGE, BLOCK - 1, BLOCK + 1))))

    def image_size(self):
        drawn = self.rng.randrange(100)
        if drawn < 8:
            return 0
        if drawn < 30:
            return self.rng.randrange(1, 3 * BLOCK)
        if drawn < 80:
            return max(0, BLOCK * self.rng.randrange(1, 24) + self.rng.choice((0, 0, -1, 1, 511, -4096)))
        return self.rng.randrange(MIB) if drawn < 95 else self.rng.randrange(MOST)

    def offset(self, end):
        """Up to `end`, often at a block's border or next to one."""
        offset = self.rng.randrange(end + 1)
        if self.chance(60):
            offset = offset // BLOCK * BLOCK + self.rng.choice((0, 0, 0, -1, 1))
        return min(max(0, offset), end)

    def data(self, size, secret):
        if self.chance(12):
            return bytes(size)
        data = bytearray(self.rng.randbytes(size))
        if size > 40_000 and self.chance(30):
            start = self.rng.randrange(size // 2)
            data[start:start + size // 3] = bytes(size // 3)
        if secret:
            for at in range(0, size - len(SECRET), PAGE):
                data[at:at + len(SECRET)] = SECRET
        return bytes(data)

    def any_file(self, where=lambda folder, file: True):
        """(folder, name, file), or three times None."""
        there = [(folder, name, file) for folder in self.folders for name, file in folder.files.items()
                 if where(folder, file)]
        return self.rng.choice(there) if there else (None, None, None)

    def links(self, file):
        return sum(other is file for folder in self.folders for other in folder.files.values())

    def path(self, folder, name):
        return self.mnt / folder.name / name

    def open(self, folder, name, flags=os.O_RDWR):
        return Handle(os.open(self.path(folder, name), flags), folder.files[name])

    def any_handle(self):
        """One that has been open for long, or a fresh one; None if there is no image."""
        if self.handles and self.chance(30):
            return self.handles.pop(self.rng.randrange(len(self.handles)))
        folder, name, file = self.any_file()
        return self.open(folder, name) if file else None

    def give_back(self, handle):
        if len(self.handles) < 5 and self.chance(20):
            self.handles.append(handle)
        else:
            os.close(handle.fd)

    def close_handles(self):
        while self.handles:
            try:
                os.close(self.handles.pop().fd)
            except OSError:
                pass  # the daemon was killed

    # Comparing.

    def note(self, what):
        self.history.append(what)

    def compare(self, fd, file, what, direct=False):
        self.assertEqual(os.fstat(fd).st_size, len(file.content), f"size, {what}")
        if direct:
            got = self.read_direct(fd, len(file.content))
        else:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            got = os.pread(fd, len(file.content) + 100, 0)
        if got != file.content:
            at = next((i for i, (a, b) in enumerate(zip(got, file.content)) if a != b), min(len(got), len(file.content)))
            self.fail(f"{what}: byte {at} (block {at // BLOCK}) of {len(file.content)} is wrong, or only {len(got)} came: "
                      f"{bytes(got[at:at + 16]).hex()}, not {bytes(file.content[at:at + 16]).hex()}")

    def read_direct(self, fd, size):
        with mmap.mmap(-1, max(PAGE, (size + PAGE - 1) // PAGE * PAGE)) as buffer:
            direct = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_DIRECT)
            try:
                got = os.preadv(direct, [buffer], 0)
            finally:
                os.close(direct)
            return bytes(buffer[:got])

    def compare_holes(self, fd, file, what):
        """A hole reads zero, and what is no hole is found by SEEK_DATA."""
        position = self.offset(len(file.content))
        for _ in range(20):
            if position >= len(file.content):
                return
            try:
                data = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                self.assertEqual(error.errno, errno.ENXIO, what)
                data = len(file.content)
            self.assertEqual(file.content[position:data].strip(b"\0"), b"", f"{what}: a hole at {position} has bytes")
            if data == len(file.content):
                return
            position = os.lseek(fd, data, os.SEEK_HOLE)
            self.assertGreater(position, data, what)
            self.assertLessEqual(position, len(file.content), what)

    def verify_all(self):
        for folder in self.folders:
            self.assertEqual(set(os.listdir(self.mnt / folder.name)), set(folder.files), folder.name)
            for name, file in folder.files.items():
                what, path = f"{folder.name}/{name}", self.path(folder, name)
                handle = self.open(folder, name, os.O_RDONLY)
                self.compare(handle.fd, file, what)
                self.compare_holes(handle.fd, file, what)
                os.close(handle.fd)
                self.assertEqual(self.value(path, "key"), file.key, what)
                self.assertEqual(attribute(path, "encryption"), "kms" if file.key else "none", what)
                self.assertNotEqual(attribute(path, "status"), "error", f"{what}: {attribute_or_none(path, 'error')}")
                self.assertEqual(self.user_note(path), file.note, what)
                self.assertEqual(os.stat(path).st_nlink, self.links(file), what)
        for handle in self.handles:
            self.compare(handle.fd, handle.file, "an open handle")

    def value(self, path, name):
        try:
            return attribute(path, name)
        except OSError as error:
            self.assertEqual(error.errno, errno.ENODATA)
            return ""

    def user_note(self, path):
        try:
            return os.getxattr(path, "user.note")
        except OSError as error:
            self.assertEqual(error.errno, errno.ENODATA)
            return None

    # Operations.

    def step(self):
        choices = {self.create: 10, self.write: 24, self.append: 4, self.truncate: 10, self.zero: 9, self.copy_whole: 14,
                   self.copy_by_cp: 2, self.copy_in_pieces: 6, self.copy_part: 8, self.unlink: 5, self.rename: 6, self.link: 2,
                   self.read: 6, self.map: 4, self.direct_write: 3, self.truncating_open: 3, self.sync: 3, self.annotate: 2,
                   self.turn: 1, self.remount: 0.5, self.kill: 0.8}
        operation = self.rng.choices(list(choices), list(choices.values()))[0]
        self.counts[operation.__name__] += 1
        self.note(operation.__name__)
        operation()

    def create(self):
        folder, name = self.rng.choice(self.folders), self.rng.choice(NAMES)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        if name in folder.files:
            return self.assertErrno(errno.EEXIST, os.open, self.path(folder, name), flags)
        file = folder.files[name] = File(folder.key, bool(folder.key) and self.chance(30))
        self.note(f"  {folder.name}/{name}")
        handle = Handle(os.open(self.path(folder, name), flags, 0o600), file)
        if size := self.image_size():
            self.write_to(handle, 0, self.data(size, file.secret))
        self.give_back(handle)

    def write_to(self, handle, offset, data):
        self.note(f"  write {len(data)} at {offset} of {len(handle.file.content)}")
        self.assertEqual(os.pwrite(handle.fd, data, offset), len(data))
        self.overlay(handle.file, offset, data)

    def overlay(self, file, offset, data):
        file.content.extend(bytes(max(0, offset + len(data) - len(file.content))))
        file.content[offset:offset + len(data)] = data

    def write(self):
        if not (handle := self.any_handle()):
            return
        size = len(handle.file.content)
        offset = min(MOST, size + self.length()) if self.chance(15) else self.offset(size)
        self.write_to(handle, offset, self.data(self.length(), handle.file.secret))
        if self.chance(25):
            self.compare(handle.fd, handle.file, "after a write", direct=self.chance(50))
        self.give_back(handle)

    def append(self):
        folder, name, file = self.any_file()
        if not file or len(file.content) > MOST:
            return
        handle = self.open(folder, name, os.O_WRONLY | os.O_APPEND)
        data = self.data(self.length(), file.secret)
        self.assertEqual(os.write(handle.fd, data), len(data))
        file.content.extend(data)
        os.close(handle.fd)

    def resized(self, file, size):
        del file.content[size:]
        file.content.extend(bytes(size - len(file.content)))

    def truncate(self):
        if not (handle := self.any_handle()):
            return
        size = len(handle.file.content)
        new = 0 if self.chance(10) else self.offset(size) if self.chance(60) else min(MOST, size + self.length())
        self.note(f"  truncate {size} to {new}")
        os.ftruncate(handle.fd, new)
        self.resized(handle.file, new)
        if self.chance(40):
            self.compare(handle.fd, handle.file, "after a truncation")
        self.give_back(handle)

    def zero(self):
        if not (handle := self.any_handle()):
            return
        file, what = handle.file, self.rng.choice(("punch", "zero", "zero and keep the size", "reserve"))
        offset, size = self.offset(len(file.content)), self.length()
        self.note(f"  {what} {size} at {offset} of {len(file.content)}")
        if what == "punch":
            punch_hole(handle.fd, offset, size)
        else:
            mode = {"zero": FALLOC_ZERO_RANGE, "reserve": 0}.get(what, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE)
            fallocate(handle.fd, mode, offset, size)
        if what in ("zero", "reserve"):
            self.resized(file, max(len(file.content), offset + size))
        if what != "reserve":
            end = max(offset, min(len(file.content), offset + size))
            file.content[offset:end] = bytes(end - offset)
        if self.chance(40):
            self.compare(handle.fd, file, f"after {what}")
        self.compare_holes(handle.fd, file, f"after {what}")
        self.give_back(handle)

    # Copies.

    def draw_copy(self):
        """A source and a place for its copy: (folder, name, file, target folder, target name), or None."""
        folder, name, file = self.any_file()
        if not file:
            return None
        to = self.rng.choice([each for each in self.folders if each.key or not file.secret])
        target = self.rng.choice(NAMES)
        there = to.files.get(target)
        if there is file or there and any(handle.file is there for handle in self.handles):
            return None
        self.note(f"  {folder.name}/{name} ({len(file.content)}) to {to.name}/{target}")
        return folder, name, file, to, target

    def copied(self, to, target, file, content):
        """The model's side of a copy of (a part of) `file`."""
        there = to.files.setdefault(target, File(to.key, file.secret))
        # New content follows the directory's policy of today, but does not become plain by that.
        there.key, there.secret = to.key or there.key, file.secret
        there.content = bytearray(content)
        there.copied_from, there.may_be_busy = file, there.key != file.key
        return there

    def may_refuse(self, file):
        return file.may_be_busy or any(handle.file is file for handle in self.handles)

    def refused(self, folder, name, file, error):
        self.assertEqual(error.errno, errno.EBUSY, error)
        self.assertTrue(self.may_refuse(file), f"{folder.name}/{name} was refused without a reason: {error}")
        self.counts["(refused)"] += 1

    def copy_whole(self):
        """As cp does it; then something is done to the source."""
        if not (drawn := self.draw_copy()):
            return
        folder, name, file, to, target = drawn
        source = self.open(folder, name, os.O_RDONLY)
        fd = os.open(self.path(to, target), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        done = None
        try:
            done = 0
            while step := os.copy_file_range(source.fd, fd, 1 << 30):
                done += step
        except OSError as error:
            self.refused(folder, name, file, error)
            done = None
        os.close(fd)
        os.close(source.fd)
        if done is None:  # a new target is gone, an old one is as it was
            return self.assertEqual(self.path(to, target).exists(), target in to.files)
        self.assertEqual(done, len(file.content))
        there = self.copied(to, target, file, file.content)
        self.after_copy(folder, name, file, to, target, there)

    def copy_by_cp(self):
        if not (drawn := self.draw_copy()):
            return
        folder, name, file, to, target = drawn
        done = run("cp", self.path(folder, name), self.path(to, target), check=False)
        if done.returncode:
            self.assertIn("busy", done.stderr)
            self.assertTrue(self.may_refuse(file), done.stderr)
            return self.assertEqual(self.path(to, target).exists(), target in to.files)
        there = self.copied(to, target, file, file.content)
        self.after_copy(folder, name, file, to, target, there)

    def after_copy(self, folder, name, file, to, target, there):
        what = self.rng.choices(("nothing", "read", "write", "truncate", "unlink", "rename", "write the copy", "replace",
                                 "kill"), (10, 10, 10, 10, 10, 10, 10, 10, 2))[0]
        self.note(f"  then {what}")
        if what == "kill":
            self.kill()
        elif what == "read":
            handle = self.open(to, target, os.O_RDONLY)
            self.compare(handle.fd, there, "a copy", direct=self.chance(50))
            os.close(handle.fd)
        elif what in ("write", "write the copy", "truncate"):
            handle = self.open(to, target) if what == "write the copy" else self.open(folder, name)
            if what == "truncate":
                size = self.offset(len(file.content))
                os.ftruncate(handle.fd, size)
                self.resized(file, size)
            else:
                self.write_to(handle, self.offset(len(handle.file.content)), self.data(self.length(), handle.file.secret))
            os.close(handle.fd)
        elif what == "unlink":
            os.unlink(self.path(folder, name))
            del folder.files[name]
        elif what == "rename":
            free = [each for each in NAMES if each not in folder.files]
            if free:
                os.rename(self.path(folder, name), self.path(folder, free[0]))
                folder.files[free[0]] = folder.files.pop(name)
        elif what == "replace" and folder.key == to.key and folder is not to and self.turning not in (folder, to):
            # The copy takes its source's place.
            os.rename(self.path(to, target), self.path(folder, name))
            folder.files[name] = to.files.pop(target)
            self.replaced(folder, file, folder.files[name])

    def copy_in_pieces(self):
        """As tools that ask extent by extent; the source may change meanwhile, which the copy does not see."""
        if not (drawn := self.draw_copy()):
            return
        folder, name, file, to, target = drawn
        if not file.content:
            return
        source = self.open(folder, name)
        fd = os.open(self.path(to, target), os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        frozen, there = bytes(file.content), None
        pieces, at = [], 0
        while at < len(frozen):
            size = min(len(frozen) - at, self.length())
            if self.chance(92):
                pieces.append((at, size))
            at += size + (0 if self.chance(90) else self.length())
        if self.chance(30):
            self.rng.shuffle(pieces)
        pieces = pieces or [(0, len(frozen))]
        try:
            for at, size in pieces:
                self.note(f"  piece of {size} at {at}")
                self.assertEqual(os.copy_file_range(source.fd, fd, size, at, at), size)
                there = there or self.copied(to, target, file, b"")
                self.overlay(there, at, frozen[at:at + size])
                if self.chance(15):
                    self.write_to(source, self.offset(len(file.content)), self.data(self.length(), file.secret))
                if self.chance(15):
                    self.compare(fd, there, "between pieces")
        except OSError as error:
            self.assertIsNone(there, f"a later piece was refused: {error}")
            self.refused(folder, name, file, error)
        os.close(fd)
        os.close(source.fd)
        if there:
            handle = self.open(to, target, os.O_RDONLY)
            self.compare(handle.fd, there, "after a copy in pieces")
            os.close(handle.fd)

    def copy_part(self):
        """To another place, or into an image with content of its own."""
        folder, name, file = self.any_file(lambda folder, file: file.content)
        if not file:
            return
        to, target, there = self.any_file(lambda to, there: there is not file and (there.key or not file.secret))
        if not there:
            return
        source, handle = self.open(folder, name, os.O_RDONLY), self.open(to, target)
        offset, at, size = self.offset(len(file.content) - 1), self.offset(min(MOST, len(there.content))), self.length()
        if self.chance(20):
            at = offset
        self.note(f"  {folder.name}/{name} from {offset} to {to.name}/{target} at {at}, {size} bytes")
        try:
            done = os.copy_file_range(source.fd, handle.fd, size, offset, at)
        except OSError as error:
            self.refused(folder, name, file, error)
        else:
            self.assertEqual(done, min(size, len(file.content) - offset))
            if not any(there.content) and at == offset:  # it had nothing but holes, and may have become a replica
                there.copied_from, there.may_be_busy = file, there.key != file.key
            self.overlay(there, at, file.content[offset:offset + done])
            there.secret |= file.secret
            self.compare(handle.fd, there, "after copying a part")
        os.close(source.fd)
        os.close(handle.fd)

    # Names.

    def unlink(self):
        folder, name, file = self.any_file()
        if file:
            os.unlink(self.path(folder, name))
            del folder.files[name]

    def rename(self):
        folder, name, file = self.any_file()
        if not file:
            return
        to, target = self.rng.choice(self.folders), self.rng.choice(NAMES)
        there = to.files.get(target)
        flags = self.rng.choice((0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
        paths = self.path(folder, name), self.path(to, target)
        self.note(f"  {folder.name}/{name} to {to.name}/{target}, flags {flags}")
        if there and flags == RENAME_NOREPLACE:
            return self.assertErrno(errno.EEXIST, renameat2, *paths, flags)
        if not there and flags == RENAME_EXCHANGE:
            return self.assertErrno(errno.ENOENT, renameat2, *paths, flags)
        if there is file:
            return renameat2(*paths, flags)
        if folder.key != to.key:
            return self.assertErrno(errno.EXDEV, renameat2, *paths, flags)
        if folder is not to and self.turning in (folder, to) and (self.links(file) > 1 or there and self.links(there) > 1):
            return  # names under two policies, once it turns: which one new content follows is not said
        renameat2(*paths, flags)
        if flags == RENAME_EXCHANGE:
            folder.files[name], to.files[target] = there, file
            return
        del folder.files[name]
        to.files[target] = file
        self.replaced(to, there, file)

    def replaced(self, folder, before, file):
        """What replaces encrypted content is encrypted."""
        if before and before.key and not file.key:
            file.key, file.may_be_busy = folder.key or before.key, True

    def link(self):
        folder, name, file = self.any_file()
        if not file:
            return
        to, target = self.rng.choice(self.folders), self.rng.choice(NAMES)
        paths = self.path(folder, name), self.path(to, target)
        if target in to.files:
            self.assertErrno(errno.EEXIST, os.link, *paths)
        elif folder.key != to.key:
            self.assertErrno(errno.EXDEV, os.link, *paths)
        elif self.turning not in (folder, to):
            os.link(*paths)
            to.files[target] = file

    def annotate(self):
        folder, name, file = self.any_file()
        if file:
            file.note = self.rng.randbytes(self.rng.randrange(1, 200))
            os.setxattr(self.path(folder, name), "user.note", file.note)

    def turn(self):
        """Another policy for a directory; what is in it stays as it is."""
        folder = self.turning
        folder.key = self.rng.choice([key for key in ("", "key-a", "key-b") if key != folder.key])
        path = self.mnt / folder.name
        if folder.key:
            os.setxattr(path, "user.rekeyfs.key", folder.key.encode())
        else:
            os.removexattr(path, "user.rekeyfs.key")

    # Reading, syncing, mapping.

    def read(self):
        if not (handle := self.any_handle()):
            return
        content = handle.file.content
        if self.chance(50):
            self.compare(handle.fd, handle.file, "read", direct=True)
        else:
            os.posix_fadvise(handle.fd, 0, 0, os.POSIX_FADV_DONTNEED)
            offset, size = self.offset(len(content) + BLOCK), self.length()
            self.assertEqual(os.pread(handle.fd, size, offset), bytes(content[offset:offset + size]), f"{size} at {offset}")
        self.compare_holes(handle.fd, handle.file, "read")
        self.give_back(handle)

    def sync(self):
        if handle := self.any_handle():
            self.rng.choice((os.fsync, os.fdatasync))(handle.fd)
            self.give_back(handle)

    def map(self):
        if not (handle := self.any_handle()):
            return
        file = handle.file
        if file.content:
            with mmap.mmap(handle.fd, len(file.content)) as mapping:
                for _ in range(self.rng.randrange(1, 4)):
                    at = self.offset(len(file.content) - 1)
                    data = self.data(min(self.length(), len(file.content) - at), file.secret)
                    mapping[at:at + len(data)] = data
                    self.overlay(file, at, data)
                mapping.flush()
                self.assertEqual(mapping[:], bytes(file.content))
        self.give_back(handle)

    def direct_write(self):
        folder, name, file = self.any_file()
        if not file:
            return
        fd = os.open(self.path(folder, name), os.O_RDWR | os.O_DIRECT)
        size = PAGE * self.rng.randrange(1, 20)
        offset = self.offset(min(MOST, len(file.content))) // PAGE * PAGE
        data = self.data(size, file.secret)
        with mmap.mmap(-1, size) as buffer:
            buffer[:] = data
            self.assertEqual(os.pwrite(fd, buffer, offset), size)
        self.overlay(file, offset, data)
        os.close(fd)

    def truncating_open(self):
        folder, name, file = self.any_file()
        if not file or any(handle.file is file for handle in self.handles):
            return
        handle = self.open(folder, name, os.O_RDWR | os.O_TRUNC)
        file.content.clear()
        self.compare(handle.fd, file, "after O_TRUNC")
        file.key = folder.key or file.key  # new content follows the directory's policy of today, but does not become plain
        if self.chance(70):
            self.write_to(handle, self.offset(3 * BLOCK), self.data(self.length(), file.secret))
        os.close(handle.fd)

    # The life of the mount.

    def remount(self):
        self.close_handles()
        with self.bystander:
            self.store.remount()
        self.after_mount()

    def kill(self):
        self.kill_and_mount()
        if self.chance(20):  # and again before anything was asked
            self.kill_and_mount()
        self.after_mount()

    def kill_and_mount(self):
        self.bystander.daemon_dies = True
        self.store.kill9()
        self.close_handles()
        with self.bystander:
            self.store.mount()
            self.bystander.daemon_dies = False

    def after_mount(self):
        if self.chance(40):
            self.verify_all()

    # The end.

    def everyone(self):
        return [(folder, name, file) for folder in self.folders for name, file in folder.files.items()]

    def finish(self):
        self.note("the end")
        self.close_handles()
        self.bystander.stop()
        self.verify_all()
        rekeyfs("status", "--wait", self.mnt)
        for folder, name, file in self.everyone():
            path = self.path(folder, name)
            wait_until(lambda: self.value(path, "digest"), 20, f"the digest of {folder.name}/{name}")
            self.assertEqual(attribute(path, "digest"), hashlib.sha256(file.content).hexdigest(), f"{folder.name}/{name}")
            self.assertEqual(attribute(path, "status"), "normal", f"{folder.name}/{name}")
            file.may_be_busy = False
        self.verify_all()
        self.finish_without_sources()
        self.finish_secrets()
        self.finish_empty()

    def finish_without_sources(self):
        # Copies of everything that is left, too.
        for folder, name, file in self.everyone():
            if file.secret or self.chance(50):
                continue
            to = self.rng.choice(self.folders)
            run("cp", self.path(folder, name), self.path(to, f"copy-of-{folder.name}-{name}"))
            self.copied(to, f"copy-of-{folder.name}-{name}", file, file.content)
        sources = {id(file.copied_from) for _, _, file in self.everyone()}
        for folder, name, file in self.everyone():
            if id(file) in sources:
                os.unlink(self.path(folder, name))
                del folder.files[name]
        self.verify_all()
        rekeyfs("status", "--wait", self.mnt)
        self.verify_all()
        self.store.remount()
        self.verify_all()

    def finish_secrets(self):
        """Nothing of what was always encrypted lies in the store as it is."""
        folder = self.folders[0]
        file = folder.files["public"] = File("", False)
        with open(self.path(folder, "public"), "wb") as public:
            public.write(PUBLIC * 1000)
        file.content.extend(PUBLIC * 1000)
        self.store.umount()
        found = {marker: self.store_holds(marker) for marker in (SECRET, PUBLIC)}
        self.assertTrue(found[PUBLIC], "the search finds nothing at all")
        self.assertEqual(found[SECRET], [])
        self.store.mount()
        self.verify_all()

    def store_holds(self, marker):
        return [str(path) for path in sorted(self.store.store.rglob("*")) if path.is_file() and marker in path.read_bytes()]

    def finish_empty(self):
        """Of images that are deleted no file stays."""
        for folder, name, _ in self.everyone():
            os.unlink(self.path(folder, name))
        self.store.umount()
        left = [str(path) for path in (self.store.store / "layers").rglob("*") if path.is_file()]
        self.assertEqual(left, [])
        self.store.mount()
        for folder in self.folders:
            self.assertEqual(os.listdir(self.mnt / folder.name), [])


def take_options(arguments):
    """--seed and --steps, anywhere among unittest's own arguments."""
    for option, variable in (("--seed", "REKEYFS_TEST_SEED"), ("--steps", "REKEYFS_TEST_MODEL_STEPS")):
        if option in arguments:
            at = arguments.index(option)
            os.environ[variable] = arguments[at + 1]
            del arguments[at:at + 2]


if __name__ == "__main__":
    take_options(sys.argv)
    unittest.main()
