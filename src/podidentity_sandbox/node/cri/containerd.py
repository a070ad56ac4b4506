"""containerd on a node of the sandbox: its configuration, the pods' network, and its images."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import Network, NodePlan

SOCKET = Path("/run/containerd/containerd.sock")
PID_FILE = SOCKET.with_name("containerd.pid")
EXECUTE_ROOT = "/run/containerd/runc/k8s.io"
"""Where its shim has runc and crun keep what they know of containers."""
PAUSE = "localhost/pause:1"
"""The image of what holds a pod's namespaces."""
_CONFIG = Path("/run/containerd/config.toml")
_NETWORKS = Path("/run/cni")
_PROGRAMS = Path("/run/runtime")


_SETUP = "run ./scripts/setup-runtime, which brings containerd, runc, crun and CNI's plugins"


def missing(options: RuntimeOptions) -> str:
    """Return what a node with these options lacks on this machine; "" if it lacks nothing."""
    if os.geteuid():
        return "a node with a container runtime needs root: its containers have users of their own"
    if not Path(options.tools, ".podidentity-setup").exists():
        return _SETUP
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "the kernel has no overlay file system (modprobe overlay)"
    if " cgroup2 " not in Path("/proc/self/mounts").read_text():
        return "the machine has no cgroup v2, by which pods are proved"
    for each in options.images:
        try:
            names_in(Path(each))
        except (OSError, tarfile.TarError, KeyError, ValueError):
            return f"{each} is no OCI archive that names its images"
    return ""


def runtime_program(handler: str) -> str:
    """Return the program of this node that makes containers of that handler."""
    return str(_PROGRAMS / handler)


def configuration(options: RuntimeOptions, root: Path) -> str:
    """Return containerd's configuration; it keeps images and snapshots in `root`.

    https://github.com/containerd/containerd/blob/v1.7.24/docs/cri/config.md
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    systemd = json.dumps((options.runtime_driver or options.driver) == "systemd")
    unneeded = [f"io.containerd.snapshotter.v1.{kind}" for kind in ("btrfs", "zfs", "devmapper")]
    unneeded += ["io.containerd.snapshotter.v1.blockfile", "io.containerd.nri.v1.nri"]
    lines = [
        "version = 2",
        f"root = {json.dumps(str(root))}",
        'state = "/run/containerd"',
        f"disabled_plugins = {json.dumps(unneeded)}",
        "[grpc]",
        f"address = {json.dumps(str(SOCKET))}",
        f"[{cri}]",
        f"sandbox_image = {json.dumps(PAUSE)}",
        "restrict_oom_score_adj = true",
        f"netns_mounts_under_state_dir = {json.dumps(options.own_netns_folder)}",
        f"[{cri}.cni]",
        f"bin_dir = {json.dumps(options.tools + '/debian/usr/lib/cni')}",
        f"conf_dir = {json.dumps(str(_NETWORKS))}",
        f"[{cri}.containerd]",
        f"default_runtime_name = {json.dumps(options.handler)}",
    ]
    for handler in ("runc", "crun"):
        of_handler = f"{cri}.containerd.runtimes.{handler}"
        lines += [
            f"[{of_handler}]",
            'runtime_type = "io.containerd.runc.v2"',
            f"[{of_handler}.options]",
            f"BinaryName = {json.dumps(runtime_program(handler))}",
            f"SystemdCgroup = {systemd}",
        ]
    return "\n".join(lines) + "\n"


def network(node: NodePlan) -> str:
    """Return the configuration of CNI: how pods are attached to the node.

    https://www.cni.dev/plugins/current/main/ptp/ and …/bridge/
    """
    kinds: dict[Network, dict[str, object]] = {
        Network.ROUTED: {"type": "ptp"},
        Network.BRIDGE: {"type": "bridge", "bridge": "cbr0", "isGateway": True},
    }
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni-addresses",
        "ranges": [[{"subnet": node.pod_cidr}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugin = {**kinds[node.network], "ipMasq": False, "ipam": addresses}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]})


def write_files(options: RuntimeOptions, node: NodePlan, root: Path) -> None:
    """Write what containerd reads, and link the programs that it starts."""
    for folder in (SOCKET.parent, _NETWORKS, _PROGRAMS):
        folder.mkdir(parents=True, exist_ok=True)
    _CONFIG.write_text(configuration(options, root))
    (_NETWORKS / "10-pods.conflist").write_text(network(node))
    for handler in ("runc", "crun"):
        link = _PROGRAMS / handler
        link.unlink(missing_ok=True)
        link.symlink_to(Path(__file__).with_name("runtime.sh"))


def command(options: RuntimeOptions) -> list[str]:
    """Return the command that runs containerd."""
    return [f"{options.tools}/debian/usr/bin/containerd", "--config", str(_CONFIG)]


def ctr(options: RuntimeOptions, *words: str) -> str:
    """Run containerd's own client; return what it said.

    A busy disk takes over 20 s to unpack an image of 60 MiB.
    """
    program = f"{options.tools}/debian/usr/bin/ctr"
    command = [program, "--namespace", "k8s.io", "--timeout", "120s", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def import_images(options: RuntimeOptions) -> None:
    """Give containerd the images that it has not from before."""
    known = set(ctr(options, "images", "ls", "-q").split())
    for archive in (f"{options.tools}/pause.tar", *options.images):
        if not names_in(Path(archive)) <= known:
            ctr(options, "images", "import", archive)


def names_in(archive: Path) -> set[str]:
    """Return the names of the images in an OCI archive."""
    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None  # noqa: S101 - an OCI archive has one
        index = json.load(file)
    return {each["annotations"]["io.containerd.image.name"] for each in index["manifests"]}
