"""The settings of the agent and of the controller. Each is written here, and nowhere else.

A field holds its flag, its help, its environment variable and its default. The options of
`podidentity nmi` and `podidentity mic` and the tables of flags in docs/reference/nmi.md and mic.md
are generated from the fields (`scripts/reference` writes the tables, and a test compares them).
Values that depend on several flags are properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from functools import partial
from typing import Any, Literal

from podidentity.core.attestation import AttestationMode
from podidentity.core.authorities import KNOWN_AUTHORITIES, PUBLIC, Cloud
from podidentity.core.data_path import Backend
from podidentity.core.decision import Ambiguity, Authorization
from podidentity.core.delegation import PROVIDERS
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.core.flag_values import parse_duration, parse_taint_key
from podidentity.core.resources import (
    OBJECT_NAME,
    Authority,
    ClientId,
    InvalidId,
    ObjectRef,
    Tenant,
    parse_audience,
)

SERVE_UID = 64_912
"""User and group of `serve`. No image and no package uses it: Debian and Fedora assign ids below
60000, systemd 61184 to 65519 on demand, but none that is in /etc/passwd of the node."""

METADATA_ALLOWED = ("/metadata/versions", "/metadata/instance")
"""Paths of IMDS that pods may read, if the operator names none."""

EVERYWHERE = "*"
"""In `--exception-namespaces`: all of them."""

Kind = Literal["text", "switch", "number", "seconds"]
"""Syntax of a value; `switch` is a boolean of pflag."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """The flag of a setting."""

    names: tuple[str, ...]
    text: str
    """Its help, in Markdown."""
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    """Returns the value of a text; raises ValueError."""
    repeated: bool = False
    envvar: str = ""
    metavar: str = ""
    shown: str = ""
    """The default as people write it, if that is not the value's own text."""


def option(default: Any, names: str, text: str, **more: Any) -> Any:  # noqa: ANN401
    """Return the field of a setting that has a flag; `more` are fields of `Flag`.

    The default of a switch is a boolean, of a number an integer, of a choice one of an enum.
    """
    if isinstance(default, StrEnum):
        more |= {"choices": tuple(type(default)), "parse": type(default)}
    elif isinstance(default, int) and "parse" not in more:
        more["kind"] = "switch" if isinstance(default, bool) else "number"
    return field(
        default=default, metadata={"flag": Flag(names=tuple(names.split()), text=text, **more)}
    )


def _parse_authorities(text: str) -> frozenset[Authority]:
    return frozenset(Authority.parse(each) for each in text.split(",") if each.strip())


def _parse_names(text: str) -> frozenset[str]:
    return frozenset(each.strip() for each in text.split(",") if each.strip())


def _parse_audiences(text: str) -> Literal["auto", "off"] | tuple[str, ...]:
    """Return `auto`, `off`, or the comma-separated audiences in `text`; raise ValueError."""
    if text in {"auto", "off"}:
        return "auto" if text == "auto" else "off"
    try:
        return tuple(dict.fromkeys(parse_audience(each) for each in text.split(",")))
    except InvalidId as error:
        raise ValueError(f"{text!r}: {error}") from error


def _parse_startup_taint(text: str) -> str:
    return parse_taint_key(text) if text else ""


def _parse_class_proof(text: str) -> tuple[str, AttestationMode]:
    """Return the runtime class and the mode in `CLASS=MODE`; raise ValueError."""
    name, _, mode = text.partition("=")
    weaker = (AttestationMode.NAMESPACE, AttestationMode.ADDRESS)
    if not OBJECT_NAME.fullmatch(name) or mode not in weaker:
        raise ValueError(f"{text!r} is not CLASS=namespace or CLASS=address")
    return name, AttestationMode(mode)


def _parse_level(text: str) -> int:
    """Return the number of klog's `-v=4`, `-v 4` or `--v=4`; raise ValueError."""
    digits = text.lstrip("=")
    if not digits.isdecimal():
        raise ValueError(f"{text!r} is no number")
    return int(digits)


