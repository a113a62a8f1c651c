"""System calls that Python's os module does not have."""
import ctypes
import os

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
FALLOC_KEEP_SIZE = 1
FALLOC_PUNCH_HOLE = 2
FALLOC_ZERO_RANGE = 16
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result, *names):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *names)


def renameat2(source, target, flags):
    _checked(_libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), ctypes.c_uint(flags)),
             source)


def fallocate(fd, mode, offset, size):
    _checked(_libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)))


def punch_hole(fd, offset, size):
    fallocate(fd, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, size)
