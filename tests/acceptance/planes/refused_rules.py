"""A stand-in for AKS's program that refuses new rules of nftables in a node's network.

AKS attaches it where eBPF host routing is on: a program at the hook `netlink_send` of the kernel's
security modules. It returns EPERM for a datagram in which one of the first messages adds a rule
(NFT_MSG_NEWRULE), and nothing reaches nf_tables, whatever capabilities the sender has. Source:
Azure/azure-container-networking, bpf-prog/azure-block-iptables/bpf/src/block_iptables.bpf.c.

    python3 -m tests.acceptance.planes.refused_rules COMMAND ...

Here a seccomp filter stops each `sendmsg` of the command and of all that it starts, and a thread of
the test reads the same messages and answers the same. The processes that the original excepts by
the names of their parents are refused too. Layouts: linux/seccomp.h, linux/filter.h, seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

_SECCOMP, _SENDMSG, _ARCHITECTURE = {
    "x86_64": (317, 46, 0xC000003E),
    "aarch64": (277, 211, 0xC00000B7),
}[platform.machine()]
_PIDFD_GETFD = 438
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ALLOW, _ASK = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_NOTICE = struct.Struct("=QIIiIQ6Q")
"""seccomp_notif: id, pid, flags; seccomp_data: number, architecture, instruction, arguments."""
_ANSWER = struct.Struct("=QqiI")
_MESSAGE, _HEADER = struct.Struct("=IHHII"), struct.Struct("=QIxxxxQQ")
"""nlmsghdr, and the head of msghdr: name, its length, buffers, their number."""
_NETLINK_NETFILTER = 12

NEW_RULE = 10 << 8 | 6
"""NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWRULE."""
LOOKED_AT = 4
"""Messages of a datagram that the program looks at (NETLINK_MSG_COUNT)."""


def adds_rule(datagram: bytes, messages: int) -> bool:
    """Whether one of the first messages of a netlink datagram adds a rule of nftables."""
    for _ in range(messages):
        if len(datagram) < _MESSAGE.size:
            return False
        length, kind, *_ = _MESSAGE.unpack_from(datagram)
        if kind == NEW_RULE:
            return True
        datagram = datagram[max(length, 1) :]
    return False


class Refuser:
    """Answers for the kernel; nothing is refused until `looked_at` is set."""

    def __init__(self, listener: int, network: int, looked_at: int) -> None:
        self._listener = listener
        self.network = network
        """Inode of the network namespace in which rules are refused."""
        self.looked_at = looked_at
        """How many messages of each datagram are looked at."""
        self.refused = 0
        self.answering = threading.Thread(target=self._answer_all, daemon=True)
        """It ends with the last process behind the filter."""
        self.answering.start()

    def _answer_all(self) -> None:
        asked = select.poll()
        asked.register(self._listener, select.POLLIN)
        while True:
            [(_, events)] = asked.poll()
            if not events & select.POLLIN:  # POLLHUP: nobody is behind the filter any more
                os.close(self._listener)
                return
            notice = bytearray(_NOTICE.size)
            try:
                fcntl.ioctl(self._listener, _RECEIVE, notice)
            except OSError as error:
                if error.errno in {errno.EINTR, errno.ENOENT}:
                    continue  # who asked has ended
                return
            number, thread, _, _, _, _, descriptor, header, *_ = _NOTICE.unpack(notice)
            refuses = self._refuses(thread, descriptor, header)
            self.refused += refuses
            answer = (0, -errno.EPERM, 0) if refuses else (0, 0, _CONTINUE)
            with suppress(OSError):
                fcntl.ioctl(self._listener, _SEND, _ANSWER.pack(number, *answer))

    def _refuses(self, thread: int, descriptor: int, header: int) -> bool:
        if not self.looked_at:
            return False
        try:
            here = Path(f"/proc/{thread}/ns/net").stat().st_ino == self.network
            return (
                here
                and _is_netfilter(thread, descriptor)
                and adds_rule(_datagram(thread, header), self.looked_at)
            )
        except OSError:
            return False  # it has ended


def start(command: Sequence[str], network: int = 0, looked_at: int = 0) -> Refuser:
    """Run a command, which must succeed, with all its processes behind the filter."""
    program = (sys.executable, "-m", __name__, *command)
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdin is not None
        assert started.stdout is not None
        listener = int(started.stdout.readline())
        refuser = Refuser(_copy(started.pid, listener), network, looked_at)
        started.communicate(b"\n")
    assert started.returncode == 0
    return refuser


def _run(command: list[str]) -> NoReturn:
    """Set the filter, wait until the test has its listener, and become the command."""
    code = b"".join(
        struct.pack("=HBBI", *each)
        for each in (
            (_LOAD, 0, 0, 4),  # the architecture
            (_JUMP_EQUAL, 0, 3, _ARCHITECTURE),
            (_LOAD, 0, 0, 0),  # the number of the system call
            (_JUMP_EQUAL, 0, 1, _SENDMSG),
            (_RETURN, 0, 0, _ASK),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(held))
    listener = _called(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, program)
    sys.stdout.write(f"{listener}\n")
    sys.stdout.flush()
    sys.stdin.readline()
    os.execvp(command[0], command)  # noqa: S606 - no shell is meant


def _is_netfilter(thread: int, descriptor: int) -> bool:
    status = Path(f"/proc/{thread}/status").read_text()
    process = int(status.partition("Tgid:")[2].split()[0])
    try:
        with socket.socket(fileno=_copy(process, descriptor)) as copy:
            return (copy.family, copy.proto) == (socket.AF_NETLINK, _NETLINK_NETFILTER)
    except OSError:
        return False


def _copy(process: int, descriptor: int) -> int:
    """Return a copy of a descriptor of another process; raise OSError."""
    held = os.pidfd_open(process)
    try:
        return _called(_PIDFD_GETFD, held, descriptor, 0)
    finally:
        os.close(held)


def _called(number: int, *arguments: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(number, *arguments)
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def _datagram(thread: int, header: int) -> bytes:
    with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
        *_, buffers, count = _HEADER.unpack(_read(memory, header, _HEADER.size))
        parts = struct.iter_unpack("=QQ", _read(memory, buffers, 16 * count))
        return b"".join(_read(memory, *each) for each in parts)


def _read(memory: BinaryIO, where: int, size: int) -> bytes:
    memory.seek(where)
    return memory.read(size)


if __name__ == "__main__":
    _run(sys.argv[1:])
