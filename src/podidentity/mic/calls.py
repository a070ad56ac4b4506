"""What crosses between the controller, which only decides, and the program that acts for it.

The program feeds the controller with events (what it watches) and results (what came of a call),
and does the calls that the controller returns. Every call has exactly one result, unless the
leadership was lost meanwhile. A result is what the call asked for, or a `Failure`: one value with
its kind, the same for Azure and for the API server.

Times are seconds since 1970 that never go back: the program adds what has passed on the monotonic
clock to the time at which it started.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from podidentity.core.decision import Use
from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.ledger import Ledger
from podidentity.core.resources import (
    Assignment,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
)

# What is written about pods, identities and bindings.


class About(StrEnum):
    """The kinds of object that MIC tells something about."""

    IDENTITY = "AzureIdentity"
    BINDING = "AzureIdentityBinding"
    EXCEPTION = "AzurePodIdentityException"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The one condition that MIC writes: `Ready`, of an exception `Effective`."""

    holds: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The content of an AzureAssignedIdentity: what MIC wants it to say."""

    ref: ObjectRef
    pod: ObjectRef
    identity: ObjectRef
    binding: ObjectRef
    node: str
    state: Assignment
    identity_revision: str
    """Of the copy of the identity in it; the same as `IdentitySeen.revision` or outdated."""
    binding_revision: str

    @property
    def revisions(self) -> tuple[str, str]:
        return self.identity_revision, self.binding_revision


@dataclass(frozen=True, slots=True)
class Oddities:
    """What most records have not: a change must leave it as it is."""

    finalizer: int | None = None
    """Where the archived controller's finalizer is in the list; releases of it set one."""
    unlabelled: bool = False
    """Whether it has no labels at all."""


PLAIN = Oddities()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """An AzureAssignedIdentity as the API server has it."""

    ref: ObjectRef
    uid: str
    version: str
    """Its resourceVersion, a decimal number."""
    record: Record | None
    """None if what it says cannot be read."""
    odd: Oddities = PLAIN
    deleting: bool = False


