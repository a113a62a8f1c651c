#!/usr/bin/env python3
"""Replication: copies by plain tools between directories of different keys, and what a copy must survive."""
import errno
import os
import random
import unittest

from harness import TestCase, attribute, images, rekeyfs, run, wait_until
from images import KIB, MIB, holds_bytes

SIZE = 24 * MIB + 4321
LARGE = 96 * MIB  # takes the filler long enough to do something meanwhile


def copy_range_fully(source, target, count, offset_in, offset_out):
    """copy_file_range until `count` bytes are copied or the source ends; the number copied."""
    done = 0
    while done < count:
        step = os.copy_file_range(source, target, count - done, offset_in + done, offset_out + done)
        if step == 0:
            break
        done += step
    return done


class ReplicationCase(TestCase):
    def setUp(self):
        super().setUp()
        self.plain = self.store.plain("plain")
        self.one = self.store.encrypted("one", "tenant-one")
        self.two = self.store.encrypted("two", "tenant-two")

    def imported(self, folder, size=SIZE):
        """(original outside, image in `folder`)."""
        original, image = self.store.original("original", size), folder / "image"
        run("cp", original, image)
        return original, image

    def replica(self, image, folder, name="replica"):
        target = folder / name
        run("cp", image, target)
        return target


class Directions(ReplicationCase):
    def check(self, source_folder, target_folder, encryption, key):
        original, image = self.imported(source_folder)
        target = self.replica(image, target_folder)
        self.assertIn(self.store.status(target), ("replicating", "normal"))
        self.assertTrue(attribute(target, "source"), "it was copied as data, not replicated")
        self.assertSame(original, target)
        self.store.wait_normal(target)
        self.assertEqual(attribute(target, "progress"), "100.0")
        self.assertEqual(attribute(target, "encryption"), encryption)
        if key:
            self.assertEqual(attribute(target, "key"), key)
        else:
            self.assertErrno(errno.ENODATA, os.getxattr, target, "user.rekeyfs.key")
        os.unlink(image)
        self.store.remount()
        self.assertSame(original, target)

    def test_plain_to_encrypted(self):
        self.check(self.plain, self.one, "kms", "tenant-one")

    def test_encrypted_to_plain(self):
        self.check(self.one, self.plain, "none", None)

    def test_encrypted_to_another_key(self):
        self.check(self.one, self.two, "kms", "tenant-two")

    def test_through_every_key_in_a_row(self):
        original, image = self.imported(self.plain)
        for number, folder in enumerate((self.one, self.two, self.plain, self.two)):
            image = self.replica(image, folder, f"replica-{number}")
            self.store.wait_normal(image)
        self.assertSame(original, image)

    def test_the_same_key_is_a_clone_and_normal_at_once(self):
        for folder in (self.one, self.plain):
            original, image = self.imported(folder)
            self.store.wait_normal(image)
            clone = self.replica(image, folder, "clone")
            self.assertEqual(self.store.status(clone), "normal")
            self.assertSame(original, clone)
            with open(clone, "r+b") as file:
                file.seek(3 * MIB)
                file.write(b"only in the clone")
            self.assertSame(original, image)
            with open(image, "r+b") as file:
                file.seek(9 * MIB)
                file.write(b"only in the image")
            with open(original, "r+b") as file:
                file.seek(3 * MIB)
                file.write(b"only in the clone")
            self.assertSame(original, clone)

    def test_clones_of_clones(self):
        original, image = self.imported(self.one)
        for number in range(30):
            image = self.replica(image, self.one, f"clone-{number}")
            for path in (original, image):
                with open(path, "r+b") as file:
                    file.seek(number * 700_001)
                    file.write(b"generation %d" % number * 1000)
        self.assertSame(original, image)
        for number in range(29):
            os.unlink(self.one / f"clone-{number}")
        self.store.remount()
        self.assertSame(original, image)

    def test_small_and_odd_sizes(self):
        contents = {f"{size}": random.Random(size).randbytes(size)
                    for size in (0, 1, 511, 4096, 16 * KIB - 1, 16 * KIB, 16 * KIB + 1, 100_001)}
        for name, content in contents.items():
            (self.plain / name).write_bytes(content)
            run("cp", self.plain / name, self.one)
            self.assertEqual((self.one / name).read_bytes(), content)
        for name, content in contents.items():
            self.store.wait_normal(self.one / name)
            run("cp", self.one / name, self.two)
            self.assertEqual((self.two / name).read_bytes(), content)

    def test_import_and_replicate_at_once(self):
        original = self.store.original("original", SIZE)
        run("sh", "-c", 'cp "$1" "$2/image" && cp "$2/image" "$3/replica"', "sh", original, self.plain, self.one)
        self.assertTrue(attribute(self.one / "replica", "source"))
        self.assertSame(original, self.one / "replica")


