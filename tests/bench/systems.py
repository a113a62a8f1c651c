"""The systems that the benchmarks compare, each with a fresh store in a folder of its own, and how work on them is timed."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REKEYFS = os.environ.get("REKEYFS") or str(ROOT / "build/release/tools/rekeyfs")
MIB = 1 << 20


def run(*command, **options):
    options = {"stdout": subprocess.DEVNULL, "check": True} | options
    return subprocess.run([str(part) for part in command], timeout=600, stdin=subprocess.DEVNULL, **options)


def seconds(*command):
    started = time.perf_counter()
    run(*command)
    return time.perf_counter() - started


def drop_caches():
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def wait_for_mount(path):
    for _ in range(500):
        if os.path.ismount(path):
            return
        time.sleep(0.02)
    sys.exit(f"bench: nothing was mounted at {path}")


class Disk:
    """No file system in between: what the others cost."""
    name = "disk"

    def __init__(self, folder):
        self.store, self.mnt = folder / f"{self.name}.store", folder / f"{self.name}.mnt"
        self.store.mkdir()
        self.mnt.mkdir()
        self.start()
        self.work = self.mnt / "work"
        self.work.mkdir()

    def start(self):
        pass

    def stop(self):
        if os.path.ismount(self.mnt):
            run("umount", self.mnt)

    def warm(self, image):
        """Makes what is read next come out of memory."""
        os.sync()
        run("cat", image)

    def rekey(self, source):
        """Seconds until a copy under another key is complete: elsewhere the bytes are read and written."""
        return seconds("sh", "-c", 'cp --reflink=never "$1" "$2" && sync "$2"', "sh", source, self.work / "rekeyed")


class Fuse(Disk):
    def warm(self, image):
        """The file below is in memory, its own pages are not."""
        super().warm(image)
        run("dd", f"if={image}", "iflag=nocache", "count=0", "status=none")


class Passthrough(Fuse):
    name = "passthrough"
    program = shutil.which("passthrough_hp") or shutil.which("passthrough_ll")

    def start(self):
        self.store.chmod(0o755)
        self.process = subprocess.Popen([self.program, *(["-o", f"source={self.store}", "-f"]
                                                         if self.program.endswith("_ll") else [str(self.store)]), str(self.mnt)])
        wait_for_mount(self.mnt)


class Gocryptfs(Fuse):
    name = "gocryptfs"

    def start(self):
        password = self.mnt.parent / "password"
        password.write_text("benchmark\n")
        run("gocryptfs", "-q", "-init", "-scryptn", 10, "-passfile", password, self.store)
        run("gocryptfs", "-q", "-passfile", password, self.store, self.mnt)
        wait_for_mount(self.mnt)


class Rekeyfs(Fuse):
    name = "rekeyfs"

    def mount_options(self):
        return []

    def start(self):
        key = self.mnt.parent / "key"
        run(REKEYFS, "init", self.store, "--key-file", key)
        run(REKEYFS, "mount", self.store, self.mnt, "--key-file", key, *self.mount_options())
        for alias in ("one", "two"):
            run(REKEYFS, "key", "create", alias, self.mnt)
        os.setxattr(self.mnt, "user.rekeyfs.key", b"one")  # work/ takes it over

    def stop(self):
        run(REKEYFS, "umount", self.mnt)

    def rekey(self, source):
        target = self.mnt / "two"
        target.mkdir(exist_ok=True)
        os.setxattr(target, "user.rekeyfs.key", b"two")
        started = time.perf_counter()
        run("cp", source, target / "rekeyed")
        copied = time.perf_counter() - started
        run(REKEYFS, "status", "--wait", self.mnt)
        filled = time.perf_counter() - started
        os.unlink(target / "rekeyed")
        self.copied = copied
        return filled


class Hot(Rekeyfs):
    name = "hot"

    @property
    def log(self):
        return self.mnt.parent / "hot.log"

    def mount_options(self):
        return ["-o", f"hot=8G,log={self.log}"]

    def warm(self, image):
        run(REKEYFS, "status", "--wait", self.mnt)
        for _ in range(100):
            with open(image, "rb") as reader:
                reader.read(1)
            if f"node {os.stat(image).st_ino} is hot" in self.log.read_text():
                return
            time.sleep(0.2)
        sys.exit("bench: the image did not become hot")
