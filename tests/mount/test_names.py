#!/usr/bin/env python3
"""Names, directories, links, times and permissions of a mounted store."""
import errno
import fcntl
import os
import stat
import unittest

from harness import TestCase, needs_root, run
from syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

# FS_IOC_GETFLAGS and its like, of <linux/fs.h>.
GETFLAGS, SETFLAGS, GETVERSION = 0x80086601, 0x40086602, 0x80087601
FSGETXATTR, FSSETXATTR = 0x801c581f, 0x401c5820


class Names(TestCase):
    def write(self, name, content=b"content"):
        path = self.mnt / name
        path.write_bytes(content)
        return path

    def test_directories_nest_and_go(self):
        deep = self.mnt / "a/b/c/d"
        deep.mkdir(parents=True)
        self.assertIn(os.stat(self.mnt / "a").st_nlink, (1, 3))  # 1: not counted; find(1) knows both
        self.assertErrno(errno.ENOTEMPTY, (self.mnt / "a/b").rmdir)
        self.assertErrno(errno.EEXIST, (self.mnt / "a").mkdir)
        self.assertErrno(errno.EISDIR, os.unlink, self.mnt / "a")
        deep.rmdir()
        self.assertEqual(os.listdir(self.mnt / "a/b/c"), [])
        self.assertErrno(errno.ENOENT, os.stat, deep)

    def test_a_file_is_no_directory(self):
        path = self.write("file")
        self.assertErrno(errno.ENOTDIR, os.stat, path / "below")
        self.assertErrno(errno.ENOTDIR, os.rmdir, path)

    def test_create_exclusively(self):
        path = self.mnt / "file"
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        self.assertErrno(errno.EEXIST, os.open, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)

    def test_mknod_makes_files_but_no_devices(self):
        os.mknod(self.mnt / "file", stat.S_IFREG | 0o640)
        self.assertEqual(os.stat(self.mnt / "file").st_mode, stat.S_IFREG | 0o640)
        for kind in (stat.S_IFIFO, stat.S_IFSOCK):
            with self.assertRaises(OSError):
                os.mknod(self.mnt / "special", kind | 0o600)
        self.assertEqual(os.listdir(self.mnt), ["file"])

    def test_rename_replaces(self):
        source, target = self.write("source", b"new"), self.write("target", b"old")
        number = os.stat(source).st_ino
        with open(target, "rb") as kept:
            os.rename(source, target)
            self.assertEqual(kept.read(), b"old")
        self.assertEqual((target.read_bytes(), os.stat(target).st_ino), (b"new", number))
        self.assertEqual(os.listdir(self.mnt), ["target"])

    def test_rename_without_replacing(self):
        source, target = self.write("source", b"new"), self.write("target", b"old")
        self.assertErrno(errno.EEXIST, renameat2, source, target, RENAME_NOREPLACE)
        self.assertEqual((source.read_bytes(), target.read_bytes()), (b"new", b"old"))
        renameat2(source, self.mnt / "free", RENAME_NOREPLACE)
        self.assertEqual(sorted(os.listdir(self.mnt)), ["free", "target"])

    def test_rename_exchanges(self):
        one, two = self.write("one", b"1"), self.mnt / "folder"
        two.mkdir()
        (two / "inside").write_bytes(b"2")
        renameat2(one, two, RENAME_EXCHANGE)
        self.assertEqual((one / "inside").read_bytes(), b"2")
        self.assertEqual(two.read_bytes(), b"1")
        self.assertErrno(errno.ENOENT, renameat2, one, self.mnt / "nothing", RENAME_EXCHANGE)

    def test_rename_of_directories(self):
        (self.mnt / "a/b").mkdir(parents=True)
        (self.mnt / "full/x").mkdir(parents=True)
        (self.mnt / "empty").mkdir()
        self.assertErrno(errno.EINVAL, os.rename, self.mnt / "a", self.mnt / "a/b/c")
        self.assertErrno(errno.ENOTEMPTY, os.rename, self.mnt / "a", self.mnt / "full")
        os.rename(self.mnt / "a", self.mnt / "empty")
        self.assertEqual(os.listdir(self.mnt / "empty"), ["b"])
        os.rename(self.mnt / "empty/b", self.mnt / "full/b")
        self.assertEqual(os.stat(self.mnt / "full/b/..").st_ino, os.stat(self.mnt / "full").st_ino)
        file = self.write("file")
        self.assertErrno(errno.EISDIR, os.rename, file, self.mnt / "full")
        self.assertErrno(errno.ENOTDIR, os.rename, self.mnt / "full", file)

    def test_unlinked_while_open(self):
        path = self.write("file", b"before")
        with open(path, "r+b") as file:
            os.unlink(path)
            self.assertErrno(errno.ENOENT, os.stat, path)
            file.seek(0, os.SEEK_END)
            file.write(b" and after")
            file.flush()
            file.seek(0)
            self.assertEqual(file.read(), b"before and after")
            self.assertEqual(os.fstat(file.fileno()).st_nlink, 0)
            self.assertEqual(os.listdir(self.mnt), [])

    def assertRemoved(self, fd):
        """What `fd` has open is a directory without a name, and works as one does on any file system."""
        self.assertEqual((os.fstat(fd).st_nlink, stat.S_IFMT(os.fstat(fd).st_mode)), (0, stat.S_IFDIR))
        self.assertEqual(os.listdir(fd), [])
        self.assertErrno(errno.ENOENT, os.open, "new", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
        self.assertErrno(errno.ENOENT, os.mkdir, "new", dir_fd=fd)
        os.fchmod(fd, 0o700)
        os.utime(fd, (1, 2))
        self.assertEqual((os.fstat(fd).st_mode & 0o777, os.fstat(fd).st_mtime), (0o700, 2))
        os.fsync(fd)
        os.close(os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd))
        self.assertEqual(os.stat("..", dir_fd=fd).st_ino, os.stat(self.mnt).st_ino)

    def open_directory(self, name):
        path = self.mnt / name
        path.mkdir()
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, fd)
        return path, fd

    def test_a_directory_removed_while_open(self):
        path, fd = self.open_directory("directory")
        path.rmdir()
        self.assertRemoved(fd)
        self.assertErrno(errno.ENOENT, os.stat, path)

    def test_a_directory_replaced_while_open(self):
        path, fd = self.open_directory("directory")
        other = self.mnt / "other"
        (other / "below").mkdir(parents=True)
        os.rename(other, path)
        self.assertRemoved(fd)
        self.assertEqual(os.listdir(path), ["below"])

    def test_a_working_directory_removed(self):
        path = self.mnt / "directory"
        path.mkdir()
        run("sh", "-c", 'cd "$1" && rmdir "$1" && test "$(ls -a)" = "" && stat . && cd .. && test "$(ls)" = ""', "sh", path)

    def test_a_deleted_file_known_by_its_path_only(self):
        path = self.write("file")
        fd = os.open(path, os.O_PATH)
        self.addCleanup(os.close, fd)
        path.unlink()
        self.assertEqual(os.fstat(fd).st_nlink, 0)
        self.assertErrno(errno.ESTALE, open, f"/proc/self/fd/{fd}")

    def test_symbolic_links(self):
        target = "somewhere/" + "x" * 1000
        os.symlink(target, self.mnt / "link")
        self.assertEqual(os.readlink(self.mnt / "link"), target)
        self.assertEqual(os.lstat(self.mnt / "link").st_size, len(target))
        self.write("file", b"here")
        os.symlink("file", self.mnt / "short")
        self.assertEqual((self.mnt / "short").read_bytes(), b"here")
        os.unlink(self.mnt / "short")
        self.assertEqual((self.mnt / "file").read_bytes(), b"here")

    def test_hard_links(self):
        path = self.write("file", b"one")
        (self.mnt / "folder").mkdir()
        other = self.mnt / "folder/other"
        os.link(path, other)
        self.assertEqual(os.stat(path).st_nlink, 2)
        self.assertEqual(os.stat(path).st_ino, os.stat(other).st_ino)
        with open(other, "ab") as file:
            file.write(b" two")
        self.assertEqual(path.read_bytes(), b"one two")
        os.unlink(path)
        self.assertEqual((other.read_bytes(), os.stat(other).st_nlink), (b"one two", 1))
        self.assertErrno(errno.EPERM, os.link, self.mnt / "folder", self.mnt / "folder2")

    def test_long_and_strange_names(self):
        longest = "n" * 255
        for name in (longest, "with space", "new\nline", "ümläut-\U0001f511", "-rf", "...", "\\"):
            self.write(name, name.encode())
        os.close(os.open(os.fsencode(self.mnt) + b"/not-utf8-\xff", os.O_CREAT | os.O_WRONLY))
        self.assertIn(b"not-utf8-\xff", os.listdir(os.fsencode(self.mnt)))
        self.assertEqual((self.mnt / longest).read_bytes(), longest.encode())
        self.assertErrno(errno.ENAMETOOLONG, os.stat, self.mnt / ("n" * 256))
        self.assertErrno(errno.ENAMETOOLONG, os.mkdir, self.mnt / ("n" * 256))
        self.store.remount()
        self.assertEqual(len(os.listdir(self.mnt)), 8)
        self.assertEqual((self.mnt / "new\nline").read_bytes(), b"new\nline")

    def test_reading_a_large_directory_while_it_changes(self):
        folder = self.mnt / "large"
        folder.mkdir()
        names = {f"image-{number:05}" for number in range(3000)}
        for name in names:
            os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600))
        self.assertEqual(set(os.listdir(folder)), names)
        removed, added = {name for name in names if name.endswith("7")}, {f"new-{number}" for number in range(300)}
        seen = []
        with os.scandir(folder) as entries:
            for entry in entries:
                seen.append(entry.name)
                if len(seen) == 100:
                    for name in removed - set(seen):
                        os.unlink(folder / name)
                    for name in added:
                        os.close(os.open(folder / name, os.O_CREAT | os.O_WRONLY, 0o600))
        self.assertEqual(len(seen), len(set(seen)), "an entry came twice")
        self.assertEqual(names - removed - set(seen), set(), "entries that stayed were not seen")
        self.assertLessEqual(set(seen), names | added)
        run("rm", "-r", folder)
        self.assertEqual(os.listdir(self.mnt), [])