class WhileReplicating(ReplicationCase):
    """The source may go or change the moment that cp has returned."""

    def setUp(self):
        super().setUp()
        self.original, self.image = self.imported(self.plain, LARGE)

    def check(self, target):
        self.assertSame(self.original, target)
        self.store.wait_normal(target)
        self.assertSame(self.original, target)

    def test_reads_at_random_offsets_are_right(self):
        target = self.replica(self.image, self.one)
        rng = random.Random(5)
        with open(self.original, "rb") as expected, open(target, "rb", buffering=0) as got:
            for _ in range(500):
                offset, size = rng.randrange(LARGE), rng.choice((1, 4096, 70_000))
                self.assertEqual(os.pread(got.fileno(), size, offset), os.pread(expected.fileno(), size, offset))
        self.check(target)

    def test_writes_to_the_replica_stay(self):
        target = self.replica(self.image, self.one)
        rng = random.Random(6)
        with open(self.original, "r+b") as expected, open(target, "r+b", buffering=0) as got:
            for _ in range(200):
                offset, data = rng.randrange(LARGE - 100_000), rng.randbytes(rng.choice((1, 4096, 70_000)))
                os.pwrite(expected.fileno(), data, offset)
                os.pwrite(got.fileno(), data, offset)
        self.store.wait_normal(target)
        self.assertSame(self.original, target)

    def test_source_deleted(self):
        target = self.replica(self.image, self.one)
        os.unlink(self.image)
        self.check(target)

    def test_source_overwritten(self):
        target = self.replica(self.image, self.one)
        with open(self.image, "r+b") as file:
            for offset in range(0, LARGE, MIB):
                os.pwrite(file.fileno(), b"\xee" * 300_000, offset)
        self.check(target)

    def test_source_truncated(self):
        target = self.replica(self.image, self.one)
        os.truncate(self.image, 1000)
        os.truncate(self.image, LARGE)
        self.check(target)
        os.truncate(self.original, 1000)
        os.truncate(self.original, LARGE)
        self.assertSame(self.original, self.image)

    def test_source_renamed_and_replaced(self):
        target = self.replica(self.image, self.one)
        os.rename(self.image, self.plain / "elsewhere")
        self.image.write_bytes(b"another image")
        self.check(target)

    def test_replica_truncated_and_extended_reads_zeros(self):
        target = self.replica(self.image, self.one)
        os.truncate(target, 1 * MIB + 17)
        os.truncate(target, LARGE)
        os.truncate(self.original, 1 * MIB + 17)
        os.truncate(self.original, LARGE)
        self.check(target)

    def test_replica_deleted_gives_everything_back(self):
        target = self.replica(self.image, self.one)
        os.unlink(target)
        os.unlink(self.image)
        def gone():
            return sum(path.stat().st_size for path in self.store.store.rglob("*data*") if path.is_file()) < LARGE // 2
        wait_until(gone, 30, "the layers' files going")

    def test_status_wait(self):
        target = self.replica(self.image, self.one)
        rekeyfs("status", "--wait", target, timeout=60)
        self.assertEqual(self.store.status(target), "normal")


