#!/usr/bin/env python3
"""`rekeyfs status --watch`: bars on a terminal, lines in a pipe, JSON for programs."""
import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import termios
import unittest

from harness import REKEYFS, TestCase, attribute, rekeyfs, run, wait_until
from images import MIB

EXIT_FAILED = 9
COLUMNS, ROWS = 140, 30
LARGE = 192 * MIB
BAR = re.compile(r"^(?P<path>/\S+)  +\[(?P<bar>[#.]+)\] +(?P<percent>\d+\.\d) %  +(?P<done>[\d.]+ [KMGT]?i?B) of "
                 r"(?P<total>[\d.]+ [KMGT]?i?B)(?:  (?P<rate>[\d.]+ [KMGT]?i?B/s))?(?:  (?P<left>[\d:]+) left)?$")
REDRAW = re.compile(r"\r\x1b\[\d+A")  # the cursor goes back to the first bar


class Watch(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.one, self.two = self.store.encrypted("one", "tenant-one"), self.store.encrypted("two", "tenant-two")
        self.source = self.store.original("original", LARGE)

    def on_a_terminal(self, *arguments):
        """(exit code, [the lines of one picture after the other]) of a command on a terminal."""
        ours, theirs = pty.openpty()
        self.addCleanup(os.close, ours)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        program = subprocess.Popen([REKEYFS, *map(str, arguments)], stdin=theirs, stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
        self.errors = program.communicate(timeout=60)[1].decode()
        return program.returncode, [self.lines_of(picture) for picture in REDRAW.split(shown.decode())]

    @staticmethod
    def lines_of(picture):
        return [line for line in re.sub(r"\x1b\[\d*[KJ]", "", picture).replace("\r", "").split("\n") if line]

    def start(self):
        """Three replications: two copies, and an image in a directory that is given a new key."""
        run("cp", self.source, self.plain / "image")
        run("cp", self.source, self.two / "rotated")
        run("cp", self.plain / "image", self.one / "first")
        run("cp", self.plain / "image", self.one / "second")
        self.store.key("tenant-three")
        rekeyfs("rotate", self.two, "--key", "tenant-three")
        return {"/one/first", "/one/second", "/two/rotated"}

    def stop_one(self):
        """A replication in error: the key of its source is disabled."""
        run("cp", self.source, self.one / "image")
        run("cp", self.one / "image", self.two / "failing")
        rekeyfs("key", "disable", "tenant-one", self.mnt, "--force")
        wait_until(lambda: self.store.status(self.two / "failing") == "error", 30, "the replication stopping")

    def test_bars_on_a_terminal(self):
        replicating = self.start()
        code, pictures = self.on_a_terminal("status", "--watch", self.mnt)
        self.assertEqual((code, self.errors), (0, ""))
        told_all, percents = set(), {path: [] for path in replicating}
        for lines in pictures:
            bars = [found for line in lines if (found := BAR.match(line))]
            paths = [bar["path"] for bar in bars]
            self.assertEqual(len(paths), len(set(paths)), "a replication has two bars")
            for line in lines:
                self.assertLessEqual(len(line), COLUMNS)
                self.assertTrue(BAR.match(line) or line == "nothing is replicating" or line.endswith("  finished"), line)
            for bar in bars:
                self.assertEqual(bar["total"], "192.0 MiB")
                self.assertLess(float(bar["percent"]), 100)
                percents[bar["path"]].append(float(bar["percent"]))
                if bar["rate"] and bar["left"]:
                    told_all.add(bar["path"])
        self.assertEqual(told_all, replicating)
        self.assertEqual({BAR.match(line)["path"] for line in pictures[0]}, replicating)
        for series in percents.values():
            self.assertEqual(series, sorted(series))
        ended = [line.removesuffix("  finished") for lines in pictures for line in lines if line.endswith("  finished")]
        self.assertEqual(sorted(ended), sorted(replicating))

    def test_plain_lines_in_a_pipe(self):
        replicating = self.start()
        shown = rekeyfs("status", "--watch", self.mnt).stdout
        self.assertNotIn("\x1b", shown)
        self.assertNotIn("[", shown)
        for path in replicating:
            self.assertRegex(shown, rf"(?m)^{path}  +\d+\.\d %  .* of 192\.0 MiB")
            self.assertIn(f"{path}  finished\n", shown)
        self.assertTrue(shown.endswith("nothing is replicating\n"), shown)

    def test_json_a_line(self):
        replicating = self.start()
        answers = [json.loads(line) for line in rekeyfs("status", "--watch", "--json", self.mnt).stdout.splitlines()]
        self.assertGreater(len(answers), 1)
        self.assertEqual({one["path"] for one in answers[0]["replications"]}, replicating)
        self.assertEqual(answers[-1]["replications"], [])
        for answer in answers:
            for one in answer["replications"]:
                self.assertLess(one["percent"], 100)

    def test_a_failure_shows_its_reason(self):
        self.stop_one()
        why = attribute(self.two / "failing", "error")
        code, pictures = self.on_a_terminal("status", "--watch", self.mnt)
        self.assertEqual(code, EXIT_FAILED)
        self.assertEqual(len(pictures), 1)
        line, = pictures[0]
        self.assertTrue(line.startswith("/two/failing  "), line)
        self.assertIn(f"error: {why}"[:60], line)
        for shown in (line, rekeyfs("status", "--watch", self.mnt, check=False).stdout, rekeyfs("status", self.mnt).stdout):
            self.assertNotIn("100", shown.split("error: ")[0])
            self.assertNotIn("#", shown)
        self.assertIn(why, self.errors)
        answer, = rekeyfs("status", "--watch", "--json", self.mnt, check=False).stdout.splitlines()
        self.assertEqual(json.loads(answer)["replications"][0]["error"], why)


if __name__ == "__main__":
    unittest.main()
