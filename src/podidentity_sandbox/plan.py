"""The plan of one sandbox: the values that all of its parts agree on, decided once at `up`.

It is written to `plan.json` in the sandbox's folder and read from there by each process. Addresses
are of a world of its own: they exist only in network namespaces that the sandbox made.

    Azure namespace ── 10.240.0.1 ── link of each node ── 10.240.0.4… node namespace
      169.254.169.254:80  IMDS                              a link to each pod, or cbr0 for all
      203.0.113.10:443    Entra, ARM, Key Vault               pods 10.244.N.0/24
      203.0.113.53:53     DNS
      203.0.113.6:443     the Kubernetes API server
      203.0.113.7:443     a real one itself, for nodes and controllers
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from podidentity_sandbox import __version__

IMDS_ADDRESS = "169.254.169.254"
AZURE_ADDRESS = "203.0.113.10"
DNS_ADDRESS = "203.0.113.53"
APISERVER_ADDRESS = "203.0.113.6"
KUBERNETES_ADDRESS = "203.0.113.7"
FABRIC_ADDRESS = "10.240.0.1"
KUBERNETES_SERVICE = "10.96.0.1"
"""A real API server for pods on real nodes: the first address of Services."""

ISSUER = "https://kubernetes.default.svc.cluster.local"
"""Of service accounts' tokens. It resolves, in the sandbox's world, to the API server, which serves
the discovery documents."""
JWKS_PATH = "/openid/v1/jwks"
OWN_AGENT = "podidentity-sandbox"
"""User-Agent by which the API server knows the sandbox's own commands."""
OWN_VERSION = "1.32.3"
"""What the sandbox's own API server says that it is."""

MACHINE_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # Alpine
)
"""Where the distributions keep the authorities that a machine trusts."""

_NAMES = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


def mac_of_bridge(gateway: str) -> str:
    """Return the MAC address that a bridge has for good; else it would be its lowest port's.

    Then it would change as pods come and go, and what others know of the gateway be wrong; so CNI's
    plugin sets one, too:
    https://github.com/containernetworking/plugins/blob/main/plugins/main/bridge/bridge.go
    """
    return "0a:58:" + ipaddress.ip_address(gateway).packed.hex(":")


def stable_guid(sandbox: str, what: str) -> str:
    """Return a GUID that is the same at each `up` of the sandbox of this name."""
    return str(uuid.uuid5(_NAMES, f"podidentity-sandbox/{sandbox}/{what}"))


def kubeconfig(
    cluster: Mapping[str, str], user: Mapping[str, str], *, name: str = "sandbox", who: str = ""
) -> dict[str, Any]:
    """Return a kubeconfig of one user; `name` is that of cluster and context, and `who` his."""
    who = who or name
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": dict(cluster)}],
        "users": [{"name": who, "user": dict(user)}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": who}}],
        "current-context": name,
    }


class OtherVersion(Exception):
    """The sandbox was brought up by another version of the program; the message says by which."""


class Network(StrEnum):
    """How a node's pods are joined to it."""

    ROUTED = "routed"
    """A link of its own for each pod, with a route to it: Azure CNI, its overlay, Calico."""
    BRIDGE = "bridge"
    """One bridge for all: kubenet."""


