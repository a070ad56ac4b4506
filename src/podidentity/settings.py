"""What an operator can choose, as frozen values: flags and environment are read elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from podidentity.core.authorities import KNOWN_AUTHORITIES, PUBLIC, Authority, Cloud, Tenant
from podidentity.core.delegation import PROVIDERS
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.core.ids import ObjectRef

SERVE_UID = 64_912
"""User and group of `serve`: of no image and no package (Debian and Fedora give out less than
60000, systemd 61184 to 65519 on demand, but none that is in /etc/passwd of the node)."""


RUNTIME_DIR = "/run/podidentity"
"""Where `net` and `serve` meet, unless they are told."""
NET_SOCKET = "net.sock"
"""Name of the socket of `net`, in `runtime_dir`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compat:
    """Rules of the archived project that were changed, each to be had back; docs say why not."""

    cross_namespace: bool = False
    """Bindings and identities of other namespaces count."""
    foreign_secrets: bool = False
    """Secrets of other namespaces are read."""
    any_label_exceptions: bool = False
    """One label of an exception is enough, whatever its case."""
    text_errors: bool = False
    """Errors are plain text, with the old statuses."""
    tenant_array: bool = False
    """An identity with auxiliary tenants is answered with an array, a token a tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NmiSettings:
    """Settings of the node agent; defaults as those of the archived project where it had them."""

    node: str
    """Name of this node, as Kubernetes knows it; only its pods are watched."""
    kubeconfig: str | None = None
    """Path of a kubeconfig. None: the pod's service account, else `~/.kube/config`."""

    listen_address: str = "127.0.0.1"
    """IPv4 address that intercepted connections are redirected to."""
    listen_port: int = 2579
    """Port beside it."""
    metadata_address: str = "169.254.169.254"
    """Where pods look for IMDS, and where we ask the real one."""
    metadata_port: int = 80
    """Port beside it."""
    probe_port: int = 8080
    """Port of `/healthz` and `/readyz`, on all addresses; the manifests say 8085."""

    standard: bool = False
    """Wait for a controller's AzureAssignedIdentity (`--operation-mode=standard`)."""
    only_own_records: bool = True
    """Watch only those that are labelled with this node's name (`--enableScaleFeatures`)."""
    unseen_wait: float = 80.0
    """Seconds that a request waits for a controller that has not begun."""
    begun_wait: float = 100.0
    """Seconds that it waits for one that has."""
    exception_namespaces: frozenset[str] | None = frozenset({"kube-system"})
    """Where an AzurePodIdentityException has effect; None: everywhere."""
    hold: float = 8.0
    """Seconds after a change within which a request waits for a binding or an identity. az never
    asks twice, and some clients give up after 10 s."""
    ambiguous: Literal["weight", "reject"] = "weight"
    """What a request without an id gets where the pod has several identities."""
    retry_after_header: bool = False
    """Answer 503 with Retry-After, not 404, where nothing is bound (`--set-retry-after-header`)."""
    metadata_header_required: bool = True
    """Refuse requests without `Metadata: true`, as IMDS does. Off, a pod that fetches URLs for
    others can be made to fetch a token."""
    metadata_allow: tuple[str, ...] = ("/metadata/versions", "/metadata/instance")
    """Metadata paths that pods may read, each with all below it; user data only by name."""
    block_instance_metadata: bool = False
    """Refuse `/metadata/instance` in spite of `metadata_allow`."""

    authorization: Literal["rbac", "observe", "off"] = "rbac"
    """What it does where RBAC does not let the pod's service account use an identity."""
    authorization_outlives: float = 12 * 3600.0
    """Seconds that RBAC's last answer stands while the API server cannot be asked: a night."""
    attestation: Literal["kernel", "address"] = "kernel"
    """What proves a caller: the kernel's word on its socket, or only its address."""
    host_token: Literal["pod", "root"] = "pod"  # noqa: S105 - a choice
    """Who may ask for tokens of other pods at `/host/token`: pods of `host_token_callers`, or
    also root of the node."""
    host_token_callers: tuple[ObjectRef, ...] = PROVIDERS
    """Service accounts: those of the Secrets Store CSI driver's Azure provider."""
    netns_dir: str = "/run/netns"
    """Where the container runtime mounts the pods' network namespaces."""
    cgroup_root: str = "/sys/fs/cgroup"
    """Where the host's cgroup v2 is mounted."""
    proc_sys_net: str = "/proc/sys/net"
    """Where the node's own is mounted, writable: a container's is read-only, and nothing can be
    mounted over it (https://github.com/opencontainers/runc/issues/2826)."""
    on_exit: Literal["keep", "remove"] = "keep"
    """Whether the interception outlives the agent. Removed, pods reach the real IMDS, and with it
    every identity of the node."""

    runtime_dir: str = ""
    """Where `net` and `serve` meet, and their probes ask; "": `RUNTIME_DIR`."""
    handover_dir: str = ""
    """Folder of the node in which an agent takes over from the one before it; "": none."""
    memory_limit: int = 0
    """Bytes that the container of `serve` may hold; the worker is replaced before. 0: none."""

    cloud: Cloud = PUBLIC
    """Where identities of type 1, 2 and 3 belong that name no authority."""
    authorities: frozenset[Authority] = KNOWN_AUTHORITIES
    """Where an AzureIdentity's secret may be sent."""
    tenant: Tenant | None = None
    """Of service accounts that are annotated with a client id and no tenant."""
    identities_namespace: str = IDENTITIES_NAMESPACE
    """Where the service accounts are that stand for federated identities."""

    compat: Compat = field(default_factory=Compat)
    """Old rules that are on."""

    prefetch: Literal["auto", "off"] | tuple[str, ...] = "auto"
    """Audiences whose tokens are fetched for pods that are new on the node, before they ask; auto:
    those that were asked for on this node, else the resource manager's and the vaults'."""

    log_format: Literal["text", "json"] = "text"
    """Lines for people or for machines."""
    audit_log: str = ""
    """File of the audit records, `-` for stdout; "": none are written."""
    audit_required: bool = False
    """Give no token while the audit log cannot be written."""
    prometheus_port: int = 9090
    """Port of `/metrics`, on all addresses; 0: none."""
    debug_port: int = 0
    """Port of `/debug` on loopback; 0: none."""
    verbose: bool = False
    """Log what only developers want to know."""
    custom_user_agent: str = ""
    """Added to the User-Agent of what we ask others."""
