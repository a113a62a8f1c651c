#!/usr/bin/env python3
"""Boot profiles: what the first instance reads is recorded, stays with the image and its replicas, and can be cleared."""
import json
import mmap
import os
import unittest

from harness import NOBODY, TestCase, needs_root, rekeyfs, run
from images import KIB, MIB

EXIT_NOT_FOUND, EXIT_DENIED = 14, 16
READS = [[12 * MIB, MIB], [0, 512 * KIB], [20 * MIB, 64 * KIB]]


class Profile(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.fast = self.store.encrypted("fast", "tenant-one")
        os.setxattr(self.fast, "user.rekeyfs.fast_create", b"1")
        self.vms = self.store.policy("vms", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")
        self.disk, self.vm = self.fast / "debian.img", self.vms / "vm1.img"
        raw = self.store.original("disk.raw", 24 * MIB)
        image = self.store.scratch / "debian.qcow2"
        run("qemu-img", "convert", "-O", "qcow2", raw, image)
        run("cp", image, self.disk)
        run("cp", self.disk, self.vm)

    def boot(self, path):
        """Reads as a virtual machine does with cache=none: past the kernel's cache and its readahead."""
        descriptor = os.open(path, os.O_RDWR | os.O_DIRECT)
        try:
            for offset, size in READS:
                with mmap.mmap(-1, size) as pages:  # where a direct read may go to
                    self.assertEqual(os.preadv(descriptor, [pages], offset), size)
        finally:
            os.close(descriptor)

    def profile(self, path):
        answer = json.loads(rekeyfs("profile", "show", path, "--json").stdout)
        return answer["profile"]

    def ranges(self, path):
        found = self.profile(path)
        return found and found["ranges"]

    def test_a_first_boot_is_recorded_and_stays_with_the_image(self):
        shown = rekeyfs("profile", "show", self.disk).stdout
        self.assertIn("/fast/debian.img has no boot profile", shown)
        self.boot(self.vm)
        for path in (self.disk, self.vm):
            self.assertEqual(self.ranges(path), READS)
            self.assertEqual(self.profile(path)["bytes"], sum(size for _, size in READS))
        self.assertIn("the first boot read 1.6 MiB in 3 ranges", rekeyfs("profile", "show", self.disk).stdout)
        self.assertIn("boot profile  1.6 MiB, recorded", rekeyfs("info", self.disk).stdout)
        self.store.remount()
        self.assertEqual(self.ranges(self.vm), READS)

    def test_a_replica_has_it_and_keeps_it(self):
        self.store.wait_normal(self.disk)
        self.boot(self.vm)
        run("cp", self.disk, self.two / "replica.img")
        self.assertEqual(self.ranges(self.two / "replica.img"), READS)
        self.store.wait_normal(self.two / "replica.img")
        self.disk.unlink()
        self.vm.unlink()
        self.assertEqual(self.ranges(self.two / "replica.img"), READS)
        self.store.umount()
        self.assertIn("sound", rekeyfs("check", self.store.store, "--key-file", self.store.key_file).stdout)
        self.store.mount()

    def test_copying_and_comparing_are_no_boots(self):
        run("cp", self.disk, self.store.scratch / "exported")
        self.assertSame(self.store.scratch / "exported", self.vm)
        run("qemu-img", "convert", "-f", "raw", "-O", "raw", self.vm, self.store.scratch / "converted")
        self.assertIsNone(self.profile(self.disk))

    def test_after_clear_the_next_boot_is_recorded(self):
        self.boot(self.vm)
        self.assertIn("is gone", rekeyfs("profile", "clear", self.disk).stdout)
        self.assertIsNone(self.profile(self.vm))
        done = rekeyfs("profile", "clear", self.disk, check=False)
        self.assertEqual(done.returncode, EXIT_NOT_FOUND)
        self.assertIn("it was not booted yet", done.stderr)
        self.boot(self.vm)
        self.assertEqual(self.ranges(self.disk), READS)

    def test_a_directory_has_none(self):
        for what in ("show", "clear"):
            done = rekeyfs("profile", what, self.fast, check=False)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("only images have a boot profile", done.stderr)
        self.assertNotEqual(rekeyfs("profile", check=False).returncode, 0)

    @needs_root
    def test_others_do_not_clear_it(self):
        self.boot(self.vm)
        done = rekeyfs("profile", "clear", self.disk, uid=NOBODY, check=False)
        self.assertEqual(done.returncode, EXIT_DENIED)
        self.assertIn("only the owner of that image or an operator", done.stderr)
        self.assertEqual(self.ranges(self.disk), READS)


if __name__ == "__main__":
    unittest.main()
