#!/usr/bin/env python3
"""What desktops keep with a file goes along with copies; what decides on a copy's encryption never does."""
import errno
import os
import shutil
import unittest
import xml.etree.ElementTree
from pathlib import Path

from harness import TestCase, attribute, attribute_or_none, run, wait_until
from images import MIB

MIME_DATABASE = Path("/usr/share/mime/packages/freedesktop.org.xml")
ATTRIBUTES = {"user.xdg.comment": b"Debian 12, golden", "user.xdg.tags": b"debian,server",
              "user.xdg.origin.url": b"https://example.org/debian.img"}
CONTENT = b"content" * 10_000


def known_mime_types():
    space = "{http://www.freedesktop.org/standards/shared-mime-info}"
    root = xml.etree.ElementTree.parse(MIME_DATABASE).getroot()
    return {node.get("type") for kind in ("mime-type", "alias") for node in root.iter(space + kind)}


class Listed(TestCase):
    def test_stored_and_listed_as_anywhere(self):
        for path in (self.mnt / "image", self.mnt / "folder"):
            path.mkdir() if path.name == "folder" else path.write_bytes(CONTENT)
            for name, value in ATTRIBUTES.items():
                os.setxattr(path, name, value)
        self.store.remount()
        for path in (self.mnt / "image", self.mnt / "folder"):
            self.assertEqual(sorted(os.listxattr(path)), sorted(ATTRIBUTES))
            self.assertEqual({name: os.getxattr(path, name) for name in ATTRIBUTES}, ATTRIBUTES)
            os.removexattr(path, "user.xdg.tags")
            self.assertNotIn("user.xdg.tags", os.listxattr(path))


class MimeType(TestCase):
    def setUp(self):
        super().setUp()
        self.image = self.mnt / "image"

    def mime_type(self):
        wait_until(lambda: attribute_or_none(self.image, "format"), 20, "the format")
        return os.getxattr(self.image, "user.mime_type").decode()

    def test_of_every_format(self):
        known = known_mime_types()
        expected = {"qcow2": "qemu", "qcow": "qemu", "qed": "qed", "vmdk": "vmdk", "vhdx": "vhdx", "vpc": "vhd", "vdi": "vdi"}
        for form in expected:
            run("qemu-img", "create", "-q", "-f", form, self.mnt / form, "1M")
        self.image.write_bytes(bytes(MIB))
        self.assertEqual(self.mime_type(), "application/x-raw-disk-image")
        self.assertIn("application/x-raw-disk-image", known)
        for form, name in expected.items():
            self.image = self.mnt / form
            self.assertEqual(self.mime_type(), f"application/x-{name}-disk")
            self.assertEqual(attribute(self.image, "format"), form)
            self.assertIn(self.mime_type(), known)

    def test_answered_but_not_there(self):
        self.image.write_bytes(CONTENT)
        self.assertErrno(errno.ENODATA, os.getxattr, self.image, "user.mime_type")
        self.assertEqual(self.mime_type(), "application/x-raw-disk-image")
        self.assertEqual(os.listxattr(self.image), [])
        self.assertErrno(errno.ENODATA, os.removexattr, self.image, "user.mime_type")
        self.assertErrno(errno.ENODATA, os.getxattr, self.mnt, "user.mime_type")
        os.setxattr(self.image, "user.mime_type", b"text/plain", os.XATTR_CREATE)
        self.assertEqual((self.mime_type(), os.listxattr(self.image)), ("text/plain", ["user.mime_type"]))
        os.removexattr(self.image, "user.mime_type")
        self.assertEqual(self.mime_type(), "application/x-raw-disk-image")


class Description(TestCase):
    def setUp(self):
        super().setUp()
        self.one = self.store.encrypted("one", "tenant-one")
        self.image = self.mnt / "image"
        self.image.write_bytes(CONTENT)
        for name, value in ATTRIBUTES.items():
            os.setxattr(self.image, name, value)

    def test_stays_with_a_replica_and_a_clone(self):
        for target in (self.one / "replica", self.mnt / "clone"):
            run("cp", self.image, target)
            self.assertTrue(attribute(target, "source"))
            self.assertEqual(os.listxattr(target), ["user.xdg.comment"])
            self.assertEqual(os.getxattr(target, "user.xdg.comment"), ATTRIBUTES["user.xdg.comment"])
        os.unlink(self.image)
        self.store.remount()
        self.assertEqual(os.getxattr(self.one / "replica", "user.xdg.comment"), ATTRIBUTES["user.xdg.comment"])

    def test_a_target_keeps_its_own(self):
        (self.one / "target").write_bytes(b"old")
        os.setxattr(self.one / "target", "user.xdg.comment", b"mine")
        run("cp", self.image, self.one / "target")
        self.assertEqual((self.one / "target").read_bytes(), CONTENT)
        self.assertEqual(os.getxattr(self.one / "target", "user.xdg.comment"), b"mine")

    def test_a_source_without_one_changes_nothing(self):
        os.removexattr(self.image, "user.xdg.comment")
        run("cp", self.image, self.one / "target")
        self.assertEqual(os.listxattr(self.one / "target"), [])


