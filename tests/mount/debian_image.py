#!/usr/bin/env python3
"""A small bootable Debian disk image, made from Debian's own packages without root and without a loop device.

128 MiB, MBR: a FAT partition with syslinux, the cloud kernel and an initramfs; an ext4 root with base-files, static
busybox and kernel modules. When it boots it checks its files against a manifest, writes and syncs a file, prints
MARKER on the serial line and powers off. Kept in a cache ($REKEYFS_TEST_CACHE, else ~/.cache/rekeyfs-tests) under a
name that follows from what it is made of; whoever comes first makes it, under a lock.

    tests/mount/debian_image.py [COPY]      makes it if needed, prints its path; or copies it to COPY
"""
import fcntl
import hashlib
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

MARKER = "REKEYFS-BOOT-OK"
PROOF = "/root/booted"  # the file a boot leaves behind, holding MARKER

MIB = 1 << 20
OLD = 7 * 24 * 3600  # seconds after which an image of another version of this program goes from the cache
SECTOR = 512
BOOT_START, BOOT_SIZE = 1 * MIB, 31 * MIB
ROOT_START, ROOT_SIZE = 32 * MIB, 96 * MIB
KERNEL_META_PACKAGE = "linux-image-cloud-amd64"
OTHER_PACKAGES = ("base-files", "busybox-static")
BOOT_MODULES = ("virtio_pci", "virtio_blk", "ata_piix", "sd_mod")  # for -drive if=virtio and if=ide
ROOT_MODULE_FOLDERS = ("fs", "net", "crypto", "lib")
SYSLINUX_MBR = Path("/usr/lib/SYSLINUX/mbr.bin")

SYSLINUX_CONFIG = """\
SERIAL 0 115200
DEFAULT debian
PROMPT 0
LABEL debian
  LINUX /vmlinuz
  INITRD /initrd
  APPEND console=ttyS0 quiet panic=1
"""

INITRAMFS_INIT = """\
#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
for attempt in $(seq 100); do
  for disk in vda sda; do
    [ -b /dev/${disk}2 ] && mount -t ext4 -o ro /dev/${disk}2 /newroot && exec switch_root /newroot /sbin/init
  done
  usleep 50000
done
echo "no root file system found" >/dev/console
poweroff -f
"""

ROOT_INIT = f"""\
#!/bin/sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
exec >/dev/console 2>&1
grep PRETTY_NAME /etc/os-release
if mount -o remount,rw / && sha256sum -c -s /manifest && echo {MARKER} | dd of={PROOF} conv=fsync 2>/dev/null; then
  echo {MARKER}
fi
mount -o remount,ro /
poweroff -f
"""


def run(*command, **options):
    """Runs a command; its output appears only in the error when it fails."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"  # mke2fs and the like, for an ordinary user
    done = subprocess.run([str(part) for part in command], env=os.environ | {"PATH": path}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout}")
    return done.stdout


def cache_folder():
    folder = Path(os.environ.get("REKEYFS_TEST_CACHE") or Path.home() / ".cache" / "rekeyfs-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def locked(folder):
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def kernel_package():
    depends = run("apt-cache", "depends", KERNEL_META_PACKAGE)
    if not (match := re.search(r"Depends: (linux-image-\S+)", depends)):
        raise RuntimeError(f"apt knows no {KERNEL_META_PACKAGE}; run apt-get update")
    return match[1]


def downloaded(package, folder):
    """The package's file, newest if there are several; fetched when there is none."""
    def present():
        return sorted(folder.glob(f"{package}_*.deb"), key=lambda deb: deb.stat().st_mtime)
    if not present():
        try:
            run("apt-get", "download", package, cwd=folder)
        except RuntimeError:  # the lists are older than the archive
            run(*([] if os.geteuid() == 0 else ["sudo"]), "apt-get", "update")
            run("apt-get", "download", package, cwd=folder)
    return present()[-1]


def collected_packages(cache):
    folder = cache / "packages"
    folder.mkdir(exist_ok=True)
    kernels = sorted(folder.glob("linux-image-*_*.deb"), key=lambda deb: deb.stat().st_mtime)
    kernel = kernels[-1] if kernels else downloaded(kernel_package(), folder)
    return [kernel, *(downloaded(package, folder) for package in OTHER_PACKAGES)]


def name_for(packages):
    """The cache name: this program and the packages decide what the image is."""
    key = hashlib.sha256(Path(__file__).read_bytes())
    for package in packages:
        key.update(package.name.encode())
    return f"debian-{key.hexdigest()[:16]}"


def write_executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def install_busybox(busybox, root):
    for folder in ("bin", "sbin", "proc", "sys", "dev", "root", "newroot", "etc"):
        (root / folder).mkdir(exist_ok=True)
    if not (root / "bin/busybox").exists():
        shutil.copy2(busybox, root / "bin/busybox")
    for applet in run(busybox, "--list").split():
        link = root / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")


def modules_in_order(tree, wanted):
    """The files of the wanted modules and all they depend on, in the order to load them."""
    files = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order = []

    def visit(module):
        path = files.get(module.replace("-", "_"))
        if path is None or path in order:  # absent: built into the kernel
            return
        depends = re.search(rb"\0depends=([^\0]*)\0", path.read_bytes())
        for name in depends[1].decode().split(",") if depends else []:
            visit(name)
        order.append(path)

    for module in wanted:
        visit(module)
    return order