def _parse_client_ids(text: str) -> frozenset[ClientId]:
    return frozenset(ClientId.parse(each) for each in text.split(",") if each.strip())


_SHORTEST_LEASE = 3


def _parse_lease_duration(text: str) -> float:
    """Return whole seconds: a Lease holds no parts of one; raise ValueError."""
    seconds = parse_duration(text)
    if seconds < _SHORTEST_LEASE or seconds != int(seconds):
        raise ValueError(f"{text!r} must be whole seconds, {_SHORTEST_LEASE} at least")
    return seconds


RUNTIME_DIR = "/run/podidentity"
"""Default folder of the sockets between `net` and `serve`."""
NET_SOCKET = "net.sock"
"""Name of the socket of `net`, in `runtime_dir`."""
NET_FOLDER, SERVE_FOLDER = "net", "serve"
"""Names of the folders in `handover_dir`: that of `net` is closed to `serve`."""


# ---- Flags that NMI and MIC have alike

_kubeconfig = partial(
    option,
    None,
    "--kubeconfig",
    "Kubeconfig file. Default: the pod's service account.",
    envvar="KUBECONFIG",
)
_force_namespaced = partial(
    option,
    False,
    "--forceNamespaced",
    "No effect: pod, binding and identity always share a namespace, unless "
    "`--compat-cross-namespace`.",
    envvar="FORCENAMESPACED",
)
_outlives = partial(
    option,
    12 * 3600.0,
    "--authorization-outlives",
    "How long the last decision of RBAC counts while the API server is away.",
    parse=parse_duration,
    metavar="DURATION",
    shown="12h",
)
_environment_file = partial(
    option,
    "",
    "--azure-environment-file",
    "JSON file that describes an Azure Stack Hub, for `--cloud=AzureStackCloud`.",
    envvar="AZURE_ENVIRONMENT_FILEPATH",
)
_log_format = partial(
    option,
    "text",
    "--log-format",
    "Log lines for people or for programs.",
    choices=("text", "json"),
)
_verbosity = partial(
    option, 0, "-v --v", "Verbosity; from 4 on more is logged.", parse=_parse_level
)
_user_agent = partial(option, "", "--custom-user-agent", "Appended to the User-Agent.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compat:
    """Flags that bring rules of the archived project back.

    docs/reference/compatibility.md describes the risk of each.
    """

    cross_namespace: bool = option(
        False,
        "--compat-cross-namespace",
        "As before: bindings and identities of other namespaces count.",
    )
    foreign_secrets: bool = option(
        False, "--compat-foreign-secrets", "As before: secrets of other namespaces are read."
    )
    any_label_exceptions: bool = option(
        False,
        "--compat-any-label-exceptions",
        "As before: one label of an AzurePodIdentityException is enough, in any case.",
    )
    text_errors: bool = option(
        False, "--compat-text-errors", "As before: errors are plain text, with the old statuses."
    )
    tenant_array: bool = option(
        False,
        "--compat-tenant-array",
        "As before: the answer for an identity with `auxiliaryTenantIDs` is an array with a "
        "token for each tenant.",
    )
    open_metrics: bool = option(
        False,
        "--compat-open-metrics",
        "As before: `/metrics` on `--prometheus-port`, which every pod can read, contains "
        "namespaces and audiences.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NmiSettings:
    """Settings of the node agent; defaults as those of the archived project where it had them."""

    node: str = option(MISSING, "--node", "Name of this node in Kubernetes. Required.")
    kubeconfig: str | None = _kubeconfig()

    listen_address: str = option(
        "127.0.0.1",
        "--nmi-listen-address",
        "Address to which pods' requests are redirected: one of the node, for Cilium's local "
        "redirect policy, or a link-local one, which is added to `lo` and guarded. With a "
        "loopback address pods are redirected to 169.254.25.79, and only `/host/token` is served "
        "at the loopback address. 0.0.0.0: as 127.0.0.1, on all addresses.",
    )
    listen_port: int = option(2579, "--nmi-port", "Port at these addresses.")
    backend: Backend = option(
        Backend.NFTABLES,
        "--backend",
        "What leads pods' requests to NMI. `nftables`: rules of the node. `lrp`: [Cilium's local "
        "redirect policy](#ciliums-local-redirect-policy), for nodes where packets pass the "
        "rules; NMI listens at the address of `--host-ip`, too, and the rules stay. `podidentity "
        "enable --backend=lrp` makes the policy.",
    )
    host_ip: str = option(
        "",
        "--host-ip",
        "IPv4 address of the node. Without effect unless with `--backend=lrp`.",
        envvar="HOST_IP",
    )
    metadata_address: str = option("169.254.169.254", "--metadata-ip", "Address of IMDS.")
    metadata_port: int = option(80, "--metadata-port", "Port of IMDS.")
    probe_port: int = option(
        8080,
        "--http-probe-port",
        "Port of `/healthz` and `/readyz`, on all addresses; 8085 in the manifest.",
    )

    operation_mode: Literal["standard", "managed"] = option(
        "standard",
        "--operation-mode",
        "`managed`: identities are attached to the node's machines already. `standard`: "
        "[MIC](mic.md) attaches them and records it in AzureAssignedIdentities; requests wait for "
        "the record.",
        choices=("standard", "managed"),
    )
    force_namespaced: bool = _force_namespaced()
    only_own_records: bool = option(
        True,
        "--enableScaleFeatures",
        "Standard mode: watch only AzureAssignedIdentities with the label `nodename=NODE`.",
    )
    retry_attempts_for_created: int = option(
        16,
        "--retry-attempts-for-created",
        "Standard mode: a request waits so many times `--find-identity-retry-interval` for a "
        "controller that has not begun.",
    )
    retry_attempts_for_assigned: int = option(
        4,
        "--retry-attempts-for-assigned",
        "Standard mode: so many times more once the controller has begun.",
    )
    find_identity_retry_interval: int = option(
        5,
        "--find-identity-retry-interval",
        "Seconds. It only sets how long a request waits: changes are noticed at once.",
    )
    exceptions_in: frozenset[str] = option(
        frozenset(),
        "--exception-namespaces",
        "Namespaces in which AzurePodIdentityExceptions have effect; `*`: all, as before.",
        parse=_parse_names,
        metavar="NAMESPACE,…",
        shown="kube-system and its own",
    )
    own_namespace: str = option(
        "kube-system", "--own-namespace", "The agent's own namespace.", envvar="POD_NAMESPACE"
    )
    own_pod: str = option(
        "",
        "--own-pod",
        "The agent's own pod. The agent writes its lasting warnings there as events, which "
        "`podidentity check` reads; without this setting it writes none.",
        envvar="POD_NAME",
    )
    hold: float = option(
        8.0,
        "--hold",
        "Seconds that a request waits for a binding or an identity after a change. az never "
        "retries, and some clients give up after 10.",
        kind="seconds",
    )
    ambiguous: Ambiguity = option(
        Ambiguity.WEIGHT,
        "--ambiguous",
        "Answer to a request without an id if the pod has several identities: that of the "
        "heaviest binding (`weight`), or an error (`reject`).",
    )
    retry_after_header: bool = option(
        False,
        "--set-retry-after-header",
        "Answer 503 with `Retry-After` instead of 404 if no identity is bound to the pod.",
    )
    metadata_header_required: bool = option(
        True,
        "--metadata-header-required",
        "Refuse requests without `Metadata: true`, as IMDS does. If off, an attacker can get a "
        "token from a pod that fetches URLs for others.",
    )
    metadata_allow: tuple[str, ...] = option(
        METADATA_ALLOWED,
        "--metadata-allow",
        "A metadata path that pods may read, with all paths below it; user data must be named "
        "explicitly.",
        repeated=True,
        metavar="PATH",
    )
    block_instance_metadata: bool = option(
        False,
        "--block-instance-metadata",
        "Refuse `/metadata/instance` even if `--metadata-allow` names it.",
    )

    authorization: Authorization = option(
        Authorization.RBAC,
        "--authorization",
        "Effect of a missing [permission](cli.md#podidentity-grant-podidentity-revoke) to use an "
        "identity. `rbac`: the request is refused; `observe`: it is only reported; `off`: "
        "permissions are not checked, and a tenant that may create an AzureIdentity may use any "
        "identity.",
    )
    authorization_outlives: float = _outlives()
    attestation: AttestationMode = option(
        AttestationMode.KERNEL,
        "--attestation",
        "[Proof of the caller](#who-is-asking). `kernel`: its socket, and the pod of the "
        "socket's cgroup (v2). `namespace`: its socket, in the only network namespace with its "
        "address; for nodes with cgroup v1 only. `address`: no proof; any pod can take the tokens "
        "of another. If the chosen proof is not possible, the agent is not ready.",
    )
    trusted_proxies: tuple[ObjectRef, ...] = option(
        (),
        "--trusted-proxies",
        "Service account of a [proxy](#behind-a-proxy) that makes the pods' connections in their "
        "own network namespaces, as ztunnel of Istio's ambient mesh does.",
        repeated=True,
        parse=ObjectRef.parse,
        metavar="NAMESPACE/ACCOUNT",
        shown="none",
    )
    attestation_by_runtime_class: tuple[tuple[str, AttestationMode], ...] = option(
        (),
        "--attestation-by-runtime-class",
        "[Weaker proof](#pods-with-a-kernel-of-their-own) of pods of a runtime class, whose "
        "connections are no process's of the node, as Kata's: the only network namespace with "
        "their address, or nothing but the address (gVisor).",
        repeated=True,
        parse=_parse_class_proof,
        metavar="CLASS=namespace|address",
        shown="none",
    )
    source_guard: Literal["on", "off"] = option(
        "on",
        "--source-guard",
        "Whether pods on bridges may send with [their addresses](#whose-address-it-is) only. "
        "`off` is for pods that need addresses of others: each connection then ends after one "
        "answer, because a pod can take over that of its neighbour.",
        choices=("on", "off"),
    )
    path_probe: bool = option(
        False,
        "--path-probe",
        "Whether the manifest has a [probe pod](#the-probe): the agent is ready only if requests "
        "from there arrive at it. Without this flag nothing notices a data plane that passes the "
        "rules, and the agent warns of that.",
    )
    host_token: Literal["pod", "root", "off"] = option(
        "pod",
        "--host-token",
        "Callers that may request tokens of other pods at `/host/token`. `pod`: pods of "
        "`--host-token-callers`; `root`: also root processes of the node, for nodes without "
        "cgroups of pods; `off`: nobody, and 127.0.0.1 is left to another program.",
        choices=("pod", "root", "off"),
    )
    host_token_callers: tuple[ObjectRef, ...] = option(
        PROVIDERS,
        "--host-token-callers",
        "Service account of a Secrets Store CSI provider.",
        repeated=True,
        parse=ObjectRef.parse,
        metavar="NAMESPACE/NAME",
    )
    netns_dirs: tuple[str, ...] = option(
        ("/run/netns",),
        "--netns-dir",
        "Folder in which a runtime mounts the pods' network namespaces.",
        repeated=True,
        metavar="FOLDER",
    )
    cgroup_root: str = option(
        "/sys/fs/cgroup", "--cgroup-root", "Mount point of the host's cgroup v2."
    )
    startup_taint: str = option(
        "",
        "--startup-taint",
        "Key of a taint with which nodes start: the agent takes it off its own node when it is "
        "[ready](../how-to/close-the-boot-window.md). It needs the right that `enable "
        "--startup-taint` gives. Default: none.",
        parse=_parse_startup_taint,
        metavar="KEY",
    )
    on_exit: Literal["keep", "remove", "close"] = option(
        "keep",
        "--on-exit",
        "Whether the rules stay on the node after the agent has ended. Without them pods reach "
        "every identity of the node. With `close` those go that lead pods to the agent, and those "
        "stay that close IMDS: another NMI [can follow](#the-end-of-nmi).",
        choices=("keep", "remove", "close"),
    )
    runtime_dir: str = option(
        "",
        "--runtime-dir",
        "Folder of the sockets between `net`, `serve` and their probes. Default: "
        "/run/podidentity, or a new one with `podidentity nmi`.",
        metavar="FOLDER",
    )
    handover_dir: str = option(
        "",
        "--handover-dir",
        "Folder of the node through which an agent [takes over](#updates) from the one before "
        "it. Default: none, and an update interrupts requests.",
        metavar="FOLDER",
    )
    memory_limit: int = option(
        0,
        "--memory-limit",
        "Memory limit of the container of `serve`: its worker is replaced at three quarters of "
        "it. 0: no limit.",
        metavar="BYTES",
        envvar="MEMORY_LIMIT",
    )

    cloud: Cloud = option(
        PUBLIC,
        "--cloud",
        "Cloud of identities of type 1, 2 and 3 without `adEndpoint`: AzurePublicCloud, "
        "AzureUSGovernmentCloud, AzureChinaCloud, or AzureStackCloud with "
        "`--azure-environment-file`.",
        envvar="AZURE_ENVIRONMENT",
        metavar="NAME",
        shown=PUBLIC.name,
    )
    """The command line has its name; `cli.nmi.settings_from` makes it a Cloud."""
    environment_file: str = _environment_file()
    more_authorities: frozenset[Authority] = option(
        frozenset(),
        "--authorities",
        "Authorities beside Microsoft's that an AzureIdentity's `adEndpoint` may name: secrets "
        "are sent there.",
        parse=_parse_authorities,
        metavar="URL,URL",
    )
    tenant: Tenant | None = option(
        None,
        "--tenant-id",
        "Tenant of annotated service accounts that name a client id but no tenant.",
        parse=Tenant.parse,
        metavar="GUID|DOMAIN",
    )
    identities_namespace: str = option(
        IDENTITIES_NAMESPACE,
        "--identities-namespace",
        "Namespace of the service accounts that stand for federated identities (`subject: "
        "identity`).",
    )

    tokens_as: Literal["agent", "node"] = option(
        "agent",
        "--tokens-as",
        "As whom NMI asks for [tokens of pods' service accounts](#tokens-of-service-accounts). "
        "`agent`: by its own right; `node`: as its own node, by constrained impersonation "
        "(Kubernetes 1.36), so that tokens of other nodes' pods are not to be had. `podidentity "
        "enable` chooses.",
        choices=("agent", "node"),
    )

    compat: Compat = field(default_factory=Compat)
    """Rules of the archived project that are on."""

    prefetch: Literal["auto", "off"] | tuple[str, ...] = option(
        "off",
        "--prefetch",
        "Audiences of tokens that are fetched for a new pod before its first request. `auto`: "
        "those that pods with its identity requested on this node, else those of the resource "
        "manager and of vaults.",
        parse=_parse_audiences,
        metavar="auto|off|AUDIENCE,…",
    )

    log_format: Literal["text", "json"] = _log_format()
    audit_log: str = option(
        "",
        "--audit-log",
        "File for a JSON line about each decision on a token; `-`: stdout. Default: none.",
        metavar="PATH",
    )
    audit_required: bool = option(
        False,
        "--audit-required",
        "Answer 503 instead of a token while the audit log cannot be written.",
    )
    prometheus_port: int = option(
        9090,
        "--prometheus-port",
        "Port of `/metrics` on all addresses, without labels that name a tenant; 0: none.",
    )
    metrics_secure_port: int = option(
        0,
        "--metrics-secure-port",
        "TLS port of the complete `/metrics` and of `/debug` on all addresses, for callers that "
        "RBAC lets `get` that path; 9447 in the manifest; 0: none.",
    )
    metrics_cert_file: str = option(
        "",
        "--metrics-cert-file",
        "Certificate of that port with its chain, PEM; reloaded after changes. Default: a "
        "self-signed one, made at the start.",
        metavar="PATH",
    )
    metrics_key_file: str = option("", "--metrics-key-file", "Its key, PEM.", metavar="PATH")
    debug_port: int = option(
        0,
        "--debug-port",
        "Port of `/debug` on loopback, for programs of the node: the agent's state, without "
        "secrets; 0: none.",
    )
    verbosity: int = _verbosity()
    custom_user_agent: str = _user_agent()

    def __post_init__(self) -> None:
        if not self.node:
            raise ValueError("--node is required: the name of the node that this runs on.")
        if self.force_namespaced and self.compat.cross_namespace:
            raise ValueError(
                "--forceNamespaced and --compat-cross-namespace contradict each other."
            )
        if bool(self.metrics_cert_file) != bool(self.metrics_key_file):
            raise ValueError("--metrics-cert-file and --metrics-key-file need each other.")

    @property
    def standard(self) -> bool:
        return self.operation_mode == "standard"

    @property
    def unseen_wait(self) -> float:
        """Seconds that a request waits for a controller that has not begun."""
        return float(self.retry_attempts_for_created * self.find_identity_retry_interval)

    @property
    def begun_wait(self) -> float:
        """Seconds that a request waits for a controller that has begun."""
        attempts = self.retry_attempts_for_created + self.retry_attempts_for_assigned
        return float(attempts * self.find_identity_retry_interval)

    @property
    def exception_namespaces(self) -> frozenset[str] | None:
        """Namespaces in which an AzurePodIdentityException has effect; None: all."""
        if EVERYWHERE in self.exceptions_in:
            return None
        return self.exceptions_in or frozenset({"kube-system", self.own_namespace})

    @property
    def authorities(self) -> frozenset[Authority]:
        return KNOWN_AUTHORITIES | {self.cloud.authority} | self.more_authorities

    @property
    def verbose(self) -> bool:
        return self.verbosity >= 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MicSettings:
    """Settings of the controller; defaults as those of the archived project where it had them."""

    kubeconfig: str | None = _kubeconfig()
    own_namespace: str = option(
        "",
        "--own-namespace",
        "MIC's own namespace, where its ledgers are. Required, as before.",
        envvar="MIC_POD_NAMESPACE",
    )
    own_pod: str = option(
        "",
        "--own-pod",
        "MIC's own pod. The leader writes there as events what keeps it from working in Azure, "
        "which `podidentity check` reads; without this setting it writes none.",
        envvar="MIC_POD_NAME",
    )
    own_pod_uid: str = option(
        "",
        "--own-pod-uid",
        "Its uid, by which `kubectl describe` finds these events.",
        envvar="MIC_POD_UID",
    )

    assign: Literal["pods", "all-hosts", "none"] = option(
        "pods",
        "--assign",
        "To which machines MIC attaches identities. `pods`: to those with a pod that needs one "
        "(standard mode). `all-hosts`: all that are bound, to every machine of the cluster, new "
        "ones too (managed mode). `none`: to none; MIC writes conditions only, and needs no right "
        "in Azure.",
        choices=("pods", "all-hosts", "none"),
    )
    node_network: bool = option(
        False,
        "--attach-for-node-network",
        "Attach identities for pods with `hostNetwork`, too, whose service account may use them; "
        "with `--authorization=rbac` alone. NMI does not stand between such a pod and IMDS: it "
        "[reaches all identities of its machine]"
        "(../security.md#what-it-does-not-protect-from-today).",
    )
    detach_grace: float = option(
        300.0,
        "--detach-grace",
        "How long an identity that MIC attached stays after the last pod that needed it; `0s`: "
        "detached at once, as before.",
        parse=parse_duration,
        metavar="DURATION",
        shown="5m",
    )
    immutable: frozenset[ClientId] = option(
        frozenset(),
        "--immutable-user-msis",
        "Client ids of identities that are never detached.",
        parse=_parse_client_ids,
        metavar="CLIENT-ID,…",
    )
    reconcile_interval: float = option(
        180.0,
        "--identity-assignment-reconcile-interval",
        "How often the machines are read, by one list a resource group, to attach again what "
        "somebody else detached.",
        parse=parse_duration,
        metavar="DURATION",
        shown="3m",
    )
    writes_at_once: int = option(
        20, "--createDeleteBatch", "Writes to the API server that are under way at once."
    )

    authorization: Authorization = option(
        Authorization.RBAC,
        "--authorization",
        "Effect of a missing [permission](cli.md#podidentity-grant-podidentity-revoke) to use an "
        "identity; NMI has the same flag. `rbac`: the identity is not attached for the pod; "
        "`observe` and `off`: it is.",
    )
    authorization_outlives: float = _outlives()
    exceptions_in: frozenset[str] = option(
        frozenset(),
        "--exception-namespaces",
        "NMI's flag of this name: conditions of AzurePodIdentityExceptions say by it whether "
        "they have effect.",
        parse=_parse_names,
        metavar="NAMESPACE,…",
        shown="kube-system and its own",
    )
    force_namespaced: bool = _force_namespaced()
    cross_namespace: bool = option(
        False,
        "--compat-cross-namespace",
        "As before: bindings and identities of other namespaces count; NMI has the same flag.",
    )

    lease_holder: str = option(
        "",
        "--leader-election-instance",
        "Name of this replica in the Lease.",
        shown="the host's name",
    )
    lease_namespace: str = option(
        "default",
        "--leader-election-namespace",
        "Namespace of the Lease, and of the lock of an archived controller.",
    )
    lease_name: str = option("aad-pod-identity-mic", "--leader-election-name", "Name of both.")
    lease_duration: float = option(
        15.0,
        "--leader-election-duration",
        "How long another replica waits for a leader that is silent; whole seconds, 3 at least.",
        parse=_parse_lease_duration,
        metavar="DURATION",
        shown="15s",
    )

    cloud_config: str = option(
        "",
        "--cloudconfig",
        "Configuration of the cloud provider, as AKS has it in /etc/kubernetes/azure.json on its "
        "nodes; read again when it is replaced. Default: none, and the variables below count.",
        metavar="PATH",
    )
    cloud: str = option(
        "",
        "--cloud",
        "AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, or AzureStackCloud with "
        "`--azure-environment-file`. That of `--cloudconfig` counts before it.",
        envvar="CLOUD",
        metavar="NAME",
        shown=PUBLIC.name,
    )
    environment_file: str = _environment_file()
    token_file: str = option(
        "",
        "--federated-token-file",
        "Token of MIC's own service account, to sign in by federation, without a secret.",
        envvar="AZURE_FEDERATED_TOKEN_FILE",
        metavar="PATH",
    )
    client_id: str = option(
        "",
        "--azure-client-id",
        "Client id to sign in with, by federation or by the secret in `CLIENT_SECRET`, for which "
        "there is no flag.",
        envvar="CLIENT_ID",
    )
    tenant: str = option("", "--azure-tenant-id", "Tenant to sign in to.", envvar="TENANT_ID")
    managed_identity: bool = option(
        False,
        "--use-managed-identity",
        "Sign in by a managed identity of the node. MIC's pods need an AzurePodIdentityException "
        "then, which `podidentity enable --mic` makes.",
        envvar="USE_MSI",
    )
    managed_client_id: str = option(
        "",
        "--managed-identity-client-id",
        "Client id of that identity. Default: the system-assigned one.",
        envvar="USER_ASSIGNED_MSI_CLIENT_ID",
    )

    probe_port: int = option(
        8080, "--http-probe-port", "Port of `/healthz` and `/readyz`, on all addresses."
    )
    prometheus_port: int = option(
        8888, "--prometheus-port", "Port of `/metrics`, on all addresses; 0: none."
    )
    log_format: Literal["text", "json"] = _log_format()
    verbosity: int = _verbosity()
    custom_user_agent: str = _user_agent()

    def __post_init__(self) -> None:
        if not OBJECT_NAME.fullmatch(self.own_namespace):
            # As the archived controller, which ended so.
            raise ValueError(
                "namespace not specified. Please add metadata.namespace as env variable "
                "MIC_POD_NAMESPACE."
            )
        if self.node_network and self.authorization is not Authorization.RBAC:
            raise ValueError("--attach-for-node-network needs --authorization=rbac.")

    @property
    def exception_namespaces(self) -> frozenset[str] | None:
        """Namespaces in which an AzurePodIdentityException has effect; None: all."""
        if EVERYWHERE in self.exceptions_in:
            return None
        return self.exceptions_in or frozenset({"kube-system", self.own_namespace})

    @property
    def verbose(self) -> bool:
        return self.verbosity >= 4


Setting = tuple[str, Flag, Any]
"""Name of the parsed value, its flag, and its default (None if the flag is required)."""


def settings_flags(
    settings: type[NmiSettings | MicSettings] = NmiSettings,
) -> Iterator[Setting]:
    """Yield every setting that has a flag; those of `Compat` under `compat_NAME`."""
    for each in fields(settings):
        if each.name == "compat":
            yield from (_setting(one, "compat_") for one in fields(Compat))
        elif "flag" in each.metadata:
            yield _setting(each, "")


def _setting(found: Field[Any], prefix: str) -> Setting:
    default = None if found.default is MISSING else found.default
    return f"{prefix}{found.name}", found.metadata["flag"], default


@dataclass(frozen=True, slots=True)
class OldFlag:
    """A flag of the archived project, or of an earlier release, that has no effect."""

    name: str
    text: str
    switch: bool = False
    """Whether it needs no value, as a pflag boolean."""


def _old(names: str, why: str = "", *, switch: bool = False) -> list[OldFlag]:
    text = f"Accepted for old manifests; no effect. {why}".rstrip()
    return [OldFlag(each, text, switch) for each in names.split()]


_ARCHIVED = (
    *_old("enableProfile", switch=True),
    *_old(
        "logtostderr alsologtostderr skip_headers skip_log_headers add_dir_header one_output",
        switch=True,
    ),
    *_old("log_dir log_file log_file_max_size log_backtrace_at stderrthreshold vmodule"),
)
OLD_FLAGS = (
    *_old("MICNamespace"),
    *_old("allow-network-plugin-kubenet", "Kubenet is supported: callers are proved.", switch=True),
    *_old("enable-conntrack-deletion", "Older connections are reset by the rules.", switch=True),
    *_old("ipt-update-interval-sec", "Changed rules are seen and repaired at once."),
    *_old("kubelet-config", "Kubenet is supported: callers are proved."),
    *_old("proc-sys-net", "No sysctl is set any more."),
    *_ARCHIVED,
)
OLD_FLAGS_OF_MIC = (
    *_old("enableScaleFeatures", "Records always have the label `nodename`.", switch=True),
    *_old("syncRetryDuration", "What has failed is tried again by itself, each for itself."),
    *_old("clientQps", "An API server that has too much to do says so, and is obeyed."),
    *_old(
        "update-user-msi-max-retry update-user-msi-retry-interval",
        "Wrong ids are taken out of a change in one round.",
    ),
    *_old(
        "enable-type-upgrade config-map-name type-upgrade-status-key",
        "Objects of releases before 1.6 are read in their spelling.",
    ),
    *_ARCHIVED,
)
