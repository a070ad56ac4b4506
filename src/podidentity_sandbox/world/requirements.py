"""Requirements of a sandbox on its machine, checked before anything is made.

The kernel's answer decides: the namespaces are tried with the very program and flags that `up`
uses. Only when it says no are the usual reasons looked for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from podidentity_sandbox.kubernetes.programs import PROGRAMS
from podidentity_sandbox.world import SandboxError

# program -> Debian package
_PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
}
_APPARMOR = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
_CLONE = Path("/proc/sys/kernel/unprivileged_userns_clone")
_LIMIT = Path("/proc/sys/user/max_user_namespaces")


_ROOTS = "stat -c %d:%i / && nsenter --mount=/proc/self/ns/mnt stat -c %d:%i /"
"""Says what the root is, and what it is for who enters the mount namespace, as `exec` does."""
_CHROOT = (
    "this is a chroot: whoever enters a pod of a sandbox in it would be in the machine's own root. "
    "Run the sandbox outside, or in a container, which has a root of its own"
)


def unshare_command(*, rootless: bool) -> list[str]:
    """Return the command that starts a program as process 1 of new namespaces.

    `--kill-child`: when `unshare` ends, however, its child is killed, and with process 1 the kernel
    ends all processes of the namespace.
    """
    user = ["--user", "--map-root-user"] if rootless else []
    flags = ["--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    return ["unshare", *user, *flags]


def missing(path: str, *, rootless: bool) -> list[str]:
    """Return a line for each thing that is missing on this machine; none when it can be done."""
    if sys.platform != "linux":
        return ["the sandbox is made of Linux namespaces; run it on Linux or in a Linux machine"]
    absent = [name for name in _PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        packages = " ".join(sorted({_PROGRAMS[name] for name in absent}))
        return [
            f"{name} is not installed: sudo apt-get install {packages} (or the like)"
            for name in absent
        ]
    tried = subprocess.run(
        [*unshare_command(rootless=rootless), "sh", "-c", _ROOTS],
        env={"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode == 0:
        own, entered = tried.stdout.split()
        return [] if own == entered else [_CHROOT]
    said = tried.stderr.strip() or f"exit status {tried.returncode}"
    return [f"the kernel refuses new namespaces: {said}", *_reasons(said, rootless=rootless)]


def _reasons(said: str, *, rootless: bool) -> Iterator[str]:
    if "root filesystem propagation" in said:
        yield _CHROOT
        return
    if not rootless:
        yield (
            "root here has no CAP_SYS_ADMIN, as in a container: "
            "try `--rootless`, or start the container with --privileged"
        )
        return
    if _read(_APPARMOR) == "1":
        yield (
            "AppArmor restricts user namespaces: "
            "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run this as root"
        )
    if _read(_CLONE) == "0":
        yield (
            "user namespaces are for root only: "
            "sudo sysctl kernel.unprivileged_userns_clone=1, or run this as root"
        )
    if _read(_LIMIT) == "0":
        yield "user namespaces are switched off: sudo sysctl user.max_user_namespaces=10000"
    yield "in a container, its seccomp profile must allow unshare and mount (--privileged does)"


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def version(programs: Path) -> str:
    lacking = [name for name in PROGRAMS if not os.access(programs / name, os.X_OK)]
    if lacking:
        raise SandboxError(
            f"{programs} has no program {', '.join(lacking)}: it must have etcd and those of "
            "Kubernetes by their names. ./scripts/setup-kubernetes makes such a folder"
        )
    try:
        said = subprocess.run(
            [programs / "kube-apiserver", "--version"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SandboxError(f"{programs}/kube-apiserver --version: {error}") from error
    found = re.match(r"Kubernetes v(1\.\d+\.\S+)", said)
    if found is None:
        raise SandboxError(f"{programs}/kube-apiserver is of no version that is known: {said!r}")
    return found[1]
