#!/usr/bin/env python3
"""An encrypted image is its owner's alone, whatever makes it or changes it; a plain one is shared as usual."""
import errno
import os
import stat
import subprocess
import sys
import time
import unittest

from harness import NOBODY, TestCase, attribute, needs_root, run
from images import KIB

CONTENT = b"content" * 10_000


def mode_of(path):
    return stat.S_IMODE(os.stat(path).st_mode)


class Sharing(TestCase):
    mount_arguments = ("-o", "allow_other") if os.geteuid() == 0 else ()

    def setUp(self):
        super().setUp()
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.one, self.plain = self.store.encrypted("one", "tenant-one"), self.store.plain("plain")
        self.source = self.store.scratch / "source"
        self.source.write_bytes(CONTENT)
        self.source.chmod(0o664)

    def settled(self, path, content=CONTENT):
        """An image that is normal and has been left alone."""
        path.write_bytes(content)
        self.store.wait_normal(path)
        return path

    def encrypt(self, folder):
        os.setxattr(folder, "user.rekeyfs.key", b"tenant-one")

    def assertOwnersOnly(self, path, how=""):
        self.assertEqual(mode_of(path) & 0o077, 0, how)
        self.assertEqual(attribute(path, "encryption"), "kms", how)

    def test_creation(self):
        os.close(os.open(self.one / "open", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mknod(self.one / "mknod", stat.S_IFREG | 0o777)
        for command in ('touch "$1/touch"', 'echo x >"$1/redirected"', 'umask 002; echo x >"$1/umask"',
                        'truncate -s 1M "$1/truncated"', 'fallocate -l 1M "$1/allocated"'):
            run("sh", "-c", command, "sh", self.one)
        for name in os.listdir(self.one):
            self.assertOwnersOnly(self.one / name, name)
        self.assertEqual(mode_of(self.one / "mknod"), 0o700)
        self.assertEqual(len(os.listdir(self.one)), 7)

    def test_tools_that_copy_permissions(self):
        inside = self.settled(self.plain / "inside")
        inside.chmod(0o664)
        archive = self.store.scratch / "archive.tar"
        run("tar", "-C", self.source.parent, "-cpf", archive, "source")
        for number, source in enumerate((self.source, inside)):
            for command in (["cp", "-p"], ["cp", "-a"], ["cp", "--preserve=mode"], ["install", "-m", "644"], ["rsync", "-p"],
                            ["rsync", "-a", "--chmod=g+rw,o+r"], ["rsync", "-a", "--inplace"]):
                target = self.one / f"{number}-{'-'.join(command).replace('/', '')}"
                run(*command, source, target)
                self.assertOwnersOnly(target, command)
                self.assertEqual(target.read_bytes(), CONTENT)
        run("tar", "-C", self.one, "-xpf", archive)
        self.assertOwnersOnly(self.one / "source", "tar -xp")
        self.assertEqual(mode_of(inside), 0o664)
        run("mv", inside, self.one / "moved")
        self.assertOwnersOnly(self.one / "moved", "mv")

    def test_chmod_of_a_settled_image(self):
        image = self.settled(self.one / "image")
        for mode in ("g+r", "o+x", "a+w", "644", "0777", "4710", "+t,g+w"):
            done = run("chmod", mode, image, check=False)
            self.assertIn(os.strerror(errno.EPERM), done.stderr, mode)
            self.assertEqual(mode_of(image), 0o600, mode)
        with open(image, "rb") as file:
            self.assertErrno(errno.EPERM, os.fchmod, file.fileno(), 0o640)
        for mode, result in (("u+x", 0o700), ("400", 0o400), ("g-r", 0o400), ("go=", 0o400), ("u+s", 0o4400)):
            run("chmod", mode, image)
            self.assertEqual(mode_of(image), result, mode)
        plain = self.settled(self.plain / "image")
        plain.chmod(0o644)
        self.assertEqual(mode_of(plain), 0o644)

    def test_chmod_by_who_makes_it_is_cut_short_as_long_as_it_is_open(self):
        """Also when a copy of the descriptor was closed, and the image has been examined, meanwhile."""
        path = self.one / "image"
        with open(path, "wb", buffering=0) as file:
            os.fchmod(file.fileno(), 0o666)
            self.assertOwnersOnly(path)
            file.write(CONTENT)
            os.fchmod(file.fileno(), 0o646)
            os.close(os.dup(file.fileno()))
            self.store.wait_normal(path)
            time.sleep(0.1)
            os.fchmod(file.fileno(), 0o664)
            self.assertOwnersOnly(path)
            self.assertEqual(mode_of(path), 0o600)

    def test_chmod_of_a_clone_by_who_makes_it(self):
        image = self.settled(self.one / "image")
        with open(image, "rb") as source, open(self.one / "clone", "wb", buffering=0) as out:
            os.copy_file_range(source.fileno(), out.fileno(), len(CONTENT))
            os.close(os.dup(out.fileno()))
            os.fchmod(out.fileno(), 0o644)
            self.assertOwnersOnly(self.one / "clone")

    def test_replaced_content_takes_the_policy_of_now(self):
        """O_TRUNC in a directory that got a key since; empty images as well as others."""
        writers = {"cp": ["cp", self.source], "dd": ["dd", "status=none", f"if={self.source}"], "sh": None}
        for name, content in (("full", b"old" * 10_000), ("empty", b"")):
            for tool, command in writers.items():
                folder = self.store.plain(f"{tool}-{name}")
                image = folder / "image"
                image.write_bytes(content)
                image.chmod(0o666)
                self.encrypt(folder)
                self.assertEqual((attribute(image, "encryption"), mode_of(image)), ("none", 0o666))
                if command is None:
                    run("sh", "-c", 'cat "$1" | cat >"$2"', "sh", self.source, image)
                else:
                    run(*command, f"of={image}" if tool == "dd" else image)
                self.assertOwnersOnly(image, f"{tool}, {name}")
                self.assertEqual(image.read_bytes(), CONTENT)

    def test_a_replica_over_an_image_of_a_former_policy(self):
        source = self.settled(self.plain / "source")
        for content in (b"old" * 10_000, b""):
            folder = self.store.plain(f"folder-{len(content)}")
            (folder / "image").write_bytes(content)
            (folder / "image").chmod(0o666)
            self.encrypt(folder)
            run("cp", source, folder / "image")
            self.assertTrue(attribute(folder / "image", "source"))
            self.assertOwnersOnly(folder / "image")
        self.assertEqual(mode_of(source), 0o666)

    def test_access_control_lists(self):
        image = self.settled(self.one / "image")
        for path in (image, self.one, self.plain):
            done = run("setfacl", "-m", "u:nobody:r", path, check=False)
            self.assertIn(os.strerror(errno.EOPNOTSUPP), done.stderr)
        done = run("setfacl", "-d", "-m", "g::rw", self.one, check=False)
        self.assertIn(os.strerror(errno.EOPNOTSUPP), done.stderr)
        self.assertErrno(errno.EOPNOTSUPP, os.setxattr, image, "system.posix_acl_access", b"\2\0\0\0")
        self.assertOwnersOnly(image)

    @needs_root
    def test_nobody_else_reads_it_by_what_the_kernel_remembers(self):
        """The permissions that the kernel has seen are those from before the image was encrypted."""
        folder = self.store.plain("folder")
        folder.chmod(0o755)
        for name in ("full", "empty"):
            image = folder / name
            image.write_bytes(b"public" if name == "full" else b"")
            image.chmod(0o644)
        self.encrypt(folder)
        reader = subprocess.Popen(["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", sys.executable, "-c",
                                   READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(reader.communicate)
        for name in ("full", "empty"):
            def ask():
                print(folder / name, file=reader.stdin, flush=True)
                return reader.stdout.readline().strip()
            self.assertIn(ask(), ("b'public'", "b''"))
            run("cp", self.source, folder / name)
            self.assertEqual(ask(), "EACCES")


READER = """import errno, sys
for path in sys.stdin:
    try:
        print(open(path.rstrip(), "rb").read(6), flush=True)
    except OSError as error:
        print(errno.errorcode[error.errno], flush=True)
"""


if __name__ == "__main__":
    unittest.main()
