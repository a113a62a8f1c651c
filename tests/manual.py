#!/usr/bin/env python3
"""Checks that the manual says what the program does: commands, options and exit codes of rekeyfs(1) against --help, both
ways; the attributes of rekeyfs-xattr(7) and the numbers of rekeyfs-format(5) against the source; and that every page
is clean mdoc. $REKEYFS names the binary, else the release build's is taken."""
import os
import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAN = ROOT / "man"
REKEYFS = os.environ.get("REKEYFS") or str(ROOT / "build/release/tools/rekeyfs")


def run(*command):
    return subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60)


class Help:
    """What `rekeyfs COMMAND --help` says."""

    def __init__(self, *command):
        done = run(REKEYFS, *command, "--help")
        if done.returncode:
            raise AssertionError(f"rekeyfs {' '.join(command)} --help: exit code {done.returncode}\n{done.stdout}")
        self.text = done.stdout
        usage = re.search(r"^Usage: rekeyfs(.*)$", self.text, re.M)[1].split()
        self.arguments = [word for word in usage[len(command):] if not word.startswith("[")]
        self.subcommands = re.findall(r"^  (\S+)", self.section("Subcommands"), re.M)
        # An option is the set of its forms: {"-f", "--foreground"}.
        self.options = {frozenset(forms.split(",")) for forms in re.findall(r"^  (-\S+)", self.section("Options"), re.M)}

    def section(self, title):
        found = re.search(rf"^{title}:\n(.*?)(?:\n\n|\Z)", self.text, re.M | re.S)
        return found[1] if found else ""

    def exit_codes(self):
        return {int(code): meaning for code, meaning in re.findall(r"^ +(\d+)  (.*)$", self.section("Exit codes"), re.M)}


def commands(*prefix):
    """Every command that is one, with its help: {("key", "create"): Help}."""
    here = Help(*prefix)
    if not here.subcommands:
        return {prefix: here}
    return {name: text for sub in here.subcommands for name, text in commands(*prefix, sub).items()}


class Page:
    """A page's mdoc source, by sections (.Sh) and subsections (.Ss)."""

    def __init__(self, name):
        self.lines = (MAN / name).read_text().splitlines()

    def part(self, macro, title):
        """The lines below a heading, up to the next of its rank or a higher one."""
        start = self.lines.index(f".{macro} {title}") + 1
        ends = (".Sh ",) if macro == "Sh" else (".Sh ", ".Ss ")
        stop = next((i for i in range(start, len(self.lines)) if self.lines[i].startswith(ends)), len(self.lines))
        return self.lines[start:stop]

    def headings(self, within):
        return [line[4:] for line in self.part("Sh", within) if line.startswith(".Ss ")]


def flags(line):
    """The options that .Fl macros of a line name: ["-f", "--foreground"]."""
    words, found = line.removeprefix(".").split(), []
    for i, word in enumerate(words):
        if word == "Fl" and words[i + 1] != "Fl":
            found.append(("--" if words[i - 1] == "Fl" else "-") + words[i + 1])
    return found


