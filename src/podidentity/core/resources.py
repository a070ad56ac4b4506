"""The custom resources, and pods.

Values of this module are valid: `wire.manifests` parses the API server's JSON, and turns an object
that cannot be used into a Malformed with the reason. So one bad object is reported and explained,
and affects no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from podidentity.core.authorities import Authority, Tenant
from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId

BINDING_LABEL = "aadpodidbinding"
"""The pod label; a binding's selector must equal its value exactly, with case."""

ATTESTATION_ANNOTATION = "aadpodidentity.k8s.io/attestation"
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


class Phase(StrEnum):
    """A pod's phase."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


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
    config_hash: str = ""
    """`kubernetes.io/config.hash` of a static pod: its cgroup is named by it, not by its uid."""

    @property
    def selector(self) -> str:
        """The value of the binding label; "" without one."""
        return self.labels.get(BINDING_LABEL, "")

    @property
    def ended(self) -> bool:
        """Whether its processes have ended; its address may belong to another pod by now."""
        return self.phase in {Phase.SUCCEEDED, Phase.FAILED}
