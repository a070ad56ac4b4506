"""What an operator can choose for the agent. Each setting is written here, and nowhere else.

A field says its flag, its help, its environment variable and its default. The options of
`podidentity nmi` are made of the fields, and so is the table of flags in docs/reference/nmi.md
(`scripts/reference` writes it, and a test compares). What follows from several flags is a property.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal

from podidentity.core.attestation import AttestationMode
from podidentity.core.authorities import KNOWN_AUTHORITIES, PUBLIC, Authority, Cloud, Tenant
from podidentity.core.decision import Ambiguity
from podidentity.core.delegation import PROVIDERS
from podidentity.core.errors import InvalidRequest
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.core.ids import ObjectRef
from podidentity.core.permission import Authorization
from podidentity.wire.imds_server import parse_resource

SERVE_UID = 64_912
"""User and group of `serve`: of no image and no package (Debian and Fedora give out less than
60000, systemd 61184 to 65519 on demand, but none that is in /etc/passwd of the node)."""

EVERYWHERE = "*"
"""In `--exception-namespaces`: all of them."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}

Kind = Literal["text", "switch", "number", "seconds"]
"""How a value is written: `switch` as pflag writes booleans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """How a setting is chosen on the command line."""

    names: tuple[str, ...]
    text: str
    """Its help, in Markdown."""
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    parse: Callable[[str], Any] | None = None
    """Makes the value of the text; raises ValueError."""
    repeated: bool = False
    envvar: str = ""
    metavar: str = ""
    shown: str = ""
    """The default as people write it, where that is not the value's own text."""


def flag(*names: str, text: str, **more: Any) -> Mapping[str, Flag]:  # noqa: ANN401 - Flag's own
    """Return the metadata of a field that has this flag; `more` are fields of `Flag`."""
    return {"flag": Flag(names=names, text=text, **more)}


def parse_duration(text: str) -> float:
    """Return the seconds of `90`, `120s`, `2m` or `12h`; raise ValueError."""
    found = re.fullmatch(r"([0-9]{1,9})([smh]?)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration such as 90s or 2m")
    return float(found[1]) * _UNITS[found[2]]


def _parse_authorities(text: str) -> frozenset[Authority]:
    """Return the authorities that `text` joins by commas; raise ValueError."""
    return frozenset(Authority.parse(each) for each in text.split(",") if each.strip())


def _parse_names(text: str) -> frozenset[str]:
    """Return the names that `text` joins by commas."""
    return frozenset(each.strip() for each in text.split(",") if each.strip())


def _parse_audiences(text: str) -> Literal["auto", "off"] | tuple[str, ...]:
    """Return `auto`, `off`, or the audiences that `text` joins by commas; raise ValueError."""
    if text in {"auto", "off"}:
        return "auto" if text == "auto" else "off"
    try:
        return tuple(dict.fromkeys(parse_resource(each) for each in text.split(",")))
    except InvalidRequest as error:
        raise ValueError(f"{text!r}: {error}") from error


def _parse_level(text: str) -> int:
    """Return the number of klog's `-v=4`, `-v 4` or `--v=4`; raise ValueError."""
    digits = text.lstrip("=")
    if not digits.isdecimal():
        raise ValueError(f"{text!r} is no number")
    return int(digits)


