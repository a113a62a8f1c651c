#!/usr/bin/env python3
"""Digests and receipts: what they say, of whom, from when on and until when."""
import datetime
import hashlib
import json
import os
import time
import unittest

from harness import TestCase, attribute, attribute_or_none, rekeyfs, run, wait_until
from images import KIB, MIB

SIZE = 8 * MIB + 4321
LARGE = 256 * MIB  # the filler is still busy with it when the next command runs


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def receipt(path):
    text = attribute_or_none(path, "receipt")
    return text and json.loads(text)


class ReceiptCase(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.one = self.store.encrypted("one", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")

    def imported(self, size=SIZE, settled=True):
        """(original outside, image in the plain directory, normal if `settled`)."""
        original, image = self.store.original("original", size), self.plain / "image"
        run("cp", original, image)
        if settled:
            self.store.wait_normal(image)
        return original, image

    def wait_digest(self, path):
        wait_until(lambda: attribute_or_none(path, "digest"), 20, f"the digest of {path}")
        return attribute(path, "digest")


class Receipts(ReceiptCase):
    def check_receipt(self, target, source_id, key_before, key_after, digest):
        facts = receipt(target)
        self.assertEqual(list(facts), ["source", "key_before", "key_after", "digest", "replicated", "completed"])
        self.assertEqual((facts["source"], facts["key_before"], facts["key_after"], facts["digest"]),
                         (source_id, key_before, key_after, digest))
        replicated, completed = (datetime.datetime.fromisoformat(facts[name]) for name in ("replicated", "completed"))
        self.assertEqual(replicated.utcoffset(), datetime.timedelta())
        self.assertLessEqual(replicated, completed)
        self.assertLess(abs((datetime.datetime.now(datetime.timezone.utc) - completed).total_seconds()), 60)
        self.assertNotIn("\n", attribute(target, "receipt"))

    def test_in_every_direction(self):
        original, image = self.imported()
        digest = sha256(original)
        self.assertIsNone(receipt(image), "an image that is no replica has none")
        for folder in (self.one, self.two, self.plain):
            target = folder / "replica"
            run("cp", image, target)
            self.store.wait_normal(target)
            self.check_receipt(target, attribute(image, "id"), attribute_or_none(image, "key_id"),
                               attribute_or_none(folder, "key_id"), digest)
            image = target
        self.store.remount()
        self.assertEqual(receipt(self.one / "replica")["digest"], digest)

    def test_info_shows_it(self):
        _, image = self.imported()
        run("cp", image, self.one / "replica")
        self.store.wait_normal(self.one / "replica")
        text = attribute(self.one / "replica", "receipt")
        self.assertIn(text, rekeyfs("info", self.one / "replica").stdout)
        facts = json.loads(rekeyfs("info", "--json", self.one / "replica").stdout)
        self.assertEqual(facts["attributes"]["user.rekeyfs.receipt"], text)

    def test_a_clone_has_none(self):
        _, image = self.imported()
        run("cp", image, self.plain / "clone")
        self.assertEqual(self.store.status(self.plain / "clone"), "normal")
        self.assertEqual(attribute(self.plain / "clone", "digest"), attribute(image, "digest"))
        self.assertIsNone(receipt(self.plain / "clone"))

    def test_none_while_replicating(self):
        _, image = self.imported()
        with self.store.replicating(image, self.one / "replica") as target:
            wait_until(lambda: attribute(target, "progress") == "99.9", 20, "all of it being replicated")
            self.assertEqual((receipt(target), self.store.status(target)), (None, "replicating"))
        self.store.wait_normal(target)
        self.assertTrue(receipt(target))

    def test_a_write_in_place_voids_it_until_the_image_is_idle(self):
        original, image = self.imported()
        target = self.one / "replica"
        run("cp", image, target)
        self.store.wait_normal(target)
        for path in (original, target):
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"changed", 5 * MIB)
                if path == target:
                    self.assertEqual((receipt(path), attribute_or_none(path, "digest")), (None, None))
        self.assertEqual(self.wait_digest(target), sha256(original))
        self.check_receipt(target, attribute(image, "id"), None, attribute(self.one, "key_id"), sha256(original))

    def test_of_a_directory_given_a_new_key(self):
        """The image is its own source."""
        original, image = self.imported()
        run("cp", image, self.one / "replica")
        self.store.wait_normal(self.one / "replica")
        for folder, name in ((self.plain, "image"), (self.one, "replica")):
            path, before = folder / name, attribute_or_none(folder, "key_id")
            rekeyfs("rotate", folder, "--key", "tenant-two")
            wait_until(lambda path=path: receipt(path), 30, f"the receipt of {path}")
            self.check_receipt(path, attribute(path, "id"), before, attribute(self.two, "key_id"), sha256(original))
        self.store.key("tenant-three")
        rekeyfs("rotate", self.one, "--key", "tenant-three")  # once more: of the last time
        wait_until(lambda: receipt(self.one / "replica"), 30, "the receipt")
        self.check_receipt(self.one / "replica", attribute(self.one / "replica", "id"), attribute(self.two, "key_id"),
                           attribute(self.one, "key_id"), sha256(original))

    def test_info_shows_lineage_and_until_when_each_key_is_needed(self):
        _, image = self.imported(LARGE)
        target = self.one / "replica"

        def info():
            facts = json.loads(rekeyfs("info", "--json", target).stdout)
            return facts["lineage"], {need["key"]: need["until"] for need in facts["keys_needed"]}

        run("cp", image, target)
        lineage, needs = info()
        self.assertEqual((lineage["source"], lineage["key_before"], lineage["completed"]), (attribute(image, "id"), "", None))
        self.assertEqual(needs, {"tenant-one": "until it is deleted"})
        rekeyfs("rotate", self.one, "--key", "tenant-two")  # while it replicates
        lineage, needs = info()
        self.assertEqual((lineage["source"], lineage["key_before"], lineage["completed"]),
                         (attribute(target, "id"), "tenant-one", None))
        self.assertEqual(needs.pop("tenant-two"), "until it is deleted")
        self.assertEqual(list(needs), ["tenant-one"])
        self.assertRegex(needs["tenant-one"], r"^until its replication is complete( \(\d+\.\d % done.*\))?$")
        self.assertIn("; tenant-one, until its replication is complete", rekeyfs("info", target).stdout)
        self.store.wait_normal(target)
        lineage, needs = info()
        self.assertEqual(needs, {"tenant-two": "until it is deleted"})
        self.assertLessEqual(lineage["replicated"], lineage["completed"])
        self.assertIn("encrypted anew", rekeyfs("info", target).stdout)
        self.assertIn("made here", rekeyfs("info", image).stdout)

    def test_truncation_ends_it(self):
        _, image = self.imported()
        target = self.one / "replica"
        run("cp", image, target)
        self.store.wait_normal(target)
        fd = os.open(target, os.O_WRONLY | os.O_TRUNC)
        self.assertEqual((receipt(target), attribute_or_none(target, "digest")), (None, None))
        os.close(fd)
        self.assertEqual(self.wait_digest(target), hashlib.sha256().hexdigest())
        self.assertIsNone(receipt(target), "the content is not the source's any more")


class Digests(ReceiptCase):
    def test_after_truncation_by_name(self):
        original, image = self.imported()
        for path in (original, image):
            os.truncate(path, 3 * MIB + 1)
        self.assertIsNone(attribute_or_none(image, "digest"))
        self.assertEqual(self.wait_digest(image), sha256(original))
        self.store.wait_normal(image, timeout=5)

    def test_a_source_without_one(self):
        original, image = self.imported(settled=False)
        for folder in (self.one, self.plain):
            run("cp", image, folder / "replica")
            self.assertIsNone(attribute_or_none(folder / "replica", "digest"))
        for folder in (self.one, self.plain):
            self.assertEqual(self.wait_digest(folder / "replica"), sha256(original))
        self.assertEqual(receipt(self.one / "replica")["digest"], sha256(original))

    def test_a_source_without_one_and_a_replication_that_ends_later(self):
        """The replica is found replicating when the store is mounted, and becomes normal after that."""
        original, image = self.imported(LARGE, settled=False)
        run("cp", image, self.one / "replica")
        rekeyfs("key", "disable", "tenant-one", self.mnt, "--force")  # so that it cannot be done already
        self.store.umount()
        facts = json.loads(rekeyfs("status", "--json", "--key-file", self.store.key_file, self.store.store).stdout)
        self.assertEqual([one["path"] for one in facts["replications"]], ["/one/replica"])
        self.store.mount()
        rekeyfs("key", "enable", "tenant-one", self.mnt)
        self.assertEqual(self.wait_digest(self.one / "replica"), sha256(original))
        self.store.wait_normal(self.one / "replica")
        self.assertTrue(receipt(self.one / "replica"))

    def test_a_source_written_while_it_replicates(self):
        """The replica is the source as it was when it was copied, and so is its digest."""
        for settled in (True, False):
            original, image = self.imported(LARGE // 2, settled)
            digest = sha256(original)
            target = self.one / f"replica-{settled}"
            run("cp", image, target)
            with open(image, "r+b") as file:
                file.write(b"written after the copy")
            self.store.wait_normal(target)
            self.assertEqual(self.wait_digest(target), digest)
            self.assertEqual(sha256(target), digest)
            os.unlink(image)

    def test_a_part_has_its_own(self):
        original, image = self.imported()
        target = self.one / "part"
        with open(image, "rb") as source, open(target, "wb") as out:
            os.copy_file_range(source.fileno(), out.fileno(), 3 * MIB)
        os.truncate(original, 3 * MIB)
        self.assertEqual(self.wait_digest(target), sha256(original))

    def test_pieces_that_make_the_whole_take_the_sources(self):
        """As the kernel asks for more than 4 GiB; the digest is there as soon as the target is closed."""
        original, image = self.imported()
        for folder, state in ((self.one, ("replicating", "normal")), (self.plain, ("normal",))):
            target = folder / "pieces"
            with open(image, "rb") as source, open(target, "wb", buffering=0) as out:
                while os.copy_file_range(source.fileno(), out.fileno(), 3 * MIB - 4 * KIB):
                    pass
            self.assertIn(self.store.status(target), state)
            self.assertEqual(attribute_or_none(target, "digest"), sha256(original))
            self.assertSame(original, target)

    def test_pieces_with_a_write_between_do_not(self):
        original, image = self.imported()
        target = self.one / "pieces"
        with open(image, "rb") as source, open(target, "wb", buffering=0) as out:
            os.copy_file_range(source.fileno(), out.fileno(), 3 * MIB)
            os.pwrite(out.fileno(), b"changed", 1 * MIB)
            while os.copy_file_range(source.fileno(), out.fileno(), 3 * MIB):
                pass
        self.assertIsNone(attribute_or_none(target, "digest"))
        with open(original, "r+b") as file:
            os.pwrite(file.fileno(), b"changed", 1 * MIB)
        self.assertEqual(self.wait_digest(target), sha256(original))

    def test_a_write_behind_the_back_of_the_one_who_reads(self):
        """A time that is set back does not hide a write from the digest."""
        original, image = self.imported(LARGE, settled=False)
        before = os.stat(image).st_mtime_ns
        time.sleep(2.05)  # it is being read now
        for path in (original, image):
            with open(path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), b"changed", 0)
                os.utime(file.fileno(), ns=(before, before))
                if path == image:
                    time.sleep(1.5)
                    self.assertIsNone(attribute_or_none(image, "digest"))
        self.assertEqual(self.wait_digest(image), sha256(original))


if __name__ == "__main__":
    unittest.main()
