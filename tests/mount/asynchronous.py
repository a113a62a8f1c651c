"""Asynchronous I/O (io_submit), which Python's os module does not have."""
import ctypes
import os
import platform

_NUMBERS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}  # io_setup, io_destroy, io_getevents, io_submit
_SETUP, _DESTROY, _GETEVENTS, _SUBMIT = _NUMBERS[platform.machine()]
_PWRITE = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Control(ctypes.Structure):  # struct iocb
    _fields_ = [("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("rw_flags", ctypes.c_int32),
                ("opcode", ctypes.c_uint16), ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32),
                ("buffer", ctypes.c_uint64), ("size", ctypes.c_uint64), ("offset", ctypes.c_int64),
                ("reserved", ctypes.c_uint64), ("flags", ctypes.c_uint32), ("event_fd", ctypes.c_uint32)]


class _Event(ctypes.Structure):  # struct io_event
    _fields_ = [("data", ctypes.c_uint64), ("control", ctypes.c_uint64), ("result", ctypes.c_int64),
                ("result2", ctypes.c_int64)]


def _call(number, *arguments):
    result = _libc.syscall(number, *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


class Writer:
    """Writes through a queue of the kernel's. One write at a time."""

    def __init__(self):
        self._context = ctypes.c_ulong(0)
        _call(_SETUP, 1, ctypes.byref(self._context))

    def close(self):
        _call(_DESTROY, self._context)

    def pwrite(self, fd, buffer, offset):
        """`buffer` is writable and aligned as O_DIRECT wants it (an mmap). Bytes written."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        control = _Control(opcode=_PWRITE, fd=fd, buffer=address, size=len(buffer), offset=offset)
        controls = (ctypes.POINTER(_Control) * 1)(ctypes.pointer(control))
        _call(_SUBMIT, self._context, ctypes.c_long(1), controls)
        event = _Event()
        _call(_GETEVENTS, self._context, ctypes.c_long(1), ctypes.c_long(1), ctypes.byref(event), None)
        if event.result < 0:
            raise OSError(-event.result, os.strerror(-event.result))
        return event.result
