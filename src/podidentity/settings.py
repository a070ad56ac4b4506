"""The settings of the agent and of the controller. Each is written here, and nowhere else.

A field holds its flag, its help, its environment variable and its default. The options of
`podidentity nmi` and `podidentity mic` and the tables of flags in docs/reference/nmi.md and mic.md
are generated from the fields (`scripts/reference` writes the tables, and a test compares them).
Values that depend on several flags are properties.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
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


def flag(*names: str, text: str, **more: Any) -> Mapping[str, Flag]:  # noqa: ANN401 - Flag's own
    """Return the metadata of a field that has this flag; `more` are fields of `Flag`."""
    return {"flag": Flag(names=names, text=text, **more)}


def _parse_authorities(text: str) -> frozenset[Authority]:
    """Return the comma-separated authorities in `text`; raise ValueError."""
    return frozenset(Authority.parse(each) for each in text.split(",") if each.strip())


def _parse_names(text: str) -> frozenset[str]:
    """Return the comma-separated names in `text`."""
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
    """Return the key of a taint, or "" for none; raise ValueError."""
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
    """Return the comma-separated client ids in `text`; raise ValueError."""
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

_KUBECONFIG = flag(
    "--kubeconfig",
    envvar="KUBECONFIG",
    text="Kubeconfig file. Default: the pod's service account.",
)
_FORCE_NAMESPACED = flag(
    "--forceNamespaced",
    kind="switch",
    envvar="FORCENAMESPACED",
    text="No effect: pod, binding and identity always share a namespace, unless "
    "`--compat-cross-namespace`.",
)
_OUTLIVES = flag(
    "--authorization-outlives",
    parse=parse_duration,
    metavar="DURATION",
    shown="12h",
    text="How long the last decision of RBAC counts while the API server is away.",
)
_ENVIRONMENT_FILE = flag(
    "--azure-environment-file",
    envvar="AZURE_ENVIRONMENT_FILEPATH",
    text="JSON file that describes an Azure Stack Hub, for `--cloud=AzureStackCloud`.",
)
_LOG_FORMAT = flag(
    "--log-format", choices=("text", "json"), text="Log lines for people or for programs."
)
_VERBOSITY = flag("-v", "--v", parse=_parse_level, text="Verbosity; from 4 on more is logged.")
_USER_AGENT = flag("--custom-user-agent", text="Appended to the User-Agent.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compat:
    """Flags that bring rules of the archived project back.

    docs/reference/compatibility.md describes the risk of each.
    """

    cross_namespace: bool = field(
        default=False,
        metadata=flag(
            "--compat-cross-namespace",
            kind="switch",
            text="As before: bindings and identities of other namespaces count.",
        ),
    )
    foreign_secrets: bool = field(
        default=False,
        metadata=flag(
            "--compat-foreign-secrets",
            kind="switch",
            text="As before: secrets of other namespaces are read.",
        ),
    )
    any_label_exceptions: bool = field(
        default=False,
        metadata=flag(
            "--compat-any-label-exceptions",
            kind="switch",
            text="As before: one label of an AzurePodIdentityException is enough, in any case.",
        ),
    )
    text_errors: bool = field(
        default=False,
        metadata=flag(
            "--compat-text-errors",
            kind="switch",
            text="As before: errors are plain text, with the old statuses.",
        ),
    )
    tenant_array: bool = field(
        default=False,
        metadata=flag(
            "--compat-tenant-array",
            kind="switch",
            text="As before: the answer for an identity with `auxiliaryTenantIDs` is an array with "
            "a token for each tenant.",
        ),
    )
    open_metrics: bool = field(
        default=False,
        metadata=flag(
            "--compat-open-metrics",
            kind="switch",
            text="As before: `/metrics` on `--prometheus-port`, which every pod can read, contains "
            "namespaces and audiences.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NmiSettings:
    """Settings of the node agent; defaults as those of the archived project where it had them."""

    node: str = field(metadata=flag("--node", text="Name of this node in Kubernetes. Required."))
    kubeconfig: str | None = field(default=None, metadata=_KUBECONFIG)

    listen_address: str = field(
        default="127.0.0.1",
        metadata=flag(
            "--nmi-listen-address",
            text="Address to which pods' requests are redirected: one of the node, for Cilium's "
            "local redirect policy, or a link-local one, which is added to `lo` and guarded. With "
            "a loopback address pods are redirected to 169.254.25.79, and only `/host/token` is "
            "served at the loopback address. 0.0.0.0: as 127.0.0.1, on all addresses.",
        ),
    )
    listen_port: int = field(
        default=2579,
        metadata=flag("--nmi-port", kind="number", text="Port at these addresses."),
    )
    backend: Backend = field(
        default=Backend.NFTABLES,
        metadata=flag(
            "--backend",
            choices=tuple(Backend),
            parse=Backend,
            text="What leads pods' requests to NMI. `nftables`: rules of the node. `lrp`: "
            "[Cilium's local redirect policy](#ciliums-local-redirect-policy), for nodes where "
            "packets pass the rules; NMI listens at the address of `--host-ip`, too, and the rules "
            "stay. `podidentity enable --backend=lrp` makes the policy.",
        ),
    )
    host_ip: str = field(
        default="",
        metadata=flag(
            "--host-ip",
            envvar="HOST_IP",
            text="IPv4 address of the node. Without effect unless with `--backend=lrp`.",
        ),
    )
    metadata_address: str = field(
        default="169.254.169.254",
        metadata=flag("--metadata-ip", text="Address of IMDS."),
    )
    metadata_port: int = field(
        default=80, metadata=flag("--metadata-port", kind="number", text="Port of IMDS.")
    )
    probe_port: int = field(
        default=8080,
        metadata=flag(
            "--http-probe-port",
            kind="number",
            text="Port of `/healthz` and `/readyz`, on all addresses; 8085 in the manifest.",
        ),
    )

    operation_mode: Literal["standard", "managed"] = field(
        default="standard",
        metadata=flag(
            "--operation-mode",
            choices=("standard", "managed"),
            text="`managed`: identities are attached to the node's machines already. `standard`: "
            "[MIC](mic.md) attaches them and records it in AzureAssignedIdentities; requests wait "
            "for the record.",
        ),
    )
    force_namespaced: bool = field(default=False, metadata=_FORCE_NAMESPACED)
    only_own_records: bool = field(
        default=True,
        metadata=flag(
            "--enableScaleFeatures",
            kind="switch",
            text="Standard mode: watch only AzureAssignedIdentities with the label "
            "`nodename=NODE`.",
        ),
    )
    retry_attempts_for_created: int = field(
        default=16,
        metadata=flag(
            "--retry-attempts-for-created",
            kind="number",
            text="Standard mode: a request waits so many times `--find-identity-retry-interval` "
            "for a controller that has not begun.",
        ),
    )
    retry_attempts_for_assigned: int = field(
        default=4,
        metadata=flag(
            "--retry-attempts-for-assigned",
            kind="number",
            text="Standard mode: so many times more once the controller has begun.",
        ),
    )
    find_identity_retry_interval: int = field(
        default=5,
        metadata=flag(
            "--find-identity-retry-interval",
            kind="number",
            text="Seconds. It only sets how long a request waits: changes are noticed at once.",
        ),
    )
    exceptions_in: frozenset[str] = field(
        default=frozenset(),
        metadata=flag(
            "--exception-namespaces",
            parse=_parse_names,
            metavar="NAMESPACE,…",
            shown="kube-system and its own",
            text="Namespaces in which AzurePodIdentityExceptions have effect; `*`: all, as before.",
        ),
    )
    own_namespace: str = field(
        default="kube-system",
        metadata=flag("--own-namespace", envvar="POD_NAMESPACE", text="The agent's own namespace."),
    )
    own_pod: str = field(
        default="",
        metadata=flag(
            "--own-pod",
            envvar="POD_NAME",
            text="The agent's own pod. The agent writes its lasting warnings there as events, "
            "which `podidentity check` reads; without this setting it writes none.",
        ),
    )
    hold: float = field(
        default=8.0,
        metadata=flag(
            "--hold",
            kind="seconds",
            text="Seconds that a request waits for a binding or an identity after a change. az "
            "never retries, and some clients give up after 10.",
        ),
    )
    ambiguous: Ambiguity = field(
        default=Ambiguity.WEIGHT,
        metadata=flag(
            "--ambiguous",
            choices=tuple(Ambiguity),
            parse=Ambiguity,
            text="Answer to a request without an id if the pod has several identities: that of the "
            "heaviest binding (`weight`), or an error (`reject`).",
        ),
    )
    retry_after_header: bool = field(
        default=False,
        metadata=flag(
            "--set-retry-after-header",
            kind="switch",
            text="Answer 503 with `Retry-After` instead of 404 if no identity is bound to the pod.",
        ),
    )
    metadata_header_required: bool = field(
        default=True,
        metadata=flag(
            "--metadata-header-required",
            kind="switch",
            text="Refuse requests without `Metadata: true`, as IMDS does. If off, an attacker can "
            "get a token from a pod that fetches URLs for others.",
        ),
    )
    metadata_allow: tuple[str, ...] = field(
        default=METADATA_ALLOWED,
        metadata=flag(
            "--metadata-allow",
            repeated=True,
            metavar="PATH",
            text="A metadata path that pods may read, with all paths below it; user data must be "
            "named explicitly.",
        ),
    )
    block_instance_metadata: bool = field(
        default=False,
        metadata=flag(
            "--block-instance-metadata",
            kind="switch",
            text="Refuse `/metadata/instance` even if `--metadata-allow` names it.",
        ),
    )

    authorization: Authorization = field(
        default=Authorization.RBAC,
        metadata=flag(
            "--authorization",
            choices=tuple(Authorization),
            parse=Authorization,
            text="Effect of a missing [permission](cli.md#podidentity-grant-podidentity-revoke) to "
            "use an identity. `rbac`: the request is refused; `observe`: it is only reported; "
            "`off`: permissions are not checked, and a tenant that may create an AzureIdentity may "
            "use any identity.",
        ),
    )
    authorization_outlives: float = field(default=12 * 3600.0, metadata=_OUTLIVES)
    attestation: AttestationMode = field(
        default=AttestationMode.KERNEL,
        metadata=flag(
            "--attestation",
            choices=tuple(AttestationMode),
            parse=AttestationMode,
            text="[Proof of the caller](#who-is-asking). `kernel`: its socket, and the pod of the "
            "socket's cgroup (v2). `namespace`: its socket, in the only network namespace with its "
            "address; for nodes with cgroup v1 only. `address`: no proof; any pod can take the "
            "tokens of another. If the chosen proof is not possible, the agent is not ready.",
        ),
    )
    trusted_proxies: tuple[ObjectRef, ...] = field(
        default=(),
        metadata=flag(
            "--trusted-proxies",
            repeated=True,
            parse=ObjectRef.parse,
            metavar="NAMESPACE/ACCOUNT",
            shown="none",
            text="Service account of a [proxy](#behind-a-proxy) that makes the pods' connections "
            "in their own network namespaces, as ztunnel of Istio's ambient mesh does.",
        ),
    )
    attestation_by_runtime_class: tuple[tuple[str, AttestationMode], ...] = field(
        default=(),
        metadata=flag(
            "--attestation-by-runtime-class",
            repeated=True,
            parse=_parse_class_proof,
            metavar="CLASS=namespace|address",
            shown="none",
            text="[Weaker proof](#pods-with-a-kernel-of-their-own) of pods of a runtime class, "
            "whose connections are no process's of the node, as Kata's: the only network namespace "
            "with their address, or nothing but the address (gVisor).",
        ),
    )
    source_guard: Literal["on", "off"] = field(
        default="on",
        metadata=flag(
            "--source-guard",
            choices=("on", "off"),
            text="Whether pods on bridges may send with [their addresses](#whose-address-it-is) "
            "only. `off` is for pods that need addresses of others: each connection then ends "
            "after one answer, because a pod can take over that of its neighbour.",
        ),
    )
    path_probe: bool = field(
        default=False,
        metadata=flag(
            "--path-probe",
            kind="switch",
            text="Whether the manifest has a [probe pod](#the-probe): the agent is ready only if "
            "requests from there arrive at it. Without this flag nothing notices a data plane that "
            "passes the rules, and the agent warns of that.",
        ),
    )
    host_token: Literal["pod", "root", "off"] = field(
        default="pod",
        metadata=flag(
            "--host-token",
            choices=("pod", "root", "off"),
            text="Callers that may request tokens of other pods at `/host/token`. `pod`: pods of "
            "`--host-token-callers`; `root`: also root processes of the node, for nodes without "
            "cgroups of pods; `off`: nobody, and 127.0.0.1 is left to another program.",
        ),
    )
    host_token_callers: tuple[ObjectRef, ...] = field(
        default=PROVIDERS,
        metadata=flag(
            "--host-token-callers",
            repeated=True,
            parse=ObjectRef.parse,
            metavar="NAMESPACE/NAME",
            text="Service account of a Secrets Store CSI provider.",
        ),
    )
    netns_dirs: tuple[str, ...] = field(
        default=("/run/netns",),
        metadata=flag(
            "--netns-dir",
            repeated=True,
            metavar="FOLDER",
            text="Folder in which a runtime mounts the pods' network namespaces.",
        ),
    )
    cgroup_root: str = field(
        default="/sys/fs/cgroup",
        metadata=flag("--cgroup-root", text="Mount point of the host's cgroup v2."),
    )
    startup_taint: str = field(
        default="",
        metadata=flag(
            "--startup-taint",
            parse=_parse_startup_taint,
            metavar="KEY",
            text="Key of a taint with which nodes start: the agent takes it off its own node when "
            "it is [ready](../how-to/close-the-boot-window.md). It needs the right that `enable "
            "--startup-taint` gives. Default: none.",
        ),
    )
    on_exit: Literal["keep", "remove", "close"] = field(
        default="keep",
        metadata=flag(
            "--on-exit",
            choices=("keep", "remove", "close"),
            text="Whether the rules stay on the node after the agent has ended. Without them pods "
            "reach every identity of the node. With `close` those go that lead pods to the agent, "
            "and those stay that close IMDS: another NMI [can follow](#the-end-of-nmi).",
        ),
    )
    runtime_dir: str = field(
        default="",
        metadata=flag(
            "--runtime-dir",
            metavar="FOLDER",
            text="Folder of the sockets between `net`, `serve` and their probes. Default: "
            "/run/podidentity, or a new one with `podidentity nmi`.",
        ),
    )
    handover_dir: str = field(
        default="",
        metadata=flag(
            "--handover-dir",
            metavar="FOLDER",
            text="Folder of the node through which an agent [takes over](#updates) from the one "
            "before it. Default: none, and an update interrupts requests.",
        ),
    )
    memory_limit: int = field(
        default=0,
        metadata=flag(
            "--memory-limit",
            kind="number",
            metavar="BYTES",
            envvar="MEMORY_LIMIT",
            text="Memory limit of the container of `serve`: its worker is replaced at three "
            "quarters of it. 0: no limit.",
        ),
    )

    cloud: Cloud = field(
        default=PUBLIC,
        metadata=flag(
            "--cloud",
            envvar="AZURE_ENVIRONMENT",
            metavar="NAME",
            shown=PUBLIC.name,
            text="Cloud of identities of type 1, 2 and 3 without `adEndpoint`: AzurePublicCloud, "
            "AzureUSGovernmentCloud, AzureChinaCloud, or AzureStackCloud with "
            "`--azure-environment-file`.",
        ),
    )
    """The command line has its name; `cli.nmi.settings_from` makes it a Cloud."""
    environment_file: str = field(default="", metadata=_ENVIRONMENT_FILE)
    more_authorities: frozenset[Authority] = field(
        default=frozenset(),
        metadata=flag(
            "--authorities",
            parse=_parse_authorities,
            metavar="URL,URL",
            text="Authorities beside Microsoft's that an AzureIdentity's `adEndpoint` may name: "
            "secrets are sent there.",
        ),
    )
    tenant: Tenant | None = field(
        default=None,
        metadata=flag(
            "--tenant-id",
            parse=Tenant.parse,
            metavar="GUID|DOMAIN",
            text="Tenant of annotated service accounts that name a client id but no tenant.",
        ),
    )
    identities_namespace: str = field(
        default=IDENTITIES_NAMESPACE,
        metadata=flag(
            "--identities-namespace",
            text="Namespace of the service accounts that stand for federated identities "
            "(`subject: identity`).",
        ),
    )

    tokens_as: Literal["agent", "node"] = field(
        default="agent",
        metadata=flag(
            "--tokens-as",
            choices=("agent", "node"),
            text="As whom NMI asks for [tokens of pods' service accounts]"
            "(#tokens-of-service-accounts). `agent`: by its own right; `node`: as its own node, by "
            "constrained impersonation (Kubernetes 1.36), so that tokens of other nodes' pods are "
            "not to be had. `podidentity enable` chooses.",
        ),
    )

    compat: Compat = field(default_factory=Compat)
    """Rules of the archived project that are on."""

    prefetch: Literal["auto", "off"] | tuple[str, ...] = field(
        default="off",
        metadata=flag(
            "--prefetch",
            parse=_parse_audiences,
            metavar="auto|off|AUDIENCE,…",
            text="Audiences of tokens that are fetched for a new pod before its first request. "
            "`auto`: those that pods with its identity requested on this node, else those of the "
            "resource manager and of vaults.",
        ),
    )

    log_format: Literal["text", "json"] = field(default="text", metadata=_LOG_FORMAT)
    audit_log: str = field(
        default="",
        metadata=flag(
            "--audit-log",
            metavar="PATH",
            text="File for a JSON line about each decision on a token; `-`: stdout. Default: none.",
        ),
    )
    audit_required: bool = field(
        default=False,
        metadata=flag(
            "--audit-required",
            kind="switch",
            text="Answer 503 instead of a token while the audit log cannot be written.",
        ),
    )
    prometheus_port: int = field(
        default=9090,
        metadata=flag(
            "--prometheus-port",
            kind="number",
            text="Port of `/metrics` on all addresses, without labels that name a tenant; 0: none.",
        ),
    )
    metrics_secure_port: int = field(
        default=0,
        metadata=flag(
            "--metrics-secure-port",
            kind="number",
            text="TLS port of the complete `/metrics` and of `/debug` on all addresses, for "
            "callers that RBAC lets `get` that path; 9447 in the manifest; 0: none.",
        ),
    )
    metrics_cert_file: str = field(
        default="",
        metadata=flag(
            "--metrics-cert-file",
            metavar="PATH",
            text="Certificate of that port with its chain, PEM; reloaded after changes. Default: a "
            "self-signed one, made at the start.",
        ),
    )
    metrics_key_file: str = field(
        default="",
        metadata=flag("--metrics-key-file", metavar="PATH", text="Its key, PEM."),
    )
    debug_port: int = field(
        default=0,
        metadata=flag(
            "--debug-port",
            kind="number",
            text="Port of `/debug` on loopback, for programs of the node: the agent's state, "
            "without secrets; 0: none.",
        ),
    )
    verbosity: int = field(default=0, metadata=_VERBOSITY)
    custom_user_agent: str = field(default="", metadata=_USER_AGENT)

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
        """Whether requests wait for a controller's AzureAssignedIdentity."""
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
        """Authorities to which an AzureIdentity's secret may be sent."""
        return KNOWN_AUTHORITIES | {self.cloud.authority} | self.more_authorities

    @property
    def verbose(self) -> bool:
        """Whether to log details for developers."""
        return self.verbosity >= 4


