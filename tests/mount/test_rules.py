#!/usr/bin/env python3
"""The table of rules in rekeyfs-xattr(7) is what the mount does: each row is broken here, and its errno compared.

A rule is a function with the row's text, which breaks it and so raises OSError. A row without a rule fails, and so does a
rule without a row.
"""
import errno
import os
import re
import subprocess
import sys
import unittest

from harness import NOBODY, ROOT, TestCase
from images import MIB

CONTENT = b"content" * 10_000
PREFIX = "user.rekeyfs."


def rows():
    """[(errno's name, text)] of the table in the manual."""
    page = (ROOT / "man/rekeyfs-xattr.7").read_text()
    table = re.search(r"^\.Ss Rules\n(.*?)^\.El$", page, re.M | re.S)[1]
    return re.findall(r"^\.It Bq Er (\w+)\n(.*)$", table, re.M)


RULES = {}


def rule(text):
    def add(function):
        if text in RULES:
            raise ValueError(f"two tests of the rule: {text}")
        RULES[text] = function
        return function
    return add


class Place:
    """Where a rule is broken: two directories of different policies, a settled image in the encrypted one."""

    def __init__(self, store):
        self.store = store
        self.plain, self.one = store.plain("plain"), store.encrypted("one", "tenant-one")
        self.image = self.one / "image"
        self.image.write_bytes(CONTENT)

    def set(self, path, name, value):
        os.setxattr(path, PREFIX + name, value)

    def protected(self):
        self.set(self.image, "protected", b"1")
        return self.image

    def replicate(self, source, target):
        with open(source, "rb") as opened, open(target, "wb") as out:
            os.copy_file_range(opened.fileno(), out.fileno(), len(CONTENT))


@rule("A full-ecs image is replicated.")
def full_ecs(place):
    place.set(place.image, "type", b"full-ecs")
    place.replicate(place.image, place.plain / "target")


@rule("An image is replicated that is neither normal nor normal-uninitialized.")
def creating(place):
    with open(place.one / "creating", "wb", buffering=0) as file:
        file.write(CONTENT)
        place.replicate(place.one / "creating", place.plain / "target")


@rule("The key of an image is set.")
def image_key(place):
    place.set(place.image, "key", b"tenant-one")


@rule("The key of an image is removed.")
def image_key_removed(place):
    os.removexattr(place.image, PREFIX + "key")


@rule("Group or others are given a permission of an encrypted image that is normal and has been left alone.")
def shared(place):
    place.store.wait_normal(place.image)
    place.image.chmod(0o640)


@rule("An access control list is set.")
def access_control_list(place):
    os.setxattr(place.image, "system.posix_acl_access", b"\2\0\0\0\1\0\6\0\xff\xff\xff\xff\4\0\4\0\xff\xff\xff\xff\x20\0\4\0\xff\xff\xff\xff")


@rule("A directory is given a key that does not exist.")
def no_key(place):
    place.set(place.plain, "key", b"nobody")


@rule("An image is renamed into a directory of another policy.")
def renamed(place):
    os.rename(place.image, place.plain / "image")


@rule("An image is linked into a directory of another policy.")
def linked(place):
    os.link(place.image, place.plain / "image")


@rule("A protected image is deleted.")
def protected_deleted(place):
    os.unlink(place.protected())


@rule("A protected image is replaced.")
def protected_replaced(place):
    (place.one / "other").write_bytes(b"other")
    os.rename(place.one / "other", place.protected())


@rule("A protected image is truncated.")
def protected_truncated(place):
    os.truncate(place.protected(), 100)


@rule("A protected image is opened for writing.")
def protected_written(place):
    os.close(os.open(place.protected(), os.O_WRONLY))


@rule("A protected image is renamed into a directory of another policy.")
def protected_moved(place):
    os.rename(place.protected(), place.plain / "image")


@rule("Data is read that is damaged, missing or forged.")
def damaged(place):
    place.image.write_bytes(os.urandom(MIB))
    place.store.umount()
    for path in place.store.store.rglob("*data*"):
        if path.is_file() and path.stat().st_size > MIB // 2:
            with open(path, "r+b") as file:
                file.seek(MIB // 2)
                byte = file.read(1)[0]
                file.seek(MIB // 2)
                file.write(bytes([byte ^ 1]))
    place.store.mount()
    place.image.read_bytes()


@rule("An attribute is given a value that is empty.")
def value_empty(place):
    place.set(place.one, "key", b"")


@rule("An attribute is given a value with a NUL in it.")
def value_with_nul(place):
    place.set(place.one, "key", b"tenant-one\0")


@rule("An attribute is given a value that is not UTF-8.")
def value_not_utf8(place):
    place.set(place.one, "key", b"\xff")


@rule("An attribute is given a value of more than 255 bytes.")
def value_too_long(place):
    place.set(place.one, "key", b"k" * 256)


@rule("An attribute is given a value that is not of its kind.")
def value_of_another_kind(place):
    place.set(place.image, "protected", b"yes")


@rule("A read-only attribute is set.")
def read_only(place):
    place.set(place.image, "status", b"normal")


@rule("An unknown user.rekeyfs attribute is set.")
def unknown(place):
    place.set(place.image, "unheard_of", b"1")


@rule("A policy is set by somebody who is neither the owner of the directory nor root.")
def not_the_owner(place):
    place.plain.chmod(0o777)
    script = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], b'tenant-one')"
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c", script]
    done = subprocess.run([*command, str(place.plain), PREFIX + "key"], stderr=subprocess.PIPE, text=True)
    if found := re.search(r"\[Errno (\d+)\]", done.stderr):
        raise OSError(int(found[1]), done.stderr)


NEED_ROOT = {not_the_owner}


class Rules(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        self.place = Place(self.store)

    def check(self, number, text):
        function = RULES[text]
        if function in NEED_ROOT and os.geteuid() != 0:
            self.skipTest("needs root")
        self.assertErrno(number, function, self.place)


class Table(unittest.TestCase):
    def test_every_row_has_a_rule_and_every_rule_a_row(self):
        self.assertGreater(len(rows()), 20)
        self.assertEqual(sorted(text for _, text in rows()), sorted(RULES))


def add_tests():
    for name, text in rows():
        if text in RULES:  # or else Table says so
            def test(self, number=getattr(errno, name), text=text):
                self.check(number, text)
            setattr(Rules, f"test_{RULES[text].__name__}", test)


add_tests()

if __name__ == "__main__":
    unittest.main()
