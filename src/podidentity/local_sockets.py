"""Unix sockets between our own processes: `net`, `serve`, and those of an agent's successor.

Messages are packets (SOCK_SEQPACKET): one send is one message, so there are no lengths to parse,
and a message that is too long is seen as such. The kernel, never the peer, says who is at the other
end (SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CREDENTIALS = struct.Struct("iII")
_SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14."""


class Untrusted(Exception):
    """A folder, a socket or a peer is not what we may rely on; the message says why."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end of a connected Unix socket; raise OSError."""
    size = _CREDENTIALS.size
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return Peer(*_CREDENTIALS.unpack(raw))


def listen(path: Path, *, mode: int = 0o666, group: int = -1, backlog: int = 16) -> socket.socket:
    """Listen at `path`, in the place of whatever was there; raise OSError.

    It appears under its name in one step, with its mode: nobody meets it half made. No link is
    followed: another user may write to the folder, and put one there at any moment.
    """
    if not path.parent.is_dir():
        why = "there is no such folder: mount one there that net and serve share, and nobody else"
        raise FileNotFoundError(errno.ENOENT, why, str(path.parent))
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        _bind(listening, fresh, mode)
        if group >= 0:
            os.chown(fresh, -1, group, follow_symlinks=False)
        listening.listen(backlog)
        fresh.replace(path)
    except OSError:
        listening.close()
        with suppress(OSError):
            fresh.unlink()
        raise
    return listening


def _bind(listening: socket.socket, path: Path, mode: int) -> None:
    """Bind a Unix socket; the file has the mode of the descriptor, but for the umask (unix(7))."""
    os.fchmod(listening.fileno(), mode)
    mask = os.umask(0)
    try:
        listening.bind(str(path))
    finally:
        os.umask(mask)


def keep_names(folder: Path) -> None:
    """Have nobody take a name in our `folder` away but the owner of what has it; raise OSError."""
    found = folder.stat()
    if found.st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(found.st_mode) | stat.S_ISVTX)


def connect(path: Path, *, uids: frozenset[int]) -> socket.socket:
    """Connect to what listens at `path`; raise OSError, or Untrusted for another user's process."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        connection.connect(str(path))
        check_user(connection, uids, f"what listens at {path}")
    except BaseException:
        connection.close()
        raise
    return connection


def check_user(connection: socket.socket, uids: frozenset[int], what: str) -> Peer:
    """Return the peer if it is a process of one of these users; raise Untrusted or OSError."""
    peer = peer_of(connection)
    if peer.uid not in uids:
        wanted = " or ".join(str(uid) for uid in sorted(uids))
        raise Untrusted(f"{what} is process {peer.pid} of user {peer.uid}, not of user {wanted}")
    return peer


def check_folder(folder: Path, *, owners: frozenset[int], groups: frozenset[int]) -> None:
    """Raise Untrusted unless only these users and groups can put anything into `folder`."""
    try:
        found = folder.lstat()
    except OSError as error:
        raise Untrusted(f"{folder}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise Untrusted(f"{folder} is no folder")
    if found.st_uid not in owners:
        raise Untrusted(f"{folder} belongs to user {found.st_uid}")
    if found.st_mode & stat.S_IWOTH:
        raise Untrusted(f"everybody may write to {folder}")
    if found.st_mode & stat.S_IWGRP and found.st_gid not in groups:
        raise Untrusted(f"group {found.st_gid} may write to {folder}")


def network_namespace_of(endpoint: socket.socket) -> int:
    """Return the cookie of a socket's network namespace: no other has it until the next boot.

    Raises OSError where the kernel is older than 5.14.
    """
    raw = endpoint.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(raw, "little")
