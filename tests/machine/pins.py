"""The Debian packages of the emulated machine, each by its hash: `packages.pins`.

A line is one file: what it is for, and as in the pins of the image its path in an archive's pool.
No archive is named: they are the machine's own, whose pool has the packages of all suites.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from deploy.image.pins import Deb

FILE = Path(__file__).with_name("packages.pins")

SYSTEM = "system"
"""What runs in the machine beside the kernel."""
RUNTIME = "runtime"
"""What the tests on a container runtime need in the machine besides."""
EMULATOR = "emulator"
"""What runs the machine."""

KERNELS = {"6.12": "trixie", "6.1": "bookworm", "5.10": "bullseye"}
"""Debian's kernels for virtual machines, and the suite of each."""

ROOTS = {
    SYSTEM: {
        "base-files": "the folders of the system: /bin, /lib",
        "python3.13": "runs the tests",
        "libnftables1": "the rules of the node, set in process",
        "nftables": "nft, by which tests disturb and read the rules",
        "iproute2": "ip, by which tests make nodes and pods",
        "util-linux": "namespaces and capabilities",
        "mount": "mount(8)",
        "curl": "asks in the pods",
        "iptables": "iptables-nft, by which kube-proxy writes its rules",
        "dash": "sh",
        "coreutils": "touch, mkdir and the like, as tests call them",
        "kmod": "loads the kernel's modules",
        "busybox-static": "what the machine starts with",
    },
    RUNTIME: {
        "bash": "lays out the containers' cgroups",
        "jq": "reads their configuration",
        "libseccomp2": "runc and crun confine containers by it",
        "libstdc++6": "admission policies and gRPC are in C++",
    },
    EMULATOR: {"qemu-system-x86": "the machine"},
}
"""Debian packages that each part is for. What they depend on comes with them."""

_HEADING = (
    "# Written by ./scripts/test-kernels --renew-pins: "
    "Debian's packages of the emulated machine, by their SHA-256.\n"
)


def read() -> dict[str, list[Deb]]:
    """Return the packages of each part: the kernels and those of `ROOTS`."""
    found = defaultdict(list)
    for line in FILE.read_text().splitlines():
        if not line.startswith("#"):
            part, *words = line.split()
            found[part].append(Deb(*words))
    return dict(found)


def write(parts: Mapping[str, list[Deb]]) -> None:
    """Write the packages of each part."""
    lines = [
        f"{part} {each.name} {each.version} {each.architecture} {each.path} {each.sha256}\n"
        for part, debs in parts.items()
        for each in sorted(debs)
    ]
    FILE.write_text(_HEADING + "".join(lines))