# Events: what the program sees.


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod came, or changed; only those with the binding label need be told."""

    pod: Pod


@dataclass(frozen=True, slots=True)
class PodGone:
    """A pod is deleted; or it has lost the binding label."""

    ref: ObjectRef
    uid: str


@dataclass(frozen=True, slots=True)
class NodeSeen:
    """A node came, or has its provider ID now."""

    name: str
    provider_id: str


@dataclass(frozen=True, slots=True)
class NodeGone:
    """A node is deleted."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySeen:
    """An AzureIdentity came, or changed."""

    identity: AzureIdentity | Malformed
    revision: str
    """Equal if and only if the spec and the behaviour annotation are: a digest of them."""
    condition: Condition | None = None
    """The one that it has, for the generation that it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingSeen:
    """An AzureIdentityBinding came, or changed."""

    binding: AzureIdentityBinding | Malformed
    revision: str
    condition: Condition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExceptionSeen:
    """An AzurePodIdentityException came, or changed."""

    exception: AzurePodIdentityException | Malformed
    condition: Condition | None = None


@dataclass(frozen=True, slots=True)
class ObjectGone:
    """An AzureIdentity, a binding or an exception is deleted."""

    about: About
    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class RecordSeen:
    """An AzureAssignedIdentity came, or changed."""

    stored: StoredRecord


@dataclass(frozen=True, slots=True)
class RecordGone:
    """An AzureAssignedIdentity is deleted."""

    ref: ObjectRef
    uid: str


@dataclass(frozen=True, slots=True)
class Synced:
    """Every list has been read once; before it nothing is decided."""


@dataclass(frozen=True, slots=True)
class Leading:
    """This MIC leads, and may write until `until`; told again at each renewal of the lease."""

    until: float


@dataclass(frozen=True, slots=True)
class Deposed:
    """This MIC does not lead any more. Results of the calls under way need not be told."""


@dataclass(frozen=True, slots=True)
class Pausing:
    """The operator pauses writes to Azure (`podidentity mic pause`), or ends that."""

    everywhere: bool = False
    hosts: frozenset[Host] = frozenset()


@dataclass(frozen=True, slots=True)
class PermissionsChanged:
    """Roles or their bindings changed: permissions are asked for again."""

    namespace: str | None = None
    """The one of the service accounts concerned; None: any."""


LISTS = "lists"


@dataclass(frozen=True, slots=True)
class Unclear:
    """Objects of a namespace are left out for a budget, and may say anything; or none are."""

    namespace: str
    """"" for all, where `what` is `LISTS`: what was known may be of another history."""
    what: str
    """The kind whose namespace is over its budget, or one object that is too large."""
    holds: bool


Event = (
    PodSeen
    | PodGone
    | NodeSeen
    | NodeGone
    | IdentitySeen
    | BindingSeen
    | ExceptionSeen
    | ObjectGone
    | RecordSeen
    | RecordGone
    | Synced
    | Leading
    | Deposed
    | Pausing
    | PermissionsChanged
    | Unclear
)


# Calls: what the program does, each with the result that it gives.


@dataclass(frozen=True, slots=True)
class ReadHost:
    """Read a host from Azure; gives HostIdentities."""

    host: Host


@dataclass(frozen=True, slots=True)
class ListHosts:
    """Read all scale sets, or all virtual machines, of a resource group; gives HostList."""

    subscription: str
    group: str
    scale_sets: bool


@dataclass(frozen=True, slots=True)
class PatchHost:
    """Change a host in Azure, if it is still of version `etag` ("": whatever); gives Accepted."""

    host: Host
    change: HostChange
    etag: str


@dataclass(frozen=True, slots=True)
class PollOperation:
    """Ask how far a change is; gives Progress."""

    host: Host
    operation: str


@dataclass(frozen=True, slots=True)
class ListLedgers:
    """Read the ledgers of all hosts by quorum; gives LedgerList."""


@dataclass(frozen=True, slots=True)
class ReadLedger:
    """Read the ledger of one host by quorum; gives StoredLedger."""

    host: Host


@dataclass(frozen=True, slots=True)
class WriteLedger:
    """Write a host's ledger where it is still of `version` ("": where there is none).

    Gives StoredLedger. An empty one is written as any other: were it deleted, a late request of
    before could make it once more.
    """

    ledger: Ledger
    version: str
    gone: bool = False
    """Delete it instead: Azure has no such host any more. Gives StoredLedger(None, "")."""


@dataclass(frozen=True, slots=True)
class ListUse:
    """List by quorum what may need identities: first bindings and identities, then pods.

    Gives InUse. The pods are those with the binding label.
    """


@dataclass(frozen=True, slots=True)
class AskPermission:
    """Ask the cluster's RBAC; gives a bool."""

    use: Use


@dataclass(frozen=True, slots=True)
class CreateRecord:
    """Create an AzureAssignedIdentity, its status in the same request; gives StoredRecord."""

    record: Record
    since: float
    """When the pod began to need it: what passes until it says Assigned is measured."""


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """Make the AzureAssignedIdentity of this uid and version say `record`; gives StoredRecord.

    Finalizers of MIC's are taken off. None for `record`: only they are.
    """

    ref: ObjectRef
    record: Record | None
    uid: str
    version: str
    since: float
    odd: Oddities = PLAIN


@dataclass(frozen=True, slots=True)
class DeleteRecord:
    """Delete the AzureAssignedIdentity of this uid; gives None."""

    ref: ObjectRef
    uid: str


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """Read an AzureAssignedIdentity by quorum; gives StoredRecord, or None if there is none."""

    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """Write the condition of an object; gives None."""

    about: About
    ref: ObjectRef
    condition: Condition


@dataclass(frozen=True, slots=True)
class TellEvent:
    """Write a Kubernetes event about a binding; gives None."""

    about: About
    ref: ObjectRef
    type: Literal["Normal", "Warning"]
    reason: str
    note: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """Write a line to the log, and count it by `topic`; has no result."""

    topic: str
    message: str
    next_step: str = ""
    host: Host | None = None


