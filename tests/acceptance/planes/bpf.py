"""Loads and attaches programs of the kernel (eBPF), without a compiler.

Layouts: union bpf_attr and struct bpf_insn of <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Sequence

_CALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _LINK_CREATE = 5, 28

Instruction = tuple[int, int, int, int]
"""Opcode, registers (source, target), offset, immediate."""


def load(program: Sequence[Instruction], *, kind: int, attach_type: int, name: bytes) -> int:
    """Return the descriptor of a loaded program; raise OSError with the verifier's words."""
    packed = (struct.pack("=BBhI", *head, last & 0xFFFFFFFF) for *head, last in program)
    code = ctypes.create_string_buffer(b"".join(packed))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(1 << 16)
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        *(kind, len(program), ctypes.addressof(code), ctypes.addressof(licence)),
        *(1, len(log), ctypes.addressof(log), 0, 0, name, 0, attach_type),
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: {log.value.decode()}") from error


def attach(program: int, target: int, attach_type: int) -> int:
    """Attach a program, as long as it and the returned descriptor are open."""
    return _bpf(_LINK_CREATE, struct.pack("=IIIIIIQ", program, target, attach_type, 0, 0, 0, 0))


def _bpf(command: int, attributes: bytes) -> int:
    held = ctypes.create_string_buffer(attributes, len(attributes))
    libc = ctypes.CDLL(None, use_errno=True)
    found: int = libc.syscall(_CALL[platform.machine()], command, held, len(attributes))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return found
