#!/usr/bin/env python3
"""kill -9 of the daemon again and again, at random times, while real tools work in its mount.

Imports, writes, replications, deletions, names, key operations and rotations go on at once, each in a thread that knows
what was acknowledged. After each kill the store is mounted, within five seconds; all that was acknowledged is there, and
what was under way has happened or has not. In the end all replications do, and a check finds nothing wrong.

REKEYFS_TEST_KILL_SECONDS lengthens the run, REKEYFS_TEST_SEED repeats its choices.
"""
import errno
import hashlib
import json
import os
import random
import sys
import threading
import time
import unittest

from harness import CommandFailed, TestCase, attribute, longest_opening, rekeyfs, run, wait_until
from images import KIB, MIB



class Worker:
    """Does one kind of work. `state` is what was acknowledged, `after` what the call under way makes of it."""

    def __init__(self, test, dice):
        self.test, self.store, self.mnt, self.dice = test, test.store, test.mnt, dice
        self.done, self.failure = 0, None
        self.prepare()
        self.state = self.after = self.observe()

    def prepare(self):
        """What the work needs."""

    def step(self):
        """Chooses a change and makes it by self.change()."""
        raise NotImplementedError

    def observe(self):
        """The state, as the mount shows it."""
        raise NotImplementedError

    def tidy(self):
        """Takes away what the call under way has left half done, if it may do so."""

    def change(self, after, call, *arguments):
        self.after = after
        call(*arguments)
        self.state = after
        self.done += 1

    def work(self, killing):
        """Until the daemon is killed."""
        try:
            while not killing.is_set():
                self.step()
        except (OSError, CommandFailed) as failure:
            if not killing.is_set():
                self.failure = failure

    def check(self):
        self.tidy()
        found = self.observe()
        if found not in (self.state, self.after):
            self.test.fail(f"{type(self).__name__}: there is {found}, {self.state} was acknowledged, {self.after} under way")
        self.state = self.after = found


class Files(Worker):
    """The state is {path below the mount: number of the original it equals}."""
    folders = ()
    most = 6
    made = 0

    def observe(self):
        return {f"{folder}/{name}": self.test.original_of(self.mnt / folder / name)
                for folder in self.folders for name in os.listdir(self.mnt / folder)}

    def new(self, folders):
        """A path that never was."""
        self.made += 1
        return f"{self.dice.choice(folders)}/image-{self.made}"

    def unlink(self, path):
        self.change({name: value for name, value in self.state.items() if name != path}, os.unlink, self.mnt / path)

    def in_flight(self):
        return [path for path in self.after if path not in self.state and (self.mnt / path).exists()]


class Importer(Files):
    folders = ("imports", "encrypted-imports")

    def prepare(self):
        self.store.plain("imports")
        self.store.encrypted("encrypted-imports", "imports")

    def step(self):
        if len(self.state) >= self.most:
            return self.unlink(self.dice.choice(list(self.state)))
        path, number = self.new(self.folders), self.dice.randrange(len(self.test.originals))
        self.change({**self.state, path: number}, run, "cp", self.test.originals[number], self.mnt / path)

    def tidy(self):
        for path in self.in_flight():
            whole, got = self.test.originals[self.after[path]].read_bytes(), (self.mnt / path).read_bytes()
            if got != whole:
                self.test.assertTrue(whole.startswith(got), f"{path} is no beginning of what is imported")
                os.unlink(self.mnt / path)


class Replicator(Files):
    folders = ("sources", "replicas-one", "replicas-two")
    most = 9

    def prepare(self):
        self.store.plain("sources")
        self.store.encrypted("replicas-one", "one")
        self.store.encrypted("replicas-two", "two")

    def step(self):
        sources = [path for path in self.state if path.startswith("sources/")]
        if len(self.state) >= self.most:
            return self.unlink(self.dice.choice(list(self.state)))
        if len(sources) < 2:
            path, number = self.new(("sources",)), self.dice.randrange(len(self.test.originals))
            return self.change({**self.state, path: number}, run, "cp", self.test.originals[number], self.mnt / path)
        source, path = self.dice.choice(sources), self.new(self.folders[1:])
        command = ("cp",) if self.dice.random() < 0.7 else (self.test.rekeyfs, "replicate")
        self.change({**self.state, path: self.state[source]}, run, *command, self.mnt / source, self.mnt / path)
        if self.dice.random() < 0.3:
            self.unlink(source)

    def tidy(self):
        for path in self.in_flight():
            if not path.startswith("sources/"):  # all or nothing, once the copy is asked for
                self.test.assertIn(self.test.original_of(self.mnt / path), ("empty", self.after[path]), path)
            if self.test.original_of(self.mnt / path) != self.after[path]:
                os.unlink(self.mnt / path)


