#!/usr/bin/env python3
"""Where no byte of a key or passphrase may be: memory that is swapped out or dumped, logs, /proc, the store, another
process's eyes. The daemon runs under a spy (tests/preload/crypto_spy.cpp) that notes every key it gives to OpenSSL."""
import os
import pty
import re
import shutil
import signal
import sys
import tempfile
import termios
import time
import unittest
from pathlib import Path

from harness import NOBODY, REKEYFS, ROOT, MountedStore, needs_mounting_users, needs_root, rekeyfs, run, wait_until
from images import MIB

SPY = os.environ.get("REKEYFS_TEST_CRYPTO_SPY") or str(ROOT / "build/release/tests/crypto_spy.so")
RECORD, MOST = 64, 63
HALF = 16  # a vector register's worth of a key is a leak, too
PASSPHRASE = b"correct horse battery staple, quite long"


def noted(path):
    """The secrets that a spy has noted, without the published ones (keys of nothing but zeros)."""
    raw = Path(path).read_bytes() if Path(path).exists() else b""
    records = [raw[at:at + RECORD] for at in range(0, len(raw), RECORD)]
    return {record[1:1 + record[0]] for record in records if any(record[1:])}


def halves(secrets):
    return {secret[at:at + HALF] for secret in secrets for at in range(0, max(len(secret) - HALF, 0) + 1, HALF)
            if len(set(secret[at:at + HALF])) > 4}


class Region:
    def __init__(self, header):
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", header)
        self.begin, self.end = int(found[1], 16), int(found[2], 16)
        self.access, self.name = found[3], found[4]
        self.flags = set()

    @property
    def is_secret_memory(self):
        return {"lo", "dd"} <= self.flags

    def __str__(self):
        return f"{self.begin:x}-{self.end:x} {self.access} {self.name or 'anonymous'} {' '.join(sorted(self.flags))}"


