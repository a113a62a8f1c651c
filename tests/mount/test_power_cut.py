#!/usr/bin/env python3
"""Power cuts under the whole program: a store on a file system on a disk whose unsynced writes are lost.

A workload runs through a real mount, on a disk that logs each write and flush, LMDB's and the file system's own included.
Then disks are made as cuts would have left them: at a flush, and after it with a part of what followed, torn pieces too.
On each of them the file system is mounted, then the store, within five seconds. What was synced is there, all else is as
it was at some time since, replications end.

REKEYFS_TEST_CUTS=0 cuts at every flush, both ways; else at so many places. REKEYFS_TEST_CUT_STEPS lengthens the workload,
REKEYFS_TEST_SEED repeats it.
"""
import errno
import os
import random
import shutil
import sys
import tempfile
import time
import unittest
from pathlib import Path

import logged_disk
from harness import CommandFailed, MountedStore, attribute, attribute_or_none, longest_opening, rekeyfs, run
from images import MIB

BLOCK, PAGE = 16 << 10, 4 << 10
MOST = 8 * BLOCK
DISK = 320 * MIB
FOLDERS = {"plain": None, "a": "key-a", "b": "key-b"}


class Timeline:
    """Values of one thing, each with the place in the disk's log where it came to be."""

    def __init__(self, flushed, value):
        self.values = [(flushed, value)]
        self.synced = []  # (place in the log, how many values there were)

    def add(self, begun, value):
        """`begun`: the log's place before the call that made it so."""
        self.values.append((begun, value))

    @property
    def latest(self):
        return self.values[-1][1]

    def sync(self, flushed):
        self.synced.append((flushed, len(self.values)))

    def possible(self, cut):
        """What may be there after the cut: the last that was synced, and all later ones that had been begun."""
        first = max((count for flushed, count in self.synced if flushed <= cut.flush), default=1) - 1
        return [value for begun, value in self.values[first:] if begun <= cut.end]


