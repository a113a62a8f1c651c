#!/usr/bin/env python3
"""mount(8) and fstab(5), which run mount.rekeyfs, and umount(8): the real ones, in a mount namespace of the test's own
where the helper stands in /sbin and nothing else does."""
import os
import shlex
import unittest
from pathlib import Path

from harness import REKEYFS, TestCase, is_mounted, needs_root, rekeyfs, run

USAGE = 2  # exit code, rekeyfs(1)


@needs_root
class MountHelper(TestCase):
    def setUp(self):
        super().setUp()
        (self.mnt / "file").write_bytes(b"content")
        self.store.umount()
        self.sbin = self.store.folder / "sbin"
        self.sbin.mkdir()
        (self.sbin / "mount.rekeyfs").symlink_to(Path(REKEYFS).resolve())

    def sh(self, script, check=True):
        """Runs a script in a new mount namespace; $S, $M and $K are the store, mount point and key file."""
        names = {"S": self.store.store, "M": self.mnt, "K": self.store.key_file, "R": REKEYFS, "F": self.store.folder}
        head = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in names.items())
        place = shlex.quote(os.path.realpath("/sbin"))
        done = run("unshare", "--mount", "--propagation", "private", "sh", "-ec",
                   f"{head}mount --bind {shlex.quote(str(self.sbin))} {place}\n{script}", check=check)
        self.assertFalse(is_mounted(self.mnt))
        return done

    def test_mount_and_umount(self):
        done = self.sh('mount -t rekeyfs -o key_file="$K" "$S" "$M"; cat "$M/file"; umount "$M"; '
                       'until "$R" key list --key-file "$K" "$S" >"$F/keys" 2>"$F/busy"; do grep -q "in use" "$F/busy"; sleep 0.1; done')
        self.assertEqual(done.stdout, "content")

    def test_a_line_of_fstab(self):
        passphrase, other = self.store.folder / "passphrase", self.store.folder / "other"
        passphrase.write_text("correct horse battery\n")
        rekeyfs("init", other, "--passphrase-file", passphrase)
        (self.store.folder / "fstab").write_text(
            f"{self.store.store} {self.mnt} rekeyfs noauto,nofail,user,exec,x-systemd.automount,key_file={self.store.key_file} 0 0\n"
            f"{other} {self.store.scratch} rekeyfs ro,noatime,_netdev,passphrase_file={passphrase} 0 0\n")
        done = self.sh('mount -T "$F/fstab" "$M"; cat "$M/file"; mount -T "$F/fstab" "$F/scratch"; '
                       'touch "$F/scratch/x" 2>/dev/null || echo -n " read-only"; "$R" umount "$F/scratch"; "$R" umount "$M"')
        self.assertEqual(done.stdout, "content read-only")

    def test_verbose_fake_and_no_mtab(self):
        self.sh('mount -v -n -t rekeyfs -o key_file="$K" "$S" "$M"; test -f "$M/file"; "$R" umount "$M"')
        self.sh('mount -f -t rekeyfs -o key_file="$K" "$S" "$M"; ! test -e "$M/file"')
        done = self.sh('/sbin/mount.rekeyfs "$S" "$M" -f -n -v -t rekeyfs -o key_file="$F/missing"', check=False)
        self.assertNotEqual(done.returncode, 0, "-f checks what it can")

    def test_sloppy(self):
        done = self.sh('mount -t rekeyfs -o zzz,key_file="$K" "$S" "$M"', check=False)
        self.assertEqual(done.returncode, USAGE, done.stderr)
        self.assertIn("zzz", done.stderr)
        self.sh('mount -s -t rekeyfs -o zzz,key_file="$K" "$S" "$M"; "$R" umount "$M"')

    def test_what_cannot_be_done_is_refused(self):
        self.assertEqual(self.sh('mount -t rekeyfs.sub -o key_file="$K" "$S" "$M"', check=False).returncode, USAGE)

    def test_another_mount_namespace(self):
        done = self.sh('unshare --mount --propagation private sleep 60 & there=$!\n'
                       'while test "$(readlink /proc/$there/ns/mnt)" = "$(readlink /proc/self/ns/mnt)"; do sleep 0.02; done\n'
                       'mount -N $there -t rekeyfs -o key_file="$K" "$S" "$M"\n'
                       'test -e "$M/file" && echo -n "here "\n'
                       'cat "/proc/$there/root$M/file"\n'
                       'nsenter --mount="/proc/$there/ns/mnt" "$R" umount "$M"; kill $there')
        self.assertEqual(done.stdout, "content")

    def test_programs_may_be_forbidden_to_run(self):
        done = self.sh('mount -t rekeyfs -o noexec,key_file="$K" "$S" "$M"; cp /bin/true "$M/true"; '
                       '"$M/true" 2>/dev/null || echo -n "not run"; "$R" umount "$M"')
        self.assertEqual(done.stdout, "not run")


if __name__ == "__main__":
    unittest.main()
