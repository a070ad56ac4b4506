"""A container's file tree: the machine's programs as its image, and nothing of it writable.

There are no images in the sandbox. So the machine's own folders are the lower layers of overlays,
as an image's are, and what a container writes stays in its own memory file system. /dev, /proc,
/run, /tmp and root's home are new; what must not be seen is covered.

    tmpfs /                      etc, usr, var…   overlay: the machine's folder below, ours above
    /dev /proc /run /tmp /root   new, its own
    binds                        volumes, token, hosts, resolv.conf, authorities

Runs in the launcher's child, in a new mount and pid namespace, before the container's program.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.node.syscalls import (
    BIND,
    NO_DEVICES,
    NO_EXEC,
    NO_SUID,
    PRIVATE,
    READ_ONLY,
    RECURSIVE,
    SLAVE,
    change_root,
    mount,
    restrict,
)

STAGE = "/run/kubelet/stage"
"""Where a tree is built; each container's child mounts over it for itself."""

_FRESH = ("dev", "proc", "run", "sys", "tmp", "root")
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
          "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or folder of the node that a container sees."""

    source: str
    target: str
    read_only: bool = True
    follow: bool = False
    """Whether mounts made later under the source appear too (HostToContainer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """A container's namespaces and file tree, as a container runtime makes them."""

    hostname: str
    network: str = ""
    """File of its network namespace; "" for the node's."""
    binds: tuple[Bind, ...] = ()
    hidden: tuple[str, ...] = ()
    """Folders of the machine that it must not see: the sandbox's own, which holds secrets."""
    kept: tuple[str, ...] = ()
    """Folders that it needs at their own paths: the interpreter's and the programs'."""
    read_only_root: bool = False
    system_writable: bool = False
    """Whether /proc/sys and /sys may be written: `privileged`."""
    rootless: bool = False


def prepare_stage() -> None:
    """Make the folder where trees are built: once, by the kubelet."""
    Path(STAGE).mkdir(parents=True, exist_ok=True)


def build(isolation: Isolation) -> None:
    """Build the tree of `isolation` and make it this process's root."""
    # Nothing that is mounted here reaches the node; what the node mounts later still comes in.
    mount("none", "/", flags=RECURSIVE | SLAVE)
    mount("tmpfs", STAGE, "tmpfs", NO_DEVICES | NO_SUID, "mode=0755")
    tree = _Tree(isolation)
    tree.mirror("/", tree.root, skip=_FRESH)
    tree.fresh_folders()
    tree.devices()
    tree.kernel()
    for path in isolation.kept:
        tree.keep(path)
    for path in isolation.hidden:
        tree.hide(path)
    for bind in isolation.binds:
        tree.bind(bind)
    if isolation.read_only_root:
        tree.seal()
    change_root(tree.root)


