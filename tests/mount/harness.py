"""A store of its own, mounted, for each mount test: real binary, real kernel, real tools.

MountedStore owns a temporary directory (below $TMPDIR, else /var/tmp) and the `rekeyfs mount -f` process it started; it
ends that process only, never another, so tests may run in parallel. $REKEYFS names the binary, else the release
build's is taken. What the daemon wrote is shown when a test fails.
"""
import errno
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import images  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
REKEYFS = os.environ.get("REKEYFS") or str(ROOT / "build/release/tools/rekeyfs")
NOBODY = 65534
HARD_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, HARD_LIMIT), HARD_LIMIT))  # as a user's shell has it, for daemon and tools


def ordinary_users_may_mount():
    program = shutil.which("fusermount3")
    return (program is not None and os.stat(program).st_uid == 0 and bool(os.stat(program).st_mode & stat.S_ISUID)
            and os.stat("/dev/fuse").st_mode & 0o006 == 0o006)


needs_mounting_users = unittest.skipUnless(ordinary_users_may_mount(), "this system does not let ordinary users mount")
# Copies one file to another and keeps them open until its input ends.
COPY_AND_WAIT = """
import os, sys
with open(sys.argv[1], "rb") as source, open(sys.argv[2], "wb") as target:
    while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
        pass
    print("copied", flush=True)
    sys.stdin.read()
"""

# Reads all of a mapped file, and again after a line of input.
MAPPED_READER = """import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
view = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
view[:]
print("mapped", flush=True)
sys.stdin.readline()
view[:]
"""

needs_root = unittest.skipUnless(os.geteuid() == 0, "needs root")


