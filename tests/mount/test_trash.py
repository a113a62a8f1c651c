#!/usr/bin/env python3
"""Deleting in a file manager: an encrypted image goes to the trash, and back, without a plain copy of it."""
import errno
import os
import shutil
import stat
import unittest

from harness import NOBODY, TestCase, attribute, attribute_or_none, rekeyfs, run
from images import holds_bytes

SECRET = b"TENANT-ONE-SECRET"
CONTENT = SECRET * 10_000


class TrashCase(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        self.user = NOBODY if os.geteuid() == 0 else os.geteuid()
        self.trash = self.mnt / f".Trash-{self.user}"
        self.home = self.store.scratch / "home"
        self.home.mkdir()
        self.one, self.public = self.store.encrypted("one", "tenant-one"), self.store.plain("public")
        rekeyfs("key", "grant", "tenant-one", str(self.user), self.mnt)
        for path in (self.mnt, self.home, self.one, self.public):
            os.chown(path, self.user, self.user)
        self.image = self.make(self.one / "image")

    def make(self, path):
        path.write_bytes(CONTENT)
        os.chown(path, self.user, self.user)
        self.store.wait_normal(path)
        return path

    def as_user(self, *command, **options):
        environment = os.environ | {"HOME": str(self.home), "XDG_DATA_HOME": str(self.home / "share")}
        uid = self.user if os.geteuid() == 0 else None
        return run(*command, uid=uid, env=environment, **options)

    def facts(self, path):
        return {name: attribute_or_none(path, name) for name in ("id", "key", "digest", "status")} | {
            "mode": stat.S_IMODE(os.stat(path).st_mode), "content": path.read_bytes() == CONTENT}

    def assertNoPlainCopy(self):
        self.store.umount()
        self.assertEqual(holds_bytes(self.store.store, SECRET), [])
        self.store.mount()


@unittest.skipUnless(shutil.which("gio"), "needs gio")
class Gio(TrashCase):
    def test_trash_and_back(self):
        before = self.facts(self.image)
        self.as_user("gio", "trash", self.image)
        trashed = self.trash / "files/image"
        self.assertFalse(self.image.exists())
        self.assertEqual(self.facts(trashed), before)
        self.assertEqual(before["key"], "tenant-one")
        self.assertTrue((self.trash / "info/image.trashinfo").exists())
        self.assertNoPlainCopy()
        self.assertEqual(self.facts(trashed), before)
        self.as_user("gio", "move", trashed, self.image)  # as a file manager restores
        self.assertEqual(self.facts(self.image), before)
        self.assertNoPlainCopy()

    def test_a_directory(self):
        before = self.facts(self.image)
        self.as_user("gio", "trash", self.one)
        self.assertEqual(self.facts(self.trash / "files/one/image"), before)
        self.as_user("mv", self.trash / "files/one/image", self.trash / "files/one/renamed")
        os.rename(self.trash / "files/one", self.mnt / "one")
        self.assertEqual(self.facts(self.one / "renamed"), before)

    def test_emptying_deletes(self):
        self.as_user("gio", "trash", self.image)
        shutil.rmtree(self.trash)
        self.assertNoPlainCopy()


@unittest.skipUnless(shutil.which("trash-put"), "needs trash-cli")
class TrashCli(TrashCase):
    def restore(self, path):
        self.as_user("sh", "-c", 'cd "$1" && echo 0 | trash-restore "$2"', "sh", path.parent, path)

    def test_trash_and_back(self):
        before = self.facts(self.image)
        self.as_user("trash-put", self.image)
        self.assertFalse(self.image.exists())
        self.assertEqual(self.facts(self.trash / "files/image"), before)
        self.assertIn(str(self.image), self.as_user("trash-list").stdout)
        self.assertNoPlainCopy()
        self.restore(self.image)
        self.assertEqual(self.facts(self.image), before)
        self.assertNoPlainCopy()

    def test_the_shared_trash(self):
        shared = self.mnt / ".Trash"
        shared.mkdir()
        shared.chmod(0o1777)
        before = self.facts(self.image)
        self.as_user("trash-put", self.image)
        self.assertEqual(self.facts(shared / str(self.user) / "files/image"), before)
        self.restore(self.image)
        self.assertEqual(self.facts(self.image), before)


class Rules(TrashCase):
    def setUp(self):
        super().setUp()
        self.files = self.trash / "files"
        self.files.mkdir(parents=True)
        os.chown(self.trash, self.user, self.user)

    def test_out_of_the_trash_by_the_images_own_key(self):
        os.rename(self.image, self.files / "image")
        self.assertErrno(errno.EXDEV, os.rename, self.files / "image", self.public / "image")
        self.assertErrno(errno.EXDEV, os.link, self.files / "image", self.public / "image")
        two = self.store.encrypted("two", "tenant-two")
        self.assertErrno(errno.EXDEV, os.rename, self.files / "image", two / "image")
        other = self.store.policy("other", "tenant-one")
        os.rename(self.files / "image", other / "image")
        self.assertEqual(attribute(other / "image", "key"), "tenant-one")
        (self.public / "plain").write_bytes(b"plain")
        os.rename(self.public / "plain", self.files / "plain")
        self.assertErrno(errno.EXDEV, os.rename, self.files / "plain", self.one / "plain")
        os.rename(self.files / "plain", self.public / "plain")

    def test_disks_go_back_to_where_they_were(self):
        """Of fast create, and a clone of one in a directory without it."""
        fast = self.store.policy("fast", "tenant-one")
        os.setxattr(fast, "user.rekeyfs.fast_create", b"1")
        run("cp", self.image, fast / "disk")
        run("cp", fast / "disk", self.one / "clone")
        for place in (fast / "disk", self.one / "clone"):
            os.rename(place, self.files / "trashed")
            os.rename(self.files / "trashed", place)
        os.rename(self.image, self.files / "image")
        self.assertErrno(errno.EXDEV, os.rename, self.files / "image", fast / "image")

    def test_what_is_new_in_the_trash_follows_the_policy(self):
        (self.files / "new").write_bytes(b"plain")
        self.assertIsNone(attribute_or_none(self.files / "new", "key"))
        os.setxattr(self.files, "user.rekeyfs.key", b"tenant-one")
        (self.files / "another").write_bytes(b"x")
        self.assertEqual(attribute(self.files / "another", "key"), "tenant-one")

    def test_only_a_trash_directory_of_its_owner_is_one(self):
        for name, owner in ((f".Trash-{self.user + 1}", self.user), (".Trash-", self.user), (f"Trash-{self.user}", self.user),
                            (".Trash", self.user), (f"trash/{self.user}", self.user), (f".Trash/{self.user + 1}", self.user)):
            path = self.mnt / name
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, owner, owner)
            self.assertErrno(errno.EXDEV, os.rename, self.image, path / "image")

    def test_a_protected_image_is_not_trashed(self):
        os.setxattr(self.image, "user.rekeyfs.protected", b"1")
        self.assertErrno(errno.EPERM, os.rename, self.image, self.files / "image")

    def test_nothing_plain_in_the_trash_of_a_directory_that_is_encrypted_only(self):
        os.setxattr(self.one, "user.rekeyfs.encrypted_only", b"1")
        files = self.one / f".Trash-{self.user}/files"
        files.mkdir(parents=True)
        os.chown(files.parent, self.user, self.user)
        (self.public / "plain").write_bytes(b"plain")
        self.assertErrno(errno.EXDEV, os.rename, self.public / "plain", files / "plain")
        os.rename(self.image, files / "image")
        os.rename(files / "image", self.image)


if __name__ == "__main__":
    unittest.main()