class _Tree:
    def __init__(self, isolation: Isolation) -> None:
        self._isolation = isolation
        self.root = f"{STAGE}/root"
        self._layers = 0
        self._overlays: list[str] = []
        Path(self.root).mkdir()
        mount(self.root, self.root, flags=BIND)
        mount("none", self.root, flags=PRIVATE)

    def inside(self, path: str) -> str:
        """Return where `path` of the container is now, its links followed inside the tree."""
        parts = [part for part in path.split("/") if part]
        here, followed = self.root, 0
        while parts:
            part = parts.pop(0)
            if part == "..":
                here = here if here == self.root else str(Path(here).parent)
                continue
            here = f"{here}/{part}"
            if Path(here).is_symlink() and followed < 40:  # as many as the kernel follows
                followed += 1
                link = str(Path(here).readlink())
                parts = [p for p in link.split("/") if p not in {"", "."}] + parts
                here = self.root if link.startswith("/") else str(Path(here).parent)
        return here

    def mirror(
        self, source: str, target: str, *, skip: tuple[str, ...] = (), depth: int = 0
    ) -> None:
        """Make folder `target` show what `source` holds, writable without touching it."""
        for entry in os.scandir(source):
            if entry.name in skip:
                continue
            to = f"{target}/{entry.name}"
            if entry.is_symlink():
                Path(to).symlink_to(Path(entry.path).readlink())
            elif entry.is_dir():
                Path(to).mkdir(mode=stat.S_IMODE(entry.stat().st_mode))
                self._layer(entry.path, to, depth)
            elif entry.is_file():
                Path(to).touch()
                mount(entry.path, to, flags=BIND)
                restrict(to, READ_ONLY)

    def _layer(self, source: str, target: str, depth: int) -> None:
        self._layers += 1
        upper, work = f"{STAGE}/{self._layers}u", f"{STAGE}/{self._layers}w"
        Path(upper).mkdir()
        Path(upper).chmod(stat.S_IMODE(Path(source).stat().st_mode))
        Path(work).mkdir()
        options = f"lowerdir={source},upperdir={upper},workdir={work}"
        if self._isolation.rootless:
            options += ",userxattr"
        try:
            mount("overlay", target, "overlay", NO_DEVICES, options)
            self._overlays.append(target)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # A user namespace may not look under what is mounted in this folder: take it in
            # pieces, and deeper down as it is.
            if depth == 0:
                self.mirror(source, target, depth=1)
            else:
                self._show(source, target)

    def _show(self, source: str, target: str) -> None:
        mount(source, target, flags=BIND | RECURSIVE)
        restrict(target, READ_ONLY)

    def fresh_folders(self) -> None:
        """Make /run, /tmp and root's home, empty and its own."""
        # Root's home may be passed, as a folder that is kept lies below it: the interpreter's.
        for name, mode in (("run", "0755"), ("tmp", "1777"), ("root", "0711")):
            Path(f"{self.root}/{name}").mkdir()
            mount("tmpfs", f"{self.root}/{name}", "tmpfs", NO_DEVICES | NO_SUID, f"mode={mode}")
        Path(f"{self.root}/run/lock").mkdir()

    def devices(self) -> None:
        """Make /dev as a container runtime does: no disk, no console."""
        dev = f"{self.root}/dev"
        Path(dev).mkdir()
        # The nodes are mounts of their own: they work, and none made beside them does.
        mount("tmpfs", dev, "tmpfs", NO_SUID | NO_EXEC | NO_DEVICES, "mode=0755")
        for name in _DEVICES:
            Path(f"{dev}/{name}").touch()
            mount(f"/dev/{name}", f"{dev}/{name}", flags=BIND)
        for name, link in _LINKS.items():
            Path(f"{dev}/{name}").symlink_to(link)
        for name in ("pts", "shm"):
            Path(f"{dev}/{name}").mkdir()
        options = "newinstance,ptmxmode=0666,mode=0620"
        mount("devpts", f"{dev}/pts", "devpts", NO_SUID | NO_EXEC, options)
        mount("shm", f"{dev}/shm", "tmpfs", NO_SUID | NO_DEVICES | NO_EXEC, "mode=1777")

    def kernel(self) -> None:
        """Mount /proc of this pid namespace, and the machine's /sys."""
        proc, system = f"{self.root}/proc", f"{self.root}/sys"
        Path(proc).mkdir()
        Path(system).mkdir()
        mount("proc", proc, "proc", NO_SUID | NO_DEVICES | NO_EXEC)
        mount("/sys", system, flags=BIND | RECURSIVE)
        if self._isolation.system_writable:
            return
        restrict(system, READ_ONLY)
        # A root without capabilities still owns these files, and most are the machine's.
        for name in ("sys", "sysrq-trigger", "irq", "bus"):
            if Path(f"{proc}/{name}").exists():
                mount(f"{proc}/{name}", f"{proc}/{name}", flags=BIND | RECURSIVE)
                restrict(f"{proc}/{name}", READ_ONLY)

    def keep(self, path: str) -> None:
        """Show folder `path` if the tree so far does not: under /tmp, or on a mount of its own."""
        inside = Path(self.inside(path))
        if inside.is_dir() and any(inside.iterdir()):
            return
        inside.mkdir(parents=True, exist_ok=True)
        self._show(path, str(inside))

    def hide(self, path: str) -> None:
        """Cover folder `path`, if it is to be seen, by an empty one."""
        inside = self.inside(path)
        if Path(inside).is_dir():
            mount("tmpfs", inside, "tmpfs", READ_ONLY | NO_DEVICES | NO_SUID, "mode=0755")

    def bind(self, bind: Bind) -> None:
        target = Path(self.inside(bind.target))
        if not target.exists():
            if Path(bind.source).is_dir():
                target.mkdir(parents=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
        mount(bind.source, str(target), flags=BIND | RECURSIVE)
        if not bind.follow:
            mount("none", str(target), flags=PRIVATE | RECURSIVE)
        # Root in a container may make device nodes; none of them may open a disk of the machine.
        devices = 0 if self._isolation.system_writable else NO_DEVICES
        if flags := devices | (READ_ONLY if bind.read_only else 0):
            restrict(str(target), flags)

    def seal(self) -> None:
        """Make the image read-only, and no volume that lies on it."""
        for layer in (*self._overlays, self.root):
            restrict(layer, READ_ONLY, below=False)