class Writer(Worker):
    """The state is the content of one image."""

    def prepare(self):
        self.path = self.store.encrypted("written", "written") / "image"
        self.path.write_bytes(self.dice.randbytes(MIB))

    def observe(self):
        return self.path.read_bytes()

    def step(self):
        with open(self.path, "r+b", buffering=0) as file:
            for _ in range(20):
                if self.dice.random() < 0.1:
                    self.truncate(file)
                else:
                    self.write(file)
                if self.dice.random() < 0.2:
                    os.fsync(file.fileno())

    def write(self, file):
        """The kernel may send it in pieces; then the kill may come between them, and the call tells of fewer bytes."""
        offset = self.dice.randrange(2 * MIB)
        data = self.dice.randbytes(self.dice.choice((100, 4096, 16 * KIB, 200_000)))
        self.after = self.written(offset, data)
        told = os.pwrite(file.fileno(), data, offset)
        self.state = self.written(offset, data[:told])
        if told < len(data):  # the next piece may have been written, and the kill have come before that was told
            raise OSError(errno.ENOTCONN, "cut short")
        self.done += 1

    def written(self, offset, data):
        content = bytearray(self.state.ljust(offset + len(data), b"\0"))
        content[offset:offset + len(data)] = data
        return bytes(content)

    def truncate(self, file):
        size = self.dice.randrange(2 * MIB)
        self.change(self.state[:size].ljust(size, b"\0"), os.ftruncate, file.fileno(), size)

    def check(self):
        """The write under way may be there in part, as on any file system."""
        found = self.observe()
        if found not in (self.state, self.after):
            sizes = sorted((len(self.state), len(self.after)))
            self.test.assertTrue(sizes[0] <= len(found) <= sizes[1], f"{len(found)} bytes are there, not {sizes}")
            old, new = (content[:len(found)].ljust(len(found), b"\0") for content in (self.state, self.after))
            wrong = next((at for at in range(len(found)) if found[at] not in (old[at], new[at])), None)
            self.test.assertIsNone(wrong, "a byte that nobody wrote")
        self.state = self.after = found


class Namer(Worker):
    """The state is {name: (permissions, comment)} of a directory's files and directories."""

    def prepare(self):
        self.folder, self.number = self.store.plain("names"), 0

    def observe(self):
        return {path.name: (path.lstat().st_mode & 0o7777, self.comment(path)) for path in self.folder.iterdir()}

    @staticmethod
    def comment(path):
        return os.getxattr(path, "user.comment") if "user.comment" in os.listxattr(path) else None

    def step(self):
        self.number += 1
        new, old = f"name-{self.number}", self.dice.choice(sorted(self.state)) if self.state else None
        what = self.dice.choice(("make", "make", "unlink", "rename", "permit", "comment"))
        without = {name: facts for name, facts in self.state.items() if name != old}
        if what == "make" or old is None:
            self.change({**self.state, new: (0o600, None)}, self.make, self.folder / new)
        elif what == "unlink" and len(self.state) > 20:
            self.change(without, os.unlink, self.folder / old)
        elif what == "rename":
            target = self.dice.choice([new, *self.state])
            if target != old:
                without.pop(target, None)
                self.change({**without, target: self.state[old]}, os.rename, self.folder / old, self.folder / target)
        elif what == "permit":
            mode = self.dice.choice((0o600, 0o640, 0o644, 0o444))
            self.change({**self.state, old: (mode, self.state[old][1])}, os.chmod, self.folder / old, mode)
        elif what == "comment":
            text = str(self.number).encode()
            self.change({**self.state, old: (self.state[old][0], text)}, os.setxattr, self.folder / old, "user.comment", text)

    @staticmethod
    def make(path):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


class KeyKeeper(Worker):
    """The state is {alias: (state, version, grantees)} of keys that nobody else uses."""

    def prepare(self):
        folder = self.store.encrypted("kept", "kept-0")
        (folder / "image").write_bytes(b"needs its key" * 10000)
        self.number = 0

    def observe(self):
        keys = json.loads(rekeyfs("key", "list", self.mnt, "--json").stdout)["keys"]
        return {key["alias"]: self.facts(key) for key in keys if key["alias"].startswith("kept-")}

    def facts(self, key):
        return key["state"], key["version"], tuple(sorted(key["grantees"]))

    def step(self):
        alias = self.dice.choice(sorted(self.state))
        state, version, grantees = self.state[alias]
        verb = self.dice.choice(("create", "rotate", "rotate", "disable", "enable", "grant"))
        if verb == "create" and len(self.state) < 8:
            self.number += 1
            return self.key("create", f"kept-{self.number}", ("enabled", 1, ()))
        if verb == "disable" and state == "enabled":
            return self.key("disable", alias, ("disabled", version, grantees), "--force")
        if state == "disabled":
            return self.key("enable", alias, ("enabled", version, grantees))
        if verb == "rotate":
            return self.key("rotate", alias, (state, version + 1, grantees))
        if verb == "grant":
            user = self.dice.randrange(1000, 1004)
            held = user in grantees
            return self.key("revoke" if held else "grant", alias,
                            (state, version, tuple(sorted({*grantees} ^ {user}))), user)
        return None

    def key(self, verb, alias, facts, *more):
        self.change({**self.state, alias: facts}, rekeyfs, "key", verb, alias, *more, self.mnt)


