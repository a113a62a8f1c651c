#!/usr/bin/env python3
"""A virtual machine boots from a replica the moment it was copied, whatever QEMU's cache mode."""
import json
import os
import unittest
from concurrent.futures import ThreadPoolExecutor

import debian_image
from harness import TestCase, attribute, rekeyfs, run
from images import MIB

INSTANCES = int(os.environ.get("REKEYFS_TEST_INSTANCES", "3"))  # how many boot at once


class Boot(TestCase):
    def setUp(self):
        super().setUp()
        self.one = self.store.encrypted("one", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")

    def check(self, cache):
        original = debian_image.raw()
        run("cp", original, self.one / "debian.img")
        self.store.wait_normal(self.one / "debian.img")
        replica = self.two / "debian.img"
        run("cp", self.one / "debian.img", replica)
        console = debian_image.boot(replica, "raw", cache)
        self.assertIn(debian_image.MARKER, console)
        self.assertIn("Debian GNU/Linux", console)
        self.store.wait_normal(replica)
        self.assertEqual(attribute(replica, "key"), "tenant-two")
        self.store.remount()
        self.assertTrue(debian_image.was_booted(replica))
        self.assertSame(original, self.one / "debian.img")

    def test_raw_with_the_hosts_cache(self):
        self.check("writeback")

    def test_raw_without_the_hosts_cache(self):
        self.check("none")

    def test_qcow2(self):
        run("cp", debian_image.qcow2(), self.one / "debian.qcow2")
        self.store.wait_normal(self.one / "debian.qcow2")
        self.assertEqual(attribute(self.one / "debian.qcow2", "format"), "qcow2")
        run("cp", self.one / "debian.qcow2", self.two)
        console = debian_image.boot(self.two / "debian.qcow2", "qcow2", "none")
        self.assertIn(debian_image.MARKER, console)
        run("qemu-img", "check", "-q", self.two / "debian.qcow2")
        self.assertSame(debian_image.qcow2(), self.one / "debian.qcow2")

    def test_instances_of_a_disk_that_is_still_replicating(self):
        """Fast create: from an encrypted qcow2 with another key to running instances, before anything is complete."""
        os.setxattr(self.two, "user.rekeyfs.fast_create", b"1")
        source, disk = self.one / "debian.qcow2", self.two / "debian.img"
        run("cp", debian_image.qcow2(), source)
        with self.store.replicating(source, disk):
            vms = [self.two / f"vm{n}.img" for n in range(INSTANCES)]
            for vm in vms:
                run("cp", disk, vm)
            self.assertEqual(self.store.status(disk), "replicating")
            with ThreadPoolExecutor(INSTANCES) as pool:
                consoles = list(pool.map(lambda vm: debian_image.boot(vm, "raw", "none", timeout=60 * INSTANCES), vms))
            self.assertEqual(self.store.status(disk), "replicating")
        for console in consoles:
            self.assertIn(debian_image.MARKER, console)
        profile = json.loads(rekeyfs("profile", "show", disk, "--json").stdout)["profile"]
        self.assertGreater(profile["bytes"], 4 * MIB)
        self.assertLess(profile["bytes"], disk.stat().st_size)
        source.unlink()
        self.store.wait_normal(disk)
        self.assertSame(debian_image.raw(), disk)
        self.store.remount()
        for vm in vms:
            self.assertTrue(debian_image.was_booted(vm))
        self.assertFalse(debian_image.was_booted(disk))


if __name__ == "__main__":
    unittest.main()