class Manual(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page = Page("rekeyfs.1")
        cls.help = commands()
        cls.unlock = {frozenset(flags(line)) for line in cls.page.part("Ss", "Unlocking a store") if line.startswith(".It Fl")}

    def synopsis(self):
        """{("key", "create"): its options in whichever form}, and whether it takes the unlock options."""
        found, current = {}, None
        for line in self.page.part("Sh", "SYNOPSIS"):
            if line.startswith(".Cm "):
                current = tuple(line.split()[1:])
                found[current] = (set(), set())
            elif line.startswith(".Nm"):
                current = None
            elif current and line == ".Op Ar unlock":
                found[current][1].update(self.unlock)
            elif current:
                found[current][0].update(flags(line))
        return found

    def test_commands(self):
        self.assertGreater(len(self.help), 5)
        self.assertEqual(set(self.synopsis()), set(self.help))
        described = [heading.removeprefix("rekeyfs ") for heading in self.page.headings("COMMANDS")]
        self.assertEqual(sorted(described), sorted(" ".join([*name, *text.arguments]) for name, text in self.help.items()))

    def test_options_of_each_command(self):
        everywhere = {frozenset(("-h", "--help"))}
        for name, (forms, shared) in self.synopsis().items():
            with self.subTest(command=" ".join(name)):
                takes = self.help[name].options
                self.assertLessEqual(everywhere, takes)
                named = {option for option in takes if option & forms}
                self.assertEqual(forms - set().union(*named), set(), "in the synopsis, but not taken")
                self.assertEqual(takes - everywhere - named - shared, set(), "taken, but not in the synopsis")
                self.assertLessEqual(shared, takes)

    def test_options_are_described(self):
        described = {frozenset(flags(line)) for title in ("DESCRIPTION", "COMMANDS") for line in self.page.part("Sh", title)
                     if line.startswith(".It Fl")}
        taken = set().union(Help().options, *(text.options for text in self.help.values()))
        self.assertEqual(described, taken)
        for name, text in self.help.items():
            heading = "rekeyfs " + " ".join([*name, *text.arguments])
            for line in self.page.part("Ss", heading):
                if line.startswith(".It Fl"):
                    self.assertIn(frozenset(flags(line)), text.options, heading)

    def test_mount_options(self):
        said = re.search(r"Mount options: (.*)", self.help["mount",].text)[1]
        taken = {option.split("=")[0] for option in said.split(", ")}
        described = {name for line in self.page.part("Sh", "MOUNT OPTIONS") if line.startswith(".It Cm")
                     for name in re.findall(r"\bCm (\w+)", line)}
        self.assertEqual(described, taken)

    def test_exit_codes(self):
        lines = self.page.part("Sh", "EXIT STATUS")
        table = {int(line[4:]): lines[i + 1] for i, line in enumerate(lines) if line.startswith(".It ")}
        self.assertGreater(len(table), 10)
        self.assertEqual(table, Help().exit_codes())

    def test_attributes(self):
        source = (ROOT / "engine/images/rekeyfs_xattrs.cpp").read_text()
        page = Page("rekeyfs-xattr.7")
        for table, title in (("kOnDirectory", "On directories"), ("kOnImage", "On images")):
            rows = re.search(rf"{table}\[\] = \{{(.*?)^\}};", source, re.S | re.M)[1]
            answered = re.findall(r'^    \{"(\w+)"', rows, re.M)
            self.assertGreater(len(answered), 3)
            described = [name for line in page.part("Ss", title) if line.startswith(".It Li user.rekeyfs.")
                         for name in re.findall(r"user\.rekeyfs\.(\w+)", line)]
            self.assertEqual(sorted(described), sorted(answered), title)

    def test_tables_of_the_catalog(self):
        source = (ROOT / "engine/catalog/tables.h").read_text()
        letters = re.findall(r"^  \w+ = '(.)',", source, re.M)
        described = [line[0] for line in Page("rekeyfs-format.5").part("Ss", "Keys of records") if re.match(r"[A-Z]( |$)", line)]
        self.assertEqual(sorted(described), sorted(letters))

    def test_every_derivation_of_a_key_is_described(self):
        """The fixed texts that keys are derived for and that tags cover are part of the format."""
        text = re.sub(r"\s+", " ", (MAN / "rekeyfs-format.5").read_text())
        used = {literal for path in (ROOT / "engine").rglob("*.cpp")
                for literal in re.findall(r'"((?:rekeyfs v1|rekeyfs (?:block|catalog|data key|journal|names|plain layer)|rktable)[^"]*)"',
                                          path.read_text())}
        self.assertGreater(len(used), 10)
        self.assertEqual([literal for literal in sorted(used) if f'"{literal}"' not in text], [])

    def test_promises_name_tests_that_exist(self):
        """Each section of rekeyfs-security(7) about an attacker says by which tests its promises are shown."""
        page = Page("rekeyfs-security.7")
        unit = {f"{suite}.{test}" for folder in ("unit", "faults") for path in (ROOT / "tests" / folder).glob("*_test.cpp")
                for suite, test in re.findall(r"^TEST(?:_[FP])?\((\w+), *(\w+)", path.read_text(), re.M)}
        mount = {f"mount.{path.stem.removeprefix('test_')}" for path in (ROOT / "tests/mount").glob("test_*.py")}
        for title in ("ACCIDENTS", "READS THE DISK", "CHANGES THE DISK", "MAKES AN IMAGE", "PUTS BACK AN OLD DISK",
                      "ANOTHER LOCAL USER", "READS MEMORY", "WHAT THE DAEMON GIVES UP"):
            named = {line.split()[1] for line in page.part("Sh", title)
                     if re.match(r"\.Li (?:\w+Test|ReaderFailures|mount)\.\w+", line)}
            self.assertGreater(len(named), 0, title)
            self.assertEqual(sorted(named - unit - mount), [], title)

    def test_pages_are_clean(self):
        pages = sorted(MAN.glob("*.[1-9]"))
        self.assertIn(MAN / "rekeyfs.1", pages)
        for page in pages:
            with self.subTest(page=page.name):
                done = run("mandoc", "-T", "lint", "-W", "warning", page)
                self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_references_within_the_manual(self):
        for page in MAN.glob("*.[1-9]"):
            for name, section in re.findall(r"^\.Xr (rekeyfs\S*) (\d)", page.read_text(), re.M):
                self.assertTrue((MAN / f"{name}.{section}").exists(), f"{page.name} refers to {name}({section})")


if __name__ == "__main__":
    unittest.main()