class Workload:
    """Seeded changes of a mounted store, and what must be there of them after a cut."""

    def __init__(self, store, disk, dice):
        self.store, self.disk, self.dice = store, disk, dice
        self.contents = {}  # image id: Timeline of bytes
        self.done = {}      # calls by name
        for folder, key in FOLDERS.items():
            self.store.encrypted(folder, key) if key else self.store.plain(folder)
        run("sync", "--file-system", store.store)  # the store made, all that is in it, and the key file
        self.fsync(store.mnt)
        # {path in the mount: (image id, permissions, comment)}, and {folder: key}
        self.names = Timeline(self.flushed(), {folder: key for folder, key in FOLDERS.items()})
        self.names.sync(self.flushed())
        self.begun = self.flushed()

    def run(self, steps):
        changes = ((14, self.create), (26, self.write), (8, self.truncate), (14, self.replicate), (6, self.unlink),
                   (8, self.rename), (6, self.comment), (4, self.permit), (10, self.sync), (4, self.sync_folder),
                   (3, self.rotate_folder), (3, self.rotate_key), (2, self.rest))
        kinds, weights = [change for _, change in changes], [weight for weight, _ in changes]
        for _ in range(steps):
            change = self.dice.choices(kinds, weights)[0]
            self.begun = self.flushed()
            if change() is not False:
                self.done[change.__name__] = self.done.get(change.__name__, 0) + 1

    def finish(self):
        self.store.umount()
        self.everything_synced()

    # What is known.

    def flushed(self):
        return self.disk.flushed()

    def everything_synced(self):
        flushed = self.flushed()
        for timeline in (self.names, *self.contents.values()):
            timeline.sync(flushed)

    def images(self):
        return [name for name in self.names.latest if name not in FOLDERS]

    def any_image(self):
        return self.dice.choice(self.images()) if self.images() else None

    def path(self, name):
        return self.store.mnt / name

    def content(self, name):
        return self.contents[self.names.latest[name][0]]

    def rename_to(self, **changes):
        """A new state of the names: `changes`, None for what is gone."""
        self.names.add(self.begun, {name: value for name, value in {**self.names.latest, **changes}.items()
                                    if value is not None or name in FOLDERS})

    def describe(self, name):
        path = self.path(name)
        return attribute(path, "id"), path.stat().st_mode & 0o7777, comment_of(path)

    # Changes; False if there was nothing to do.

    def bytes(self, size):
        return self.dice.choice((self.dice.randbytes, bytes))(size) if self.dice.random() < 0.2 else self.dice.randbytes(size)

    def made(self, name, data):
        """A new image, whose name came before its content."""
        identity = self.describe(name)
        self.contents[identity[0]] = Timeline(self.begun, b"")
        self.contents[identity[0]].add(self.begun, data)
        self.rename_to(**{name: identity})

    def new_name(self):
        name = f"{self.dice.choice(list(FOLDERS))}/f{self.dice.randrange(6)}"
        return None if name in self.names.latest else name

    def create(self):
        """An import by cp."""
        name = self.new_name()
        if not name:
            return False
        original = self.store.scratch / "original"
        original.write_bytes(self.bytes(self.dice.choice((100, BLOCK, self.dice.randrange(1, MOST)))))
        run("cp", original, self.path(name))
        self.made(name, original.read_bytes())

    def write(self):
        name = self.any_image()
        if not name:
            return False
        data = self.content(name).latest
        offset = self.dice.randrange(min(MOST, len(data) + BLOCK))
        offset -= offset % BLOCK if self.dice.random() < 0.6 else 0
        new = self.bytes(self.dice.choice((1 + self.dice.randrange(100), BLOCK, 2 * BLOCK + 5)))
        synchronous = self.dice.random() < 0.15
        fd = os.open(self.path(name), os.O_WRONLY | (os.O_DSYNC if synchronous else 0))
        os.pwrite(fd, new, offset)
        os.close(fd)
        # A page that is written in part and not cached is sent by the kernel on its own: the first before the rest, the
        # last after it.
        first, last = min(len(new), -offset % PAGE), (offset + len(new)) % PAGE
        for size in (first, max(first, len(new) - last), len(new)):
            self.content(name).add(self.begun, written(data, offset, new[:size]))
        if synchronous:
            self.synced(name)

    def truncate(self):
        name = self.any_image()
        if not name:
            return False
        data = self.content(name).latest
        size = self.dice.randrange(len(data) + BLOCK)
        os.truncate(self.path(name), size)
        self.content(name).add(self.begun, data[:size].ljust(size, b"\0"))

    def replicate(self):
        """By cp: another key, or a clone; now and then through `rekeyfs replicate`."""
        source, name = self.any_image(), self.new_name()
        if not source or not name:
            return False
        if self.dice.random() < 0.3:
            done = rekeyfs("replicate", self.path(source), self.path(name), check=False)
        else:
            done = run("cp", self.path(source), self.path(name), check=False)
        if done.returncode:  # the source is a replica that is not complete yet
            assert os.strerror(errno.EBUSY) in done.stderr or "replicat" in done.stderr, done.stderr
            return False
        self.made(name, self.content(source).latest)

    def unlink(self):
        name = self.any_image()
        if not name:
            return False
        os.unlink(self.path(name))
        self.rename_to(**{name: None})

    def rename(self):
        name = self.any_image()
        if not name:
            return False
        new = f"{name.split('/')[0]}/f{self.dice.randrange(6)}"
        if new == name:
            return False
        os.rename(self.path(name), self.path(new))
        self.rename_to(**{name: None, new: self.names.latest[name]})

    def comment(self):
        name = self.any_image()
        if not name:
            return False
        os.setxattr(self.path(name), "user.comment", str(self.dice.randrange(1000)).encode())
        self.rename_to(**{name: self.describe(name)})

    def permit(self):
        name = self.any_image()
        if not name:
            return False
        os.chmod(self.path(name), self.dice.choice((0o600, 0o400, 0o700)))
        self.rename_to(**{name: self.describe(name)})

    def rotate_folder(self):
        folder = self.dice.choice(("a", "b"))
        key = self.dice.choice(("key-a", "key-b"))
        if self.names.latest[folder] == key:
            return False
        rekeyfs("rotate", self.path(folder), "--key", key)
        self.rename_to(**{folder: key})

    def rotate_key(self):
        rekeyfs("key", "rotate", self.dice.choice(("key-a", "key-b")), self.store.mnt)

    def rest(self):
        """A checkpoint in the background."""
        time.sleep(3.2)

    def fsync(self, path):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)

    def synced(self, name):
        flushed = self.flushed()
        self.names.sync(flushed)
        self.content(name).sync(flushed)

    def sync(self):
        name = self.any_image()
        if not name:
            return False
        self.fsync(self.path(name))
        self.synced(name)

    def sync_folder(self):
        self.fsync(self.path(self.dice.choice(list(FOLDERS))))
        self.names.sync(self.flushed())


def written(data, offset, new):
    """`data` with `new` written to it."""
    return data[:offset].ljust(offset, b"\0") + new + data[offset + len(new):] if new else data


def comment_of(path):
    try:
        return os.getxattr(path, "user.comment")
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def wrong_block(got, versions):
    """What is wrong with content of which each block and the size may be of any version; None if nothing."""
    sizes = [len(version) for version in versions]
    if not min(sizes) <= len(got) <= max(sizes):
        return f"its size is {len(got)}, not from {min(sizes)} to {max(sizes)}"
    for at in range(0, len(got), BLOCK):
        block = got[at:at + BLOCK]
        if not any(version[at:at + BLOCK][:len(block)].ljust(len(block), b"\0") == block for version in versions):
            return f"block {at // BLOCK} is none of {len(versions)} versions"
    return None


