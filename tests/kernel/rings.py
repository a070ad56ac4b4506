"""A ring of io_uring(7) that processes share, each of which can have the kernel act by it.

Layouts: linux/io_uring.h. One request is under way at a time.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct

_SETUP, _ENTER = 425, 426
_SQPOLL, _SINGLE_MMAP = 0x2, 0x1
_GETEVENTS, _SQ_WAKEUP = 0x1, 0x2
_CONNECT, _SOCKET = 16, 45
ASYNC = 0x10
"""Flag of a request: a worker of the kernel does it (io-wq)."""
_ENTRIES = 8
# struct io_uring_params: entries of both rings, flags, CPU, idle, features; from 40 on the offsets
# of either ring in 40 bytes each.
_SQE = struct.Struct("=BBHiQQII24x")  # code, flags, priority, fd, off, addr, len, its flags

_libc = ctypes.CDLL(None, use_errno=True)


class NoRings(OSError):
    """The kernel has no io_uring, not for us, or makes no sockets by it (before Linux 5.19)."""


class Ring:
    """A ring that this process makes, and shares with those that it forks."""

    def __init__(self, *, polled: bool) -> None:
        """With `polled` a thread of the maker's does what anybody puts into the ring."""
        params = bytearray(120)
        struct.pack_into("=I", params, 8, _SQPOLL if polled else 0)
        self._fd = _call(_SETUP, _ENTRIES, (ctypes.c_char * 120).from_buffer(params))
        entries = struct.unpack_from("=II", params, 0)
        self._polled = polled
        if not struct.unpack_from("=I", params, 20)[0] & _SINGLE_MMAP:
            raise NoRings(0, "no single map of both rings")
        # Of the one ring head, tail, mask, entries, flags, dropped and array; of the other head,
        # tail, mask, entries, overflow and results.
        _, self._tail, _, _, _, _, self._array = struct.unpack_from("=7I", params, 40)
        self._seen, self._done, _, _, _, self._results = struct.unpack_from("=6I", params, 80)
        size = max(self._array + entries[0] * 4, self._results + entries[1] * 16)
        self._mask = entries[0] - 1, entries[1] - 1
        self._rings = mmap.mmap(self._fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
        self._requests = mmap.mmap(self._fd, entries[0] * 64, mmap.MAP_SHARED, offset=0x10000000)
        # What a request points to is the maker's memory where the maker's thread does it.
        self._shared = mmap.mmap(-1, 16)

    def socket(self, flags: int = 0) -> int:
        """Have a TCP socket made; return its descriptor, in the table of who makes it."""
        return self._do(_SOCKET, flags, socket.AF_INET, (socket.SOCK_STREAM, 0, 0))

    def connect(self, made: int, to: tuple[str, int], flags: int = 0) -> None:
        """Have a socket connected, and wait for it; raise OSError."""
        address = struct.pack("=H", socket.AF_INET) + to[1].to_bytes(2, "big")
        self._shared[:] = address + socket.inet_aton(to[0]) + bytes(8)
        place = ctypes.addressof(ctypes.c_char.from_buffer(self._shared))
        self._do(_CONNECT, flags, made, (16, place, 0))

    def close(self) -> None:
        self._rings.close()
        self._requests.close()
        self._shared.close()
        os.close(self._fd)

    def _do(self, code: int, flags: int, fd: int, words: tuple[int, int, int]) -> int:
        """Do one request, with its `off`, `addr` and `len`; return its result."""
        (tail,) = struct.unpack_from("=I", self._rings, self._tail)
        (done,) = struct.unpack_from("=I", self._rings, self._seen)
        place = tail & self._mask[0]
        _SQE.pack_into(self._requests, place * 64, code, flags, 0, fd, *words, 0)
        struct.pack_into("=I", self._rings, self._array + place * 4, place)
        struct.pack_into("=I", self._rings, self._tail, tail + 1)
        _call(_ENTER, self._fd, 1, 1, _GETEVENTS | (_SQ_WAKEUP if self._polled else 0), None, 0)
        at = self._results + (done & self._mask[1]) * 16
        (result,) = struct.unpack_from("=i", self._rings, at + 8)
        struct.pack_into("=I", self._rings, self._seen, done + 1)
        if result < 0:
            kind = NoRings if result == -errno.EINVAL else OSError
            raise kind(-result, os.strerror(-result))
        return int(result)


def _call(number: int, *arguments: object) -> int:
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise NoRings(code, os.strerror(code))
    return result
