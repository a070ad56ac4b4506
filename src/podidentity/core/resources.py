"""The custom resources, and the facts of pods and nodes that they meet.

Values of this module are already right: `wire.manifests` parses what the API server sends, and
turns what cannot be used into a Malformed value that carries the reason, so that one bad object
is seen and explained and disturbs no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

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


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureIdentity:
    """An identity that a namespace asks to use; for type 0 at least one of the two ids is there."""

    ref: ObjectRef
    type: IdentityType
    client_id: ClientId | None = None
    resource_id: ResourceId | None = None
    object_id: ObjectId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureIdentityBinding:
    """Pods of the binding's namespace labelled with `selector` may use AzureIdentity `identity`."""

    ref: ObjectRef
    identity: str
    """Name of an AzureIdentity of the binding's own namespace."""
    selector: str
    """Never empty."""
    weight: int = 0


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