Action = (
    ReadHost
    | ListHosts
    | PatchHost
    | PollOperation
    | ListLedgers
    | ReadLedger
    | WriteLedger
    | ListUse
    | AskPermission
    | CreateRecord
    | UpdateRecord
    | DeleteRecord
    | ReadRecord
    | WriteCondition
    | TellEvent
    | LogLine
)

WRITES = (
    PatchHost,
    WriteLedger,
    CreateRecord,
    UpdateRecord,
    DeleteRecord,
    WriteCondition,
    TellEvent,
)
"""What only a leader does: the program looks at its lease once more, just before it sends."""


@dataclass(frozen=True, slots=True)
class Call:
    """An action with the number by which its result is told."""

    number: int
    action: Action


# What people are told of.


class Obstacle(StrEnum):
    """What keeps MIC from its work in Azure."""

    THROTTLED = "throttled"
    """Azure refuses requests for a while."""
    SILENT = "silent"
    """Requests have no answer, one after the other."""
    HOST = "host"
    """A host may not be read or changed, or each change of it fails."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that keeps MIC from its work in Azure."""

    obstacle: Obstacle
    what: str
    """`writes to subscription S`, or `HOST: why`."""
    until: float = 0.0
    """When requests may be sent again; 0 if nobody knows."""


# Results.


@dataclass(frozen=True, slots=True)
class HostList:
    """The hosts of a resource group."""

    hosts: Mapping[Host, HostIdentities]


@dataclass(frozen=True, slots=True)
class Accepted:
    """Azure has taken a change."""

    operation: str = ""
    """By which its progress is polled; "" if it is done."""
    after: float = 0.0
    """Seconds that Azure asks to wait before the first poll; 0 if it says nothing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a change is; one that failed is a Failure."""

    done: bool
    after: float = 0.0
    operation: str = ""
    """Which operation to ask for next, where that is known."""


@dataclass(frozen=True, slots=True)
class StoredLedger:
    """A host's ledger as the API server has it; None and "" if there is none."""

    ledger: Ledger | None
    version: str
    malformed: str = ""
    """Why it cannot be read; it then counts as lost."""


@dataclass(frozen=True, slots=True)
class LedgerList:
    """The ledgers of all hosts."""

    ledgers: Mapping[Host, StoredLedger]


@dataclass(frozen=True, slots=True)
class InUse:
    """What may need identities, as a quorum of the API server had it."""

    pods: tuple[Pod, ...]
    identities: tuple[AzureIdentity | Malformed, ...]
    bindings: tuple[AzureIdentityBinding | Malformed, ...]
    unclear: frozenset[str] = frozenset()
    """Namespaces of which objects are left out for a budget. Pods that are have a nameless one
    each node in their place."""


class Fault(StrEnum):
    """The kinds of failure; values are stable, for logs and metrics."""

    THROTTLED = "throttled"
    """Too many requests; `retry_after` says how long none may be sent."""
    CONFLICT = "conflict"
    """Changed by another meanwhile, or a change of another is under way: 409, 412."""
    PREEMPTED = "preempted"
    """The operation was cancelled, by a later one or by Azure."""
    DENIED = "denied"
    """A deny assignment or a lock: to ask again does not help."""
    BAD_IDENTITIES = "bad-identities"
    """Azure refuses the change because of `bad`; empty where it does not say which."""
    NOT_FOUND = "not-found"
    FORBIDDEN = "forbidden"
    """A right is missing."""
    INVALID = "invalid"
    """The API server refuses the object as it is: 400, 422."""
    UNREACHABLE = "unreachable"
    """Nobody was asked: no connection, no credentials."""
    LOST = "lost"
    """The request was sent and no answer came: it may be done, or be done later."""
    FAILED = "failed"
    """Any other: 5xx, an answer that makes no sense, an operation that failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a call gave nothing."""

    kind: Fault
    message: str = ""
    """What the other side said, for a condition and a log line."""
    code: str = ""
    retry_after: float = 0.0
    bad: tuple[str, ...] = ()
    """Ids in lower case."""


Result = (
    HostIdentities
    | HostList
    | Accepted
    | Progress
    | StoredLedger
    | LedgerList
    | InUse
    | StoredRecord
    | bool
    | None
    | Failure
)
