#!/usr/bin/env python3
"""The tools people use bring images in and out byte for byte, whatever their way of copying."""
import os
import unittest

from harness import TestCase, run
from images import MIB

SIZE = 12 * MIB + 12345


class Tools:
    """The tests; make_folder() says where: in a plain or in an encrypted directory."""

    def setUp(self):
        super().setUp()
        self.folder = self.make_folder()
        self.source, self.target = self.store.original("original.img", SIZE), self.folder / "image"

    def assertArrived(self, target=None):
        self.assertSame(self.source, target or self.target)

    def test_cp(self):
        run("cp", self.source, self.target)
        self.assertArrived()
        run("cp", self.target, self.store.scratch / "back")
        self.assertArrived(self.store.scratch / "back")

    def test_cp_into_a_directory_at_once_from_there(self):
        run("sh", "-c", 'cp "$1" "$2/one" && cp "$2/one" "$2/two"', "sh", self.source, self.folder)
        self.assertArrived(self.folder / "two")

    def test_cp_archive_keeps_times_and_attributes(self):
        os.utime(self.source, ns=(1_500_000_000_000_000_001, 1_600_000_000_000_000_002))
        os.setxattr(self.source, "user.xdg.comment", b"a comment")
        run("cp", "-a", self.source, self.target)
        self.assertArrived()
        self.assertEqual(os.stat(self.target).st_mtime_ns, 1_600_000_000_000_000_002)
        self.assertEqual(os.getxattr(self.target, "user.xdg.comment"), b"a comment")
        run("cp", "-a", self.target, self.folder / "again")
        self.assertArrived(self.folder / "again")
        self.assertEqual(os.getxattr(self.folder / "again", "user.xdg.comment"), b"a comment")

    def test_cp_of_a_tree(self):
        tree = self.store.scratch / "tree"
        (tree / "below/deep").mkdir(parents=True)
        run("cp", self.source, tree / "below/image")
        (tree / "below/deep/small").write_bytes(b"small")
        (tree / "link").symlink_to("below/image")
        run("cp", "-a", tree, self.folder)
        run("diff", "-r", "--no-dereference", tree, self.folder / "tree")
        run("cp", "-a", self.folder / "tree", self.folder / "copy")
        run("diff", "-r", "--no-dereference", tree, self.folder / "copy")

    def test_dd(self):
        run("dd", f"if={self.source}", f"of={self.target}", "bs=64K", "conv=fsync", "status=none")
        self.assertArrived()
        run("dd", f"if={self.target}", f"of={self.store.scratch / 'back'}", "bs=10007", "status=none")
        self.assertArrived(self.store.scratch / "back")

    def test_cat(self):
        run("sh", "-c", 'cat "$1" >"$2"; cat "$2" >"$3"', "sh", self.source, self.target, self.folder / "again")
        self.assertArrived()
        self.assertArrived(self.folder / "again")

    def test_tar(self):
        archive = self.store.scratch / "archive.tar"
        run("tar", "-C", self.source.parent, "-cf", archive, self.source.name)
        run("tar", "-C", self.folder, "-xpf", archive)
        self.assertArrived(self.folder / self.source.name)
        run("tar", "-C", self.folder, "-cSf", self.folder / "inside.tar", self.source.name)
        (self.store.scratch / "out").mkdir()
        run("tar", "-C", self.store.scratch / "out", "-xf", self.folder / "inside.tar")
        self.assertArrived(self.store.scratch / "out" / self.source.name)

    def test_rsync(self):
        os.setxattr(self.source, "user.xdg.comment", b"a comment")
        run("rsync", "-aX", self.source, self.target)
        self.assertArrived()
        with open(self.source, "r+b") as file:
            file.seek(5 * MIB)
            file.write(b"changed" * 1000)
        run("rsync", "-aXI", "--inplace", "--no-whole-file", self.source, self.target)
        self.assertArrived()
        run("rsync", "-aXS", self.target, self.store.scratch / "back")
        self.assertArrived(self.store.scratch / "back")
        self.assertEqual(os.getxattr(self.store.scratch / "back", "user.xdg.comment"), b"a comment")

    def test_install(self):
        run("install", "-m", "600", self.source, self.target)
        self.assertArrived()
        self.assertEqual(os.stat(self.target).st_mode & 0o777, 0o600)
        run("install", self.target, self.folder / "again")
        self.assertArrived(self.folder / "again")

    def test_mv_in_and_out(self):
        run("cp", self.source, self.store.scratch / "moved")
        run("mv", self.store.scratch / "moved", self.target)
        self.assertArrived()
        self.assertFalse((self.store.scratch / "moved").exists())
        run("mv", self.target, self.folder / "renamed")
        self.assertArrived(self.folder / "renamed")
        run("mv", self.folder / "renamed", self.store.scratch / "back")
        self.assertArrived(self.store.scratch / "back")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_qemu_img_convert_in_and_out(self):
        for extra in ((), ("-C",)):
            disk, raw, back = self.folder / "disk.qcow2", self.folder / "disk.raw", self.store.scratch / "back"
            run("qemu-img", "resize", "-q", "-f", "raw", self.source, 13 * MIB)
            run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.source, disk)
            run("qemu-img", "check", "-q", disk)
            run("qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2", self.source, disk)
            run("qemu-img", "convert", *extra, "-f", "qcow2", "-O", "raw", disk, raw)
            self.assertArrived(raw)
            run("qemu-img", "convert", *extra, "-f", "raw", "-O", "raw", raw, self.target)
            self.assertArrived()
            run("qemu-img", "convert", *extra, "-f", "raw", "-O", "raw", self.target, back)
            self.assertArrived(back)

    def test_writing_in_place(self):
        run("cp", self.source, self.target)
        for path in (self.source, self.target):
            run("qemu-io", "-f", "raw", "-c", "write -P 0xa5 1M 300k", "-c", "discard 6M 64k", "-c", "write -z 7M 1M",
                "-c", "flush", path)
        self.assertEqual(run("cmp", "-n", 6 * MIB, self.source, self.target).returncode, 0)
        self.assertEqual(run("cmp", "-i", 7 * MIB, self.source, self.target).returncode, 0)


class PlainTools(Tools, TestCase):
    def make_folder(self):
        return self.store.plain("folder")


class EncryptedTools(Tools, TestCase):
    def make_folder(self):
        return self.store.encrypted("folder", "tenant")


if __name__ == "__main__":
    unittest.main()
