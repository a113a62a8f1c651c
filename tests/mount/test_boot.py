#!/usr/bin/env python3
"""A virtual machine boots from a replica the moment it was copied, whatever QEMU's cache mode."""
import unittest

import debian_image
from harness import TestCase, attribute, run


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


if __name__ == "__main__":
    unittest.main()
