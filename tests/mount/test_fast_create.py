#!/usr/bin/env python3
"""Fast create: an image of any format becomes the disk a VM sees, from the first byte on; instance disks are its clones."""
import errno
import os
import time
import unittest
from pathlib import Path

from harness import TestCase, attribute, attribute_or_none, rekeyfs, run, wait_until
from images import KIB, MIB
from vhdx_log import leave_log

# name -> qemu-img convert's options.
FORMATS = {
    "qcow2": ("-O", "qcow2"),
    "qcow2-zlib": ("-O", "qcow2", "-c"),
    "qcow2-zstd": ("-O", "qcow2", "-c", "-o", "compression_type=zstd"),
    "qcow2-subclusters": ("-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"),
    "qcow": ("-O", "qcow"),
    "qed": ("-O", "qed"),
    "vmdk": ("-O", "vmdk"),
    "vmdk-stream": ("-O", "vmdk", "-o", "subformat=streamOptimized"),
    "vpc": ("-O", "vpc", "-o", "force_size=on"),
    "vpc-fixed": ("-O", "vpc", "-o", "subformat=fixed,force_size=on"),
    "vhdx": ("-O", "vhdx"),
    "vdi": ("-O", "vdi"),
}


class FastCreateCase(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.one = self.store.encrypted("one", "tenant-one")
        self.fast = self.store.encrypted("fast", "tenant-two")
        os.setxattr(self.fast, "user.rekeyfs.fast_create", b"1")
        self.vms = self.store.policy("vms", "tenant-two")
        self.raw = self.store.original("disk.raw", 24 * MIB + 512)

    def converted(self, name, options, source=None):
        path = self.store.scratch / name
        run("qemu-img", "convert", "-f", "raw", *options, source or self.raw, path)
        return path

    def expected(self, image, image_format):
        """The disk in an image, as qemu-img sees it."""
        path = image.with_suffix(".expected")
        run("qemu-img", "convert", "-f", image_format, "-O", "raw", image, path)
        return path

    def imported(self, image):
        run("cp", image, self.one)
        return self.one / image.name


class Formats(FastCreateCase):
    def check(self, name):
        options = FORMATS[name]
        image = self.converted(name, options)
        expected = self.expected(image, options[1])
        source = self.imported(image)
        target = self.fast / name
        run("cp", source, target)
        self.assertIn(self.store.status(target), ("replicating", "normal-uninitialized", "normal"))
        self.assertSame(expected, target)  # whatever is transformed by now
        self.assertEqual((attribute(target, "format"), attribute(target, "fast_create")), ("raw", "1"))
        self.store.wait_normal(target)
        self.assertSame(expected, target)
        self.store.remount()
        self.assertSame(expected, target)
        self.assertSame(image, source)
        self.assertLessEqual(int(attribute(target, "stored")), os.stat(expected).st_blocks * 512 + MIB)


def _add(name):
    setattr(Formats, f"test_{name.replace('-', '_')}", lambda self: self.check(name))


for _name in FORMATS:
    _add(_name)


class Disks(FastCreateCase):
    def test_an_internal_snapshot_is_not_the_disk(self):
        image = self.converted("snapshots", FORMATS["qcow2"])
        run("qemu-img", "snapshot", "-c", "before", image)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 1M 3M", image)
        expected = self.expected(image, "qcow2")
        run("cp", self.imported(image), self.fast / "disk")
        self.assertSame(expected, self.fast / "disk")
        self.store.wait_normal(self.fast / "disk")
        self.assertSame(expected, self.fast / "disk")

    def test_many_at_once_are_read_by_a_few_processes(self):
        image = self.converted("image", FORMATS["qcow2"])
        expected = self.expected(image, "qcow2")
        source = self.imported(image)
        targets = [self.fast / f"disk{n}" for n in range(20)]
        for target in targets:
            run("cp", source, target)
        most, left = 0, set(targets)
        while left:
            most = max(most, self.format_readers())
            left = {target for target in left if self.store.status(target) == "replicating"}
        self.assertLessEqual(most, 6)  # four are filled, and the last of those before may still be there
        for target in targets:
            self.assertSame(expected, target)

    def format_readers(self):
        """How many processes of QEMU's the daemon has."""
        found = 0
        for task in Path(f"/proc/{self.store.process.pid}/task").iterdir():
            try:
                children = (task / "children").read_text().split()
                found += sum(b"qemu-storage-daemon" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)
            except (FileNotFoundError, ProcessLookupError):  # it has just ended
                pass
        return found

    def test_a_terabyte_that_is_nearly_empty(self):
        image = self.store.scratch / "huge"
        run("qemu-img", "create", "-f", "qcow2", image, "1T")
        for at in ("0", "500G", "1099511562240"):
            run("qemu-io", "-f", "qcow2", "-c", f"write -P 0x77 {at} 64k", image)
        source = self.imported(image)
        started = time.monotonic()
        run("cp", source, self.fast / "huge")
        self.assertEqual((self.fast / "huge").stat().st_size, 1 << 40)
        wait_until(lambda: self.store.status(self.fast / "huge") == "normal-uninitialized", 60, "a sparse disk being filled")
        self.assertLess(time.monotonic() - started, 60)
        self.assertEqual(int(attribute(self.fast / "huge", "stored")), 3 * 64 * KIB)
        with open(self.fast / "huge", "rb") as disk:
            for at in (0, 500 << 30, (1 << 40) - 64 * KIB):
                disk.seek(at)
                self.assertEqual(disk.read(64 * KIB), b"\x77" * 64 * KIB)
            self.assertEqual(os.lseek(disk.fileno(), 64 * KIB, os.SEEK_DATA), 500 << 30)

    def test_a_raw_image_is_the_disk_itself_and_its_header_is_never_believed_again(self):
        run("cp", self.raw, self.one / "raw")
        run("cp", self.one / "raw", self.fast / "raw")
        self.store.wait_normal(self.fast / "raw")
        header = self.converted("small.qcow2", FORMATS["qcow2"]).read_bytes()[:64 * KIB]
        with open(self.fast / "raw", "r+b") as disk:  # what a guest can do
            disk.write(header)
        run("cp", self.fast / "raw", self.vms / "vm")
        os.mkdir(self.fast / "sub")
        run("cp", self.vms / "vm", self.fast / "sub" / "vm")
        for path in (self.fast / "raw", self.vms / "vm", self.fast / "sub" / "vm"):
            self.assertEqual(path.read_bytes()[:64 * KIB], header)
            self.assertEqual((attribute(path, "format"), attribute(path, "fast_create")), ("raw", "1"))
            self.assertEqual(path.stat().st_size, 24 * MIB + 512)

    def test_the_source_may_go_while_it_is_replicated(self):
        image = self.converted("image", FORMATS["qcow2-zlib"])
        expected = self.expected(image, "qcow2")
        source = self.imported(image)
        run("cp", source, self.fast / "disk")
        source.unlink()
        self.assertSame(expected, self.fast / "disk")
        self.store.wait_normal(self.fast / "disk")
        self.assertSame(expected, self.fast / "disk")

    def test_what_is_written_while_it_replicates_stays(self):
        image = self.converted("image", FORMATS["qcow2"])
        run("cp", self.imported(image), self.fast / "disk")
        with open(self.fast / "disk", "r+b") as disk, open(self.raw, "r+b") as expected:
            for at in range(0, 24 * MIB, 5 * MIB + 4000):
                for file in (disk, expected):
                    file.seek(at)
                    file.write(b"written" * 3000)
            disk.truncate(25 * MIB)
            expected.truncate(25 * MIB)
        self.assertSame(self.raw, self.fast / "disk")
        self.store.wait_normal(self.fast / "disk")
        self.assertSame(self.raw, self.fast / "disk")

    def test_a_killed_daemon_goes_on(self):
        image = self.converted("image", FORMATS["qcow2-zstd"])
        expected = self.expected(image, "qcow2")
        run("cp", self.imported(image), self.fast / "disk")
        self.store.kill9()
        self.store.mount()
        self.assertSame(expected, self.fast / "disk")
        self.store.wait_normal(self.fast / "disk")
        self.assertSame(expected, self.fast / "disk")


class Imported(FastCreateCase):
    def test_it_is_the_disk_when_it_is_closed(self):
        image = self.converted("image", FORMATS["qcow2-zlib"])
        expected = self.expected(image, "qcow2")
        for command in (("cp", image), ("cp", "-p", image), ("rsync", "-t", image), ("install", "-m", "600", image)):
            target = self.fast / "disk"
            run(*command, target)
            self.assertEqual(target.stat().st_size, expected.stat().st_size, command)
            self.assertSame(expected, target)
            self.assertEqual(attribute(target, "fast_create"), "1")
            self.store.wait_normal(target)
            self.assertSame(expected, target)
            target.unlink()

    def test_a_raw_image_stays_as_it_is(self):
        run("cp", self.raw, self.fast / "disk")
        self.assertEqual(attribute(self.fast / "disk", "fast_create"), "1")
        self.assertSame(self.raw, self.fast / "disk")

    def test_over_an_image_that_is_there(self):
        run("cp", self.raw, self.fast / "disk")
        image = self.converted("image", FORMATS["vdi"])
        expected = self.expected(image, "vdi")
        run("cp", image, self.fast / "disk")
        self.assertSame(expected, self.fast / "disk")

    def test_a_program_that_opens_it_again_and_again_is_left_alone(self):
        target = self.fast / "disk.qcow2"
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.raw, target)
        wait_until(lambda: attribute_or_none(target, "fast_create") == "1", 30, "an image left alone")
        self.assertSame(self.raw, target)

    def test_it_survives_a_kill_before_the_close(self):
        image = self.converted("image", FORMATS["qcow2"])
        disk = os.open(self.fast / "disk", os.O_CREAT | os.O_WRONLY, 0o600)
        os.write(disk, image.read_bytes())
        self.store.kill9()
        self.assertErrno(errno.ENOTCONN, os.close, disk)
        self.store.mount()
        wait_until(lambda: attribute_or_none(self.fast / "disk", "fast_create") == "1", 30, "an image left alone")
        self.assertSame(self.expected(image, "qcow2"), self.fast / "disk")