class Attributes(TestCase):
    def test_times(self):
        path = self.mnt / "file"
        path.write_bytes(b"x")
        os.utime(path, ns=(1_111_111_111_123_456_789, 2_222_222_222_987_654_321))
        facts = os.stat(path)
        self.assertEqual((facts.st_atime_ns, facts.st_mtime_ns), (1_111_111_111_123_456_789, 2_222_222_222_987_654_321))
        changed = facts.st_ctime_ns
        with open(path, "ab") as file:
            file.write(b"y")
        facts = os.stat(path)
        self.assertGreater(facts.st_ctime_ns, changed)
        self.assertLess(abs(facts.st_mtime_ns - facts.st_ctime_ns), 10**9)
        os.utime(path, ns=(-5_000_000_000, -1))
        self.store.remount()
        facts = os.stat(path)
        self.assertEqual((facts.st_atime_ns, facts.st_mtime_ns), (-5_000_000_000, -1))

    def test_directory_times_follow_its_entries(self):
        os.utime(self.mnt, ns=(0, 0))
        (self.mnt / "file").write_bytes(b"")
        made = os.stat(self.mnt).st_mtime_ns
        self.assertGreater(made, 0)
        os.utime(self.mnt, ns=(0, 0))
        os.unlink(self.mnt / "file")
        self.assertGreater(os.stat(self.mnt).st_mtime_ns, 0)

    def test_permissions(self):
        path = self.mnt / "file"
        path.write_bytes(b"x")
        for mode in (0o000, 0o644, 0o4755, 0o2711, 0o1777, 0o7777):
            path.chmod(mode)
            self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), mode)
        path.chmod(0o640)
        self.store.remount()
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o640)

    def test_umask(self):
        before = os.umask(0o027)
        self.addCleanup(os.umask, before)
        os.close(os.open(self.mnt / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir(self.mnt / "folder", 0o777)
        self.assertEqual(stat.S_IMODE(os.stat(self.mnt / "file").st_mode), 0o640)
        self.assertEqual(stat.S_IMODE(os.stat(self.mnt / "folder").st_mode), 0o750)

    @needs_root
    def test_owner_and_group(self):
        path = self.mnt / "file"
        path.write_bytes(b"x")
        path.chmod(0o6755)
        os.chown(path, 1234, 5678)
        facts = os.stat(path)
        self.assertEqual((facts.st_uid, facts.st_gid), (1234, 5678))
        os.chown(path, -1, 99)
        self.store.remount()
        facts = os.stat(path)
        self.assertEqual((facts.st_uid, facts.st_gid), (1234, 99))

    @needs_root
    def test_setgid_directory_gives_its_group(self):
        folder = self.mnt / "shared"
        folder.mkdir()
        os.chown(folder, 0, 1000)
        folder.chmod(0o2775)
        (folder / "file").write_bytes(b"")
        (folder / "below").mkdir()
        self.assertEqual(os.stat(folder / "file").st_gid, 1000)
        self.assertEqual(os.stat(folder / "below").st_gid, 1000)
        self.assertTrue(os.stat(folder / "below").st_mode & stat.S_ISGID)

    def test_listed_attributes_are_kept(self):
        path = self.mnt / "file"
        path.write_bytes(b"x")
        os.setxattr(path, "user.xdg.comment", b"a description")
        os.setxattr(path, "user.empty", b"")
        self.assertErrno(errno.EEXIST, os.setxattr, path, "user.empty", b"", os.XATTR_CREATE)
        self.assertErrno(errno.ENODATA, os.setxattr, path, "user.other", b"", os.XATTR_REPLACE)
        self.store.remount()
        self.assertEqual(sorted(os.listxattr(path)), ["user.empty", "user.xdg.comment"])
        self.assertEqual(os.getxattr(path, "user.xdg.comment"), b"a description")
        os.removexattr(path, "user.empty")
        self.assertErrno(errno.ENODATA, os.getxattr, path, "user.empty")
        self.assertErrno(errno.EOPNOTSUPP, os.setxattr, path, "system.posix_acl_access", b"\2\0\0\0")

    def test_flags_of_other_file_systems_are_unknown(self):
        """What lsattr, chattr and xfs_io ask for."""
        (self.mnt / "file").write_bytes(b"x")
        (self.mnt / "directory").mkdir()
        for name in "file", "directory":
            fd = os.open(self.mnt / name, os.O_RDONLY)
            self.addCleanup(os.close, fd)
            for request in GETFLAGS, SETFLAGS, FSGETXATTR, FSSETXATTR, GETVERSION:
                with self.subTest(name, request=hex(request)):
                    self.assertErrno(errno.ENOTTY, fcntl.ioctl, fd, request, bytearray(64))


class WriteBackCache(TestCase):
    mount_arguments = ("-o", "writeback_cache")

    def test_times_of_a_deleted_file_are_written_back_to_nowhere(self):
        path = self.mnt / "file"
        for content in b"", b"content":
            path.write_bytes(content)
            path.unlink()
            run("sync", "--file-system", self.mnt)
        path.touch()
        path.unlink()
        self.store.umount()


if __name__ == "__main__":
    unittest.main()