class Moves(ReplicationCase):
    def test_mv_between_policies(self):
        original, image = self.imported(self.plain)
        run("mv", image, self.one / "moved")
        self.assertFalse(image.exists())
        self.assertTrue(attribute(self.one / "moved", "source"))
        self.assertSame(original, self.one / "moved")
        self.store.wait_normal(self.one / "moved")
        run("mv", self.one / "moved", self.two)
        self.store.wait_normal(self.two / "moved")
        run("mv", self.two / "moved", self.plain)
        self.assertSame(original, self.plain / "moved")

    def test_rename_and_link_between_policies_are_refused(self):
        _, image = self.imported(self.plain, MIB)
        for function in (os.rename, os.link):
            self.assertErrno(errno.EXDEV, function, image, self.one / "image")
        self.assertEqual(os.listdir(self.one), [])
        same = self.store.policy("same", "tenant-one")
        _, image = self.imported(self.one, MIB)
        os.link(image, same / "linked")
        os.rename(image, same / "renamed")
        self.assertErrno(errno.EXDEV, os.rename, same / "renamed", self.two / "image")

    def test_a_directory_moves_with_its_policy(self):
        original, image = self.imported(self.one, MIB)
        os.rename(self.one, self.two / "moved")
        self.assertSame(original, self.two / "moved" / image.name)
        self.assertEqual(attribute(self.two / "moved", "key"), "tenant-one")


class Secrecy(ReplicationCase):
    def setUp(self):
        super().setUp()
        self.needle = images.MARKER

    def test_the_search_finds_plaintext_where_it_may_be(self):
        self.imported(self.plain)
        self.store.umount()
        self.assertTrue(holds_bytes(self.store.store, self.needle))

    def test_an_imported_image_is_never_in_the_clear(self):
        original, image = self.imported(self.one)
        run("rsync", "-a", original, self.two / "rsynced")
        self.assertEqual(holds_bytes(self.store.store, self.needle), [])
        self.replica(image, self.two)
        self.store.wait_normal(self.two / "replica")
        self.store.umount()
        self.assertEqual(holds_bytes(self.store.store, self.needle), [])

    def test_nothing_in_the_clear_remains_of_a_deleted_source(self):
        _, image = self.imported(self.plain)
        target = self.replica(image, self.one)
        self.store.wait_normal(target)
        os.unlink(image)
        self.store.umount()
        self.assertEqual(holds_bytes(self.store.store, self.needle), [])