def regions(process):
    found = []
    for line in Path(f"/proc/{process}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            found.append(Region(line))
        elif line.startswith("VmFlags:"):
            found[-1].flags = set(line.split()[1:])
    return found


def content(memory, region):
    """What is there, without pages of zeros. A private region only: what is shared is a file's."""
    step, pages = 1 << 20, []
    for at in range(region.begin, region.end, step):
        try:
            piece = os.pread(memory, min(step, region.end - at), at)
        except OSError:  # a guard page
            continue
        if piece.strip(b"\0"):
            pages.append(piece)
    return b"".join(pages)


def places(process, secrets):
    """{region: how many different pieces of secrets are in it}, all private memory of a process looked at."""
    needles, found = halves(secrets), {}
    memory = os.open(f"/proc/{process}/mem", os.O_RDONLY)
    try:
        for region in regions(process):
            if not region.access.startswith("r") or region.access.endswith("s") or region.name.startswith("[v"):
                continue
            bytes_there = content(memory, region)
            if count := sum(needle in bytes_there for needle in needles):
                found[region] = count
    finally:
        os.close(memory)
    return found


def leaks(process, secrets):
    return [f"{region}: {count}" for region, count in places(process, secrets).items() if not region.is_secret_memory]


class Spied(MountedStore):
    """Mounted with the spy."""

    def __init__(self, *arguments, **options):
        self.secrets_file = Path(tempfile.mktemp(prefix="rekeyfs-spy-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        spied = {"LD_PRELOAD": SPY, "REKEYFS_TEST_SPY_KEYS": str(self.secrets_file)}
        super().__init__(*arguments, environment=spied, **options)

    def close(self):
        try:
            super().close()
        finally:
            self.secrets_file.unlink(missing_ok=True)

    def secrets(self):
        return noted(self.secrets_file)


@needs_root
class Daemon(unittest.TestCase):
    def setUp(self):
        self.store = Spied()
        self.addCleanup(self.store.close)
        self.one, self.two = self.store.encrypted("one", "tenant-one"), self.store.encrypted("two", "tenant-two")
        self.plain = self.store.plain("plain")

    def work(self):
        """Everything that uses keys: imports, replicas, reads, rotation, records, checkpoints."""
        original = self.store.original("image", 2 * MIB)
        for folder in (self.plain, self.one):
            run("cp", original, folder / "image")
        run("cp", self.one / "image", self.two / "replica")
        self.store.wait_normal(self.two / "replica")
        rekeyfs("key", "rotate", "tenant-one", self.store.mnt)
        run("cp", self.one / "image", self.one / "clone")
        with open(self.one / "clone", "r+b") as clone:
            clone.write(b"changed")
            os.fsync(clone.fileno())
        run("cmp", "--bytes=4096", self.plain / "image", self.two / "replica")

    def test_memory_logs_proc_and_store_hold_no_secret(self):
        self.work()
        self.store.remount()
        self.work_after_remount()
        process, secrets = self.store.process.pid, self.store.secrets()
        key_file = self.store.key_file.read_bytes()
        self.assertIn(key_file, secrets, "the spy saw the key file's bytes")
        print(f"{len(secrets)} secrets searched for", file=sys.stderr)
        self.assertGreater(len(secrets), 30)
        there = places(process, secrets)
        self.assertTrue(any(region.is_secret_memory for region in there), "nothing was found where keys are kept")
        self.assertEqual([str(region) for region in there if not region.is_secret_memory], [])
        for needle in halves(secrets):
            for name in ("cmdline", "environ"):
                self.assertNotIn(needle, Path(f"/proc/{process}/{name}").read_bytes())
            self.assertNotIn(needle, self.store.log_file.read_bytes())
        self.search_files()

    def work_after_remount(self):
        for path in (self.one / "image", self.two / "replica", self.one / "clone", self.plain / "image"):
            run("cmp", path, path)
            path.read_bytes()
        (self.one / "new").write_bytes(os.urandom(100_000))

    def search_files(self):
        self.store.umount()
        needles = halves(self.store.secrets())
        for path in self.store.store.rglob("*"):
            if path.is_file():
                everything = path.read_bytes()
                self.assertEqual([needle.hex() for needle in needles if needle in everything], [], path)

    def test_the_credential_is_gone_once_mounted(self):
        key_file = self.store.key_file.read_bytes()
        self.assertEqual(places(self.store.process.pid, {key_file}), {})

    def test_a_disabled_keys_data_keys_leave_memory(self):
        original = self.store.original("image", 2 * MIB)
        run("cp", original, self.one)
        self.store.wait_normal(self.one / "image")
        time.sleep(4)  # a checkpoint: the store's own keys have all been used then, those of block tables too
        before = self.store.secrets()
        folder = self.store.encrypted("three", "tenant-three")
        for name in ("image", "second"):
            run("cp", original, folder / name)
            self.store.wait_normal(folder / name)
        opened = os.open(folder / "image", os.O_RDWR)
        self.addCleanup(os.close, opened)
        of_the_key = self.store.secrets() - before
        self.assertGreater(len(of_the_key), 5)
        self.assertTrue(places(self.store.process.pid, of_the_key))
        rekeyfs("key", "disable", "tenant-three", self.store.mnt, "--force")
        self.assertEqual([str(region) for region in places(self.store.process.pid, of_the_key)], [])
        rekeyfs("key", "enable", "tenant-three", self.store.mnt)
        run("cmp", original, folder / "image")
        os.pwrite(opened, b"changed", 0)
        self.assertEqual(os.pread(opened, 7, 0), b"changed")

    def test_nobody_without_privileges_looks_at_it(self):
        process = self.store.process.pid
        self.assertEqual(run("cat", f"/proc/{process}/mem", uid=NOBODY, check=False).returncode, 1)
        limits = Path(f"/proc/{process}/limits").read_text()
        self.assertRegex(limits, r"Max core file size +0 +0 ")


@needs_root
@needs_mounting_users
class AnOrdinaryUsersDaemon(unittest.TestCase):
    """Another process of the same user must not look into the daemon."""

    def setUp(self):
        self.store = MountedStore(uid=NOBODY)
        self.addCleanup(self.store.close)

    def test_is_not_dumpable(self):
        expect_not_dumpable(self, self.store.process.pid)


@needs_root
class AnOrdinaryUsersCommand(unittest.TestCase):
    """Nor into a command that asks for a passphrase."""

    def test_is_not_dumpable(self):
        folder = Path(tempfile.mkdtemp(prefix="rekeyfs-test-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        os.chown(folder, NOBODY, NOBODY)
        program = shutil.copy(REKEYFS, folder)  # where that user can run it
        child, terminal = pty.fork()
        if child == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.execv(program, ["rekeyfs", "init", str(folder / "store")])
        try:
            shown = b""
            while b"assphrase" not in shown:
                shown += os.read(terminal, 4096)
            expect_not_dumpable(self, child)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            os.close(terminal)


def expect_not_dumpable(test, process):
    """By another process of the user that it is of, NOBODY."""
    for name in ("mem", "environ", "maps", "auxv"):
        done = run("dd", f"if=/proc/{process}/{name}", "of=/dev/null", "count=1", uid=NOBODY, check=False)
        test.assertIn("Permission denied", done.stderr, name)
    test.assertEqual(Path(f"/proc/{process}/mem").stat().st_uid, 0)
    done = run("python3", "-c", ATTACH, process, uid=NOBODY)
    test.assertEqual(done.stdout.split(), ["-1", "1"], "ptrace was not refused with EPERM")


ATTACH = """import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
print(libc.ptrace(0x4206, int(sys.argv[1]), None, None), ctypes.get_errno())"""  # PTRACE_SEIZE


@needs_root
class APassphrase(unittest.TestCase):
    """In the daemon that was started in the background, after the prompt's process has ended."""

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-test-", dir=os.environ.get("TMPDIR", "/var/tmp")))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.store, self.mnt = self.folder / "store", self.folder / "mnt"
        self.mnt.mkdir()
        secret = self.folder / "passphrase"
        secret.write_bytes(PASSPHRASE + b"\n")
        secret.chmod(0o600)
        rekeyfs("init", self.store, "--passphrase-file", secret)
        secret.unlink()

    def mount_by_terminal(self):
        """Types it at the prompt; the process asked is looked at before it ends."""
        child, terminal = pty.fork()
        if child == 0:
            os.environ.update(LD_PRELOAD=SPY, REKEYFS_TEST_SPY_KEYS=str(self.folder / "secrets"))
            os.execv(REKEYFS, ["rekeyfs", "mount", str(self.store), str(self.mnt), "-o", f"log={self.folder}/log"])
        shown = b""
        while b"Passphrase of" not in shown:
            shown += os.read(terminal, 4096)
        wait_until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO, 10, "the echo going off")
        os.write(terminal, PASSPHRASE + b"\n")
        asked = []
        while True:
            found = places_or_none(child, {PASSPHRASE})
            if found is None:
                break
            asked.append(found)
            try:
                if os.waitpid(child, os.WNOHANG)[0]:
                    break
            except ChildProcessError:
                break
        try:
            while piece := os.read(terminal, 4096):
                shown += piece
        except OSError:
            pass
        os.close(terminal)
        return shown, asked

    def test_is_nowhere_but_in_secret_memory(self):
        shown, asked = self.mount_by_terminal()
        self.addCleanup(run, REKEYFS, "umount", self.mnt, check=False)
        self.assertNotIn(PASSPHRASE, shown)
        self.assertTrue(any(asked), "the passphrase was never seen in the process that asked for it")
        self.assertEqual([str(region) for found in asked for region in found if not region.is_secret_memory], [])
        daemon = daemon_of(self.mnt)
        self.assertEqual([str(region) for region in places(daemon, {PASSPHRASE})], [])
        self.assertEqual(leaks(daemon, noted(self.folder / "secrets")), [])
        self.assertNotIn(PASSPHRASE, (self.folder / "log").read_bytes())
        rekeyfs("umount", self.mnt)
        for path in self.store.rglob("*"):
            if path.is_file():
                self.assertNotIn(PASSPHRASE[:HALF], path.read_bytes())


def places_or_none(process, secrets):
    try:
        return places(process, secrets)
    except (OSError, IndexError):
        return None


def daemon_of(mountpoint):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if str(mountpoint).encode() in line.split(b"\0"):
                return int(entry.name)
    raise AssertionError(f"no process serves {mountpoint}")


if __name__ == "__main__":
    unittest.main()
