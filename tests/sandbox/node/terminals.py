"""A terminal as a person has it, with a command in it."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

# A terminal tells the change of its size to the session that it controls.
_OF_ITS_OWN = ("setsid", "--ctty", "--wait")


class Terminal:
    """A terminal of 33 rows and 77 columns."""

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self.master, slave = os.openpty()
        self.resize(rows=33, columns=77)
        self.process = subprocess.Popen(
            [*_OF_ITS_OWN, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=Path(__file__).parents[3],
            env=environment,
        )
        os.close(slave)

    def resize(self, *, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, text: bytes) -> bytes:
        """Return what was shown, up to `text`."""
        shown = b""
        while text not in shown:
            shown += os.read(self.master, 4096)
        return shown

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def close(self) -> int:
        code = self.process.wait(timeout=60)
        os.close(self.master)
        return code
