#!/usr/bin/env python3
"""Types and `protected`: what they forbid, what they leave alone, and who may set them."""
import errno
import os
import stat
import unittest

from harness import NOBODY, TestCase, attribute, attribute_or_none, needs_root, run
from images import KIB
from syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

CONTENT = b"content" * 10_000


def set_attribute(path, name, value):
    os.setxattr(path, f"user.rekeyfs.{name}", value)


class Protected(TestCase):
    def setUp(self):
        super().setUp()
        self.one, self.two = self.store.encrypted("one", "tenant-one"), self.store.encrypted("two", "tenant-two")
        self.same = self.store.policy("same", "tenant-one")
        self.image, self.other = self.one / "image", self.one / "other"
        for path in (self.image, self.other, self.two / "outside"):
            path.write_bytes(CONTENT)
        set_attribute(self.image, "protected", b"1")

    def tearDown(self):
        self.assertEqual(self.image.read_bytes(), CONTENT)
        self.assertEqual(attribute(self.image, "protected"), "1")

    def test_deleting(self):
        self.assertErrno(errno.EPERM, os.unlink, self.image)
        os.link(self.image, self.same / "link")
        self.assertErrno(errno.EPERM, os.unlink, self.same / "link")
        self.assertEqual(run("rm", "-rf", self.one, check=False).returncode, 1)

    def test_opening_to_change(self):
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND,
                      os.O_CREAT | os.O_WRONLY):
            self.assertErrno(errno.EPERM, os.open, self.image, flags)
        for size in (0, 1, len(CONTENT), 10 * len(CONTENT)):
            self.assertErrno(errno.EPERM, os.truncate, self.image, size)

    def test_replacing(self):
        for source in (self.other, self.two / "outside"):  # of the same policy and of another one
            self.assertErrno(errno.EPERM, os.rename, source, self.image)
            self.assertEqual(run("mv", "-f", source, self.image, check=False).returncode, 1)
            self.assertTrue(source.exists())
        (self.one / "link").symlink_to("other")
        self.assertErrno(errno.EPERM, os.rename, self.one / "link", self.image)
        for command in (["cp"], ["cp", "-f"], ["cp", "--remove-destination"], ["install"], ["rsync", "-I"], ["rsync", "-I", "--inplace"]):
            self.assertNotEqual(run(*command, self.other, self.image, check=False).returncode, 0, command)

    def test_leaving_its_policy(self):
        self.assertErrno(errno.EPERM, os.rename, self.image, self.two / "image")
        self.assertErrno(errno.EPERM, renameat2, self.image, self.two / "outside", RENAME_EXCHANGE)
        self.assertErrno(errno.EPERM, renameat2, self.two / "outside", self.image, RENAME_EXCHANGE)
        done = run("mv", self.image, self.two, check=False)
        self.assertEqual((done.returncode, sorted(os.listdir(self.two))), (1, ["outside"]), "mv copied it")

    def test_within_its_policy_it_moves_and_is_linked_and_copied(self):
        os.rename(self.image, self.one / "renamed")
        renameat2(self.one / "renamed", self.same / "moved", RENAME_NOREPLACE)
        renameat2(self.same / "moved", self.other, RENAME_EXCHANGE)
        os.rename(self.other, self.image)
        os.rename(self.one, self.two / "directory")
        os.rename(self.two / "directory", self.one)
        run("cp", self.image, self.two / "copy")
        self.assertEqual((self.two / "copy").read_bytes(), CONTENT)
        self.assertIsNone(attribute_or_none(self.two / "copy", "protected"))
        os.unlink(self.two / "copy")

    def test_its_attributes_can_be_changed(self):
        self.store.wait_normal(self.image)
        self.image.chmod(0o400)
        os.utime(self.image, ns=(1, 2))
        os.setxattr(self.image, "user.xdg.comment", b"golden")
        set_attribute(self.image, "type", b"system-disk")
        if os.geteuid() == 0:
            os.chown(self.image, NOBODY, NOBODY)
        facts = os.stat(self.image)
        self.assertEqual((stat.S_IMODE(facts.st_mode), facts.st_mtime_ns), (0o400, 2))
        os.removexattr(self.image, "user.xdg.comment")

    def test_it_stays_after_a_remount_and_ends_when_it_is_taken_back(self):
        self.store.remount()
        self.assertErrno(errno.EPERM, os.unlink, self.image)
        os.removexattr(self.image, "user.rekeyfs.protected")
        os.rename(self.other, self.image)
        set_attribute(self.image, "protected", b"1")


