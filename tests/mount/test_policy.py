#!/usr/bin/env python3
"""The user.rekeyfs.* attributes: who may set which, what they do, and that no copying tool carries them along."""
import errno
import os
import stat
import unittest

from harness import NOBODY, TestCase, attribute, needs_root, run
from images import KIB

PREFIX = "user.rekeyfs."


def set_attribute(path, name, value):
    os.setxattr(path, PREFIX + name, value)


class Policy(TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.store.encrypted("folder", "tenant-one")
        self.store.key("tenant-two")
        self.image = self.folder / "image"
        self.image.write_bytes(b"content" * 1000)

    def test_answered_by_name_but_never_listed(self):
        os.setxattr(self.image, "user.xdg.comment", b"listed")
        self.assertEqual(os.listxattr(self.image), ["user.xdg.comment"])
        self.assertEqual(os.listxattr(self.folder), [])
        for name in ("encryption", "key", "key_id", "id", "status"):
            self.assertTrue(attribute(self.image, name), name)
        for name in ("encryption", "key"):
            self.assertTrue(attribute(self.folder, name), name)
        shown = run("getfattr", "--only-values", "-n", PREFIX + "key", self.image).stdout
        self.assertEqual(shown, "tenant-one")

    def test_create_and_replace_are_told_apart(self):
        for path, name, value in ((self.folder, "key", b"tenant-two"), (self.folder, "type", b"data-disk"),
                                  (self.folder, "fast_create", b"1"), (self.image, "type", b"data-disk"),
                                  (self.image, "protected", b"1")):
            with self.subTest(path=path.name, name=name):
                if name == "key":
                    os.removexattr(path, PREFIX + name)
                self.assertErrno(errno.ENODATA, os.setxattr, path, PREFIX + name, value, os.XATTR_REPLACE)
                self.assertErrno(errno.ENODATA, os.getxattr, path, PREFIX + name)
                os.setxattr(path, PREFIX + name, value, os.XATTR_CREATE)
                self.assertErrno(errno.EEXIST, os.setxattr, path, PREFIX + name, value, os.XATTR_CREATE)
                os.setxattr(path, PREFIX + name, value, os.XATTR_REPLACE)
                self.assertEqual(os.getxattr(path, PREFIX + name), value)

    def test_plain_directories_have_no_key(self):
        self.assertEqual(attribute(self.mnt, "encryption"), "none")
        self.assertErrno(errno.ENODATA, os.getxattr, self.mnt, PREFIX + "key")

    def test_new_directories_take_the_policy_of_their_parent(self):
        (self.folder / "a/b").mkdir(parents=True)
        self.assertEqual(attribute(self.folder / "a/b", "key"), "tenant-one")
        set_attribute(self.folder, "key", b"tenant-two")
        self.assertEqual(attribute(self.folder / "a", "key"), "tenant-one")
        self.assertEqual(attribute(self.image, "key"), "tenant-one")
        (self.folder / "new").write_bytes(b"x")
        self.assertEqual(attribute(self.folder / "new", "key"), "tenant-two")
        self.store.remount()
        self.assertEqual(attribute(self.folder / "a/b", "key"), "tenant-one")
        self.assertEqual(attribute(self.folder, "key"), "tenant-two")
        self.assertEqual(self.image.read_bytes(), b"content" * 1000)

    def test_content_copied_over_an_image_follows_the_policy_of_today(self):
        folder = self.store.plain("turning")
        for name, before in (("empty", b""), ("full", b"before")):
            (folder / name).write_bytes(before)
        set_attribute(folder, "key", b"tenant-two")
        for name in ("empty", "full"):
            run("cp", self.image, folder / name)
            self.assertEqual(attribute(folder / name, "key"), "tenant-two", name)

    def test_a_removed_key_makes_new_images_plain(self):
        os.removexattr(self.folder, PREFIX + "key")
        self.assertEqual(attribute(self.folder, "encryption"), "none")
        (self.folder / "new").write_bytes(b"x")
        self.assertEqual(attribute(self.folder / "new", "encryption"), "none")
        self.assertEqual(attribute(self.image, "encryption"), "kms")

    def test_a_key_by_its_id(self):
        identity = attribute(self.image, "key_id")
        self.assertRegex(identity, "^[0-9a-f]{32}$")
        other = self.store.plain("other")
        set_attribute(other, "key", identity.encode())
        (other / "image").write_bytes(b"x")
        self.assertEqual(attribute(other / "image", "key_id"), identity)

    def test_type_is_given_to_new_images(self):
        set_attribute(self.folder, "type", b"system-disk")
        (self.folder / "new").write_bytes(b"x")
        self.assertEqual(attribute(self.folder / "new", "type"), "system-disk")
        set_attribute(self.folder / "new", "type", b"data-disk")
        self.assertEqual(attribute(self.folder / "new", "type"), "data-disk")

    def test_malformed_values_change_nothing(self):
        for value in (b"", b"a\0b", b"\xff\xfe", b"x" * 256):
            self.assertErrno(errno.EINVAL, set_attribute, self.folder, "key", value)
        for name, value in (("type", b"floppy"), ("fast_create", b"2"), ("fast_create", b"yes")):
            self.assertErrno(errno.EINVAL, set_attribute, self.folder, name, value)
        self.assertErrno(errno.EINVAL, set_attribute, self.image, "type", b"floppy")
        self.assertErrno(errno.EINVAL, set_attribute, self.image, "protected", b"maybe")
        self.assertEqual(attribute(self.folder, "key"), "tenant-one")

    def test_unknown_keys(self):
        self.assertErrno(errno.ENOKEY, set_attribute, self.folder, "key", b"nobody")
        self.assertEqual(attribute(self.folder, "key"), "tenant-one")

    def test_read_only_and_unknown_names(self):
        for name in ("encryption", "id", "status", "progress", "source", "format", "digest", "error", "receipt",
                     "stored", "key", "key_id", "unheard_of"):
            self.assertErrno(errno.EPERM, set_attribute, self.image, name, b"1")
        for name in ("encryption", "status", "unheard_of"):
            self.assertErrno(errno.EPERM, set_attribute, self.folder, name, b"1")
        self.assertErrno(errno.EPERM, os.removexattr, self.image, PREFIX + "key")
        self.assertErrno(errno.ENODATA, os.getxattr, self.image, PREFIX + "unheard_of")

    def test_copying_tools_do_not_carry_the_policy(self):
        for number, command in enumerate((["cp", "-a"], ["rsync", "-aX"])):
            target = self.store.plain(f"target-{number}")
            run(*command, self.folder, target)
            self.assertEqual(attribute(target / "folder", "encryption"), "none")
            self.assertEqual(attribute(target / "folder/image", "encryption"), "none")
            self.assertEqual((target / "folder/image").read_bytes(), b"content" * 1000)

    def test_protected_images(self):
        set_attribute(self.image, "protected", b"1")
        self.assertErrno(errno.EPERM, os.unlink, self.image)
        self.assertErrno(errno.EPERM, os.truncate, self.image, 0)
        self.assertErrno(errno.EPERM, os.open, self.image, os.O_WRONLY)
        self.assertErrno(errno.EPERM, os.rename, self.image, self.mnt / "elsewhere")
        (self.folder / "other").write_bytes(b"other")
        self.assertErrno(errno.EPERM, os.rename, self.folder / "other", self.image)
        self.assertEqual(self.image.read_bytes(), b"content" * 1000)
        self.assertEqual(run("mv", self.image, self.mnt, check=False).returncode, 1)
        self.assertFalse((self.mnt / "image").exists())
        set_attribute(self.image, "protected", b"0")
        os.unlink(self.image)

    def test_an_encrypted_image_is_not_shared(self):
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        path = self.folder / "private"
        path.write_bytes(b"x" * 64 * KIB)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
        self.store.wait_normal(path)
        for mode in (0o640, 0o604):
            self.assertErrno(errno.EPERM, path.chmod, mode)
        path.chmod(0o400)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o400)

    def test_a_copying_tool_may_chmod_after_writing(self):
        source = self.store.scratch / "source"
        source.write_bytes(b"x" * 64 * KIB)
        source.chmod(0o644)
        for command in (["cp", "-p"], ["install", "-m", "644"], ["rsync", "-a"]):
            run(*command, source, self.folder / command[0])
            self.assertEqual(stat.S_IMODE(os.stat(self.folder / command[0]).st_mode), 0o600, command)


@needs_root
class PolicyOfOthers(TestCase):
    mount_arguments = ("-o", "allow_other")

    def test_only_the_owner_and_root_set_a_policy(self):
        self.store.key("tenant")
        folder = self.store.plain("folder")
        folder.chmod(0o777)
        command = ["setfattr", "-n", PREFIX + "key", "-v", "tenant", folder]
        done = run(*command, uid=NOBODY, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(attribute(folder, "encryption"), "none")
        run("setfattr", "-n", PREFIX + "key", "-v", "tenant", folder)
        self.assertEqual(run("setfattr", "-x", PREFIX + "key", folder, uid=NOBODY, check=False).returncode, 1)
        self.assertEqual(attribute(folder, "key"), "tenant")


if __name__ == "__main__":
    unittest.main()