class Refused(FastCreateCase):
    def overlay(self):
        base = self.converted("base", FORMATS["qcow2"])
        path = self.store.scratch / "overlay"
        run("qemu-img", "create", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
        return path

    def test_what_refers_to_other_files(self):
        external = self.store.scratch / "external"
        run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={self.store.scratch / 'data'},data_file_raw=on", external, "8M")
        flat = self.converted("flat.vmdk", ("-O", "vmdk", "-o", "subformat=monolithicFlat"))
        for image, words in ((self.overlay(), "backing file"), (external, "in another file"), (flat, "cannot be read")):
            source = self.imported(image)
            with self.subTest(image.name):
                done = run("cp", source, self.fast / image.name, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn(os.strerror(errno.EMEDIUMTYPE), done.stderr)
                self.assertFalse((self.fast / image.name).exists())
                self.assertIn(words, rekeyfs("status", self.mnt).stdout)

    def test_written_there_it_stays_as_it_is_and_says_so(self):
        image = self.overlay()
        done = run("cp", image, self.fast / "overlay", check=False)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(os.strerror(errno.EMEDIUMTYPE), done.stderr)
        self.assertSame(image, self.fast / "overlay")
        self.assertIsNone(attribute_or_none(self.fast / "overlay", "fast_create"))
        self.assertIn("backing file", rekeyfs("status", self.mnt).stdout)

    def test_a_damaged_header(self):
        image = self.converted("image", FORMATS["qcow2"])
        with open(image, "r+b") as file:
            file.seek(20)
            file.write(b"\xff" * 40)
        done = run("cp", self.imported(image), self.fast / "image", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertFalse((self.fast / "image").exists())

    def test_a_log_that_must_be_replayed_first(self):
        """Without it the disk would be one that its machine never had."""
        image = self.converted("image", FORMATS["vhdx"])
        leave_log(image)
        done = run("cp", self.imported(image), self.fast / "image", check=False)
        self.assertIn(os.strerror(errno.EMEDIUMTYPE), done.stderr)
        self.assertFalse((self.fast / "image").exists())
        self.assertIn("qemu-img check -r all", rekeyfs("status", self.mnt).stdout)
        run("qemu-img", "check", "-r", "all", image)
        run("cp", self.imported(image), self.fast / "image")
        self.assertSame(self.expected(image, "vhdx"), self.fast / "image")

    def test_the_source_is_not_changed_by_a_policy(self):
        self.assertErrno(errno.EPERM, os.setxattr, self.imported(self.raw), "user.rekeyfs.fast_create", b"1")


class Clones(FastCreateCase):
    def test_a_clone_of_a_disk_that_is_still_replicating(self):
        image = self.converted("image", FORMATS["qcow2-zlib"], self.store.original("big", 192 * MIB, 7))
        expected = self.expected(image, "qcow2")
        source = self.imported(image)
        disk = self.fast / "disk"
        run("cp", source, disk)
        clones = [self.vms / f"vm{n}" for n in range(10)]
        for clone in clones:
            run("cp", disk, clone)
            self.assertEqual(self.store.status(clone) in ("normal", "normal-uninitialized"), True)
        source.unlink()
        with open(clones[0], "r+b") as file:
            file.write(b"x" * 5000)
        disk.unlink()  # the clones stay
        for clone in clones[1:4]:
            self.assertSame(expected, clone)
        self.store.remount()
        wait_until(lambda: "tenant-one" not in rekeyfs("info", clones[1]).stdout, 60, "the clones needing the source no more")
        for clone in clones[1:]:
            self.assertSame(expected, clone)
        self.assertEqual(clones[0].read_bytes()[:5000], b"x" * 5000)
        for clone in clones:
            clone.unlink()

    def test_the_disk_itself_is_written_to_while_clones_read_it(self):
        image = self.converted("image", FORMATS["qcow2"])
        disk, clone = self.fast / "disk", self.vms / "vm"
        run("cp", self.imported(image), disk)
        run("cp", disk, clone)
        with open(disk, "r+b") as file:
            file.write(b"changed")
        self.assertSame(self.raw, clone)
        self.store.wait_normal(disk)
        self.store.wait_normal(clone)
        self.assertSame(self.raw, clone)
        self.assertEqual(disk.read_bytes()[:8], b"changed" + self.raw.read_bytes()[7:8])
        self.store.remount()
        self.assertSame(self.raw, clone)

    def test_another_key_is_refused_until_it_is_normal(self):
        image = self.converted("image", FORMATS["qcow2-zlib"], self.store.original("big", 256 * MIB, 3))
        disk = self.fast / "disk"
        run("cp", self.imported(image), disk)
        done = run("cp", disk, self.plain / "copy", check=False)
        if self.store.status(disk) == "replicating":
            self.assertEqual(done.returncode, 1)
            self.assertIn(os.strerror(errno.EBUSY), done.stderr)


class Replicate(FastCreateCase):
    def test_fast_create_where_the_directory_does_not_say_so(self):
        image = self.converted("image", FORMATS["vmdk-stream"])
        expected = self.expected(image, "vmdk")
        source = self.imported(image)
        dry = rekeyfs("replicate", "--fast-create", "--dry-run", source, self.vms).stdout
        self.assertIn("vmdk", dry)
        rekeyfs("replicate", "--fast-create", "--wait", source, self.vms)
        self.assertSame(expected, self.vms / "image")
        self.assertEqual(attribute(self.vms / "image", "fast_create"), "1")

    def test_a_receipt_names_the_source(self):
        source = self.imported(self.converted("image", FORMATS["vhdx"]))
        run("cp", source, self.fast / "disk")
        self.store.wait_normal(self.fast / "disk")
        self.assertIn(attribute(source, "id"), attribute(self.fast / "disk", "receipt"))


if __name__ == "__main__":
    unittest.main()
