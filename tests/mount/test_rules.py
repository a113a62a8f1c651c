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

from harness import NOBODY, ROOT, TestCase, rekeyfs, run, wait_until
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

    def replicate(self, source, target, then=lambda: None):
        """`then` is called between opening and copying."""
        with open(source, "rb") as opened, open(target, "wb") as out:
            then()
            os.copy_file_range(opened.fileno(), out.fileno(), len(CONTENT))

    def key(self, *arguments):
        return rekeyfs("key", *arguments, self.store.mnt)

    def delete_key(self):
        self.key("delete", "tenant-one", "--after", "0s", "--force")
        wait_until(lambda: "tenant-one" not in self.key("list").stdout, 30, "the key being gone")

    def whenever_unusable(self, attempt):
        """`attempt` fails alike while the key is disabled and while it is to be deleted."""
        numbers = []
        for verb, back in (("disable", "enable"), ("delete", "cancel-deletion")):
            try:
                attempt(lambda verb=verb: self.key(verb, "tenant-one", "--force"))
            except OSError as error:
                numbers.append(error.errno)
            self.key(back, "tenant-one")
        if len(numbers) == 2 and numbers[0] == numbers[1]:
            raise OSError(numbers[0], "the key cannot be used")
        raise AssertionError(f"disabled and pending deletion were answered {numbers}")

    def without_a_grant(self, script, target_key=None):
        """The script is run by somebody who owns everything here. With a grant it works to its end; the second time the
        grant is taken back when it calls ready(). `target_key` is a key of his for the plain directory."""
        if target_key:
            self.key("create", target_key)
            self.key("grant", target_key, str(NOBODY))
            self.set(self.plain, "key", target_key.encode())
        for path in (self.plain, self.one, self.image):
            os.chown(path, NOBODY, NOBODY)
        for number, verb in enumerate(("show", "revoke")):
            self.key("grant", "tenant-one", str(NOBODY))
            program = subprocess.Popen(as_nobody(SCRIPT + script, self.one, self.plain, str(number)), text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            if program.stdout.readline():
                self.key(verb, "tenant-one", *([str(NOBODY)] if verb == "revoke" else []))
            _, errors = program.communicate("\n", timeout=30)
            if verb == "show" and program.returncode:
                raise AssertionError(f"with a grant: {errors}")
        raise_what_it_raised(errors)


SCRIPT = """import os, sys
one, plain, number = sys.argv[1:]
def ready():
    print("ready", flush=True)
    sys.stdin.readline()
def replicate(source, target):
    with open(source, "rb") as opened, open(target + number, "wb") as out:
        ready()
        os.copy_file_range(opened.fileno(), out.fileno(), 1000)
"""


def as_nobody(script, *arguments):
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c", script,
            *(str(argument) for argument in arguments)]


def raise_what_it_raised(errors):
    if found := re.search(r"\[Errno (\d+)\]", errors):
        raise OSError(int(found[1]), errors)


@rule("A full-ecs image is replicated.")
def full_ecs(place):
    place.set(place.image, "type", b"full-ecs")
    place.replicate(place.image, place.plain / "target")


@rule("An image that refers to another file is replicated with fast create.")
def backing_file(place):
    image = place.store.scratch / "overlay"
    for options in (("base", "1M"), ("overlay", "-b", "base", "-F", "qcow2")):
        name, *rest = options
        run("qemu-img", "create", "-f", "qcow2", place.store.scratch / name, *rest, cwd=place.store.scratch)
    run("cp", image, place.one / "overlay")
    place.set(place.plain, "fast_create", b"1")
    place.replicate(place.one / "overlay", place.plain / "target")


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
    raise_what_it_raised(run(*as_nobody(script, place.plain, PREFIX + "key"), check=False).stderr)


# What is done with an image whose key is taken away by `then`.

def open_it(place, then):
    then()
    open(place.image, "rb").close()


def read_through_handle(place, then):
    with open(place.image, "rb", buffering=0) as file:
        file.read(1000)
        then()
        os.pread(file.fileno(), 1000, 0)


def write_through_handle(place, then):
    with open(place.image, "r+b", buffering=0) as file:
        then()
        file.write(b"changed")


def create(place, then):
    then()
    open(place.one / "new", "xb").close()


def replicate_from(place, then):
    place.replicate(place.image, place.plain / "target", then)


def replicate_to(place, then):
    (place.plain / "source").write_bytes(CONTENT)
    place.replicate(place.plain / "source", place.one / "target", then)


def give_to_a_directory(place, then):
    then()
    place.set(place.plain, "key", b"tenant-one")


@rule("An image is opened while its key is disabled or pending deletion.")
def opened_without_key(place):
    place.whenever_unusable(lambda then: open_it(place, then))


@rule("An image is read through an open handle while its key is disabled or pending deletion.")
def read_without_key(place):
    place.whenever_unusable(lambda then: read_through_handle(place, then))


@rule("An image is written through an open handle while its key is disabled or pending deletion.")
def written_without_key(place):
    place.whenever_unusable(lambda then: write_through_handle(place, then))


