#!/usr/bin/env python3
"""Completion for bash, without the package bash-completion: its two helpers that the script uses are stood in for."""
import unittest

from harness import REKEYFS, ROOT, TestCase, run

SCRIPT = """
_init_completion() { words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}; }
_filedir() { COMPREPLY=("<files>"); }
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_rekeyfs
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Completion(TestCase):
    def setUp(self):
        super().setUp()
        self.store.key("tenant-a")
        self.store.key("tenant-b")

    def complete(self, *words):
        return run("bash", "-c", SCRIPT, "bash", ROOT / "tools/rekeyfs.bash", REKEYFS, *words).stdout.split()

    def test_commands(self):
        self.assertEqual(self.complete("rep"), ["replicate"])
        self.assertEqual(self.complete("l"), ["log"])
        self.assertIn("list", self.complete("key", ""))

    def test_keys(self):
        for words in (("key", "show", "tenant"), ("key", "show", "--json", "tenant"), ("replicate", "--key", "tenant")):
            self.assertLessEqual({"tenant-a", "tenant-b"}, set(self.complete(*words)), words)
        self.assertEqual([alias for alias in self.complete("key", "show", "tenant-b") if alias == "tenant-a"], [])

    def test_paths(self):
        for words in (("key", "show", "tenant-a", ""), ("key", "create", "new", ""), ("key", "list", ""), ("replicate", ""),
                      ("replicate", "--key", "tenant-a", "image", ""), ("log", "-n", "5", ""), ("status", ""), ("info", "")):
            self.assertEqual(self.complete(*words), ["<files>"], words)
        self.assertEqual(self.complete("key", "create", ""), [], "a new name")

    def test_options(self):
        self.assertLessEqual({"--dry-run", "--plain", "--key", "--description", "--wait"}, set(self.complete("replicate", "--")))
        self.assertLessEqual({"--follow", "--json"}, set(self.complete("log", "--")))


if __name__ == "__main__":
    unittest.main()
