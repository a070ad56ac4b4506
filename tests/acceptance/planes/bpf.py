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
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD, _LINK_CREATE = 0, 2, 5, 28
HASH, ARRAY = 1, 2
"""Types of maps."""

Instruction = tuple[int, int, int, int]
"""Opcode, registers (source, target), offset, immediate."""
Line = tuple[int, int, int | str, int] | str
"""An instruction, whose offset may be a label, or the label of the next one."""


def assemble(lines: Sequence[Line]) -> list[Instruction]:
    """Return the instructions of a program with labels."""
    places: dict[str, int] = {}
    count = 0
    for line in lines:
        if isinstance(line, str):
            places[line] = count
        else:
            count += 1
    program: list[Instruction] = []
    for line in lines:
        if not isinstance(line, str):
            code, registers, offset, immediate = line
            if isinstance(offset, str):
                offset = places[offset] - len(program) - 1
            program.append((code, registers, offset, immediate))
    return program


def of_map(register: int, held: int) -> list[Line]:
    """Return the two instructions that put a map into a register."""
    return [(0x18, 0x10 | register, 0, held), (0, 0, 0, 0)]


def create_map(kind: int, *, key: int, value: int, entries: int) -> int:
    """Return the descriptor of a new map with keys and values of so many bytes."""
    return _bpf(_MAP_CREATE, struct.pack("=IIIII", kind, key, value, entries, 0))


def update(held: int, key: bytes, value: bytes) -> None:
    """Set an element of a map."""
    at = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    places = (ctypes.addressof(each) for each in at)
    _bpf(_MAP_UPDATE, struct.pack("=IIQQQ", held, 0, *places, 0))


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