def make_initramfs(unpacked, modules, target, work):
    root = work / "initramfs"
    root.mkdir()
    install_busybox(unpacked / "bin/busybox", root)
    write_executable(root / "init", INITRAMFS_INIT)
    (root / "modules").mkdir()
    order = modules_in_order(modules, BOOT_MODULES)
    for module in order:
        shutil.copy(module, root / "modules")
    (root / "modules/order").write_text("\n".join(module.name for module in order) + "\n")
    with open(target, "wb") as out:
        subprocess.run("find . | sort | cpio --quiet -o -H newc -R 0:0 | gzip -n -1", shell=True, cwd=root, stdout=out,
                       check=True)


def make_root(unpacked, modules, target, work):
    root = work / "root"
    kept = root / "lib/modules" / modules.name / "kernel"
    kept.mkdir(parents=True)
    for name in ("etc", "usr", "bin"):
        if (unpacked / name).exists():
            shutil.copytree(unpacked / name, root / name, symlinks=True)
    for folder in ROOT_MODULE_FOLDERS:
        shutil.copytree(modules / "kernel" / folder, kept / folder)
    install_busybox(unpacked / "bin/busybox", root)
    write_executable(root / "sbin/init", ROOT_INIT)
    (root / "etc/debian_image").write_text("Made for the tests of rekeyfs.\n")
    checked = [path for top in ("etc", "lib/modules") for path in sorted((root / top).rglob("*"))
               if path.is_file() and not path.is_symlink()]
    (root / "manifest").write_text("".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  /{path.relative_to(root)}\n" for path in checked))
    run("mke2fs", "-q", "-t", "ext4", "-L", "root", "-b", "4096", "-m", "0", "-d", root, "-E", "root_owner=0:0", target,
        f"{ROOT_SIZE // 1024}k")


def make_boot(kernel, initramfs, target, work):
    with open(target, "wb") as out:
        out.truncate(BOOT_SIZE)
    # Hidden sectors say where the partition starts; syslinux finds its own file by that.
    run("mkfs.fat", "-F", "16", "-n", "BOOT", "-h", BOOT_START // SECTOR, target)
    config = work / "syslinux.cfg"
    config.write_text(SYSLINUX_CONFIG)
    run("syslinux", "--install", target)
    for source, name in ((kernel, "vmlinuz"), (initramfs, "initrd"), (config, "syslinux.cfg")):
        run("mcopy", "-i", target, source, f"::/{name}")


def partition_entry(active, kind, start, size):
    return struct.pack("<B3sB3sII", 0x80 if active else 0, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR,
                       size // SECTOR)


def assemble(boot, root, target):
    with open(target, "wb") as disk:
        disk.truncate(ROOT_START + ROOT_SIZE)
        disk.write(SYSLINUX_MBR.read_bytes().ljust(440, b"\0")[:440])
        disk.seek(446)
        disk.write(partition_entry(True, 0x0E, BOOT_START, BOOT_SIZE))
        disk.write(partition_entry(False, 0x83, ROOT_START, ROOT_SIZE))
        disk.seek(510)
        disk.write(b"\x55\xaa")
        for start, part in ((BOOT_START, boot), (ROOT_START, root)):
            disk.seek(start)
            disk.write(part.read_bytes())


def make(packages, target):
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="making-") as folder:
        work = Path(folder)
        unpacked = work / "unpacked"
        for package in packages:
            run("dpkg-deb", "-x", package, unpacked)
        kernel = next((unpacked / "boot").glob("vmlinuz-*"))
        modules = next((unpacked / "lib/modules").iterdir())
        make_initramfs(unpacked, modules, work / "initrd", work)
        make_boot(kernel, work / "initrd", work / "boot.img", work)
        make_root(unpacked, modules, work / "root.img", work)
        assemble(work / "boot.img", work / "root.img", work / "disk.img")
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", work / "disk.img", work / "disk.qcow2")
        os.replace(work / "disk.qcow2", target.with_suffix(".qcow2"))
        os.replace(work / "disk.img", target)  # last: its presence says that both are there


def raw():
    """The path of the raw image. Never write to it: copy it."""
    cache = cache_folder()
    with locked(cache):
        packages = collected_packages(cache)
        target = cache / f"{name_for(packages)}.img"
        if not target.exists():
            for old in cache.glob("debian-*"):
                if time.time() - old.stat().st_mtime > OLD:
                    old.unlink()
            make(packages, target)
        return target


def qcow2():
    """The same disk as qcow2."""
    return raw().with_suffix(".qcow2")


def boot(image, image_format="raw", cache="writeback", timeout=120):
    """Boots the image (writing to it) in QEMU without hardware help; returns what it printed on its serial line."""
    drive = f"file={image},format={image_format},if=virtio,cache={cache}"
    return run("qemu-system-x86_64", "-accel", "tcg", "-m", "256", "-nodefaults", "-nographic", "-serial", "stdio",
               "-no-reboot", "-drive", drive, stdin=subprocess.DEVNULL, timeout=timeout)


def was_booted(image):
    """Whether the root file system of a raw image holds what a boot writes."""
    return MARKER in run("debugfs", "-R", f"cat {PROOF}", f"{image}?offset={ROOT_START}")


def main():
    image = raw()
    if len(sys.argv) > 1:
        shutil.copyfile(image, sys.argv[1])
    else:
        print(image)


if __name__ == "__main__":
    main()
