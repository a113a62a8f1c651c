#!/usr/bin/env python3
"""More than one user: what another one may see, and an ordinary user's own store."""
import errno
import os
import stat
import unittest

from harness import NOBODY, MountedStore, TestCase, needs_mounting_users, needs_root, run


@needs_root
class AnotherUser(TestCase):
    mount_arguments = ("-o", "allow_other")

    def setUp(self):
        super().setUp()
        self.public = self.store.plain("public")
        self.public.chmod(0o777)

    def as_nobody(self, *command):
        return run(*command, uid=NOBODY, check=False)

    def test_sees_what_permissions_allow(self):
        readable, private = self.public / "readable", self.public / "private"
        readable.write_bytes(b"for everybody")
        private.write_bytes(b"for root")
        readable.chmod(0o644)
        private.chmod(0o600)
        self.assertEqual(self.as_nobody("cat", readable).stdout, "for everybody")
        self.assertIn(os.strerror(errno.EACCES), self.as_nobody("cat", private).stderr)
        for command in (["dd", "if=/dev/zero", f"of={readable}", "count=1"], ["chmod", "666", readable],
                        ["chown", "nobody", readable], ["rm", "-f", self.mnt / "public"], ["touch", self.mnt / "new"]):
            self.assertNotEqual(self.as_nobody(*command).returncode, 0, command)
        self.assertEqual(readable.read_bytes(), b"for everybody")

    def test_owns_what_he_makes(self):
        self.as_nobody("sh", "-c", 'umask 022; cd "$1" && mkdir own && echo x >own/file', "sh", self.public)
        facts = os.stat(self.public / "own/file")
        self.assertEqual((facts.st_uid, facts.st_gid, stat.S_IMODE(facts.st_mode)), (NOBODY, NOBODY, 0o644))
        self.assertEqual(self.as_nobody("rm", "-r", self.public / "own").returncode, 0)

    def test_sticky_directory(self):
        self.public.chmod(0o1777)
        (self.public / "root's").write_bytes(b"x")
        self.assertNotEqual(self.as_nobody("rm", "-f", self.public / "root's").returncode, 0)
        self.assertNotEqual(self.as_nobody("mv", self.public / "root's", self.public / "mine").returncode, 0)
        self.assertTrue((self.public / "root's").exists())

    def test_does_not_read_an_encrypted_image(self):
        folder = self.store.encrypted("encrypted", "tenant")
        folder.chmod(0o755)
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        (folder / "image").write_bytes(b"secret")
        self.assertIn(os.strerror(errno.EACCES), self.as_nobody("cat", folder / "image").stderr)
        self.store.wait_normal(folder / "image")
        self.assertIn(os.strerror(errno.EACCES), self.as_nobody("cat", folder / "image").stderr)

    def test_writing_clears_setuid(self):
        path = self.public / "program"
        path.write_bytes(b"x")
        os.chown(path, NOBODY, NOBODY)
        path.chmod(0o4755)
        self.as_nobody("sh", "-c", 'echo more >>"$1"', "sh", path)
        self.assertFalse(os.stat(path).st_mode & stat.S_ISUID)

    def test_whatever_clears_setuid_shows_it_at_once(self):
        """Also to those who ask for the mode alone, which the kernel does itself before it runs a program."""
        changes = {
            "append": 'echo more >>"$1"',
            "replace": 'echo new >"$1"',
            "truncate": 'truncate -s 5000 "$1"',
            "direct write": 'dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct conv=notrunc status=none',
            "allocate": 'fallocate -l 20000 "$1"',
            "copy a range": 'xfs_io -c "copy_range -s 4096 -d 0 -l 4096 $2" "$1"',
        }
        source = self.public / "source"
        source.write_bytes(b"s" * 9000)
        source.chmod(0o644)
        for name, change in changes.items():
            with self.subTest(name):
                path = self.public / name.replace(" ", "-")
                path.write_bytes(b"x" * 9000)
                path.chmod(0o6777)
                self.assertEqual(run("stat", "-c", "%a", path).stdout, "6777\n")
                done = self.as_nobody("sh", "-c", change, "sh", path, source)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(run("stat", "-c", "%a", path).stdout, "777\n")


@needs_root
@needs_mounting_users
class OrdinaryUser(unittest.TestCase):
    def test_mounts_his_own_store(self):
        store = MountedStore(uid=NOBODY)
        self.addCleanup(store.close)
        script = '''set -e
            umask 022
            mkdir "$1/folder"
            setfattr -n user.rekeyfs.key -v tenant "$1/folder"
            echo content >"$1/plain"
            cp "$1/plain" "$1/folder/replica"
            cmp "$1/plain" "$1/folder/replica"
            getfattr --only-values -n user.rekeyfs.key "$1/folder/replica"'''
        store.key("tenant")
        done = run("sh", "-c", script, "sh", store.mnt, uid=NOBODY)
        self.assertEqual(done.stdout, "tenant")
        store.remount()
        self.assertEqual(run("cat", store.mnt / "folder/replica", uid=NOBODY).stdout, "content\n")
        for path in store.store.rglob("*"):
            self.assertFalse(path.stat().st_mode & 0o077, f"others may look at {path}")


if __name__ == "__main__":
    unittest.main()
