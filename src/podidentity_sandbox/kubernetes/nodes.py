"""A real node: a machine of namespaces and cgroups, and the programs that run on it.

    machine      boots: cgroups, mounts, files, the boot script if there is one. Then it waits; all
                 of the node ends with it
    containerd   serves once it has its images
    kubelet      Kubernetes' own
    kube-proxy   leads Services to pods, by nftables

The node has network, mount, UTS and cgroup namespaces of its own; to change nothing of the machine
it has /run, /var/lib and /var/log of its own, too. What is in the latter two outlives a restart.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from podidentity_sandbox.kubernetes.programs import proxy_token, write
from podidentity_sandbox.node import syscalls
from podidentity_sandbox.node.cgroups import end_processes, is_v2, mounted, remove_tree
from podidentity_sandbox.node.cri.containerd import PAUSE, names_in, network
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.kubelet import init_taints
from podidentity_sandbox.plan import DNS_ADDRESS, NodePlan, Plan, kubeconfig

SERVICES = ("containerd", "kubelet", "kube-proxy")
"""In the order in which they start."""
TRUST = "sandbox-azure"
"""The Secret in kube-system by which the product trusts this Azure: `enable --proxy-secret`."""
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
_SPACES = syscalls.NEW_NET | syscalls.NEW_MOUNTS | syscalls.NEW_UTS | syscalls.NEW_CGROUPS
_TOP = Path("/sys/fs/cgroup")
_LEAF = "system.slice"
"""The cgroup of the services: in v2 only leaves have processes."""
_SECONDS = 5.0
# The kubelet would set these of the whole machine. It finds what it wants, and leaves them.
_KERNEL = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}


def containerd_of(kubernetes: Path) -> Path:
    """Return the folder of containerd's programs: that of Kubernetes, or one beside it."""
    beside = kubernetes.parent / "containerd"
    return beside if (beside / "containerd").exists() else kubernetes


def missing(kubernetes: Path, search_path: str) -> list[str]:
    """Return a line for what real nodes lack beside a container runtime's tools; or none."""
    wanted = [kubernetes / name for name in ("kubelet", "kube-proxy")]
    wanted += [containerd_of(kubernetes) / name for name in _CONTAINERD]
    lacking = [str(each) for each in wanted if not os.access(each, os.X_OK)]
    found = [f"no program {', '.join(lacking)}: ./scripts/setup-kubernetes"] if lacking else []
    if shutil.which("nft", path=search_path) is None:
        found.append("nft is not installed: sudo apt-get install nftables (or the like)")
    return found


# ---- The machine


def boot(plan: Plan, node: NodePlan) -> None:
    """Make this process the first of a machine that was switched on.

    Its network is there. What ran on it before ends, and its cgroups are made anew: a kubelet would
    wait for each container of before.
    """
    hierarchies = list(mounted(Path("/proc/self/mounts").read_text()))
    for each in hierarchies:
        sandbox = each.place / Path(plan.cgroup_root).name
        top = sandbox / node.name
        if top.is_dir():
            end_processes(top)
            remove_tree(top)
        for group in (sandbox, top):
            _make_group(group)
            if is_v2(group.parent):  # cgroups below have all controllers; the kubelet does the rest
                given = (group.parent / "cgroup.controllers").read_text().split()
                below = " ".join(f"+{controller}" for controller in given)
                (group.parent / "cgroup.subtree_control").write_text(below)
        (top / "cgroup.procs").write_text("0")
    with Path("/run/netns", node.name).open() as space:
        syscalls.enter(space.fileno(), syscalls.NEW_NET)
    syscalls.unshare(syscalls.NEW_MOUNTS | syscalls.NEW_UTS | syscalls.NEW_CGROUPS)
    syscalls.mount("none", "/", flags=syscalls.SHARED | syscalls.RECURSIVE)
    for own in ("lib", "log"):
        kept = _state(plan, node) / own
        kept.mkdir(parents=True, exist_ok=True)
        syscalls.mount(str(kept), f"/var/{own}", flags=syscalls.BIND)
    syscalls.mount("sysfs", "/sys", "sysfs")
    for place in (str(_TOP), "/run"):
        syscalls.mount("tmpfs", place, "tmpfs", data="mode=755")
    for each in hierarchies:
        each.place.mkdir(parents=True, exist_ok=True)
        syscalls.mount("cgroup", str(each.place), each.kind, data=each.controllers)
        _make_group(each.place / _LEAF)
        (each.place / _LEAF / "cgroup.procs").write_text("0")
    for name, value in _KERNEL.items():
        shown = Path("/run", Path(name).name)
        shown.write_text(value)
        syscalls.mount(str(shown), f"/proc/sys/{name}", flags=syscalls.BIND)
    Path("/proc/sys/kernel/hostname").write_text(node.name)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    _write_files(plan, node)
    if (script := plan.boot_script(node)).exists():
        subprocess.run(["sh", "-e", str(script)], check=True)
    _pid_file(plan, node).write_text(str(os.getpid()))