RUNTIME_DIR = "/run/podidentity"
"""Where `net` and `serve` meet, unless they are told."""
NET_SOCKET = "net.sock"
"""Name of the socket of `net`, in `runtime_dir`."""
NET_FOLDER, SERVE_FOLDER = "net", "serve"
"""Names of the folders in `handover_dir`: that of `net` is closed to `serve`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compat:
    """Rules of the archived project that were changed, each to be had back.

    docs/reference/compatibility.md says what each opens.
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
            text="As before: an identity with `auxiliaryTenantIDs` is answered with an array, a "
            "token for each tenant.",
        ),
    )
    open_metrics: bool = field(
        default=False,
        metadata=flag(
            "--compat-open-metrics",
            kind="switch",
            text="As before: `/metrics` on `--prometheus-port` names namespaces and audiences to "
            "every pod that asks.",
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NmiSettings:
    """Settings of the node agent; defaults as those of the archived project where it had them."""

    node: str = field(
        metadata=flag("--node", text="Name of this node, as Kubernetes knows it. Needed.")
    )
    kubeconfig: str | None = field(
        default=None,
        metadata=flag(
            "--kubeconfig", envvar="KUBECONFIG", text="Default: the pod's service account."
        ),
    )

    listen_address: str = field(
        default="127.0.0.1",
        metadata=flag(
            "--nmi-listen-address",
            text="Address that pods' requests are redirected to: one of the node, for Cilium's "
            "local redirect policy, or a link-local one, which is added to `lo` and guarded. With "
            "a loopback address that is 169.254.25.79, and only `/host/token` is served at the "
            "loopback address. 0.0.0.0: as 127.0.0.1, on all addresses.",
        ),
    )
    listen_port: int = field(
        default=2579,
        metadata=flag("--nmi-port", kind="number", text="Port at these addresses."),
    )
    metadata_address: str = field(
        default="169.254.169.254",
        metadata=flag("--metadata-ip", text="Where pods ask for IMDS, and where the real one is."),
    )
    metadata_port: int = field(
        default=80, metadata=flag("--metadata-port", kind="number", text="Port beside it.")
    )
    probe_port: int = field(
        default=8080,
        metadata=flag(
            "--http-probe-port",
            kind="number",
            text="Port of `/healthz` and `/readyz`, on all addresses; the manifest says 8085.",
        ),
    )

    operation_mode: Literal["standard", "managed"] = field(
        default="standard",
        metadata=flag(
            "--operation-mode",
            choices=("standard", "managed"),
            text="`managed`: identities are attached to the node's machines already. `standard`: "
            "a controller attaches them and says so by AzureAssignedIdentities; requests wait "
            "for it. The controller comes in a later release.",
        ),
    )
    force_namespaced: bool = field(
        default=False,
        metadata=flag(
            "--forceNamespaced",
            kind="switch",
            envvar="FORCENAMESPACED",
            text="Always so, whatever it says, unless `--compat-cross-namespace`: pod, binding "
            "and identity share a namespace.",
        ),
    )
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
            text="Standard mode: times `--find-identity-retry-interval` that a request waits for "
            "a controller that has not begun.",
        ),
    )
    retry_attempts_for_assigned: int = field(
        default=4,
        metadata=flag(
            "--retry-attempts-for-assigned",
            kind="number",
            text="Standard mode: as many more, once the controller has begun.",
        ),
    )
    find_identity_retry_interval: int = field(
        default=5,
        metadata=flag(
            "--find-identity-retry-interval",
            kind="number",
            text="Seconds. Nothing is polled: a change is seen at once.",
        ),
    )
    exceptions_in: frozenset[str] = field(
        default=frozenset(),
        metadata=flag(
            "--exception-namespaces",
            parse=_parse_names,
            metavar="NAMESPACE,…",
            shown="kube-system and its own",
            text="Where AzurePodIdentityExceptions have effect; `*`: everywhere, as before.",
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
            text="The agent's own pod: its lasting warnings are events there, which `podidentity "
            "check` reads. Without it there are none.",
        ),
    )
    hold: float = field(
        default=8.0,
        metadata=flag(
            "--hold",
            kind="seconds",
            text="Seconds that a request waits for a binding or an identity after a change. az "
            "never asks twice, and some clients give up after 10.",
        ),
    )
    ambiguous: Ambiguity = field(
        default=Ambiguity.WEIGHT,
        metadata=flag(
            "--ambiguous",
            choices=tuple(Ambiguity),
            parse=Ambiguity,
            text="What a request without an id gets where the pod has several identities.",
        ),
    )
    retry_after_header: bool = field(
        default=False,
        metadata=flag(
            "--set-retry-after-header",
            kind="switch",
            text="Where nothing is bound, answer 503 with `Retry-After`, not 404.",
        ),
    )
    metadata_header_required: bool = field(
        default=True,
        metadata=flag(
            "--metadata-header-required",
            kind="switch",
            text="Refuse requests without `Metadata: true`, as IMDS does. Off, a pod that fetches "
            "URLs for others can be made to fetch a token.",
        ),
    )
    metadata_allow: tuple[str, ...] = field(
        default=("/metadata/versions", "/metadata/instance"),
        metadata=flag(
            "--metadata-allow",
            repeated=True,
            metavar="PATH",
            text="A metadata path that pods may read, with all below it; user data only by name.",
        ),
    )
    block_instance_metadata: bool = field(
        default=False,
        metadata=flag(
            "--block-instance-metadata",
            kind="switch",
            text="Refuse `/metadata/instance`, whatever `--metadata-allow` says.",
        ),
    )

    authorization: Authorization = field(
        default=Authorization.RBAC,
        metadata=flag(
            "--authorization",
            choices=tuple(Authorization),
            parse=Authorization,
            text="What a missing [permission](cli.md#podidentity-grant-podidentity-revoke) to use "
            "an identity does. `rbac`: it refuses; `observe`: it is only told; `off`: nobody "
            "asks, and a tenant that may create an AzureIdentity may use any.",
        ),
    )
    authorization_outlives: float = field(
        default=12 * 3600.0,
        metadata=flag(
            "--authorization-outlives",
            parse=parse_duration,
            metavar="DURATION",
            shown="12h",
            text="How long RBAC's last answer stands while the API server cannot be asked.",
        ),
    )
    attestation: AttestationMode = field(
        default=AttestationMode.KERNEL,
        metadata=flag(
            "--attestation",
            choices=tuple(AttestationMode),
            parse=AttestationMode,
            text="What [proves a caller](#who-is-asking). `kernel`: its socket, and the pod of the "
            "socket's cgroup (v2). `namespace`: its socket, in the only network namespace with its "
            "address; for nodes with cgroup v1 only. `address`: nothing; any pod can take "
            "another's tokens. What was chosen and cannot be had makes the agent not ready.",
        ),
    )
    host_token: Literal["pod", "root"] = field(
        default="pod",
        metadata=flag(
            "--host-token",
            choices=("pod", "root"),
            text="Who may ask for tokens of other pods at `/host/token`: pods of "
            "`--host-token-callers`; `root`: also root of the node, for nodes whose pods have no "
            "cgroups.",
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
    netns_dir: str = field(
        default="/run/netns",
        metadata=flag(
            "--netns-dir", text="Where the container runtime mounts the pods' network namespaces."
        ),
    )
    cgroup_root: str = field(
        default="/sys/fs/cgroup",
        metadata=flag("--cgroup-root", text="Where the host's cgroup v2 is mounted."),
    )
    on_exit: Literal["keep", "remove"] = field(
        default="keep",
        metadata=flag(
            "--on-exit",
            choices=("keep", "remove"),
            text="Whether the interception outlives the agent. Removed, pods reach every "
            "identity of the node.",
        ),
    )
    runtime_dir: str = field(
        default="",
        metadata=flag(
            "--runtime-dir",
            metavar="FOLDER",
            text="Where `net` and `serve` meet, and their probes ask. Default: /run/podidentity, "
            "or one that `podidentity nmi` makes.",
        ),
    )
    handover_dir: str = field(
        default="",
        metadata=flag(
            "--handover-dir",
            metavar="FOLDER",
            text="Folder of the node in which an agent [takes over](#updates) from the one before "
            "it. Default: none, and an update interrupts requests.",
        ),
    )
    memory_limit: int = field(
        default=0,
        metadata=flag(
            "--memory-limit",
            kind="number",
            metavar="BYTES",
            envvar="MEMORY_LIMIT",
            text="What the container of `serve` may hold: its worker is replaced at three quarters "
            "of it. 0: no limit.",
        ),
    )

    cloud: Cloud = field(
        default=PUBLIC,
        metadata=flag(
            "--cloud",
            envvar="AZURE_ENVIRONMENT",
            metavar="NAME",
            shown=PUBLIC.name,
            text="Where identities of type 1, 2 and 3 belong that name no `adEndpoint`: "
            "AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, or AzureStackCloud with "
            "`--azure-environment-file`.",
        ),
    )
    """Its name is made a Cloud with `environment_file`, where the command line is read."""
    environment_file: str = field(
        default="",
        metadata=flag(
            "--azure-environment-file",
            envvar="AZURE_ENVIRONMENT_FILEPATH",
            text="JSON file that describes an Azure Stack Hub, for `--cloud=AzureStackCloud`.",
        ),
    )
    more_authorities: frozenset[Authority] = field(
        default=frozenset(),
        metadata=flag(
            "--authorities",
            parse=_parse_authorities,
            metavar="URL,URL",
            text="More authorities that an AzureIdentity's `adEndpoint` may name, beside "
            "Microsoft's: secrets are sent there.",
        ),
    )
    tenant: Tenant | None = field(
        default=None,
        metadata=flag(
            "--tenant-id",
            parse=Tenant.parse,
            metavar="GUID|DOMAIN",
            text="Tenant of service accounts that are annotated with a client id and no tenant.",
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

    compat: Compat = field(default_factory=Compat)
    """Old rules that are on."""

    prefetch: Literal["auto", "off"] | tuple[str, ...] = field(
        default="off",
        metadata=flag(
            "--prefetch",
            parse=_parse_audiences,
            metavar="auto|off|AUDIENCE,…",
            text="What is fetched for a pod that is new on the node, before it asks. `auto`: what "
            "pods of its identity asked for here, else the resource manager's and the vaults' "
            "tokens.",
        ),
    )

    log_format: Literal["text", "json"] = field(
        default="text",
        metadata=flag(
            "--log-format", choices=("text", "json"), text="Lines for people or for machines."
        ),
    )
    audit_log: str = field(
        default="",
        metadata=flag(
            "--audit-log",
            metavar="PATH",
            text="Where a JSON line for each decision about a token goes; `-`: stdout. Default: "
            "nowhere.",
        ),
    )
    audit_required: bool = field(
        default=False,
        metadata=flag(
            "--audit-required",
            kind="switch",
            text="Give no token while the audit log cannot be written: 503.",
        ),
    )
    prometheus_port: int = field(
        default=9090,
        metadata=flag(
            "--prometheus-port",
            kind="number",
            text="Port of `/metrics`, on all addresses, without what names a tenant; 0: none.",
        ),
    )
    metrics_secure_port: int = field(
        default=0,
        metadata=flag(
            "--metrics-secure-port",
            kind="number",
            text="TLS port of all `/metrics`, on all addresses, for callers that RBAC lets `get` "
            "that path; the manifest says 9447; 0: none.",
        ),
    )
    metrics_cert_file: str = field(
        default="",
        metadata=flag(
            "--metrics-cert-file",
            metavar="PATH",
            text="Certificate of that port, its chain behind it, PEM; read again when it changes. "
            "Default: one that is made at the start, signed by itself.",
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
            text="Port of `/debug`, on loopback only: what the agent knows, without secrets; 0: "
            "none.",
        ),
    )
    verbosity: int = field(
        default=0, metadata=flag("-v", "--v", parse=_parse_level, text="4 or more: log more.")
    )
    custom_user_agent: str = field(
        default="", metadata=flag("--custom-user-agent", text="Added to the User-Agent.")
    )

    def __post_init__(self) -> None:
        if not self.node:
            raise ValueError("--node is needed: the name of the node that this runs on.")
        if self.force_namespaced and self.compat.cross_namespace:
            raise ValueError("--forceNamespaced and --compat-cross-namespace contradict.")
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
        """Where an AzurePodIdentityException has effect; None: everywhere."""
        if EVERYWHERE in self.exceptions_in:
            return None
        return self.exceptions_in or frozenset({"kube-system", self.own_namespace})

    @property
    def authorities(self) -> frozenset[Authority]:
        """Where an AzureIdentity's secret may be sent."""
        return KNOWN_AUTHORITIES | {self.cloud.authority} | self.more_authorities

    @property
    def verbose(self) -> bool:
        """Whether to log what only developers want to know."""
        return self.verbosity >= 4


Setting = tuple[str, Flag, Any]
"""Name of the parsed value, its flag, and its default (None for what must be given)."""


def settings_flags() -> Iterator[Setting]:
    """Yield every setting that has a flag; those of `Compat` under `compat_NAME`."""
    for each in fields(NmiSettings):
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
    """Whether it may stand without a value, as a pflag boolean."""


_NONE = "Accepted for old manifests; no effect."

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
    OldFlag("host-ip", _NONE),
    OldFlag("proc-sys-net", f"{_NONE} No sysctl is set any more."),
    # klog's.
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