@needs_root
class Owners(TestCase):
    mount_arguments = ("-o", "allow_other")

    def test_who_sets_type_and_protected(self):
        folder = self.store.plain("folder")
        image = folder / "image"
        image.write_bytes(CONTENT)
        for path in (folder, image):
            path.chmod(0o777)
        setters = (["setfattr", "-n", "user.rekeyfs.protected", "-v", "1", image],
                   ["setfattr", "-n", "user.rekeyfs.type", "-v", "data-disk", image],
                   ["setfattr", "-n", "user.rekeyfs.type", "-v", "data-disk", folder])
        for command in setters:
            done = run(*command, uid=NOBODY, check=False)
            self.assertIn(os.strerror(errno.EPERM), done.stderr)
        os.chown(image, NOBODY, NOBODY)
        os.chown(folder, NOBODY, NOBODY)
        for command in setters:
            run(*command, uid=NOBODY)
        self.assertIn(os.strerror(errno.EPERM), run("rm", "-f", image, uid=NOBODY, check=False).stderr)
        run("setfattr", "-x", "user.rekeyfs.protected", image)  # root may, too
        os.chown(image, 0, 0)
        self.assertIn(os.strerror(errno.EPERM),
                      run("setfattr", "-x", "user.rekeyfs.type", image, uid=NOBODY, check=False).stderr)


class Types(TestCase):
    def setUp(self):
        super().setUp()
        self.plain, self.one = self.store.plain("plain"), self.store.encrypted("one", "tenant-one")
        self.image = self.plain / "image"
        self.image.write_bytes(CONTENT)

    def test_a_replica_has_its_sources_type_or_else_its_directorys(self):
        set_attribute(self.one, "type", b"data-disk")
        run("cp", self.image, self.one / "from-none")
        set_attribute(self.image, "type", b"system-disk")
        run("cp", self.image, self.one / "from-system")
        run("cp", self.image, self.one / "from-none-again")
        self.assertEqual([attribute(self.one / name, "type") for name in ("from-none", "from-system", "from-none-again")],
                         ["data-disk", "system-disk", "system-disk"])

    def test_full_ecs_is_never_replicated(self):
        set_attribute(self.image, "type", b"full-ecs")
        for folder in (self.one, self.plain):  # a clone is one, too
            for command in (["cp"], ["cp", "-a"], ["cp", "--sparse=never"]):
                done = run(*command, self.image, folder / "target", check=False)
                self.assertIn(os.strerror(errno.EMEDIUMTYPE), done.stderr)
                self.assertFalse((folder / "target").exists())
        done = run("mv", self.image, self.one / "target", check=False)
        self.assertIn(os.strerror(errno.EMEDIUMTYPE), done.stderr)
        self.assertEqual((self.image.read_bytes(), os.listdir(self.one)), (CONTENT, []))

    def test_full_ecs_neither_in_parts_nor_into_content(self):
        set_attribute(self.image, "type", b"full-ecs")
        (self.one / "target").write_bytes(b"old" * 100_000)
        for offset_in, offset_out, size in ((0, 0, len(CONTENT)), (0, 16 * KIB, 4096), (4096, 4096, 1)):
            with open(self.image, "rb") as source, open(self.one / "target", "r+b") as out:
                self.assertErrno(errno.EMEDIUMTYPE, os.copy_file_range, source.fileno(), out.fileno(), size, offset_in, offset_out)
        self.assertEqual((self.one / "target").read_bytes(), b"old" * 100_000)

    def test_full_ecs_ends_when_its_type_is_taken_back(self):
        set_attribute(self.image, "type", b"full-ecs")
        os.removexattr(self.image, "user.rekeyfs.type")
        run("cp", self.image, self.one / "target")
        self.assertEqual((self.one / "target").read_bytes(), CONTENT)


if __name__ == "__main__":
    unittest.main()
