#!/usr/bin/env python3
"""Quotas of directories: real tools and an ordinary user at the limit. They get EDQUOT, what was acknowledged is there,
and df, info and status show what is left."""
import errno
import json
import mmap
import os
import random
import unittest

from harness import NOBODY, TestCase, attribute, attribute_or_none, needs_root, rekeyfs, run, wait_until
from images import KIB, MIB

NO_SPACE, NOT_DURABLE = 17, 19  # exit codes, rekeyfs(1)
REFUSED_TEXT = os.strerror(errno.EDQUOT)


@needs_root
class Quota(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.public = self.store.plain("public")
        self.public.chmod(0o777)
        self.tenant = self.store.plain("tenant")
        os.chown(self.tenant, NOBODY, NOBODY)
        self.limit(self.tenant, "bytes=8M,images=10")

    @staticmethod
    def limit(directory, value):
        os.setxattr(directory, "user.rekeyfs.quota", value.encode())

    def as_tenant(self, *command):
        return run(*command, uid=NOBODY, check=False)

    def assertDone(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)

    def assertRefused(self, done):
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn(REFUSED_TEXT, done.stderr + done.stdout)

    def used(self, directory):
        return dict((name, int(number)) for name, number in (part.split("=") for part in attribute(directory, "usage").split(",")))

    def original(self, name, size, seed=1):
        """A file without zeros, all of which is stored."""
        path = self.store.scratch / name
        path.write_bytes(random.Random(seed).randbytes(size))
        path.chmod(0o644)
        return path

    # Who sets it, and what it says.

    def test_only_operators_set_it(self):
        for value in ("bytes=1T", "bytes=1K"):
            done = self.as_tenant("setfattr", "-n", "user.rekeyfs.quota", "-v", value, self.tenant)
            self.assertIn(os.strerror(errno.EPERM), done.stderr)
        self.assertIn(os.strerror(errno.EPERM), self.as_tenant("setfattr", "-x", "user.rekeyfs.quota", self.tenant).stderr)
        done = self.as_tenant("getfattr", "--only-values", "-n", "user.rekeyfs.quota", self.tenant)
        self.assertEqual(done.stdout, "bytes=8M,images=10")
        done = self.as_tenant("getfattr", "--only-values", "-n", "user.rekeyfs.usage", self.tenant)
        self.assertEqual(done.stdout, "bytes=0,images=0")
        self.assertNotIn("quota", self.as_tenant("getfattr", "-d", self.tenant).stdout)  # answered, never listed

    def test_malformed_values(self):
        for value in ("10G", "bytes=0", "bytes=1GB", "images=many", "bytes=1,bytes=2", "bytes=1G images=1"):
            self.assertErrno(errno.EINVAL, self.limit, self.tenant, value)
        self.assertErrno(errno.EPERM, self.limit, self.original_in(self.public, "image", KIB), "bytes=1G")
        self.assertEqual(attribute(self.tenant, "quota"), "bytes=8M,images=10")

    def original_in(self, directory, name, size, seed=1):
        path = directory / name
        run("cp", self.original(name, size, seed), path)
        path.chmod(0o644)
        return path

    def test_info_and_status_show_it(self):
        self.original_in(self.tenant, "image", 2 * MIB)
        for command in ("info", "status"):
            quota = json.loads(rekeyfs(command, self.tenant, "--json").stdout)["quota"]
            self.assertEqual(quota, {"bytes": 2 * MIB, "images": 1, "most_bytes": 8 * MIB, "most_images": 10})
            self.assertIn("2.0 MiB of 8.0 MiB, 1 of 10 images", rekeyfs(command, self.tenant).stdout)
            self.assertIsNone(json.loads(rekeyfs(command, self.public, "--json").stdout)["quota"])
        self.limit(self.public, "images=3")
        self.assertIn("0 B, 0 of 3 images", rekeyfs("info", self.public).stdout)
        self.assertIsNone(attribute_or_none(self.tenant / "image", "usage"))

    def test_df_shows_the_tightest(self):
        below = self.tenant / "below"
        below.mkdir()
        self.limit(below, "bytes=64M")
        self.original_in(below, "image", 2 * MIB)
        for path in (self.tenant, below, below / "image"):
            numbers = run("df", "-B1", "--output=size,used,avail", path).stdout.split()[-3:]
            self.assertEqual([int(number) for number in numbers], [8 * MIB, 2 * MIB, 6 * MIB], path)
            numbers = run("df", "--output=itotal,iused,iavail", path).stdout.split()[-3:]
            self.assertEqual([int(number) for number in numbers], [10, 2, 8], path)
        store, disk = os.statvfs(self.public), os.statvfs(self.mnt)
        self.assertEqual(store.f_blocks, disk.f_blocks)
        self.assertGreater(store.f_blocks * store.f_frsize, 64 * MIB)

    # Tools at the limit.

    def test_cp(self):
        first, second = self.original("first", 6 * MIB), self.original("second", 4 * MIB, seed=2)
        self.assertDone(self.as_tenant("cp", first, self.tenant / "first"))
        self.assertRefused(self.as_tenant("cp", second, self.tenant / "second"))
        self.assertSame(first, self.tenant / "first")
        run("rm", self.tenant / "first", self.tenant / "second")
        self.assertDone(self.as_tenant("cp", second, self.tenant / "second"))  # at once
        self.assertSame(second, self.tenant / "second")

    def test_cp_of_many_images(self):
        small = self.original("small", KIB)
        done = [self.as_tenant("cp", small, self.tenant / str(number)).returncode for number in range(12)]
        self.assertEqual(done, [0] * 10 + [1] * 2)
        self.assertRefused(self.as_tenant("mkdir", self.tenant / "folder"))
        self.assertRefused(self.as_tenant("ln", "-s", "target", self.tenant / "link"))

    def test_dd_keeps_what_was_acknowledged(self):
        source = self.original("source", 16 * MIB)
        for flags in ([], ["oflag=direct"], ["conv=fsync"]):
            with self.subTest(flags):
                target = self.tenant / "target"
                self.assertRefused(self.as_tenant("dd", f"if={source}", f"of={target}", "bs=1M", *flags))
                size = target.stat().st_size
                self.assertGreaterEqual(size, 7 * MIB)
                self.assertEqual(target.read_bytes(), source.read_bytes()[:size])
                # What is there can be written again, not more.
                self.assertDone(self.as_tenant("dd", f"if={source}", f"of={target}", "bs=1M", "count=7", "conv=notrunc", *flags))
                target.unlink()

    def test_fallocate(self):
        image = self.tenant / "image"
        self.assertRefused(self.as_tenant("fallocate", "-l", "9M", image))
        self.assertDone(self.as_tenant("fallocate", "-l", "6M", image))
        self.assertEqual(self.used(self.tenant)["bytes"], 6 * MIB)
        self.assertRefused(self.as_tenant("cp", self.original("more", 3 * MIB), self.tenant / "more"))
        (self.tenant / "more").unlink()
        self.store.kill9()
        self.store.mount()
        self.assertEqual(self.used(self.tenant)["bytes"], 6 * MIB)
        self.limit(self.tenant, "bytes=6M")
        source = self.original("source", 6 * MIB)
        self.assertDone(self.as_tenant("dd", f"if={source}", f"of={image}", "bs=64K", "conv=notrunc"))  # was promised
        self.assertSame(source, image)

    def test_mv(self):
        big, small = self.original_in(self.public, "big", 9 * MIB), self.original_in(self.public, "small", MIB)
        for path in (big, small):
            os.chown(path, NOBODY, NOBODY)
        self.assertRefused(self.as_tenant("mv", big, self.tenant))
        self.assertTrue(big.exists())
        self.assertDone(self.as_tenant("mv", small, self.tenant))
        folder = self.public / "folder"
        self.assertDone(self.as_tenant("mkdir", folder))
        self.assertDone(self.as_tenant("mv", big, folder))
        self.assertRefused(self.as_tenant("mv", folder, self.tenant))
        self.assertDone(self.as_tenant("mv", self.tenant / "small", self.public))
        self.assertEqual(self.used(self.tenant), {"bytes": 0, "images": 0})

    def test_qemu_img(self):
        source = self.original_in(self.public, "source", 12 * MIB)
        self.assertRefused(self.as_tenant("qemu-img", "convert", "-f", "raw", "-O", "raw", source, self.tenant / "one"))
        run("rm", "-f", self.tenant / "one")
        self.assertRefused(self.as_tenant("qemu-img", "convert", "-f", "raw", "-O", "qcow2", source, self.tenant / "two"))
        run("rm", "-f", self.tenant / "two")
        self.assertDone(self.as_tenant("qemu-img", "create", "-f", "raw", self.tenant / "three", "1T"))  # stores nothing
        self.assertEqual(self.used(self.tenant), {"bytes": 0, "images": 1})

    def test_rsync(self):
        source = self.original("source", 12 * MIB)
        done = self.as_tenant("rsync", source, f"{self.tenant}/")
        if done.returncode == 127 or "No such file" in done.stderr and "setpriv" in done.stderr:
            self.skipTest("no rsync")
        self.assertRefused(done)
        self.assertFalse((self.tenant / "source").exists())

    def test_a_mapped_image(self):
        """The kernel keeps the changes until a sync, which then fails, as on a full disk."""
        path = self.tenant / "image"
        with open(path, "w+b") as file:
            os.ftruncate(file.fileno(), 16 * MIB)
            with mmap.mmap(file.fileno(), 16 * MIB) as memory:
                for at in range(0, 16 * MIB, 64 * KIB):
                    memory[at:at + 64 * KIB] = os.urandom(64 * KIB)
                self.assertErrno(errno.EDQUOT, os.fsync, file.fileno())
        self.assertLessEqual(self.used(self.tenant)["bytes"], 8 * MIB)
        # The kernel tells each who asks that pages were lost, also who unmounts.
        self.assertEqual(rekeyfs("umount", self.mnt, check=False).returncode, NOT_DURABLE)
        self.assertEqual(self.store.process.wait(timeout=60), 0)
        self.store.mount()
        self.assertLessEqual(self.used(self.tenant)["bytes"], 8 * MIB)

    # Replicas and clones.

    def test_a_replica_that_does_not_fit_is_refused_at_once(self):
        source = self.original_in(self.public, "source", 6 * MIB)
        vault = self.store.encrypted("vault", "tenant-key")
        self.limit(vault, "bytes=8M")
        run("cp", source, vault / "one")
        done = run("cp", source, vault / "two", check=False)
        self.assertRefused(done)
        self.assertFalse((vault / "two").exists())
        done = rekeyfs("replicate", source, vault / "two", check=False)
        self.assertEqual(done.returncode, NO_SPACE, done.stderr)
        self.assertIn(REFUSED_TEXT, done.stderr)
        self.assertFalse((vault / "two").exists())
        plan = rekeyfs("replicate", source, vault / "two", "--dry-run", "--json", check=False)
        self.assertIn("quota exceeded", [refusal["code"] for refusal in json.loads(plan.stdout)["refusals"]])
        self.assertIn(REFUSED_TEXT, rekeyfs("status", vault).stdout)
        self.store.wait_normal(vault / "one")
        self.assertSame(source, vault / "one")
        self.assertEqual(self.used(vault)["bytes"], 6 * MIB)
        run("cp", vault / "one", vault / "clone")
        self.assertEqual(self.used(vault)["bytes"], 6 * MIB)

    def test_clones_pay_for_what_only_they_keep(self):
        source = self.original_in(self.public, "source", 6 * MIB)
        self.assertDone(self.as_tenant("cp", source, self.tenant / "clone"))
        self.assertEqual(self.used(self.tenant)["bytes"], 0)
        source.unlink()
        wait_until(lambda: self.used(self.tenant)["bytes"] == 6 * MIB, 5, "the clone pays for its base")
        self.assertRefused(self.as_tenant("cp", self.original("more", 3 * MIB), self.tenant / "more"))

    def test_deleted_and_open(self):
        with open(self.tenant / "image", "wb", buffering=0) as file:
            file.write(os.urandom(MIB))
            (self.tenant / "image").unlink()
            with self.assertRaises(OSError) as caught:
                for _ in range(16):
                    file.write(os.urandom(MIB))
            self.assertEqual(caught.exception.errno, errno.EDQUOT)
            self.assertRefused(self.as_tenant("cp", self.original("more", MIB), self.tenant / "more"))
        wait_until(lambda: self.used(self.tenant)["bytes"] <= MIB, 5, "the deleted image is given back")

    # Later.

    def test_a_lowered_quota(self):
        image = self.original_in(self.tenant, "image", 6 * MIB)
        os.chown(image, NOBODY, NOBODY)
        self.limit(self.tenant, "bytes=1M")
        self.assertSame(self.store.scratch / "image", image)
        self.assertRefused(self.as_tenant("cp", self.original("more", 64 * KIB), self.tenant / "more"))
        self.assertDone(self.as_tenant("dd", "if=/dev/urandom", f"of={image}", "bs=1M", "count=6", "conv=notrunc"))
        self.assertDone(self.as_tenant("rm", image))
        self.assertDone(self.as_tenant("cp", self.original("less", 64 * KIB), self.tenant / "less"))

    def test_after_a_kill(self):
        self.original_in(self.tenant, "image", 6 * MIB)
        self.store.kill9()
        self.store.mount()
        self.assertRefused(self.as_tenant("cp", self.original("more", 3 * MIB), self.tenant / "more"))
        self.assertEqual(attribute(self.tenant, "quota"), "bytes=8M,images=10")

    def test_the_root_limits_the_store(self):
        self.limit(self.mnt, "bytes=4M")
        self.assertRefused(self.as_tenant("cp", self.original("image", 6 * MIB), self.public / "image"))
        self.assertRefused(self.as_tenant("cp", self.original("other", 6 * MIB), self.tenant / "other"))


if __name__ == "__main__":
    unittest.main()