@dataclass(frozen=True, slots=True, kw_only=True)
class MicSettings:
    """Settings of the controller; defaults as those of the archived project where it had them."""

    kubeconfig: str | None = field(default=None, metadata=_KUBECONFIG)
    own_namespace: str = field(
        default="",
        metadata=flag(
            "--own-namespace",
            envvar="MIC_POD_NAMESPACE",
            text="MIC's own namespace, where its ledgers are. Required, as before.",
        ),
    )
    own_pod: str = field(
        default="",
        metadata=flag(
            "--own-pod",
            envvar="MIC_POD_NAME",
            text="MIC's own pod. The leader writes there as events what keeps it from working in "
            "Azure, which `podidentity check` reads; without this setting it writes none.",
        ),
    )
    own_pod_uid: str = field(
        default="",
        metadata=flag(
            "--own-pod-uid",
            envvar="MIC_POD_UID",
            text="Its uid, by which `kubectl describe` finds these events.",
        ),
    )

    assign: Literal["pods", "all-hosts", "none"] = field(
        default="pods",
        metadata=flag(
            "--assign",
            choices=("pods", "all-hosts", "none"),
            text="To which machines MIC attaches identities. `pods`: to those with a pod that "
            "needs one (standard mode). `all-hosts`: all that are bound, to every machine of the "
            "cluster, new ones too (managed mode). `none`: to none; MIC writes conditions only, "
            "and needs no right in Azure.",
        ),
    )
    node_network: bool = field(
        default=False,
        metadata=flag(
            "--attach-for-node-network",
            kind="switch",
            text="Attach identities for pods with `hostNetwork`, too, whose service account may "
            "use them; with `--authorization=rbac` alone. NMI does not stand between such a pod "
            "and IMDS: it [reaches all identities of its machine]"
            "(../security.md#what-it-does-not-protect-from-today).",
        ),
    )
    detach_grace: float = field(
        default=300.0,
        metadata=flag(
            "--detach-grace",
            parse=parse_duration,
            metavar="DURATION",
            shown="5m",
            text="How long an identity that MIC attached stays after the last pod that needed it; "
            "`0s`: detached at once, as before.",
        ),
    )
    immutable: frozenset[ClientId] = field(
        default=frozenset(),
        metadata=flag(
            "--immutable-user-msis",
            parse=_parse_client_ids,
            metavar="CLIENT-ID,…",
            text="Client ids of identities that are never detached.",
        ),
    )
    reconcile_interval: float = field(
        default=180.0,
        metadata=flag(
            "--identity-assignment-reconcile-interval",
            parse=parse_duration,
            metavar="DURATION",
            shown="3m",
            text="How often the machines are read, by one list a resource group, to attach again "
            "what somebody else detached.",
        ),
    )
    writes_at_once: int = field(
        default=20,
        metadata=flag(
            "--createDeleteBatch",
            kind="number",
            text="Writes to the API server that are under way at once.",
        ),
    )

    authorization: Authorization = field(
        default=Authorization.RBAC,
        metadata=flag(
            "--authorization",
            choices=tuple(Authorization),
            parse=Authorization,
            text="Effect of a missing [permission](cli.md#podidentity-grant-podidentity-revoke) to "
            "use an identity; NMI has the same flag. `rbac`: the identity is not attached for the "
            "pod; `observe` and `off`: it is.",
        ),
    )
    authorization_outlives: float = field(default=12 * 3600.0, metadata=_OUTLIVES)
    exceptions_in: frozenset[str] = field(
        default=frozenset(),
        metadata=flag(
            "--exception-namespaces",
            parse=_parse_names,
            metavar="NAMESPACE,…",
            shown="kube-system and its own",
            text="NMI's flag of this name: conditions of AzurePodIdentityExceptions say by it "
            "whether they have effect.",
        ),
    )
    force_namespaced: bool = field(default=False, metadata=_FORCE_NAMESPACED)
    cross_namespace: bool = field(
        default=False,
        metadata=flag(
            "--compat-cross-namespace",
            kind="switch",
            text="As before: bindings and identities of other namespaces count; NMI has the same "
            "flag.",
        ),
    )

    lease_holder: str = field(
        default="",
        metadata=flag(
            "--leader-election-instance",
            shown="the host's name",
            text="Name of this replica in the Lease.",
        ),
    )
    lease_namespace: str = field(
        default="default",
        metadata=flag(
            "--leader-election-namespace",
            text="Namespace of the Lease, and of the lock of an archived controller.",
        ),
    )
    lease_name: str = field(
        default="aad-pod-identity-mic",
        metadata=flag("--leader-election-name", text="Name of both."),
    )
    lease_duration: float = field(
        default=15.0,
        metadata=flag(
            "--leader-election-duration",
            parse=_parse_lease_duration,
            metavar="DURATION",
            shown="15s",
            text="How long another replica waits for a leader that is silent; whole seconds, 3 at "
            "least.",
        ),
    )

    cloud_config: str = field(
        default="",
        metadata=flag(
            "--cloudconfig",
            metavar="PATH",
            text="Configuration of the cloud provider, as AKS has it in /etc/kubernetes/azure.json "
            "on its nodes; read again when it is replaced. Default: none, and the variables below "
            "count.",
        ),
    )
    cloud: str = field(
        default="",
        metadata=flag(
            "--cloud",
            envvar="CLOUD",
            metavar="NAME",
            shown=PUBLIC.name,
            text="AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, or AzureStackCloud "
            "with `--azure-environment-file`. That of `--cloudconfig` counts before it.",
        ),
    )
    environment_file: str = field(default="", metadata=_ENVIRONMENT_FILE)
    token_file: str = field(
        default="",
        metadata=flag(
            "--federated-token-file",
            envvar="AZURE_FEDERATED_TOKEN_FILE",
            metavar="PATH",
            text="Token of MIC's own service account, to sign in by federation, without a secret.",
        ),
    )
    client_id: str = field(
        default="",
        metadata=flag(
            "--azure-client-id",
            envvar="CLIENT_ID",
            text="Client id to sign in with, by federation or by the secret in `CLIENT_SECRET`, "
            "for which there is no flag.",
        ),
    )
    tenant: str = field(
        default="",
        metadata=flag("--azure-tenant-id", envvar="TENANT_ID", text="Tenant to sign in to."),
    )
    managed_identity: bool = field(
        default=False,
        metadata=flag(
            "--use-managed-identity",
            kind="switch",
            envvar="USE_MSI",
            text="Sign in by a managed identity of the node. MIC's pods need an "
            "AzurePodIdentityException then, which `podidentity enable --mic` makes.",
        ),
    )
    managed_client_id: str = field(
        default="",
        metadata=flag(
            "--managed-identity-client-id",
            envvar="USER_ASSIGNED_MSI_CLIENT_ID",
            text="Client id of that identity. Default: the system-assigned one.",
        ),
    )

    probe_port: int = field(
        default=8080,
        metadata=flag(
            "--http-probe-port",
            kind="number",
            text="Port of `/healthz` and `/readyz`, on all addresses.",
        ),
    )
    prometheus_port: int = field(
        default=8888,
        metadata=flag(
            "--prometheus-port",
            kind="number",
            text="Port of `/metrics`, on all addresses; 0: none.",
        ),
    )
    log_format: Literal["text", "json"] = field(default="text", metadata=_LOG_FORMAT)
    verbosity: int = field(default=0, metadata=_VERBOSITY)
    custom_user_agent: str = field(default="", metadata=_USER_AGENT)

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
        """Whether to log details for developers."""
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


