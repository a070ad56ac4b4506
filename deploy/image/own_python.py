"""The image's own Python, run out of a folder before there is an image.

What depends on a version of Python or zlib is done by it: bytecode, and compression. So an image is
the same on any machine. It runs with the image's own loader and libraries, by path.
"""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory

from deploy.image.contents import PLATFORMS, PYTHON, SOURCES_KEPT
from deploy.image.packages import Missing
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
            with open(f"{folder}/{source}.pyc", "wb") as file:
                file.write(made)
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
# 9 takes four times as long, for one hundredth less.
sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 6, mtime=0))
"""

LOADERS = {"amd64": "usr/lib64/ld-linux-x86-64.so.2", "arm64": "usr/lib/ld-linux-aarch64.so.1"}


def this_architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    for debian, kernel in PLATFORMS.items():
        if kernel == platform.machine():
            return debian
    raise Missing(
        f"A machine of {platform.machine()} cannot build the image: its own Python compiles it. "
        f"Take one of {' or '.join(PLATFORMS.values())}."
    )


class OwnPython:
    """Debian's Python of the pins, of this machine's architecture, in a folder."""

    def __init__(self, debian: Tree, folder: Path, cache: Path) -> None:
        """Write Debian's part of an image into `folder`. What it makes stays in `cache`."""
        write(debian, folder)
        used = [file.data for path, file in sorted(debian.items()) if _works(path)]
        self._id = hashlib.sha256(b"".join([*used, _COMPILE.encode(), _COMPRESS.encode()])).digest()
        self._command = [*started(folder, this_architecture()), "-S", "-B", "-c"]
        self._cache = cache
        self._cache.mkdir(parents=True, exist_ok=True)

    def compress(self, data: bytes) -> bytes:
        """Return `data` as gzip, without name and time."""
        place = self._cache / f"{self._key(data)}.gz"
        if not place.exists():
            with TemporaryDirectory(dir=self._cache) as folder:
                made = Path(folder, "made")
                made.write_bytes(self._run(_COMPRESS, given=data))
                made.rename(place)
        return place.read_bytes()

    def compile(self, tree: Tree) -> Tree:
        """Return a tree with the bytecode of its modules; sources stay where they are to be kept.

        It is never compared with a source again: in the image nothing changes.
        """
        sources = {path: file.data for path, file in tree.items() if path.endswith(".py")}
        made = self._bytecode(sources)
        kept = {path: file for path, file in tree.items() if path not in sources or _stays(path)}
        return kept | {_place(path): File(made[path]) for path in sources}

    def _bytecode(self, sources: dict[str, bytes]) -> dict[str, bytes]:
        keys = {path: self._key(path.encode() + b"\0" + source) for path, source in sources.items()}
        lacking = {key: path for path, key in keys.items() if not self._cached(key).exists()}
        with TemporaryDirectory(dir=self._cache) as folder:
            for key, path in lacking.items():
                Path(folder, f"{key}.py").write_bytes(sources[path])
            wanted = json.dumps([(key, f"/{path}") for key, path in lacking.items()])
            self._run(_COMPILE, folder, given=wanted.encode())
            for key in lacking:
                Path(folder, f"{key}.pyc").rename(self._cached(key))
        return {path: self._cached(key).read_bytes() for path, key in keys.items()}

    def _key(self, data: bytes) -> str:
        return hashlib.sha256(self._id + data).hexdigest()

    def _cached(self, key: str) -> Path:
        return self._cache / f"{key}.pyc"

    def _run(self, program: str, *arguments: str, given: bytes) -> bytes:
        return subprocess.run(
            [*self._command, program, *arguments],
            input=given,
            stdout=subprocess.PIPE,
            check=True,
            env={"PYTHONHASHSEED": "0"},
        ).stdout


def started(root: Path, architecture: str) -> list[str]:
    """Return the command that starts Python out of an unpacked image, by its own loader."""
    return [
        str(root / LOADERS[architecture]),
        "--library-path",
        f"{root}/usr/lib/{PLATFORMS[architecture]}-linux-gnu",
        f"{root}/usr/bin/python{PYTHON}",
    ]


def _works(path: str) -> bool:
    """Whether what is made depends on this file of Debian's: Python and its zlib."""
    return path == f"usr/bin/python{PYTHON}" or "/libz.so" in path


def _stays(path: str) -> bool:
    return fnmatchcase(path, SOURCES_KEPT)


def _place(path: str) -> str:
    """Return where the bytecode of a module is found: beside its source, or in its stead."""
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".py")
    if _stays(path):
        return f"{folder}/__pycache__/{stem}.cpython-{PYTHON.replace('.', '')}.pyc"
    return f"{folder}/{stem}.pyc"