@unittest.skipIf(logged_disk.missing(), logged_disk.missing())
class PowerCut(unittest.TestCase):
    mount_options = ()  # of the file system after a cut
    tears = True        # blocks of 4 KiB

    def setUp(self):
        self.seed = int(os.environ.get("REKEYFS_TEST_SEED") or random.randrange(1 << 30))
        self.dice = random.Random(self.seed)
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-test-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.mounted = self.folder / "mounted"
        self.mounted.mkdir()
        (self.folder / "disk").mkdir()
        self.longest = 0

    def workload(self, *make_filesystem):
        """Runs one to its end; the disk is closed then."""
        disk = logged_disk.LoggedDisk(self.folder / "disk", DISK)
        try:
            run(*make_filesystem, disk.loop.path)
            self.mount_disk(disk.loop.path)
            try:
                workload = self.run_workload(disk)
            finally:
                run("umount", self.mounted)
        finally:
            disk.close()
        return workload

    def mount_disk(self, *arguments):
        try:
            run("mount", *arguments, self.mounted)
        except CommandFailed as failure:
            failure.add_note("the kernel's latest messages:\n" + run("dmesg", check=False).stdout[-2000:])
            raise

    def run_workload(self, disk):
        store = MountedStore(within=self.mounted)
        try:
            workload = Workload(store, disk, self.dice)
            workload.run(int(os.environ.get("REKEYFS_TEST_CUT_STEPS", "80")))
            workload.finish()  # its folder stays on the disk
        except BaseException:
            store.close()
            raise
        self.name = store.folder.name
        return workload

    def cuts(self, log, first, wanted):
        """So many places, or all if 0, in ascending order: from the log's entry `first` on."""
        flushes = [number for number in log.flushes if number + 1 >= first]
        whole = [logged_disk.Cut(number + 1, number + 1, 0) for number in flushes]
        partly = []
        for number, following in zip(flushes, flushes[1:]):
            if following - number > 1:
                end = self.dice.randrange(number + 2, following + 1)
                partly.append(logged_disk.Cut(number + 1, end, self.dice.randrange(1, 100)))
        if wanted:
            whole = self.dice.sample(whole, min(len(whole), wanted // 4)) + whole[-1:]
            partly = self.dice.sample(partly, min(len(partly), wanted - wanted // 4))
        return sorted(whole + partly)

    def verify(self, cut, file, workload):
        loop = logged_disk.LoopDevice(file)
        try:
            self.mount_disk(*self.mount_options, loop.path)
            try:
                self.verify_store(cut, workload)
            finally:
                run("umount", self.mounted)
        finally:
            loop.close()

    def verify_store(self, cut, workload):
        begun = time.monotonic()
        store = MountedStore(within=self.folder, existing=self.mounted / self.name)
        try:
            took = time.monotonic() - begun
            self.longest = max(self.longest, took)
            self.assertLess(took, longest_opening())
            found = self.names_in(store)
            self.assertIn(found, workload.names.possible(cut), "these names were never there together since the last sync")
            self.verify_contents(cut, store, found, workload)
            self.assertEqual(rekeyfs("status", "--wait", store.mnt, check=False).returncode, 0)
            self.assertEqual(self.names_in(store), found)
            self.verify_contents(cut, store, found, workload)
        finally:
            store.close()

    @staticmethod
    def names_in(store):
        found = {folder: attribute_or_none(store.mnt / folder, "key") for folder in FOLDERS}
        for folder in FOLDERS:
            for path in (store.mnt / folder).iterdir():
                found[f"{folder}/{path.name}"] = attribute(path, "id"), path.stat().st_mode & 0o7777, comment_of(path)
        return found

    def verify_contents(self, cut, store, found, workload):
        for name, facts in found.items():
            if name in FOLDERS:
                continue
            self.assertNotEqual(store.status(store.mnt / name), "error", name)
            wrong = wrong_block((store.mnt / name).read_bytes(), workload.contents[facts[0]].possible(cut))
            self.assertIsNone(wrong, f"{name}: {wrong}")

    def cut_everywhere(self, usual_cuts, *make_filesystem):
        workload = self.workload(*make_filesystem)
        log = logged_disk.Log(self.folder / "disk" / "log", DISK, self.tears)
        self.addCleanup(log.close)
        replay = logged_disk.Replay(log, self.folder)
        cuts = self.cuts(log, workload.names.synced[0][0], int(os.environ.get("REKEYFS_TEST_CUTS", usual_cuts)))
        for cut in cuts:
            try:
                self.verify(cut, replay.disk(cut, seed=cut.end), workload)
            except AssertionError as failure:
                failure.add_note(f"{cut}; REKEYFS_TEST_SEED={self.seed}")
                raise
        writes = sum(entry.size > 0 for entry in log.entries)
        print(f"seed {self.seed}: {workload.done}; {writes} writes and {len(log.flushes)} flushes of the disk; "
              f"{len(cuts)} cuts, the longest opening {self.longest:.2f} s", file=sys.stderr)

    def test_on_ext4(self):
        self.cut_everywhere(14, "mkfs.ext4", "-q", "-E", "nodiscard,lazy_itable_init=0", "-J", "size=8")

    @unittest.skipUnless(shutil.which("mkfs.xfs"), "needs mkfs.xfs (package xfsprogs)")
    def test_on_xfs(self):
        self.mount_options = ("-o", "nouuid")  # the one before may still be mounted in a name space of somebody else's
        self.tears = False  # its own recovery passes over a directory's block whose head is new, and finds it damaged then
        self.cut_everywhere(6, "mkfs.xfs", "-q", "-K")


if __name__ == "__main__":
    unittest.main()
