"""The folder of a sandbox, and the lock that tells whether the sandbox runs.

The lock is a file that `up` locks and hands, still locked, to the sandbox's first process. The
kernel lets go of it when the last holder dies, however it dies: so a held lock means a living
sandbox, and no stale process number can be taken for one.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.world import SandboxError

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,19}")
NAME_VARIABLE = "PODIDENTITY_SANDBOX"
"""Names the sandbox that commands mean, as --name does."""
LOCK = "lock"


def base_folder() -> Path:
    """Return this person's folder of sandboxes.

    Not under /run, which each part has anew, nor under TMPDIR, whose length could exceed what a
    Unix socket's address holds (108 bytes).
    """
    return Path("/tmp") / f"podidentity-sandbox-{os.getuid()}"  # noqa: S108 - checked by _check


@dataclass(frozen=True, slots=True)
class Folder:
    """The place of the sandbox `name`."""

    name: str
    base: Path

    @classmethod
    def of(cls, name: str, base: Path | None = None) -> Folder:
        """Return the place of a sandbox; raise SandboxError for a name that is none."""
        if not NAME.fullmatch(name):
            raise SandboxError(
                f"{name!r} is no name for a sandbox: use 1 to 20 of a-z, 0-9 and '-'"
            )
        return cls(name, base or base_folder())

    @property
    def path(self) -> Path:
        return self.base / self.name

    @property
    def control(self) -> Path:
        return self.path / "world.sock"

    def claim(self, *, make: bool) -> Claim | None:
        """Take the lock; None when a living sandbox holds it.

        With `make` the folder is made where it is missing; else FileNotFoundError says so.
        """
        while True:
            if make:
                _make(self.base)
            try:
                _check(self.base)
                if make:
                    _make(self.path)
                _check(self.path)
                return self._lock()
            except FileNotFoundError:  # or the `down` of another sandbox, the last, removed `base`
                if not make:
                    raise

    def holder(self) -> int | None:
        """Return the process that holds the lock (its number on this machine), or None."""
        try:
            text = (self.path / LOCK).read_text()
        except FileNotFoundError:
            return None
        return int(text) if text.strip().isdigit() else None

    def _lock(self) -> Claim | None:
        path = self.path / LOCK
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            # `down` may have removed the file between the two calls.
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(fd).st_ino:
                    return Claim(fd, self)
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Claim:
    """The lock of a folder, held by this process; `fd` may be handed on."""

    fd: int
    folder: Folder

    def write(self, pid: int) -> None:
        """Say who holds the lock from now on."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{pid}\n".encode(), 0)

    def release(self) -> None:
        """Let go of the lock, unless it was handed on: then the other keeps it."""
        os.close(self.fd)

    def empty(self) -> None:
        """Remove all that an earlier sandbox left in the folder, but the lock."""
        for entry in self.folder.path.iterdir():
            if entry.name == LOCK:
                continue
            if entry.is_dir() and not entry.is_symlink():
                _remove(entry)
            else:
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder, and this person's folder of sandboxes when it was the last."""
        self.empty()
        (self.folder.path / LOCK).unlink(missing_ok=True)
        self.folder.path.rmdir()
        with suppress(OSError):
            self.folder.base.rmdir()


def _make(path: Path) -> None:
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)


def _check(path: Path) -> None:
    """Refuse a folder that somebody else made, or that others may write to."""
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise SandboxError(
            f"{path} is not a folder of yours with mode 0700: "
            f"somebody else may have made it. Look at it and remove it"
        )


def _remove(folder: Path) -> None:
    """Remove a folder and all in it, also what a pod closed to its owner (mode 000)."""
    import shutil  # most commands remove nothing

    try:
        shutil.rmtree(folder)
    except PermissionError:
        _open_up(folder)
        shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    folder.chmod(0o700)
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            _open_up(child)