def copy2(source, target):
    shutil.copy2(source, target)


def copytree(source, target):
    shutil.copytree(source, target / source.name)


def tool(*command):
    def copy(source, target):
        run(*command, source, target)
    return copy


def tar(source, target):
    archive = target.parent / "archive.tar"
    run("tar", "--xattrs", "--xattrs-include=*", "-C", source.parent, "-cf", archive, source.name)
    run("tar", "--xattrs", "--xattrs-include=*", "-C", target, "-xpf", archive)


TREE_COPIERS = {"cp -a": tool("cp", "-a"), "cp --preserve=xattr": tool("cp", "-r", "--preserve=xattr"),
                "rsync -aX": tool("rsync", "-aX"), "tar --xattrs": tar, "copytree": copytree, "mv": tool("mv")}
FILE_COPIERS = {"cp -a": tool("cp", "-a"), "cp --preserve=xattr": tool("cp", "--preserve=xattr"),
                "cp --preserve=all": tool("cp", "--preserve=all"), "rsync -aX": tool("rsync", "-aX"),
                "gio copy": tool("gio", "copy"), "gio copy -p": tool("gio", "copy", "--preserve"), "copy2": copy2,
                "tar --xattrs": tar}


class CopyingTools(TestCase):
    """From a directory with one policy into one with another: the target's counts, and attributes arrive."""

    def setUp(self):
        super().setUp()
        self.store.key("tenant-one")
        self.store.key("tenant-two")

    def source(self, name):
        folder = self.store.policy(name, "tenant-one")
        os.setxattr(folder, "user.rekeyfs.type", b"system-disk")
        os.setxattr(folder, "user.xdg.tags", b"tagged")
        (folder / "image").write_bytes(CONTENT)
        for attribute_name, value in ATTRIBUTES.items():
            os.setxattr(folder / "image", attribute_name, value)
        return folder

    def targets(self, name):
        """Directories of another policy: of another key, and plain; both of type data-disk."""
        for target in (self.store.policy(f"{name}-two", "tenant-two"), self.store.plain(f"{name}-plain")):
            os.setxattr(target, "user.rekeyfs.type", b"data-disk")
            yield target, attribute_or_none(target, "key")

    def assertPolicyKept(self, target, key):
        self.assertEqual((attribute_or_none(target, "key"), attribute(target, "type")), (key, "data-disk"))

    def assertArrived(self, image, key):
        self.assertEqual(attribute_or_none(image, "key"), key)
        self.assertEqual(image.read_bytes(), CONTENT)
        self.assertEqual({name: os.getxattr(image, name) for name in ATTRIBUTES}, ATTRIBUTES)

    def test_files(self):
        for number, (name, copy) in enumerate(FILE_COPIERS.items()):
            image = self.source(f"files-{number}") / "image"
            for target, key in self.targets(f"files-{number}"):
                with self.subTest(tool=name, key=key):
                    copy(image, target)
                    self.assertArrived(target / "image", key)
                    self.assertPolicyKept(target, key)

    def test_trees(self):
        for number, (name, copy) in enumerate(TREE_COPIERS.items()):
            for target, key in self.targets(f"trees-{number}"):
                with self.subTest(tool=name, key=key):
                    folder = self.source(f"trees-{number}-{key}")
                    if name == "mv":  # moved as it is, with its policy
                        copy(folder, target)
                        self.assertArrived(target / folder.name / "image", "tenant-one")
                        continue
                    copy(folder, target)
                    self.assertArrived(target / folder.name / "image", key)
                    self.assertPolicyKept(target, key)
                    self.assertPolicyKept(target / folder.name, key)

    def test_contents_of_a_tree_into_an_existing_one(self):
        """rsync -aX A/ B and cp -aT A B set attributes of the target directory itself."""
        for number, command in enumerate((["rsync", "-aX"], ["cp", "-aT"])):
            folder = self.source(f"onto-{number}")
            for target, key in self.targets(f"onto-{number}"):
                run(*command, f"{folder}/", target)
                self.assertArrived(target / "image", key)
                self.assertPolicyKept(target, key)
                self.assertEqual(os.getxattr(target, "user.xdg.tags"), b"tagged")

    def test_out_and_in_again(self):
        """A copy outside carries nothing of ours that would be refused or obeyed when it comes back."""
        image = self.source("out") / "image"
        run("cp", "-a", image, self.store.scratch / "image")
        self.assertEqual(sorted(os.listxattr(self.store.scratch / "image")), sorted(ATTRIBUTES))
        for target, key in self.targets("out"):
            run("cp", "-a", self.store.scratch / "image", target)
            self.assertArrived(target / "image", key)


if __name__ == "__main__":
    unittest.main()