class WaysOfCopying(ReplicationCase):
    def setUp(self):
        super().setUp()
        self.original, self.image = self.imported(self.plain)

    def test_extent_by_extent_with_qemu_img(self):
        run("truncate", "-s", "%512", self.original)
        run("cp", self.original, self.image)
        target = self.one / "converted"
        run("qemu-img", "convert", "-C", "-f", "raw", "-O", "raw", self.image, target)
        self.assertTrue(attribute(target, "source"), "it was copied as data, not replicated")
        self.assertSame(self.original, target)

    def test_a_loop_that_skips_holes(self):
        target = self.one / "looped"
        with open(self.image, "rb") as source, open(target, "wb") as out:
            position = 0
            while position < SIZE:
                try:
                    data = os.lseek(source.fileno(), position, os.SEEK_DATA)
                except OSError:
                    break
                hole = os.lseek(source.fileno(), data, os.SEEK_HOLE)
                copy_range_fully(source.fileno(), out.fileno(), hole - data, data, data)
                position = hole
            out.truncate(SIZE)
        self.assertSame(self.original, target)
        self.store.wait_normal(target)
        self.assertSame(self.original, target)

    def test_pieces_backwards(self):
        target = self.one / "backwards"
        with open(self.image, "rb") as source, open(target, "wb") as out:
            for offset in reversed(range(0, SIZE, 5 * MIB)):
                copy_range_fully(source.fileno(), out.fileno(), 5 * MIB, offset, offset)
        self.assertSame(self.original, target)
        self.store.wait_normal(target)
        self.assertSame(self.original, target)

    def test_a_shifted_part(self):
        target = self.one / "part"
        with open(self.image, "rb") as source, open(target, "wb") as out:
            copied = copy_range_fully(source.fileno(), out.fileno(), 7 * MIB + 333, 1_234_567, 89)
        self.assertEqual(copied, 7 * MIB + 333)
        self.assertEqual(target.read_bytes(), bytes(89) + self.original.read_bytes()[1_234_567:][:7 * MIB + 333])

    def test_a_part_of_an_existing_image_is_replaced(self):
        target = self.one / "existing"
        before = random.Random(9).randbytes(4 * MIB)
        target.write_bytes(before)
        with open(self.image, "rb") as source, open(target, "r+b") as out:
            copy_range_fully(source.fileno(), out.fileno(), 1 * MIB, 0, 2 * MIB)
        new = self.original.read_bytes()[:1 * MIB]
        self.assertEqual(target.read_bytes(), before[:2 * MIB] + new + before[3 * MIB:])

    def test_several_images_joined(self):
        target = self.one / "joined"
        run("sh", "-c", 'cat "$1" "$1" >"$2"', "sh", self.image, target)
        content = self.original.read_bytes()
        self.assertEqual(target.read_bytes(), content + content)

    def test_within_one_file(self):
        content = bytearray(self.original.read_bytes())
        with open(self.image, "r+b") as file:
            fd = file.fileno()
            self.assertErrno(errno.EINVAL, os.copy_file_range, fd, fd, 3 * MIB, 0, 1 * MIB)
            copy_range_fully(fd, fd, 1 * MIB, 100, 10 * MIB)
        content[10 * MIB:11 * MIB] = content[100:100 + 1 * MIB]
        self.assertEqual(self.image.read_bytes(), bytes(content))

    def test_beyond_the_end(self):
        target = self.one / "short"
        with open(self.image, "rb") as source, open(target, "wb") as out:
            self.assertEqual(copy_range_fully(source.fileno(), out.fileno(), SIZE, SIZE - 1000, 0), 1000)
            self.assertEqual(os.copy_file_range(source.fileno(), out.fileno(), 1000, SIZE + 5, 0), 0)
        self.assertEqual(target.read_bytes(), self.original.read_bytes()[-1000:])

    def test_a_clone_keeps_its_bytes_after_a_copy_that_failed(self):
        """The copy gave its target a layer over the image before it failed: that layer must not count as gone twice."""
        block = 16 * KIB
        image, failed, clone = (self.plain / name for name in ("small", "failed", "clone"))
        content = random.Random(5).randbytes(16 * block)
        image.write_bytes(content)
        [data] = [path for path in self.store.store.glob("layers/*/*.data0") if path.stat().st_size == 16 * block]
        with open(data, "r+b") as file:
            file.write(b"spoiled")
        with open(image, "rb") as source, open(failed, "wb") as out:
            self.assertErrno(errno.EIO, os.copy_file_range, source.fileno(), out.fileno(), 64 * KIB, 4096, 4096)
        run("cp", image, clone)
        os.unlink(failed)
        with open(image, "r+b") as file:
            file.seek(8 * block)
            file.write(b"new" * KIB)
        with open(clone, "rb") as file:
            file.seek(8 * block)
            self.assertEqual(file.read(8 * block), content[8 * block:])

    def test_replacing_an_image_by_cp(self):
        target = self.one / "target"
        target.write_bytes(b"old" * MIB)
        run("cp", self.image, target)
        self.assertSame(self.original, target)
        self.assertEqual(attribute(target, "key"), "tenant-one")


if __name__ == "__main__":
    unittest.main()