class PoolKind(StrEnum):
    """What the machines of a pool of nodes are in Azure."""

    UNIFORM = "uniform"
    """Instances of a Uniform scale set: what AKS makes unless it is told otherwise."""
    FLEXIBLE = "flexible"
    """Virtual machines that a Flexible scale set made."""
    MACHINES = "machines"
    """Virtual machines alone: pools of type VirtualMachines, and node auto-provisioning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool of nodes that is asked for."""

    kind: PoolKind
    nodes: int
    group: str = ""
    """Its resource group; "" for that of the cluster's nodes."""
    subscription: str = ""
    """Any name for another subscription than the cluster's; "" for that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """A node: a machine of a pool."""

    name: str
    index: int
    address: str
    """Its own address on the link to Azure."""
    pod_cidr: str
    """`10.244.N.0/24`."""
    gateway: str
    """Where its pods send what is not for themselves: the bridge's address, the first of
    `pod_cidr`; or 169.254.1.1, which no link has and each link answers for."""
    provider_id: str
    """`azure://`, and the ARM id of its machine."""
    token: str = field(repr=False)
    """Bearer token of its kubelet (user system:node:NAME, group system:nodes)."""
    network: Network = Network.ROUTED
    pool: str = "nodepool1"
    scale_set: str = ""
    """ARM id of the Flexible scale set that its machine belongs to; "" where there is none."""
    init_taints: str = ""
    """Taints with which its Node is made: `KEY=VALUE:EFFECT,…`, as AKS's initialization taints."""

    @property
    def is_instance(self) -> bool:
        """Whether its machine is an instance of a Uniform scale set."""
        return "/virtualMachineScaleSets/" in self.provider_id

    @property
    def socket(self) -> str:
        """File name, in the sandbox's folder, of the Unix socket of its kubelet."""
        return f"node-{self.index}.sock"

    @property
    def api_socket(self) -> str:
        """File name, in the sandbox's folder, of the socket of its kubelet's HTTP API."""
        return f"api-{self.index}.sock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that the parts of one sandbox must agree on."""

    name: str
    folder: str
    """Holds plan.json, kubeconfig, certificates, logs and sockets; mode 0700."""
    rootless: bool
    tenant_id: str
    subscription_id: str
    operator_id: str
    """Client id of the operator's service principal."""
    operator_secret: str = field(repr=False)
    admin_token: str = field(repr=False)
    """Bearer token of the cluster's administrator (group system:masters)."""
    nodes: tuple[NodePlan, ...]
    aks_token: str = field(default="", repr=False)
    """Bearer token by which AKS acts in its cluster (user aksService); "" where there is none."""
    apiserver_port: int = 0
    """On the host's loopback; chosen by the kernel at `up`."""
    azure_proxy_port: int = 0
    """On the host's loopback: an HTTP CONNECT proxy for Azure's names."""
    cgroup_root: str = ""
    """Folder in cgroup v2 where the nodes make their pods' cgroups; "" where there is none."""
    memory_root: str = ""
    """Folder in the cgroups with the memory controller, of v2 or v1; "" where there is none."""
    azure_cli: str = ""
    """Folder of the Azure CLI that scripts/setup-az made, for shells and pods; "" without it."""
    kubernetes_version: str = OWN_VERSION
    """What the API server, AKS and the nodes say that they are."""
    kubernetes: str = ""
    """Folder of the programs of a real control plane; "" where the sandbox's own serves."""
    real_nodes: bool = False
    """Whether kubelets of Kubernetes, containerd and kube-proxy are the nodes."""
    subscription_name: str = "My Azure Subscription"
    location: str = "westeurope"
    cluster_group: str = "aks-west-experimental"
    node_group: str = "aks-nodes-west-experimental"
    cluster_name: str = "aks-experimental"
    scale_set: str = "aks-nodepool1-12345678-vmss"

    @property
    def path(self) -> Path:
        return Path(self.folder)

    @property
    def kubeconfig(self) -> Path:
        return self.path / "kubeconfig"

    @property
    def apiserver_part(self) -> str:
        """The part of the sandbox that is its API server."""
        return "kube-apiserver" if self.kubernetes else "cluster"

    @property
    def apiserver_url(self) -> str:
        """The API server for nodes and for Azure, which no weather befalls."""
        return f"https://{KUBERNETES_ADDRESS if self.kubernetes else APISERVER_ADDRESS}"

    def person_token(self, object_id: str) -> str:
        """Return the bearer token of a principal of Entra in the cluster, by its object id."""
        proof = hmac.digest(self.aks_token.encode(), object_id.encode(), hashlib.sha256)
        return f"{object_id}.{proof.hex()}"

    @property
    def ca_certificate(self) -> Path:
        return self.path / "ca.crt"

    @property
    def administrator_files(self) -> tuple[Path, Path]:
        """The client certificate of a person in system:masters, PEM, and its key."""
        return self.path / "masterclient.crt", self.path / "masterclient.key"

    @property
    def kubelet_client_files(self) -> tuple[Path, Path]:
        """The certificate by which a real API server asks kubelets, PEM, and its key."""
        return self.path / "kubelet-client.crt", self.path / "kubelet-client.key"

    @property
    def front_proxy_files(self) -> tuple[Path, Path]:
        """The certificate by which a real API server knows its proxy, PEM, and its key."""
        return self.path / "front-proxy.crt", self.path / "front-proxy.key"

    def kubelet_files(self, node: NodePlan) -> tuple[Path, Path]:
        """The certificate by which a node's kubelet serves a real API server, PEM, and its key."""
        return self.path / f"kubelet-{node.index}.crt", self.path / f"kubelet-{node.index}.key"

    @property
    def ca_bundle(self) -> Path:
        """The machine's authorities and the sandbox's, PEM."""
        return self.path / "bundle.pem"

    @property
    def az_folder(self) -> Path:
        return self.path / "az"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def subscriptions(self) -> tuple[str, ...]:
        """The ids of all subscriptions, the cluster's first."""
        found = (self.subscription_id, *(node.provider_id.split("/")[4] for node in self.nodes))
        return tuple(dict.fromkeys(found))

    @property
    def scale_set_id(self) -> str:
        """ARM id of the scale set of the first pool, unless that is of another kind."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.node_group}"
            f"/providers/Microsoft.Compute/virtualMachineScaleSets/{self.scale_set}"
        )

    def cgroups_of(self, node: NodePlan) -> list[Path]:
        """Return the tops of a node's cgroups, v2's first; none where none may be made."""
        roots = dict.fromkeys((self.cgroup_root, self.memory_root))
        return [Path(root, node.name) for root in roots if root]

    def boot_script(self, node: NodePlan) -> Path:
        """Return the shell script that a node runs before its kubelet, if the file is there."""
        return self.path / f"boot-{node.index}.sh"

    def node(self, name: str) -> NodePlan:
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def save(self) -> None:
        """Write plan.json, readable by its owner only: it holds secrets of the sandbox."""
        path = self.path / "plan.json"
        path.touch(mode=0o600)
        made = {"version": __version__, **asdict(self)}
        path.write_text(json.dumps(made, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read plan.json of the sandbox in `folder`; raise FileNotFoundError or OtherVersion."""
        raw: dict[str, Any] = json.loads((folder / "plan.json").read_text())
        made = raw.pop("version", "an earlier version")
        if made != __version__:
            raise OtherVersion(f"it was made by {made}, and this is {__version__}")
        try:
            raw["nodes"] = tuple(
                NodePlan(**{**node, "network": Network(node["network"])}) for node in raw["nodes"]
            )
            return cls(**raw)
        except (KeyError, TypeError) as error:  # of one version that is still being worked on
            raise OtherVersion(f"its plan.json is another's: {error}") from error
