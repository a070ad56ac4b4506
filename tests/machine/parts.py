"""Makes what the emulated machine is started with, and keeps it: `.cache/kernels`.

    emulator/       QEMU and its libraries, unpacked; nothing is installed on this machine
    system.cpio     Debian's Python, nftables and iproute2, with the pinned libraries of the tests
    KERNEL/vmlinuz  and modules.cpio: a kernel of Debian, the network's part of its modules

Each is made again when its pins or its recipe have changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from deploy.image.own_python import LOADERS, started
from deploy.image.packages import (
    Gone,
    Missing,
    archives,
    fetch_debs,
    fetch_wheels,
    newest_of,
    newest_wheels,
)
from deploy.image.pins import Deb, wanted
from tests.machine import initramfs, pins

PRODUCT = Path(__file__).parents[2]
CACHE = PRODUCT / ".cache/kernels"
_RECIPE = [Path(__file__), Path(initramfs.__file__), Path(__file__).with_name("init")]
_ARCHITECTURE = "amd64"
_LIBRARIES = "usr/local/lib/python3.13/dist-packages"

IN_THE_MACHINE = {
    *("pytest", "pytest-timeout", "iniconfig", "packaging", "pluggy", "pygments"),
    *("hypothesis", "sortedcontainers", "anyio", "idna", "typing-extensions"),
    *("msgspec", "httptools", "click", "pyyaml"),
}
"""Pinned libraries that tests of the kernel load: with all of them it would start later."""

_LEFT_OUT = ("usr/share", "usr/lib/x86_64-linux-gnu/gconv")
COMPILING = """
import compileall, py_compile, sys
for folder in sys.argv[2:]:
    compileall.compile_dir(
        folder,
        quiet=2,
        workers=1,
        stripdir=sys.argv[1],
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
"""
"""The archive keeps no times: bytecode that is checked by its file's time would be made anew in the
machine, which takes the emulator a minute before the first test."""
_MODULES = ("net", "drivers/net", "lib", "crypto", "fs/overlayfs")
"""Folders of a kernel's modules that the machine has, without drivers of network cards."""

TOOLS_OF_DEVELOPERS = {
    *("mypy", "mypy-extensions", "librt", "ast-serialize", "types-pyyaml", "ruff", "uv"),
    *("import-linter", "grimp", "rich", "markdown-it-py", "mdurl", "coverage"),
    *("hatchling", "pathspec", "tomlkit", "trove-classifiers", "pytest-xdist", "execnet"),
}
"""Pinned libraries that no test on a container runtime loads; it has all others."""
_NOT_IN_THE_RUNTIME = {"python", "cosign", "share", "containerd-shim", "containerd-shim-runc-v1"}
"""What scripts/setup-runtime brought for this machine's Python, and programs that nobody starts."""
_PROGRAM = """#!/usr/bin/python3.13
import sys
from podidentity.__main__ import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Kernel:
    """A kernel, as a machine is started with it."""

    image: Path
    modules: Path


def renew(mirrors: tuple[str, ...]) -> None:
    """Write pins of today's packages."""
    pins.write({part: newest(part, mirrors) for part in (*pins.KERNELS, *pins.ROOTS)})


def newest(part: str, mirrors: tuple[str, ...]) -> list[Deb]:
    """Return today's packages of a part, as signed lists of Debian's have them; raise Missing."""
    places = mirrors or tuple(each for each in archives() if not each.startswith("file:"))
    if part in pins.ROOTS:
        return newest_of(pins.ROOTS[part], _ARCHITECTURE, places)
    suite = pins.KERNELS[part]
    debs = newest_of(["linux-image-cloud-amd64"], _ARCHITECTURE, places, suite=suite)
    found = [each for each in debs if each.name.startswith(f"linux-image-{part}.")]
    if not found:
        raise Missing(
            f"Debian's {suite} has no kernel {part} any more. Take it out of tests/machine."
        )
    return found


class Parts:
    """Makes the parts of a machine, or finds them."""

    def __init__(
        self,
        say: Callable[[str], None],
        mirrors: tuple[str, ...],
        cache: Path = CACHE,
        *,
        or_newest: bool = False,
    ) -> None:
        """`or_newest`: where pinned packages are gone, today's are taken, and that is said."""
        self._say = say
        self._mirrors = mirrors
        self._cache = cache
        self._or_newest = or_newest
        self._pins = pins.read()
        self.unpinned: set[str] = set()
        """Parts that are made of today's packages."""

    def emulator(self) -> list[str]:
        """Return the command that starts QEMU, less what the machine is made of."""
        found = which("qemu-system-x86_64")
        if found:
            return [found]
        root = self._made("emulator", pins.EMULATOR, self._unpack)
        return [
            str(root / LOADERS[_ARCHITECTURE]),
            "--library-path",
            ":".join(
                str(each.parent)
                for each in sorted(root.glob("usr/lib/x86_64-linux-gnu/**/lib*.so.*"))
                if "qemu" not in each.parts
            ),
            str(root / "usr/bin/qemu-system-x86_64"),
            *("-L", str(root / "usr/share/qemu"), "-L", str(root / "usr/share/seabios")),
        ]

    def system(self) -> Path:
        """Return the archive of the machine's system."""
        libraries = {
            key: hashes
            for key, hashes in self._libraries("dev").items()
            if key[0] in IN_THE_MACHINE
        }

        def make(folder: Path, debs: list[Path]) -> None:
            root = folder / "root"
            self._unpack(root, debs)
            self._unpack_wheels(libraries, root / _LIBRARIES)
            (root / "etc/passwd").write_text(
                "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
            )
            (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
            (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
            (root / "root").mkdir(exist_ok=True)
            (root / "var/run").rmdir()
            (root / "var/run").symlink_to("/run")
            (root / "bin/sh").unlink(missing_ok=True)
            (root / "bin/sh").symlink_to("dash")
            shutil.copy(_RECIPE[-1], root / "init")
            (root / "init").chmod(0o755)
            for name in _LEFT_OUT:
                shutil.rmtree(root / name)
            folders = [root / "usr/lib/python3.13", root / _LIBRARIES]
            subprocess.run(
                [*started(root, _ARCHITECTURE), "-S", "-B", "-c", COMPILING, str(root), *folders],
                check=True,
            )
            with (folder / "system.cpio").open("wb") as archive:
                initramfs.write(archive, initramfs.tree(root))
            shutil.rmtree(root)

        said = _told(libraries)
        return self._made("system", pins.SYSTEM, make, said) / "system.cpio"

    def runtime(self, tools: Path) -> Path:
        """Return the archive of a container runtime, of what drives it, and of the sandbox's needs.

        `tools` is a folder that scripts/setup-runtime has filled; it is /product/.venvs/runtime in
        the machine.
        """
        libraries = {
            key: hashes
            for key, hashes in self._libraries("dev").items()
            if key[0] not in TOOLS_OF_DEVELOPERS
        }
        of_cri = {k: v for k, v in self._libraries("runtime").items() if k[0] != "setuptools"}
        compiling = [*started(self._tools(), _ARCHITECTURE), "-S", "-B", "-c", COMPILING]

        def make(folder: Path, debs: list[Path]) -> None:
            root = folder / "root"
            self._unpack(root, debs)
            for name in _LEFT_OUT:
                shutil.rmtree(root / name, ignore_errors=True)
            own = root / "product/.venvs/runtime"
            ignored = shutil.ignore_patterns(*_NOT_IN_THE_RUNTIME)
            shutil.copytree(tools, own, symlinks=True, ignore=ignored)
            self._unpack_wheels(libraries, root / _LIBRARIES)
            self._unpack_wheels(of_cri, own / "python")
            _install(root)
            subprocess.run([*compiling, *map(str, (root, root / _LIBRARIES, own))], check=True)
            with (folder / "runtime.cpio").open("wb") as archive:
                initramfs.write(archive, initramfs.tree(root))
            shutil.rmtree(root)

        said = (tools / ".podidentity-setup").read_bytes() + _told(libraries) + _told(of_cri)
        return self._made(tools.name, pins.RUNTIME, make, said) / "runtime.cpio"

    def bytecode(self, folder: Path) -> Path:
        """Return an archive of the bytecode of the product and the sandbox, made in `folder`.

        A cluster of programs loads it: the machine would take minutes to make it.
        """
        root = folder / "bytecode"
        source = root / "product/src"
        shutil.copytree(PRODUCT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        compiling = [*started(self._tools(), _ARCHITECTURE), "-S", "-B", "-c", COMPILING]
        subprocess.run([*compiling, str(root), str(source)], check=True)
        made = [each for each in initramfs.tree(root) if each[1].suffix == ".pyc"]
        with (folder / "bytecode.cpio").open("wb") as archive:
            initramfs.write(archive, made)
        return folder / "bytecode.cpio"

    def _unpack_wheels(self, pinned: dict[tuple[str, str], frozenset[str]], place: Path) -> None:
        wheels = newest_wheels(pinned, _ARCHITECTURE, self._cache)
        for wheel in fetch_wheels(wheels, _ARCHITECTURE, self._cache):
            shutil.unpack_archive(wheel, place, "zip")

    @staticmethod
    def _libraries(name: str) -> dict[tuple[str, str], frozenset[str]]:
        return wanted((PRODUCT / f"requirements/{name}.txt").read_text(), _ARCHITECTURE)

    def _tools(self) -> Path:
        """Return the machine's system, unpacked here: its programs work on what it is given."""
        return self._made("tools", pins.SYSTEM, self._unpack, without="base-files")

    def kernel(self, name: str) -> Kernel:
        """Return a kernel."""
        tools = self._tools()

        def make(folder: Path, debs: list[Path]) -> None:
            root = folder / "root"
            self._unpack(root, debs)
            (image,) = (root / "boot").glob("vmlinuz-*")
            version = image.name.removeprefix("vmlinuz-")
            (modules,) = root.glob(f"**/modules/{version}")
            chosen = folder / "chosen"
            kept = chosen / "usr/lib/modules" / version
            for each in _MODULES:
                if (modules / "kernel" / each).exists():
                    shutil.copytree(
                        modules / "kernel" / each,
                        kept / "kernel" / each,
                        ignore=shutil.ignore_patterns("ethernet"),
                    )
            for file in modules.glob("modules.*"):
                shutil.copy(file, kept / file.name)
            (chosen / "lib").symlink_to("usr/lib")
            depmod = [*self._tool(tools, "usr/bin/kmod", "depmod"), "-b", str(chosen), version]
            subprocess.run(depmod, check=True)
            (chosen / "lib").unlink()
            image.rename(folder / "vmlinuz")
            with (folder / "modules.cpio").open("wb") as archive:
                initramfs.write(archive, initramfs.tree(chosen))
            shutil.rmtree(root)
            shutil.rmtree(chosen)

        place = self._made(name, name, make)
        return Kernel(place / "vmlinuz", place / "modules.cpio")

    @staticmethod
    def _tool(root: Path, program: str, name: str) -> list[str]:
        """Return the command that starts a program of the machine's system here."""
        loader = [str(root / LOADERS[_ARCHITECTURE]), "--library-path"]
        libraries = str(root / "usr/lib/x86_64-linux-gnu")
        return [*loader, libraries, "--argv0", name, str(root / program)]

    def _made(
        self,
        name: str,
        part: str,
        make: Callable[[Path, list[Path]], None],
        said: bytes = b"",
        *,
        without: str = "",
    ) -> Path:
        """Return what is made of a part's packages; make it if it is not as pins and recipe say."""
        debs, key = self._wanted(part, without, said)
        place, stamp = self._cache / name, self._cache / name / ".made"
        self._cache.mkdir(parents=True, exist_ok=True)
        with (
            (self._cache / "lock").open("w") as lock,
            TemporaryDirectory(dir=self._cache) as folder,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may make it now
            if stamp.exists() and stamp.read_text() == key:
                return place
            self._say(f"making {name} of {len(debs)} packages")
            try:
                files = self._fetched(debs)
            except Gone as error:
                self._take_newest(part, error)
                debs, key = self._wanted(part, without, said)
                if stamp.exists() and stamp.read_text() == key:
                    return place
                files = self._fetched(debs)
            fresh = Path(folder, name)
            fresh.mkdir()
            make(fresh, files)
            (fresh / ".made").write_text(key)
            if place.exists():
                shutil.rmtree(place)
            fresh.rename(place)
        return place

    def _wanted(self, part: str, without: str, said: bytes) -> tuple[list[Deb], str]:
        """Return a part's packages, and the digest of them and of what is made of them."""
        debs = [each for each in self._pins[part] if each.name != without]
        recipe = b"".join(each.read_bytes() for each in _RECIPE)
        return debs, hashlib.sha256(repr(debs).encode() + recipe + said).hexdigest()

    def _fetched(self, debs: Iterable[Deb]) -> list[Path]:
        return fetch_debs(debs, self._cache, self._mirrors, by="./scripts/test-kernels")

    def _take_newest(self, part: str, gone: Gone) -> None:
        """Take today's packages in place of a part's pins; raise `gone` if nobody asked for it.

        Their hashes come from Debian's lists, whose signature apt checks, not from the pins.
        """
        if not self._or_newest or part in self.unpinned:
            raise Gone(f"{gone} --or-newest takes today's packages in their place.") from gone
        self._say(f"NOT AS PINNED: {gone}")
        self._pins[part] = newest(part, self._mirrors)
        self.unpinned.add(part)
        first = self._pins[part][0]
        what = f"{first.name} {first.version}" if part in pins.KERNELS else "packages"
        self._say(f"NOT AS PINNED: {part} is made of today's {what}, by Debian's signed lists")

    @staticmethod
    def _unpack(folder: Path, debs: Iterable[Path]) -> None:
        for each in debs:
            done = subprocess.run(
                ["dpkg-deb", "--extract", str(each), str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise Missing(f"{each} cannot be unpacked: {done.stderr.strip()}. Delete it.")


def _install(root: Path) -> None:
    """Make of unpacked wheels what an installer would: programs; and the product is one of them."""
    libraries, programs = root / _LIBRARIES, root / "usr/local/bin"
    programs.mkdir(parents=True)
    for data in libraries.glob("*.data"):
        for script in (data / "scripts").glob("*"):
            script.rename(programs / script.name)
        shutil.rmtree(data)
    # Sources of a build tool, which the wheel of cel-expr-python has by mistake.
    shutil.rmtree(libraries / "bazel-project")
    (libraries / "podidentity.pth").write_text("/product/src\n")
    (programs / "podidentity").write_text(_PROGRAM)
    for program in programs.iterdir():
        program.chmod(0o755)
    # Of a package that the system has too, and in which /var/run is no link.
    shutil.rmtree(root / "var")
    authorities = root / "etc/ssl/certs/ca-certificates.crt"
    authorities.parent.mkdir(parents=True)
    shutil.copy(libraries / "certifi/cacert.pem", authorities)


def _told(libraries: Mapping[tuple[str, str], frozenset[str]]) -> bytes:
    return repr([(*key, *sorted(hashes)) for key, hashes in sorted(libraries.items())]).encode()
