#!/usr/bin/env python3
"""Two hundred copies at once while their keys are disabled, enabled and rotated, and directories change theirs.

Whatever came of each copy, it is all or nothing: what cp reported as done is its source byte for byte, now and after a
remount; what was refused has left nothing behind; and once every key can be used everything becomes normal by itself.
"""
import errno
import os
import random
import subprocess
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness import TestCase, attribute_or_none, rekeyfs, wait_until
from images import KIB, MIB

EXIT_OK, EXIT_KEY_DISABLED = 0, 11
AT_ONCE = 32
REFUSED = tuple(os.strerror(number) for number in (errno.EKEYREVOKED, errno.EBUSY))
NOT_MADE = os.strerror(errno.ENOENT)  # the source is a copy that was refused, or has not been made yet
CUT_OFF = tuple(os.strerror(number) for number in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENODEV, errno.EIO)) + (NOT_MADE,)
KEYS = ("tenant-one", "tenant-two", "tenant-three")


class Copy(NamedTuple):
    source: Path
    target: Path
    original: Path  # outside the mount
    pause: float    # seconds, before it begins


class Weather(threading.Thread):
    """Does things to keys and directories until stop()."""

    def __init__(self, mnt, folders, seed):
        super().__init__()
        self.mnt, self.folders, self.dice = mnt, folders, random.Random(seed)
        self.stopping, self.failures, self.done = threading.Event(), [], {}

    def command(self, *arguments):
        done = rekeyfs(*arguments, check=False)
        if done.returncode not in (EXIT_OK, EXIT_KEY_DISABLED):
            self.failures.append(f"{' '.join(map(str, arguments))}: {done.returncode}: {done.stderr}")
        return done.returncode == EXIT_OK

    def key(self, verb, alias):
        return self.command("key", verb, alias, self.mnt, *(["--force"] if verb == "disable" else []))

    def change(self):
        """One change; its name, if it could be made."""
        what = self.dice.choice(("disable", "disable", "rotate key", "rotate folder"))
        key = self.dice.choice(KEYS)
        if what == "rotate key":
            made = self.key("rotate", key)
        elif what == "rotate folder":
            made = self.command("rotate", self.dice.choice(self.folders), "--key", key)
        else:
            made = self.key("disable", key)
            self.stopping.wait(self.dice.uniform(0, 0.3))
            made = self.key("enable", key) and made
        return what if made else None

    def run(self):
        while not self.stopping.wait(self.dice.uniform(0, 0.05)):
            if what := self.change():
                self.done[what] = self.done.get(what, 0) + 1

    def stop(self):
        self.stopping.set()
        self.join()


class Storm(TestCase):
    def setUp(self):
        super().setUp()
        self.folders = [self.store.encrypted(f"folder-{alias}", alias) for alias in KEYS]
        self.every_folder = [self.store.plain("plain"), *self.folders]

    def import_images(self, dice, most_size):
        """{image in the mount: original}, three in each folder."""
        images = {}
        for folder in self.every_folder:
            for number in range(3):
                original = self.store.original(f"{folder.name}-{number}", dice.randrange(200 * KIB, most_size), len(images))
                images[folder / f"source{number}"] = original
                subprocess.run(["cp", original, folder / f"source{number}"], check=True)
        return images

    def plan(self, dice, images, count, seconds):
        """`count` copies; the later ones may be copies of earlier ones."""
        known, copies = dict(images), []
        for number in range(count):
            source = dice.choice(list(images) if dice.random() < 0.7 else list(known))
            target = dice.choice(self.every_folder) / f"copy{number}"
            copies.append(Copy(source, target, known[source], dice.uniform(0, seconds * AT_ONCE / count)))
            known[target] = known[source]
        return copies

    @staticmethod
    def copy(copy):
        """What cp said; empty if it reported success."""
        time.sleep(copy.pause)
        done = subprocess.run(["cp", copy.source, copy.target], stderr=subprocess.PIPE, text=True, timeout=60,
                              env={**os.environ, "LC_ALL": "C.UTF-8"})
        return done.stderr if done.returncode else ""

    def settle(self, kept):
        """Every key can be used again: `kept`, {path: original}, becomes normal, and as its folder says."""
        for alias in KEYS:
            rekeyfs("key", "enable", alias, self.mnt, check=False)
        wait_until(lambda: rekeyfs("status", "--wait", self.mnt, check=False).returncode == 0, 60, "all replications ending")
        keys = {folder: attribute_or_none(folder, "key") for folder in self.every_folder}
        for path in kept:
            wait_until(lambda path=path: self.store.status(path) == "normal", 60, f"{path} becoming normal")
            wait_until(lambda path=path: attribute_or_none(path, "key") == keys[path.parent], 20, f"{path} having its folder's key")
        self.assertEqual(rekeyfs("status", "--wait", self.mnt).returncode, 0)

    def check_content(self, kept):
        for path, original in kept.items():
            self.assertSame(original, path)

    def check_what_is_there(self, kept):
        there = {folder / name for folder in self.every_folder for name in os.listdir(folder)}
        self.assertEqual({str(path.relative_to(self.mnt)) for path in there ^ set(kept)}, set())

    def test_copies_are_all_or_nothing(self):
        dice = random.Random(120)
        images = self.import_images(dice, 3 * MIB)
        copies = self.plan(dice, images, 200, seconds=6)
        weather = Weather(self.mnt, self.folders, seed=121)
        weather.start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(pool.map(self.copy, copies))
        weather.stop()
        self.assertEqual(weather.failures, [])
        self.assertEqual(len(weather.done), 3, f"not every change was made: {weather.done}")
        kept = dict(images)
        for copy, error in zip(copies, said):
            if not error:
                kept[copy.target] = copy.original
            elif not any(known in error for known in (*REFUSED, NOT_MADE)):
                self.fail(f"no refusal: {error}")
        self.assertGreater(len(kept) - len(images), 50, "hardly a copy was made")
        self.assertLess(len(kept) - len(images), 200, "nothing was refused")
        self.check_what_is_there(kept)
        self.settle(kept)
        self.check_content(kept)
        self.store.remount()
        self.check_what_is_there(kept)
        self.check_content(kept)

    def test_a_kill_in_the_middle(self):
        dice = random.Random(30)
        images = self.import_images(dice, 3 * MIB)
        copies = self.plan(dice, images, 100, seconds=3)
        weather = Weather(self.mnt, self.folders, seed=31)
        weather.start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = pool.map(self.copy, copies)
            time.sleep(1.2)
            self.store.kill9()
            weather.stop()  # what it was at may fail now
            self.store.mount()
            said = list(said)
        kept = dict(images)
        for copy, error in zip(copies, said):
            if not error:
                kept[copy.target] = copy.original
            elif not any(known in error for known in (*REFUSED, *CUT_OFF)):
                self.fail(f"neither a refusal nor the kill: {error}")
            elif copy.target.exists():  # not acknowledged: made whole by then, or empty still
                if copy.target.stat().st_size == 0:
                    copy.target.unlink()
                else:
                    kept[copy.target] = copy.original
        self.assertGreater(len(kept) - len(images), 20, "hardly a copy was made")
        self.settle(kept)
        self.check_what_is_there(kept)
        self.check_content(kept)
        self.store.remount()
        self.check_content(kept)


if __name__ == "__main__":
    unittest.main()