class Rotator(Worker):
    """The state is the key of a directory; its images stay as they are."""

    def prepare(self):
        for key in ("first", "second"):
            self.store.key(key)
        self.folder = self.store.policy("rotated", "first")
        for number, original in enumerate(self.test.originals):
            run("cp", original, self.folder / f"image-{number}")

    def observe(self):
        contents = {name: self.test.original_of(self.folder / name) for name in os.listdir(self.folder)}
        self.test.assertEqual(contents, {f"image-{number}": number for number in range(len(self.test.originals))})
        return attribute(self.folder, "key")

    def step(self):
        other = "second" if self.state == "first" else "first"
        self.change(other, rekeyfs, "rotate", self.folder, "--key", other)


class Kills(TestCase):
    def setUp(self):
        super().setUp()
        self.rekeyfs = sys.modules["harness"].REKEYFS
        self.seed = int(os.environ.get("REKEYFS_TEST_SEED") or random.randrange(1 << 30))
        self.dice = random.Random(self.seed)
        self.originals = [self.store.original(f"original-{size}", size, seed=size) for size in (2 * MIB + 77, 100 * KIB, 700_000)]
        self.numbers = {hashlib.sha256(path.read_bytes()).hexdigest(): n for n, path in enumerate(self.originals)}
        self.numbers[hashlib.sha256(b"").hexdigest()] = "empty"
        kinds = (Importer, Replicator, Writer, Namer, KeyKeeper, Rotator)
        self.workers = [kind(self, random.Random(self.dice.random())) for kind in kinds]

    def original_of(self, path):
        return self.numbers.get(hashlib.sha256(path.read_bytes()).hexdigest(), "none of them")

    def kill_at_work(self):
        killing = threading.Event()
        threads = [threading.Thread(target=worker.work, args=(killing,)) for worker in self.workers]
        for thread in threads:
            thread.start()
        time.sleep(self.dice.uniform(0.0, 0.5))
        killing.set()
        self.store.process.kill()
        for thread in threads:
            thread.join(timeout=60)
            self.assertFalse(thread.is_alive(), "a call to a dead daemon hangs")
        self.store.kill9()
        for worker in self.workers:
            self.assertIsNone(worker.failure)

    def mount(self):
        begun = time.monotonic()
        self.store.mount()
        took = time.monotonic() - begun
        self.assertLess(took, longest_opening())
        return took

    def keys_are_usable(self):
        for alias, (state, _, _) in self.workers[4].state.items():
            if state == "disabled":
                rekeyfs("key", "enable", alias, self.mnt)

    def test_at_random_times(self):
        deadline = time.monotonic() + float(os.environ.get("REKEYFS_TEST_KILL_SECONDS", "15"))
        kills, longest = 0, 0
        while time.monotonic() < deadline:
            self.kill_at_work()
            longest = max(longest, self.mount())
            kills += 1
            try:
                for worker in self.workers:
                    worker.check()
            except AssertionError as failure:
                failure.add_note(f"after kill {kills}; REKEYFS_TEST_SEED={self.seed}")
                raise
        self.settle()
        done = {type(worker).__name__: worker.done for worker in self.workers}
        print(f"seed {self.seed}: {kills} kills, the longest opening {longest:.2f} s, acknowledged: {done}", file=sys.stderr)
        self.assertNotIn(0, done.values())

    def settle(self):
        """Everything ends well."""
        self.keys_are_usable()
        self.assertEqual(rekeyfs("status", "--wait", self.mnt).returncode, 0)
        rotated = self.mnt / "rotated"
        for path in rotated.iterdir():
            wait_until(lambda path=path: attribute(path, "key") == attribute(rotated, "key"), 60, f"{path} having its folder's key")
            self.store.wait_normal(path)
        self.store.umount()
        rekeyfs("check", self.store.store, "--read-data", "--key-file", self.store.key_file)
        self.store.mount()
        self.workers[4].state = self.workers[4].after = self.workers[4].observe()
        for worker in self.workers:
            worker.check()


if __name__ == "__main__":
    unittest.main()
