#!/usr/bin/env python3
"""Nothing becomes plain by accident: what replaces encrypted content, what is copied from a key, and what comes below a
directory that is encrypted only."""
import ctypes
import errno
import json
import os
import stat
import unittest

from harness import NOBODY, TestCase, attribute, attribute_or_none, needs_root, rekeyfs, run
from images import holds_bytes

RENAME_EXCHANGE = 2
LIBC = ctypes.CDLL(None, use_errno=True)
SECRET = b"TENANT-ONE-SECRET"


def secret_content(size=200_000):
    return (SECRET * (size // len(SECRET) + 1))[:size]


def exchange(one, other):
    if LIBC.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class PlainCase(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        before = os.umask(0o022)
        self.addCleanup(os.umask, before)
        self.one, self.public = self.store.encrypted("one", "tenant-one"), self.store.plain("public")
        self.image = self.one / "image"
        self.image.write_bytes(b"old" * 10_000)
        self.outside = self.store.scratch / "outside"
        self.outside.write_bytes(secret_content())

    def log(self, kind):
        lines = rekeyfs("log", "--json", self.mnt).stdout.splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def key(self, path):
        return attribute_or_none(path, "key")

    def drop_the_policy(self):
        os.removexattr(self.one, "user.rekeyfs.key")

    def assertSecret(self, path, content=None):
        """The image is encrypted with tenant-one, and its content is not in the store as it is."""
        self.assertEqual(self.key(path), "tenant-one")
        self.assertEqual(path.read_bytes(), secret_content() if content is None else content)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode) & 0o077, 0)
        rekeyfs("status", "--wait", self.mnt)
        self.store.umount()
        self.assertEqual(holds_bytes(self.store.store, SECRET), [])
        self.store.mount()
        self.assertEqual(self.key(path), "tenant-one")


class Replaced(PlainCase):
    def setUp(self):
        super().setUp()
        self.drop_the_policy()

    def test_overwritten_from_outside(self):
        for number, command in enumerate(('cp "$1" "$2"', 'cat "$1" >"$2"', 'dd if="$1" of="$2" bs=64K status=none',
                                          'rsync --inplace "$1" "$2"', 'install -m 644 /dev/null "$3" && cp "$1" "$2"')):
            with self.subTest(command):
                run("sh", "-c", command, "sh", self.outside, self.image, self.one / f"other-{number}")
                self.assertSecret(self.image)

    def test_an_empty_image_stays_encrypted(self):
        os.truncate(self.image, 0)
        run("cp", self.outside, self.image)
        self.assertSecret(self.image)

    def test_a_plain_image_copied_over_it_is_replicated(self):
        source = self.public / "source"
        source.write_bytes(b"public" * 50_000)
        run("cp", source, self.image)
        self.assertTrue(attribute(self.image, "source"))
        self.assertSecret(self.image, source.read_bytes())

    def test_a_temporary_file_renamed_over_it(self):
        commands = {"rsync": 'rsync "$1" "$2"', "mv": 'cp "$1" "$2.new" && mv "$2.new" "$2"', "sed": 'cp "$1" "$2" && sed -i s/x/y/ "$2"',
                    "ln": 'cp "$1" "$2.new" && ln -f "$2.new" "$2" && rm "$2.new"'}
        for name, command in commands.items():
            with self.subTest(name):
                run("sh", "-c", command, "sh", self.outside, self.image)
                self.assertSecret(self.image)

    def test_a_renamed_file_that_is_still_open_goes_on_encrypted(self):
        temporary = self.one / "temporary"
        with open(temporary, "wb", buffering=0) as file:
            file.write(secret_content(100_000))
            os.rename(temporary, self.image)
            file.write(secret_content()[100_000:])
        self.assertSecret(self.image)

    def test_another_directorys_key_goes_before(self):
        os.setxattr(self.one, "user.rekeyfs.key", b"tenant-one")
        rekeyfs("key", "create", "tenant-two", self.mnt)
        os.setxattr(self.one, "user.rekeyfs.key", b"tenant-two")
        rekeyfs("replicate", "--plain", self.image, self.one / "plain")
        os.rename(self.one / "plain", self.image)
        self.assertEqual(self.key(self.image), "tenant-two")

    def test_what_replaces_a_plain_image_or_nothing_is_plain(self):
        for name in ("temporary", "there"):
            (self.one / name).write_bytes(b"plain")
        os.rename(self.one / "temporary", self.one / "there")
        os.rename(self.one / "there", self.one / "new")
        self.assertIsNone(self.key(self.one / "new"))

    def test_an_exchange_replaces_no_content(self):
        (self.one / "other").write_bytes(b"plain")
        exchange(self.one / "other", self.image)
        self.assertEqual((self.key(self.image), self.key(self.one / "other")), (None, "tenant-one"))

    def test_a_new_image_is_plain(self):
        """To remove the image and create another one is to say so."""
        os.unlink(self.image)
        run("cp", self.outside, self.image)
        self.assertIsNone(self.key(self.image))

    def test_a_directory_is_not_renamed_over_it(self):
        (self.one / "folder").mkdir()
        self.assertErrno(errno.ENOTDIR, os.rename, self.one / "folder", self.image)
        (self.one / "link").symlink_to("nowhere")
        os.rename(self.one / "link", self.image)
        self.assertTrue(self.image.is_symlink())

    @needs_root
    def test_without_a_grant_it_is_not_replaced(self):
        os.chown(self.one, NOBODY, NOBODY)
        os.chown(self.image, NOBODY, NOBODY)
        content = self.image.read_bytes()
        self.outside.chmod(0o644)
        for command in ('cp "$1" "$2"', 'cp "$1" "$2.new" && mv -f "$2.new" "$2"'):
            done = run("sh", "-c", command, "sh", self.outside, self.image, uid=NOBODY, check=False)
            self.assertIn(os.strerror(errno.EACCES), done.stderr)
            self.assertEqual((self.image.read_bytes(), self.key(self.image)), (content, "tenant-one"))
        self.assertIn("no grant", self.log("refused")[-1]["text"])
        rekeyfs("key", "grant", "tenant-one", str(NOBODY), self.mnt)
        run("sh", "-c", 'mv -f "$2.new" "$2"', "sh", self.outside, self.image, uid=NOBODY)
        self.assertSecret(self.image)


class SaidToBePlain(PlainCase):
    def replicate(self, *arguments, **options):
        return rekeyfs("replicate", "--plain", *arguments, **options)

    def test_over_an_encrypted_image(self):
        source = self.public / "source"
        source.write_bytes(b"public" * 50_000)
        self.replicate("--description", "shared", source, self.image)
        self.assertEqual((self.key(self.image), self.image.read_bytes()), (None, source.read_bytes()))
        self.assertEqual(os.getxattr(self.image, "user.xdg.comment"), b"shared")
        self.store.remount()
        self.assertEqual((self.key(self.image), self.image.read_bytes()), (None, source.read_bytes()))
        self.assertEqual(self.replicate(source, self.image, check=False).returncode, 15, "a plain image is not replaced")

    def test_an_image_is_not_replaced_by_itself(self):
        before = self.image.read_bytes()
        self.assertEqual(self.replicate(self.image, self.image, check=False).returncode, 15)
        self.assertEqual((self.key(self.image), self.image.read_bytes()), ("tenant-one", before))

    def test_a_refusal_keeps_the_content(self):
        before = self.image.read_bytes()
        source = self.public / "source"
        source.write_bytes(b"public" * 50_000)
        os.setxattr(source, "user.rekeyfs.type", b"full-ecs")
        self.assertEqual(self.replicate(source, self.image, check=False).returncode, 18)
        self.assertEqual((self.key(self.image), self.image.read_bytes()), ("tenant-one", before))
        os.removexattr(source, "user.rekeyfs.type")
        os.link(self.image, self.one / "other name")
        done = self.replicate(source, self.image, check=False)
        self.assertIn("several names", done.stderr)
        self.assertEqual((self.key(self.image), self.image.read_bytes()), ("tenant-one", before))

    @needs_root
    def test_by_its_owner_only(self):
        source = self.public / "source"
        source.write_bytes(b"public" * 50_000)
        source.chmod(0o644)
        rekeyfs("key", "grant", "tenant-one", str(NOBODY), self.mnt)
        before = self.image.read_bytes()
        self.assertNotEqual(self.replicate(source, self.image, uid=NOBODY, check=False).returncode, 0)
        self.assertEqual((self.key(self.image), self.image.read_bytes()), ("tenant-one", before))
        os.chown(self.image, NOBODY, NOBODY)
        self.replicate(source, self.image, uid=NOBODY)
        self.assertIsNone(self.key(self.image))


@needs_root
class Declassified(PlainCase):
    def setUp(self):
        super().setUp()
        for path in (self.one, self.public, self.image):
            os.chown(path, NOBODY, NOBODY)
        rekeyfs("key", "grant", "tenant-one", str(NOBODY), self.mnt)
        run("cp", self.outside, self.image)
        self.store.wait_normal(self.image)

    def as_nobody(self, script, *arguments):
        return run("sh", "-c", script, "sh", self.image, self.public / "copy", *arguments, uid=NOBODY, check=False)

    def test_a_grant_is_not_enough(self):
        copies = {"cp": 'cp "$1" "$2"', "cp -a": 'cp -a "$1" "$2"', "mv": 'mv "$1" "$2"', "install": 'install "$1" "$2"',
                  "a part": 'xfs_io -f -c "copy_range -s 16384 -d 16384 -l 16384 $1" "$2" && test -s "$2"',
                  "to another place": 'xfs_io -f -c "copy_range -s 0 -d 16384 -l 16384 $1" "$2" && test -s "$2"',
                  "into content": 'echo content >"$2" && xfs_io -c "copy_range -s 0 -d 4096 -l 9000 $1" "$2" && test $(stat -c %s "$2") -gt 100',
                  "qemu-img": 'qemu-img convert -C -f raw -O raw "$1" "$2"'}
        for name, script in copies.items():
            with self.subTest(name):
                done = self.as_nobody(script)
                self.assertNotEqual(done.returncode, 0, done.stdout)
                self.assertIn("may not declassify", self.log("refused")[-1]["text"])
                if (self.public / "copy").exists():
                    self.assertNotIn(SECRET, (self.public / "copy").read_bytes())
                    os.unlink(self.public / "copy")
        self.assertEqual(self.log("declassified"), [])
        self.assertEqual(self.image.read_bytes(), secret_content())
        self.store.umount()
        self.assertEqual(holds_bytes(self.store.store, SECRET), [])
        self.store.mount()

    def test_the_dry_run_and_the_command_say_so(self):
        for arguments in (("--dry-run", self.image, self.public), (self.image, self.public), ("--plain", self.image, self.one / "plain")):
            done = rekeyfs("replicate", *arguments, uid=NOBODY, check=False)
            self.assertEqual(done.returncode, 16, done.stderr)
            self.assertIn("may not declassify content of key \"tenant-one\"", done.stdout + done.stderr)
        self.assertEqual((os.listdir(self.public), os.listdir(self.one)), ([], ["image"]))

    def test_within_the_key_it_is(self):
        self.assertEqual(run("cp", self.image, self.one / "clone", uid=NOBODY, check=False).returncode, 0)

    def test_an_operator_may_and_it_is_on_record(self):
        run("cp", self.image, self.public / "copy")
        self.assertEqual((self.public / "copy").read_bytes(), secret_content())
        run("xfs_io", "-f", "-c", f"copy_range -s 0 -d 16384 -l 16384 {self.image}", "-c",
            f"copy_range -s 0 -d 65536 -l 16384 {self.image}", self.public / "part")
        events = self.log("declassified")
        self.assertEqual([(event["path"], event["source"], event["uid"], event["key_before"]) for event in events],
                         [("/public/copy", "/one/image", 0, "tenant-one"), ("/public/part", "/one/image", 0, "tenant-one")])

    def test_reading_and_writing_is_the_readers_own_act(self):
        self.assertEqual(self.as_nobody('cat "$1" | cat >"$2"').returncode, 0)
        self.assertEqual(self.log("declassified"), [])


class EncryptedOnly(PlainCase):
    def setUp(self):
        super().setUp()
        self.vault = self.store.plain("vault")
        os.setxattr(self.vault, "user.rekeyfs.encrypted_only", b"1")
        self.plain = self.public / "plain"
        self.plain.write_bytes(b"plain")

    def give_it_a_key(self, path=None):
        os.setxattr(path or self.vault, "user.rekeyfs.key", b"tenant-one")

    def test_nothing_is_created_without_a_key(self):
        folder = self.vault / "folder"
        folder.mkdir()
        for path in (self.vault / "new", folder / "new"):
            self.assertErrno(errno.EPERM, os.open, path, os.O_CREAT | os.O_WRONLY)
            self.assertErrno(errno.EPERM, os.mknod, path, stat.S_IFREG | 0o600)
            self.assertNotEqual(run("cp", self.plain, path, check=False).returncode, 0)
        self.assertIn("the directory must have a user.rekeyfs.key", self.log("refused")[-1]["text"])
        self.give_it_a_key(folder)
        run("cp", self.plain, folder)
        self.assertEqual(self.key(folder / "plain"), "tenant-one")
        (self.vault / "link").symlink_to("folder")

    def test_it_is_in_force_below_as_long_as_it_is_set(self):
        (self.vault / "a/b").mkdir(parents=True)
        for path in (self.vault / "a", self.vault / "a/b"):
            self.assertEqual(attribute(path, "encrypted_only"), "1")
        self.assertIn("user.rekeyfs.encrypted_only", rekeyfs("info", self.vault / "a").stdout)
        self.assertErrno(errno.ENODATA, os.removexattr, self.vault / "a", "user.rekeyfs.encrypted_only")
        self.assertIsNone(attribute_or_none(self.public, "encrypted_only"))
        self.store.remount()
        self.assertEqual(attribute(self.vault / "a/b", "encrypted_only"), "1")
        os.removexattr(self.vault, "user.rekeyfs.encrypted_only")
        self.assertIsNone(attribute_or_none(self.vault / "a/b", "encrypted_only"))
        (self.vault / "a/b/new").write_bytes(b"plain")

    def test_the_key_of_a_directory_is_not_removed(self):
        self.give_it_a_key()
        (self.vault / "folder").mkdir()
        for path in (self.vault / "folder", self.vault):
            self.assertErrno(errno.EPERM, os.removexattr, path, "user.rekeyfs.key")
            self.assertEqual(self.key(path), "tenant-one")
        os.rename(self.vault / "folder", self.mnt / "folder")
        os.removexattr(self.mnt / "folder", "user.rekeyfs.key")

    def test_nothing_plain_by_the_command(self):
        self.give_it_a_key()
        for arguments in (("--dry-run",), ()):
            done = rekeyfs("replicate", "--plain", *arguments, self.plain, self.vault / "new", check=False)
            self.assertEqual(done.returncode, 16, done.stderr)
            self.assertIn("nothing plain may come to be in /vault", done.stdout + done.stderr)
        self.assertEqual(os.listdir(self.vault), [])
        run("cp", self.plain, self.vault)
        before = (self.vault / "plain").read_bytes()
        self.assertEqual(rekeyfs("replicate", "--plain", self.image, self.vault / "plain", check=False).returncode, 16)
        self.assertEqual((self.key(self.vault / "plain"), (self.vault / "plain").read_bytes()), ("tenant-one", before))

    def test_plain_images_come_in_by_a_copy(self):
        self.assertErrno(errno.EPERM, os.rename, self.plain, self.vault / "plain")
        self.assertErrno(errno.EPERM, os.link, self.plain, self.vault / "plain")
        done = run("mv", self.plain, self.vault, check=False)
        self.assertIn(os.strerror(errno.EPERM), done.stderr)
        self.assertTrue(self.plain.exists())
        self.give_it_a_key()
        rekeyfs("replicate", "--plain", self.plain, self.one / "plain")  # of the same policy
        for path in (self.plain, self.one / "plain"):
            self.assertErrno(errno.EXDEV, os.rename, path, self.vault / "new")
            self.assertErrno(errno.EXDEV, os.link, path, self.vault / "new")
            run("mv", path, self.vault)
            self.assertEqual(self.key(self.vault / "plain"), "tenant-one")
        (self.one / "plain").write_bytes(b"x")
        rekeyfs("replicate", "--plain", self.vault / "plain", self.one / "another")
        self.assertErrno(errno.EXDEV, exchange, self.one / "another", self.vault / "plain")
        self.assertErrno(errno.EXDEV, exchange, self.vault / "plain", self.one / "another")
        os.rename(self.image, self.vault / "image")

    def test_directories_come_in_by_a_copy(self):
        self.give_it_a_key()
        folder = self.store.plain("folder")
        (folder / "sub").mkdir()
        (folder / "sub/image").write_bytes(secret_content())
        self.assertErrno(errno.EXDEV, os.rename, folder, self.vault / "folder")
        run("mv", folder, self.vault)
        self.assertEqual(self.key(self.vault / "folder/sub/image"), "tenant-one")
        os.rename(self.vault / "folder", self.vault / "renamed")
        os.rename(self.vault / "renamed/sub", self.vault / "sub")
        self.assertSecret(self.vault / "sub/image")

    def test_what_is_plain_already_stays_and_is_not_replaced_by_plain_content(self):
        folder = self.store.plain("turning")
        for name in ("image", "other"):
            (folder / name).write_bytes(b"plain")
        os.setxattr(folder, "user.rekeyfs.encrypted_only", b"1")
        self.assertEqual((folder / "image").read_bytes(), b"plain")
        self.assertErrno(errno.EPERM, os.open, folder / "image", os.O_WRONLY | os.O_TRUNC)
        self.assertEqual((folder / "image").read_bytes(), b"plain")
        os.rename(folder / "image", folder / "renamed")
        self.give_it_a_key(folder)
        run("cp", self.outside, folder / "renamed")
        self.assertSecret(folder / "renamed")

    @needs_root
    def test_it_is_an_operators(self):
        os.chown(self.vault, NOBODY, NOBODY)
        os.chown(self.public, NOBODY, NOBODY)
        for command in (["setfattr", "-x", "user.rekeyfs.encrypted_only", self.vault],
                        ["setfattr", "-n", "user.rekeyfs.encrypted_only", "-v", "0", self.vault],
                        ["setfattr", "-n", "user.rekeyfs.encrypted_only", "-v", "1", self.public]):
            self.assertIn(os.strerror(errno.EPERM), run(*command, uid=NOBODY, check=False).stderr)
        self.assertEqual(attribute(self.vault, "encrypted_only"), "1")
        self.assertErrno(errno.EINVAL, os.setxattr, self.vault, "user.rekeyfs.encrypted_only", b"yes")
        self.assertErrno(errno.EPERM, os.setxattr, self.plain, "user.rekeyfs.encrypted_only", b"1")


if __name__ == "__main__":
    unittest.main()