def _make_group(group: Path) -> None:
    group.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems") if not is_v2(group) else ():
        if (group / name).exists():
            (group / name).write_text((group.parent / name).read_text())


def enter(plan: Plan, node: NodePlan) -> None:
    for each in mounted(Path("/proc/self/mounts").read_text()):
        group = each.place / Path(plan.cgroup_root).name / node.name / _LEAF
        (group / "cgroup.procs").write_text("0")
    machine = os.pidfd_open(int(_pid_file(plan, node).read_text()))
    syscalls.enter(machine, _SPACES)
    os.close(machine)


def _state(plan: Plan, node: NodePlan) -> Path:
    return plan.path / "nodes" / node.name


def _pid_file(plan: Plan, node: NodePlan) -> Path:
    return _state(plan, node) / "machine.pid"


# ---- Its services: files, command lines, and whether they serve


def _write_files(plan: Plan, node: NodePlan) -> None:
    options, state = RuntimeOptions.load(plan.path), _state(plan, node)
    networks = Path("/run/cni")
    networks.mkdir()
    (networks / "10-pods.conflist").write_text(network(node))
    (state / "containerd.toml").write_text(_containerd(options, networks))
    cluster = {"server": plan.apiserver_url, "certificate-authority": str(plan.ca_certificate)}
    write(state / "kubeconfig", kubeconfig(cluster, {"token": node.token}))
    write(state / "proxy.kubeconfig", kubeconfig(cluster, {"token": proxy_token(plan)}))
    Path("/run/kubelet/manifests").mkdir(parents=True)
    (state / "resolv.conf").write_text(f"nameserver {DNS_ADDRESS}\n")
    write(state / "kubelet.json", _kubelet(plan, node))
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": node.name,
        "clusterCIDR": "10.244.0.0/16",
        "clientConnection": {"kubeconfig": str(state / "proxy.kubeconfig")},
        # They are the whole machine's.
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
    write(state / "proxy.json", proxy)


def _containerd(options: RuntimeOptions, networks: Path) -> str:
    """Return containerd's configuration, which is TOML.

    https://github.com/containerd/containerd/blob/v2.0.0/docs/cri/config.md
    """
    cri = "plugins.'io.containerd.cri.v1"
    runc = f"{cri}.runtime'.containerd.runtimes.runc"
    lines = [
        "version = 3",
        "root = '/var/lib/containerd'",
        "state = '/run/containerd'",
        "disabled_plugins = ['io.containerd.nri.v1.nri']",
        f"[{cri}.images'.pinned_images]",
        f"sandbox = '{PAUSE}'",
        f"[{cri}.runtime']",
        "restrict_oom_score_adj = true",
        f"[{cri}.runtime'.cni]",
        f"bin_dirs = ['{options.tools}/debian/usr/lib/cni']",
        f"conf_dir = '{networks}'",
        f"[{runc}]",
        "runtime_type = 'io.containerd.runc.v2'",
        f"[{runc}.options]",
        f"BinaryName = '{options.tools}/debian/usr/sbin/runc'",
        "SystemdCgroup = false",
    ]
    return "\n".join(lines) + "\n"


