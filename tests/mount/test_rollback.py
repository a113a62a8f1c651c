#!/usr/bin/env python3
"""`rekeyfs check --anchor`: a store that was put back whole to an older copy is told, whatever changed in between and
however often it was mounted since; one that is the same or newer never is."""
import json
import os
import shutil
import unittest

from harness import TestCase, rekeyfs, run
from images import MIB

OK, DAMAGED, BUSY = 0, 7, 8


class Rollback(TestCase):
    def check(self, store, *options):
        done = rekeyfs("check", store, "--key-file", self.store.key_file, "--json", *options, check=False)
        self.assertIn(done.returncode, (OK, DAMAGED), done.stdout + done.stderr)
        return done.returncode, json.loads(done.stdout)

    def keep(self, name):
        """A copy of the store, which nobody has open, and its anchor."""
        copy = self.store.scratch / name
        run("cp", "-a", "--sparse=always", self.store.store, copy)
        code, report = self.check(copy)
        self.assertEqual(code, OK, report)
        self.states.append((name, copy, report["anchor"]))

    def copy_mounted(self, copy):
        """As a kill would leave the store now: with no checkpoint meanwhile."""
        while True:
            segments = os.listdir(self.store.store / "journal")
            shutil.copytree(self.store.store, copy)
            if len(segments) == 1 and os.listdir(self.store.store / "journal") == segments:
                return
            shutil.rmtree(copy)

    def is_older(self, store, anchor):
        code, report = self.check(store, "--anchor", anchor)
        kinds = [problem["kind"] for problem in report["problems"]]
        self.assertIn(kinds, ([], ["rollback"]))
        self.assertEqual(code, DAMAGED if kinds else OK)
        return bool(kinds)

    def change(self, name, edit, kill=False):
        self.store.mount()
        edit()
        self.store.kill9() if kill else self.store.umount()
        self.keep(name)

    def write_a_block(self):
        with open(self.mnt / "folder/image", "r+b") as image:
            image.seek(5 * 16384)
            image.write(b"one block")

    def write_and_sync(self):
        self.write_a_block()
        with open(self.mnt / "folder/image", "r+b") as image:
            image.write(b"synced")
            os.fsync(image.fileno())

    def setUp(self):
        super().setUp()
        self.states = []
        folder = self.store.encrypted("folder", "tenant")
        run("cp", self.store.original("original", MIB), folder / "image")
        self.store.umount()
        self.keep("first")

    def test_every_older_state_is_told_and_no_other(self):
        self.change("a block", self.write_a_block)
        self.change("a name", lambda: os.rename(self.mnt / "folder/image", self.mnt / "folder/other"))
        self.change("a name back", lambda: os.rename(self.mnt / "folder/other", self.mnt / "folder/image"))
        self.change("a key", lambda: rekeyfs("key", "rotate", "tenant", self.mnt))
        self.change("an attribute", lambda: os.setxattr(self.mnt / "folder/image", "user.note", b"changed"))
        self.change("a kill", self.write_and_sync, kill=True)
        self.change("a copy", lambda: run("cp", self.mnt / "folder/image", self.mnt / "folder/clone"))
        self.change("nothing but a mount", lambda: None)
        rekeyfs("key", "create", "late", self.store.store, "--key-file", self.store.key_file)
        self.keep("a key of a store that is not mounted")
        for older, (name, copy, _) in enumerate(self.states):
            for newer, (of, _, anchor) in enumerate(self.states):
                with self.subTest(store=name, anchor=of):
                    self.assertEqual(self.is_older(copy, anchor), older < newer)
        # Used again, past the anchor's own numbers.
        anchor = self.states[-1][2]
        for times, (name, copy, _) in ((len(self.states) + 2, self.states[0]), (3, self.states[-2])):
            for number in range(times):
                rekeyfs("key", "create", f"again-{number}", copy, "--key-file", self.store.key_file)
            with self.subTest(used_again=name):
                self.assertTrue(self.is_older(copy, anchor))

    def test_the_journal_put_back_alone(self):
        """The same checkpoint, and less in the journal since; more is no rollback."""
        self.store.mount()
        before, after = self.store.scratch / "before", self.store.scratch / "after"
        (self.mnt / "one").mkdir()
        self.copy_mounted(before)
        (self.mnt / "two").mkdir()
        self.copy_mounted(after)
        self.store.umount()
        anchors = [self.check(copy)[1]["anchor"] for copy in (before, after)]
        self.assertNotEqual(*anchors)
        self.assertTrue(self.is_older(before, anchors[1]))
        self.assertFalse(self.is_older(after, anchors[0]))

    def test_mounted_and_wrong_anchors(self):
        anchor = self.states[0][2]
        self.store.mount()
        for path in (self.mnt, self.store.store):
            done = rekeyfs("check", path, "--anchor", anchor, check=False)
            self.assertEqual(done.returncode, BUSY, done.stderr)
            self.assertIn("unmount", done.stderr)
        self.store.umount()
        self.assertFalse(self.is_older(self.store.store, anchor))
        other = self.store.folder / "other"
        rekeyfs("init", other, "--key-file", self.store.key_file)
        foreign = self.check(other)[1]["anchor"]
        parts = anchor.split(":")
        for wrong in ("", "nonsense", anchor + ":1", ":".join(parts[:2] + ["-1"] + parts[3:]), ":".join(parts[:5] + ["0" * 16] + parts[6:]), foreign):
            done = rekeyfs("check", self.store.store, "--key-file", self.store.key_file, "--anchor", wrong, check=False)
            with self.subTest(anchor=wrong):
                self.assertNotEqual(done.returncode, OK, done.stdout)
                self.assertEqual("the anchor belongs to store" in done.stderr, wrong == foreign, done.stderr)


if __name__ == "__main__":
    unittest.main()
