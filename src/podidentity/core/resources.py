"""The custom resources, and the facts of pods and nodes that they meet.

Values of this module are already right: `wire.manifests` parses what the API server sends, and
turns what cannot be used into a Malformed value that carries the reason, so that one bad object
is seen and explained and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from podidentity.core.authorities import Authority, Tenant
from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId

BINDING_LABEL = "aadpodidbinding"
"""The pod label whose value is matched with a binding's selector, exactly and with case."""

ATTESTATION_ANNOTATION = "aadpodidentity.k8s.io/attestation"
"""On a pod: `address` lowers the demand of a kernel proof for that pod alone."""


class IdentityType(IntEnum):
    """`spec.type` of an AzureIdentity."""

    USER_ASSIGNED = 0
    SERVICE_PRINCIPAL = 1
    CERTIFICATE = 2
    FEDERATED = 3


SYSTEM_ASSIGNED = "system-assigned"
"""`spec.resourceID` of the AzureIdentity that stands for the node's own identity."""


class AssertionSubject(StrEnum):
    """Whom the assertion of a federated identity names; values are those of the manifest."""

    POD = "pod"
    """The pod's own service account: Entra decides for each one."""
    IDENTITY = "identity"
    """A service account of the identity's own: one credential in Entra, however many pods."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """How a type 3 identity gets its assertion."""

    subject: AssertionSubject = AssertionSubject.POD
    audience: str = ""
    """What the assertion is made out to; "": what the cloud expects."""
    via: ResourceId | None = None
    """A managed identity whose token is the assertion: for an app of another tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entra:
    """How Entra is asked for an identity of type 1, 2 or 3."""

    tenant: Tenant
    authority: Authority | None = None
    """None: that of the agent's cloud."""
    auxiliary_tenants: tuple[Tenant, ...] = ()
    """Other tenants in which tokens may be asked for."""
    secret: ObjectRef | None = None
    """The Kubernetes secret of types 1 and 2."""
    federation: Federation | None = None
    """Of type 3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureIdentity:
    """An identity that a namespace asks to use.

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
    """Bound to its namespace even where an operator lets identities cross namespaces."""
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
    """How far an identity is on its way to the pod's node; the words of `status.status`."""

    CREATED = "Created"
    ASSIGNED = "Assigned"
    UNASSIGNED = "Unassigned"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureAssignedIdentity:
    """The controller's word that an identity is on the pod's node, and nothing else.

    The copies of identity and binding that the object carries are not read: whoever can write
    one could put anything into them.
    """

    ref: ObjectRef
    pod: ObjectRef
    identity: ObjectRef
    node: str
    state: Assignment


@dataclass(frozen=True, slots=True, kw_only=True)
class AzurePodIdentityException:
    """Pods of its namespace with all these labels are answered by the node's own IMDS."""

    ref: ObjectRef
    pod_labels: Mapping[str, str] = field(hash=False)
    identities: tuple[ClientId | ResourceId, ...] = ()
    """What they may ask for; empty: anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadIdentity:
    """What azure-workload-identity's annotations of a service account say."""

    ref: ObjectRef
    client_id: ClientId
    tenant: Tenant | None = None
    """None: the one that the agent was told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """An object that exists and cannot be used."""

    ref: ObjectRef
    kind: str
    why: str
    """A clause such as `spec.clientID must be a GUID, not 'x'`."""


class Phase(StrEnum):
    """A pod's phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the rules and the proof need to know of a pod."""

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
    """Value of the attestation annotation; "" where there is none."""
    csi_drivers: frozenset[str] = frozenset()
    """Drivers of the CSI volumes in its spec."""
    config_hash: str = ""
    """`kubernetes.io/config.hash` of a static pod: its cgroup is named by it, not by its uid."""

    @property
    def selector(self) -> str:
        """The value of the binding label; "" where the pod has none."""
        return self.labels.get(BINDING_LABEL, "")

    @property
    def ended(self) -> bool:
        """Whether its processes are gone for good; its address may belong to another by now."""
        return self.phase in {Phase.SUCCEEDED, Phase.FAILED}
