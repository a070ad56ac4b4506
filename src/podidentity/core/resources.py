"""What the rules speak of: names and ids, the custom resources, pods, and their tokens.

Ids are parsed once and compared as their owners compare them. Azure compares GUIDs and resource ids
without case, and returns them in changing case; Kubernetes compares names exactly.

Values of this module are valid: `wire.manifests` parses the API server's JSON, and turns an object
that cannot be used into a Malformed with the reason. So one bad object is reported and explained,
and affects no other.

Anyone with the text of a token can use it, so no `repr` shows it, and only the answer contains it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from sys import intern
from typing import NamedTuple, Protocol, Self

GUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
"""In lower case."""
OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", re.ASCII)
"""Of a Kubernetes object or namespace."""
# Names of a subscription, a resource group or an identity. They become parts of URLs and queries:
# no slash, white space, quote or control character, and no dots that lead to another path. A
# resource group may have letters of any script.
# https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules
_SEGMENT = r"(?!\.\.?(?:/|$))[\w.()-]{1,128}"
_USER_ASSIGNED = re.compile(
    rf"/subscriptions/({_SEGMENT})/resourcegroups/((?u:{_SEGMENT}))"
    rf"/providers/microsoft\.managedidentity/userassignedidentities/({_SEGMENT})",
    re.IGNORECASE | re.ASCII,
)
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# Read before it is folded: the sign for kelvin is a k in lower case.
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})+", re.ASCII | re.IGNORECASE)
_AUTHORITY = re.compile(
    rf"https://({_LABEL}(?:\.{_LABEL})*(?::([0-9]{{1,5}}))?)/?", re.ASCII | re.IGNORECASE
)
_LONGEST_HOST = 253
"""Characters of a name of DNS."""
LONGEST_AUDIENCE = 512
_VISIBLE = re.compile(r"[^\s\x00-\x1f\x7f-\x9f]+")


class InvalidId(ValueError):
    """The text is no valid id; the message says why."""


class ObjectRef(NamedTuple):
    """The name of a namespaced Kubernetes object; compared exactly."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the reference in `NAMESPACE/NAME`; raise InvalidId."""
        namespace, _, name = text.partition("/")
        if not OBJECT_NAME.fullmatch(namespace) or not OBJECT_NAME.fullmatch(name):
            raise InvalidId(f"{text!r} is not NAMESPACE/NAME")
        return cls(namespace, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Guid:
    text: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the id in `text`; raise InvalidId for anything but a GUID."""
        if not isinstance(text, str):
            raise InvalidId(f"must be a GUID in a string, not {type(text).__name__}")
        folded = text.strip().lower()
        if not GUID.fullmatch(folded):
            raise InvalidId(f"must be a GUID, not {_shown(text)}")
        return cls(folded)

    @property
    def redacted(self) -> str:
        """The first and last four characters, enough to recognise it in a log."""
        return f"{self.text[:4]}…{self.text[-4:]}"

    def __str__(self) -> str:
        return self.text


class ClientId(_Guid):
    """The application (client) id of an identity, in lower case."""

    __slots__ = ()


class ObjectId(_Guid):
    """The object (principal) id of an identity, in lower case."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class ResourceId:
    """The ARM id of a user-assigned managed identity; compared without case.

    Shape: `/subscriptions/S/resourceGroups/G/providers/Microsoft.ManagedIdentity/`
    `userAssignedIdentities/N`.
    """

    folded: str
    """The whole id in lower case, for comparison."""
    spelling: str = field(compare=False)
    """The id as it was written, for messages and requests to Azure."""
    subscription: str = field(compare=False)
    group: str = field(compare=False)
    name: str = field(compare=False)

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the id in `text`; raise InvalidId for any other ARM id or text."""
        if not isinstance(text, str):
            raise InvalidId(f"must be an ARM id in a string, not {type(text).__name__}")
        found = _USER_ASSIGNED.fullmatch(text.strip())
        if found is None:
            raise InvalidId(
                "must match /subscriptions/<subscription>/resourceGroups/<group>/providers/"
                "Microsoft.ManagedIdentity/userAssignedIdentities/<name>, "
                f"not {_shown(text)}"
            )
        spelling = found.group(0)
        # Thousands of identities share these two.
        subscription, group, name = intern(found[1]), intern(found[2]), found[3]
        return cls(spelling.lower(), spelling, subscription, group, name)

    def __str__(self) -> str:
        return self.spelling


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant's id or one of its domain names, in lower case.

    It becomes part of a URL, so nothing else is one.
    """

    text: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the tenant in `text`; raise InvalidId."""
        if not isinstance(text, str):
            raise InvalidId(f"must be a GUID or a domain name, not {type(text).__name__}")
        folded = text.strip().lower()
        # `adfs` is Azure Stack Hub's name for the one tenant of AD FS.
        if folded == "adfs" or GUID.fullmatch(folded):
            return cls(folded)
        if len(folded) > _LONGEST_HOST or not _DOMAIN.fullmatch(text.strip()):
            raise InvalidId(f"must be a GUID or a domain name, not {text[:80]!r}")
        return cls(folded)

    @property
    def is_id(self) -> bool:
        """Whether it is the tenant's id, not one of its domain names."""
        return GUID.fullmatch(self.text) is not None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Authority:
    """An https origin that issues tokens, in lower case and without a slash at its end."""

    url: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Return the authority in `text`; raise InvalidId.

        It is an https origin, without user, path, query or fragment.
        """
        if not isinstance(text, str):
            raise InvalidId(f"must be an https URL, not {type(text).__name__}")
        found = _AUTHORITY.fullmatch(text.strip())
        if found is None or len(found[1].partition(":")[0]) > _LONGEST_HOST:
            raise InvalidId(f"must be https://HOST/ and nothing more, not {text[:80]!r}")
        if int(found.group(2) or 443) not in range(1, 65536):
            raise InvalidId(f"must be https://HOST/ with a port from 1 to 65535, not {text[:80]!r}")
        return cls(f"https://{found.group(1).lower()}")

    def __str__(self) -> str:
        return self.url


def parse_audience(text: str) -> str:
    """Return the audience of a token, unchanged; raise InvalidId.

    Its words are those of the parameter `resource`, which names it.
    """
    if not text:
        raise InvalidId("parameter resource is missing")
    if len(text) > LONGEST_AUDIENCE:
        raise InvalidId(f"resource is longer than {LONGEST_AUDIENCE} characters")
    if not _VISIBLE.fullmatch(text):
        raise InvalidId("resource has white space or control characters")
    return text


def _shown(text: str, limit: int = 160) -> str:
    """Return `text` for one line of a message: quoted, escaped, shortened."""
    return repr(text if len(text) <= limit else text[:limit] + "…")


# The custom resources, and pods.

BINDING_LABEL = "aadpodidbinding"
"""The pod label; a binding's selector must equal its value exactly, with case."""

ATTESTATION_ANNOTATION = "aadpodidentity.k8s.io/attestation"
PROBE_ANNOTATION = "aadpodidentity.k8s.io/probe"
"""By which `podidentity explain` asks NMI's own pod; on others it has no meaning."""
"""On a pod: `address` waives the proof by the kernel for that pod alone."""


class IdentityType(IntEnum):
    """`spec.type` of an AzureIdentity."""

    USER_ASSIGNED = 0
    SERVICE_PRINCIPAL = 1
    CERTIFICATE = 2
    FEDERATED = 3


SYSTEM_ASSIGNED = "system-assigned"
"""`spec.resourceID` of an AzureIdentity for the node's own identity."""


class AssertionSubject(StrEnum):
    """The subject of a federated identity's assertion; values are those of the manifest."""

    POD = "pod"
    """The pod's own service account: one federated credential in Entra for each."""
    IDENTITY = "identity"
    """A service account of the identity: one federated credential for any number of pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """The assertion of an identity of type 3."""

    subject: AssertionSubject = AssertionSubject.POD
    audience: str = ""
    """Audience of the assertion; "": the cloud's default."""
    via: ResourceId | None = None
    """A managed identity; its token is the assertion, for an application of another tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entra:
    """Tenant and credential of an identity of type 1, 2 or 3."""

    tenant: Tenant
    authority: Authority | None = None
    """None: the authority of the agent's cloud."""
    auxiliary_tenants: tuple[Tenant, ...] = ()
    """Other tenants for which pods may request tokens."""
    secret: ObjectRef | None = None
    """The Kubernetes Secret of types 1 and 2."""
    federation: Federation | None = None
    """Set for type 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureIdentity:
    """An identity that a namespace requests to use.

    Type 0 has a client id, or is system-assigned; the others have a client id and `entra`.
    """

    ref: ObjectRef
    type: IdentityType
    client_id: ClientId | None = None
    resource_id: ResourceId | None = None
    object_id: ObjectId | None = None
    system_assigned: bool = False
    """The identity of the node's machine itself."""
    namespaced: bool = False
    """Usable only in its namespace, even if the operator lets identities cross namespaces."""
    entra: Entra | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureIdentityBinding:
    """Pods of the binding's namespace labelled with `selector` may use AzureIdentity `identity`."""

    ref: ObjectRef
    identity: str
    """Name of an AzureIdentity of the binding's own namespace."""
    selector: str
    """Never empty."""
    weight: int = 0


class Assignment(StrEnum):
    """The state of an identity's attachment to the pod's node; the words of `status.status`."""

    CREATED = "Created"
    ASSIGNED = "Assigned"
    UNASSIGNED = "Unassigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureAssignedIdentity:
    """The controller's record that an identity is attached to the pod's node.

    The copies of identity and binding in the object are not read: their author could write
    anything into them.
    """

    ref: ObjectRef
    pod: ObjectRef
    identity: ObjectRef
    node: str
    state: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class AzurePodIdentityException:
    """The node's own IMDS answers the pods of its namespace that have all these labels."""

    ref: ObjectRef
    pod_labels: Mapping[str, str] = field(hash=False)
    identities: tuple[ClientId | ResourceId, ...] = ()
    """The identities that they may request; empty: all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentity:
    """The identity in the annotations of a service account, as for azure-workload-identity."""

    ref: ObjectRef
    client_id: ClientId
    tenant: Tenant | None = None
    """None: the agent's `--tenant-id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """An object that exists and cannot be used."""

    ref: ObjectRef
    kind: str
    why: str
    """A clause such as `spec.clientID must be a GUID, not 'x'`."""
    selector: str = ""
    """Of a binding: that of the pods which it is for; "" if it says none."""
    left_out: bool = False
    """Over a budget of `core.budgets`, whatever it says: MIC takes nothing away because of it."""


class Phase(StrEnum):
    """A pod's phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


ENDED = frozenset({Phase.SUCCEEDED, Phase.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """The facts about a pod that the rules and the proof use."""

    ref: ObjectRef
    uid: str
    node: str = ""
    service_account: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    addresses: tuple[str, ...] = ()
    """All of `status.podIPs`, canonical text."""
    host_network: bool = False
    phase: Phase = Phase.RUNNING
    started: float = 0.0
    """`status.startTime`, else the creation time, in seconds since 1970."""
    attestation: str = ""
    """Value of the attestation annotation; "" without one."""
    csi_drivers: frozenset[str] = frozenset()
    """Drivers of the CSI volumes in its spec."""
    probe: str = ""
    """Value of the probe annotation; "" without one."""
    config_hash: str = ""
    """`kubernetes.io/config.hash` of a static pod: its cgroup is named by it, not by its uid."""
    runtime_class: str = ""
    """`spec.runtimeClassName`, which nobody can change after the pod was made; "" without one."""
    in_ambient_mesh: bool = False
    """Whether Istio says that its ztunnel makes the pod's connections."""

    @property
    def account(self) -> ObjectRef:
        return ObjectRef(self.ref.namespace, self.service_account)

    @property
    def selector(self) -> str:
        """The value of the binding label; "" without one."""
        return self.labels.get(BINDING_LABEL, "")

    @property
    def ended(self) -> bool:
        """Whether its processes have ended; its address may belong to another pod by now."""
        return self.phase in ENDED


# Token requests, grants and tokens.


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """A pod's request, parsed; at most one of the three ids is given."""

    resource: str
    """The audience exactly as requested, with or without a slash at its end: it is echoed."""
    client_id: ClientId | None = None
    object_id: ObjectId | None = None
    resource_id: ResourceId | None = None
    bypass_cache: bool = False
    tenant: Tenant | None = None
    """One of the identity's auxiliary tenants, named by IMDS's parameter `authority`."""

    @property
    def asked(self) -> ClientId | ObjectId | ResourceId | None:
        return self.client_id or self.object_id or self.resource_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The result of the rules: a token of `identity` may be fetched for `pod`."""

    identity: AzureIdentity
    pod: Pod
    """The pod that requests the token; the subject of a federated identity's assertion."""
    tenant: Tenant | None = None
    """An auxiliary tenant; None: the identity's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """A token and its lifetime. Times are whole seconds since 1970."""

    value: str = field(repr=False)
    client_id: ClientId | None
    expires_on: int
    not_before: int
    resource: str
    ext_expires_in: int = 0
    """Seconds that it may be used beyond `expires_on` in an outage; 0 if the issuer names none."""
    token_type: str = "Bearer"  # noqa: S105 - a type of token, not a token

    def life(self, now: float) -> int:
        """Return the whole seconds left at `now`, never negative."""
        return max(0, self.expires_on - int(now))


class Origin(StrEnum):
    """The origin of a token, for the log."""

    CACHE = "cache"
    IMDS = "imds"
    ENTRA = "entra"
    SHARED = "shared"
    """The fetch of another request, already under way."""


class CachedToken(Protocol):
    """A token, and the time until which it may be given without a look-up."""

    @property
    def token(self) -> AccessToken:
        """The token."""

    @property
    def fresh_until(self) -> float:
        """In monotonic seconds; in the past after the entry was dropped or replaced."""

    @property
    def fresh_until_time(self) -> float:
        """The same in seconds since 1970; the earlier one counts."""


class Fetched(NamedTuple):
    """A token from its source."""

    entry: CachedToken
    origin: Origin

    @property
    def token(self) -> AccessToken:
        return self.entry.token