@rule("An image is created in a directory whose key is disabled or pending deletion.")
def created_without_key(place):
    place.whenever_unusable(lambda then: create(place, then))


@rule("An image is replicated while its key is disabled or pending deletion.")
def replicated_from_without_key(place):
    place.whenever_unusable(lambda then: replicate_from(place, then))


@rule("An image is replicated to a directory whose key is disabled or pending deletion.")
def replicated_to_without_key(place):
    place.whenever_unusable(lambda then: replicate_to(place, then))


@rule("A directory is given a key that is disabled or pending deletion.")
def given_without_key(place):
    place.whenever_unusable(lambda then: give_to_a_directory(place, then))


@rule("An image is opened whose key is gone.")
def opened_once_gone(place):
    open_it(place, place.delete_key)


@rule("An image is read through an open handle when its key is gone.")
def read_once_gone(place):
    read_through_handle(place, place.delete_key)


@rule("An image is written through an open handle when its key is gone.")
def written_once_gone(place):
    write_through_handle(place, place.delete_key)


@rule("An image is created in a directory whose key is gone.")
def created_once_gone(place):
    create(place, place.delete_key)


@rule("An image is replicated whose key is gone.")
def replicated_from_once_gone(place):
    replicate_from(place, place.delete_key)


@rule("An image is replicated to a directory whose key is gone.")
def replicated_to_once_gone(place):
    replicate_to(place, place.delete_key)


@rule("An image is created by somebody without a grant for the key of the directory.")
def created_without_grant(place):
    place.without_a_grant("ready(); open(one + '/new' + number, 'x')")


@rule("An image is opened by somebody without a grant for its key.")
def opened_without_grant(place):
    place.without_a_grant("ready(); open(one + '/image')")


@rule("An image is replicated by somebody without a grant for its key.")
def replicated_from_without_grant(place):
    place.without_a_grant("replicate(one + '/image', plain + '/target')", target_key="tenant-two")


@rule("An image is replicated by somebody without a grant for the key of the target's directory.")
def replicated_to_without_grant(place):
    place.without_a_grant("open(plain + '/source' + number, 'w').write('content'); replicate(plain + '/source' + number, one + '/target')")


def as_the_owner(place, script):
    """The script is run by somebody who owns everything here and has a grant for the key."""
    for path in (place.plain, place.one, place.image):
        os.chown(path, NOBODY, NOBODY)
    place.key("grant", "tenant-one", str(NOBODY))
    raise_what_it_raised(run(*as_nobody(SCRIPT + script, place.one, place.plain, ""), check=False).stderr)


@rule("An image is copied to a plain one by somebody who may not declassify its key.")
def copied_without_the_right(place):
    script = "ready = lambda: None; replicate(one + '/image', plain + '/target')"
    as_the_owner(place, script)


@rule("A plain image is renamed over an encrypted one by somebody without a grant for its key.")
def replaced_without_grant(place):
    os.removexattr(place.one, PREFIX + "key")
    (place.one / "new").write_bytes(CONTENT)
    for path in (place.one, place.one / "new"):
        os.chown(path, NOBODY, NOBODY)
    script = "import os, sys; os.rename(sys.argv[1] + '/new', sys.argv[1] + '/image')"
    raise_what_it_raised(run(*as_nobody(script, place.one), check=False).stderr)


def encrypted_only(place):
    place.set(place.plain, "encrypted_only", b"1")
    return place.plain


@rule("An image is created without a key where nothing plain may come to be.")
def created_plain(place):
    open(encrypted_only(place) / "new", "xb").close()


@rule("A plain image is overwritten without a key where nothing plain may come to be.")
def overwritten_plain(place):
    (place.plain / "there").write_bytes(CONTENT)
    open(encrypted_only(place) / "there", "wb").close()


@rule("The key of a directory is removed where nothing plain may come to be.")
def key_removed(place):
    place.set(place.plain, "key", b"tenant-one")
    os.removexattr(encrypted_only(place), PREFIX + "key")


@rule("A plain image is renamed into a directory without a key where nothing plain may come to be.")
def plain_renamed(place):
    image = place.store.plain("elsewhere") / "image"
    image.write_bytes(CONTENT)
    os.rename(image, encrypted_only(place) / "image")


@rule("A directory is renamed to where nothing plain may come to be.")
def directory_renamed(place):
    os.rename(place.one, encrypted_only(place) / "one")


@rule("The attribute encrypted_only is set by somebody who is not an operator.")
def not_an_operator(place):
    os.chown(place.plain, NOBODY, NOBODY)
    script = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], b'1')"
    raise_what_it_raised(run(*as_nobody(script, place.plain, PREFIX + "encrypted_only"), check=False).stderr)


NEED_ROOT = {copied_without_the_right, replaced_without_grant, not_an_operator, not_the_owner, created_without_grant, opened_without_grant, replicated_from_without_grant, replicated_to_without_grant}


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