class CommandFailed(AssertionError):
    def __init__(self, command, done):
        self.returncode, self.stdout, self.stderr = done.returncode, done.stdout, done.stderr
        super().__init__(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def run(*command, uid=None, check=True, timeout=120, **options):
    """Runs a command, as user and group `uid` if given (needs root); text output captured."""
    command = [str(part) for part in command]
    if uid is not None:
        command = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--", *command]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          errors="replace", timeout=timeout, **options)
    if check and done.returncode:
        raise CommandFailed(command, done)
    return done


def rekeyfs(*arguments, **options):
    """Runs a rekeyfs command."""
    return run(REKEYFS, *arguments, **options)


def wait_until(condition, timeout, what):
    """Polls until `condition()` is true."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {timeout} s: {what}")
        time.sleep(0.02)


def longest_opening():
    """How many seconds a store may take to open: five on a machine that has nothing else to do."""
    return 5 * max(1, os.getloadavg()[0] / os.cpu_count())


def is_mounted(path):
    """Whether something is mounted there, dead or alive (stat would not say, for another user's mount)."""
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def attribute(path, name):
    """The value of user.rekeyfs.<name>."""
    return os.getxattr(path, f"user.rekeyfs.{name}").decode()


def attribute_or_none(path, name):
    try:
        return attribute(path, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


class MountedStore:
    def __init__(self, *mount_arguments, uid=None, within=None, environment=None, existing=None, descriptors=None):
        """`mount_arguments` go to every `rekeyfs mount`; `uid` is who mounts (None: who runs the test); `within` is
        where the folder is made (a file system of the test's own); `environment` is added to the daemon's; `existing` is
        a store that is mounted instead of a new one, beside which its key is: the folder of another MountedStore, or a
        copy of it; `descriptors` is how many the daemon may have, its hard limit included."""
        self.folder = Path(tempfile.mkdtemp(prefix="rekeyfs-test-", dir=within or os.environ.get("TMPDIR", "/var/tmp")))
        self.folder.chmod(0o755)  # test_users looks in from outside
        self.store, self.mnt = self.folder / "store", self.folder / "mnt"
        self.key_file, self.log_file = self.folder / "store.key", self.folder / "log"
        self.scratch = self.folder / "scratch"  # outside the mount, for originals and exports
        self.mount_arguments, self.uid = mount_arguments, uid
        self.environment = os.environ | (environment or {})
        self.descriptors = descriptors
        self.process = None
        for path in (self.mnt, self.scratch):
            path.mkdir()
        if uid is not None:
            for path in (self.folder, self.mnt, self.scratch):
                os.chown(path, uid, uid)
        try:
            if existing is None:
                rekeyfs("init", self.store, "--key-file", self.key_file, uid=uid)
            else:
                self.store, self.key_file = existing / self.store.name, existing / self.key_file.name
            self.mount()
        except BaseException:
            self.close()
            raise

    # The life of the mount.

    def mount(self):
        command = [REKEYFS, "mount", self.store, self.mnt, "-f", "--key-file", self.key_file, *self.mount_arguments]
        if self.uid is not None:
            command = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--", *command]
        if self.descriptors is not None:
            command = ["prlimit", f"--nofile={self.descriptors}:{self.descriptors}", "--", *command]
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True, env=self.environment)
        wait_until(lambda: self.process.poll() is not None or is_mounted(self.mnt), 60, f"mounting {self.store}")
        if self.process.poll() is not None:
            raise AssertionError(f"rekeyfs mount ended with {self.process.returncode}:\n{self.log()}")

    def umount(self):
        """`rekeyfs umount`; the daemon must have ended well (a sanitizer's finding is an exit code, too)."""
        rekeyfs("umount", self.mnt, uid=self.uid)
        code = self.process.wait(timeout=60)
        self.process = None
        if code:
            raise AssertionError(f"the daemon ended with {code} after umount:\n{self.log()}")

    def remount(self):
        self.umount()
        self.mount()

    def kill9(self):
        """The daemon is killed; the dead mount is taken away."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=60)
        self.process = None
        self._detach()

    def close(self):
        """Leaves nothing behind, whatever happened. Fails if the daemon did not end well."""
        trouble = None
        try:
            if self.process is not None:
                self.umount()
        except (AssertionError, subprocess.TimeoutExpired) as caught:
            trouble = caught
        finally:
            self._detach()
            if self.process is not None:
                self.process.kill()
                self.process.wait()
                self.process = None
            self.last_log = self.log()
            shutil.rmtree(self.folder, ignore_errors=True)
        if trouble:
            raise trouble

    def _detach(self):
        if not is_mounted(self.mnt):
            return
        command = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        run(*command, self.mnt, check=False)

    def log(self):
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    # Helpers for what a user does.

    def key(self, alias):
        rekeyfs("key", "create", alias, self.mnt, uid=self.uid)

    def plain(self, name):
        """A directory without a key; its path."""
        path = self.mnt / name
        path.mkdir()
        return path

    def policy(self, name, alias):
        """A directory whose images are encrypted with `alias`; its path."""
        path = self.mnt / name
        path.mkdir(exist_ok=True)
        os.setxattr(path, "user.rekeyfs.key", alias.encode())
        return path

    def encrypted(self, name, alias):
        """policy() with a new key."""
        self.key(alias)
        return self.policy(name, alias)

    def status(self, path):
        return attribute(path, "status")

    def wait_normal(self, path, timeout=60):
        def arrived():
            status = self.status(path)
            if status == "error":
                raise AssertionError(f"{path}: {attribute(path, 'error')}")
            return status == "normal"
        wait_until(arrived, timeout, f"{path} becoming normal")

    @contextmanager
    def replicating(self, source, target):
        """Copies `source` to `target`, which stays `replicating` within the block however fast the machine is: more of
        it may follow while who copies has it open. That is a process of its own, as the first of a handle's
        descriptors that is closed says that all has been written, be it an inherited one."""
        copying = subprocess.Popen([sys.executable, "-c", COPY_AND_WAIT, source, target], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE)
        try:
            if copying.stdout.readline() != b"copied\n":
                raise AssertionError(f"{source} could not be copied to {target}")
            yield target
        finally:
            copying.communicate(timeout=60)

    def original(self, name, size, seed=1):
        """A disk-image-like file outside the mount; its path."""
        return images.copy_of(self.scratch / name, size, seed)


class TestCase(unittest.TestCase):
    """Each test has self.store, mounted."""
    mount_arguments = ()

    def setUp(self):
        self.store = MountedStore(*self.mount_arguments)
        self.addCleanup(self.store.close)
        self.mnt = self.store.mnt

    def run(self, result=None):
        result = result or self.defaultTestResult()
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before and hasattr(self, "store"):
            log = getattr(self.store, "last_log", "")
            sys.stderr.write(f"--- the daemon's log of {self.id()}:\n{log[-3000:]}--- end of log\n")
        return result

    def assertSame(self, left, right):
        if difference := images.same(left, right):
            self.fail(difference)

    def assertErrno(self, expected, function, *arguments, **options):
        with self.assertRaises(OSError) as caught:
            function(*arguments, **options)
        number = caught.exception.errno
        self.assertEqual(number, expected,
                         f"{errno.errorcode.get(number, number)}, not {errno.errorcode[expected]}: {caught.exception}")
