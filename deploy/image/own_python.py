"""The image's own Python, run out of a folder before there is an image.

What depends on a version of Python or zlib is done by it: bytecode, and compression. So an image is
the same on any machine. It runs with the image's own loader and libraries, by path.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path

from deploy.image.contents import PLATFORMS, PYTHON
from deploy.image.tree import File, Tree, write

_COMPILE = """
import importlib.util, json, os, sys
from importlib._bootstrap_external import _code_to_hash_pyc
folder, wanted, cores = sys.argv[1], json.load(sys.stdin), os.cpu_count() or 1

def compile_all(part):
    for source, name in wanted[part::cores]:
        # A process each: what is shared in memory would show in the bytecode.
        child = os.fork()
        if not child:
            with open(f"{folder}/{source}.py", "rb") as file:
                text = file.read()
            code = compile(text, name, "exec", dont_inherit=True, optimize=0)
            made = _code_to_hash_pyc(code, importlib.util.source_hash(text), False)
            with open(f"{folder}/{source}.pyc.new", "wb") as file:
                file.write(made)
            os.rename(f"{folder}/{source}.pyc.new", f"{folder}/{source}.pyc")
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name} cannot be compiled")

parts = []
for part in range(cores):
    parts.append(os.fork())
    if not parts[-1]:
        compile_all(part)
        os._exit(0)
sys.exit(any(os.waitpid(each, 0)[1] for each in parts))
"""

_COMPRESS = """
import gzip, sys
sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 9, mtime=0))
"""

LOADERS = {"amd64": "usr/lib64/ld-linux-x86-64.so.2", "arm64": "usr/lib/ld-linux-aarch64.so.1"}


def this_architecture() -> str:
    """Return Debian's name of this machine's architecture; KeyError if there is no image for it."""
    return {kernel: debian for debian, kernel in PLATFORMS.items()}[platform.machine()]


class OwnPython:
    """Debian's Python of the pins, of this machine's architecture, in a folder."""

    def __init__(self, debian: Tree, folder: Path) -> None:
        """Write Debian's part of an image into `folder`."""
        write(debian, folder)
        architecture = this_architecture()
        self._command = [
            str(folder / LOADERS[architecture]),
            "--library-path",
            f"{folder}/usr/lib/{PLATFORMS[architecture]}-linux-gnu",
            f"{folder}/usr/bin/python{PYTHON}",
            *("-S", "-B", "-c"),
        ]

    def _run(self, program: str, *arguments: str, given: bytes) -> bytes:
        return subprocess.run(  # noqa: S603 - a fixed program
            [*self._command, program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            check=True,
            env={"PYTHONHASHSEED": "0"},
        ).stdout

    def compress(self, data: bytes) -> bytes:
        """Return `data` as gzip, without name and time."""
        return self._run(_COMPRESS, given=data)

    def compile(self, sources: Mapping[str, bytes], cache: Path) -> dict[str, bytes]:
        """Return the bytecode of modules by their path in the image; `cache` keeps it.

        It is never compared with a source again: in the image nothing changes.
        """
        cache.mkdir(parents=True, exist_ok=True)
        keys = {
            path: hashlib.sha256(path.encode() + b"\0" + source).hexdigest()
            for path, source in sources.items()
        }
        lacking = {key: path for path, key in keys.items() if not (cache / f"{key}.pyc").exists()}
        for key, path in lacking.items():
            (cache / f"{key}.py").write_bytes(sources[path])
        wanted = json.dumps([(key, f"/{path}") for key, path in lacking.items()])
        self._run(_COMPILE, str(cache), given=wanted.encode())
        for key in lacking:
            (cache / f"{key}.py").unlink()
        return {path: (cache / f"{key}.pyc").read_bytes() for path, key in keys.items()}


def with_bytecode(tree: Tree, bytecode: Mapping[str, bytes], *, keep_source: bool) -> Tree:
    """Return a tree whose modules are compiled."""
    made: Tree = {}
    for path, file in tree.items():
        if path not in bytecode:
            made[path] = file
            continue
        folder, _, name = path.rpartition("/")
        stem = name.removesuffix(".py")
        if keep_source:
            made[path] = file
            made[f"{folder}/__pycache__/{stem}.cpython-{PYTHON.replace('.', '')}.pyc"] = File(
                bytecode[path]
            )
        else:
            made[f"{folder}/{stem}.pyc"] = File(bytecode[path])
    return made