def _kubelet(plan: Plan, node: NodePlan) -> dict[str, Any]:
    """Return the kubelet's configuration.

    https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
    """
    certificate, key = plan.kubelet_files(node)
    never = dict.fromkeys(("nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "providerID": node.provider_id,
        "registerWithTaints": init_taints(node.init_taints),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(plan.ca_certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(_state(plan, node) / "resolv.conf"),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "staticPodPath": "/run/kubelet/manifests",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "cgroupDriver": "cgroupfs",
        # Machines with the memory controller in v1 are still there.
        "failCgroupV1": False,
        "failSwapOn": False,
        "protectKernelDefaults": True,
        "makeIPTablesUtilChains": False,
        # How full the disk is, is the whole machine's.
        "evictionHard": never,
        "imageGCHighThresholdPercent": 100,
    }


def command(plan: Plan, node: NodePlan, service: str) -> Sequence[str]:
    state, programs = _state(plan, node), Path(plan.kubernetes)
    pool = f"agentpool={node.pool},kubernetes.azure.com/agentpool={node.pool}"
    options: dict[str, dict[str, object]] = {
        "containerd": {"config": state / "containerd.toml"},
        "kubelet": {
            "config": state / "kubelet.json",
            "kubeconfig": state / "kubeconfig",
            "hostname-override": node.name,
            "node-ip": node.address,
            "node-labels": pool,
            "cert-dir": "/var/lib/kubelet/certificates",
        },
        "kube-proxy": {"config": state / "proxy.json"},
    }
    if service == "containerd":
        programs = containerd_of(programs)
    words = [f"--{option}={value}" for option, value in options[service].items()]
    return [str(programs / service), *words]


def serves(plan: Plan, service: str) -> Callable[[], bool]:
    """Return what says whether a service of this node serves."""
    if service == "containerd":
        return partial(_has_images, plan)
    return partial(_healthy, {"kubelet": 10248, "kube-proxy": 10256}[service])


def _has_images(plan: Plan) -> bool:
    """Give containerd the images that it has not from before."""
    ctr = [str(containerd_of(Path(plan.kubernetes)) / "ctr"), "--namespace", "k8s.io"]
    asked = subprocess.run([*ctr, "images", "ls", "-q"], capture_output=True, check=False)
    if asked.returncode:
        return False
    options = RuntimeOptions.load(plan.path)
    for archive in (f"{options.tools}/pause.tar", *options.images):
        if not names_in(Path(archive)) <= set(asked.stdout.decode().split()):
            subprocess.run([*ctr, "images", "import", archive], check=True, capture_output=True)
    return True


def _healthy(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    connection.request("GET", "/healthz")
    return connection.getresponse().status == 200


# ---- What is in the cluster for them


def objects(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    """Return the path and the object of each: the API server's right to ask kubelets, and trust."""
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "sandbox-kubelet-api"},
        "roleRef": {
            "apiGroup": group,
            "kind": "ClusterRole",
            "name": "system:kubelet-api-admin",
        },
        "subjects": [{"kind": "User", "apiGroup": group, "name": "kube-apiserver"}],
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TRUST, "namespace": "kube-system"},
        "stringData": {
            "ca-bundle.crt": plan.ca_certificate.read_text(),
            "SSL_CERT_FILE": "/var/run/secrets/podidentity-proxy/ca-bundle.crt",
        },
    }
    return [
        (f"/apis/{group}/v1/clusterrolebindings", binding),
        ("/api/v1/namespaces/kube-system/secrets", secret),
    ]