_NONE = "Accepted for old manifests; no effect."

_KLOG = (
    *[
        OldFlag(name, _NONE, switch=True)
        for name in (
            "logtostderr",
            "alsologtostderr",
            "skip_headers",
            "skip_log_headers",
            "add_dir_header",
            "one_output",
        )
    ],
    *[
        OldFlag(name, _NONE)
        for name in (
            "log_dir",
            "log_file",
            "log_file_max_size",
            "log_backtrace_at",
            "stderrthreshold",
            "vmodule",
        )
    ],
)

OLD_FLAGS = (
    OldFlag("enableProfile", "No effect in this release.", switch=True),
    OldFlag("MICNamespace", "No effect in this release."),
    OldFlag(
        "allow-network-plugin-kubenet",
        f"{_NONE} Kubenet is supported: callers are proved.",
        switch=True,
    ),
    OldFlag(
        "enable-conntrack-deletion",
        f"{_NONE} Older connections are reset by the rules.",
        switch=True,
    ),
    OldFlag("ipt-update-interval-sec", f"{_NONE} Changed rules are seen and repaired at once."),
    OldFlag("kubelet-config", f"{_NONE} Kubenet is supported: callers are proved."),
    OldFlag("proc-sys-net", f"{_NONE} No sysctl is set any more."),
    *_KLOG,
)

OLD_FLAGS_OF_MIC = (
    OldFlag("enableProfile", "No effect in this release.", switch=True),
    OldFlag(
        "enableScaleFeatures",
        f"{_NONE} Records always have the label `nodename`.",
        switch=True,
    ),
    OldFlag(
        "syncRetryDuration", f"{_NONE} What has failed is tried again by itself, each for itself."
    ),
    OldFlag("clientQps", f"{_NONE} An API server that has too much to do says so, and is obeyed."),
    OldFlag(
        "update-user-msi-max-retry", f"{_NONE} Wrong ids are taken out of a change in one round."
    ),
    OldFlag("update-user-msi-retry-interval", f"{_NONE} As the one before."),
    OldFlag(
        "enable-type-upgrade",
        f"{_NONE} Objects of releases before 1.6 are read in their spelling.",
        switch=True,
    ),
    OldFlag("config-map-name", f"{_NONE} It was for the one before."),
    OldFlag("type-upgrade-status-key", f"{_NONE} It was for that, too."),
    *_KLOG,
)
