"""Azure Resource Manager's bodies: managed identities, a host's identities, operations, errors.

Azure returns ids in changing case and accepts any; an id is sent as it was first spelled.

Shapes: https://learn.microsoft.com/azure/templates/microsoft.compute/virtualmachinescalesets
(`identity`), https://learn.microsoft.com/rest/api/managedidentity/user-assigned-identities/get,
https://learn.microsoft.com/azure/azure-resource-manager/management/async-operations
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from podidentity.core.hosts import Host, HostChange, HostIdentities, NotAnAzureNode
from podidentity.core.resources import ClientId, InvalidId, ObjectId, ResourceId
from podidentity.wire import BROKEN_JSON

IDENTITY_API = "2024-11-30"
COMPUTE_API = "2024-07-01"
AUTHORIZATION_API = "2022-04-01"
LONGEST_ANSWER = 32 << 20
"""Bytes of a page of a list; a scale set has some ten thousand."""
BEING_DELETED = "BeingDeleted"
"""Our code for a host that Azure is deleting: it would refuse every change of it."""

_SYSTEM, _USER = "SystemAssigned", "UserAssigned"


class ArmError(Exception):
    """Azure refused, or its answer cannot be understood.

    `code` is Azure's (`AuthorizationFailed`). `status` is the HTTP status; 0 if an accepted
    operation failed later, or no answer came. `retry_after` are the seconds that Azure wants to be
    left alone, 0 if it names none. `sent` tells, where no answer came, that it may be done.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        retry_after: float = 0.0,
        sent: bool = False,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.retry_after = retry_after
        self.sent = sent

    @property
    def conflict(self) -> bool:
        """Whether the host is to be read again, and the change to be sent again.

        Another client changed it meanwhile, or Azure itself failed half way.
        """
        codes = {"Conflict", "OperationNotAllowed", "OperationPreempted", "Canceled"}
        codes |= {"InternalExecutionError", "InternalOperationError", "InternalServerError"}
        locked = self.code == "ScopeLocked"
        return (self.status == 409 and not locked) or (self.status == 0 and self.code in codes)

    @property
    def gone(self) -> bool:
        """Whether the host is not there any more, or will not be in a moment."""
        return self.code in {"ResourceNotFound", "ResourceGroupNotFound", BEING_DELETED}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedIdentity:
    """A user-assigned managed identity with the ids that Azure knows it by."""

    resource_id: ResourceId
    client_id: ClientId
    object_id: ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class FederatedCredential:
    """What of a token of another issuer an identity's Entra trusts; compared byte for byte."""

    name: str
    issuer: str
    subject: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePermission:
    """A part of a role: actions that it grants, but for those that it takes out; with wildcards.

    https://learn.microsoft.com/azure/role-based-access-control/role-definitions
    """

    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Whether it grants an action, such as `Microsoft.Compute/virtualMachines/write`."""
        return _any(self.actions, action) and not _any(self.not_actions, action)


def _any(patterns: Iterable[str], action: str) -> bool:
    return any(re.fullmatch(_expression(each), action, re.IGNORECASE) for each in patterns)


def _expression(pattern: str) -> str:
    """Return an action with wildcards as a regular expression.

    A `/*/` may be a single slash, too: Managed Identity Operator has
    `Microsoft.ManagedIdentity/userAssignedIdentities/*/assign/action`, and assigns identities.
    """
    return re.escape(pattern).replace(r"/\*/", "/(?:.*/)?").replace(r"\*", ".*")


def attach(current: HostIdentities, identity: ResourceId) -> dict[str, Any] | None:
    """Return the PATCH body that attaches `identity`; None if it is attached already.

    After a change that failed it is sent again: the machines may lack what is listed.

    Identities that the body does not list stay attached.
    """
    if current.has(identity) and current.state != "failed":
        return None
    return render_change(HostChange.of(current, attach=[identity]))


def detach(current: HostIdentities, *identities: ResourceId) -> dict[str, Any] | None:
    """Return the PATCH body that detaches these; None if none of them is attached."""
    there = [each.folded for each in identities if current.has(each)]
    return render_change(HostChange.of(current, detach=there)) if there else None


def render_change(change: HostChange) -> dict[str, Any]:
    """Return the PATCH body of `change`.

    A null detaches; the last user-assigned identity goes with the type alone.
    """
    present = ((_SYSTEM, change.system), (_USER, change.user))
    block: dict[str, Any] = {"type": ", ".join(kind for kind, is_there in present if is_there)}
    if not block["type"]:
        block["type"] = "None"
    if change.user:
        block["userAssignedIdentities"] = {
            **dict.fromkeys(change.detach),
            **{each: {} for each in change.attach},
        }
    return {"identity": block}


class _Fault(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Shown(msgspec.Struct, kw_only=True):
    """What Azure shows with 200; with an error in it, too, it shows nothing."""

    error: _Fault | None = None


class _IdentityProperties(msgspec.Struct, rename="camel"):
    client_id: str
    principal_id: str


class _Identity(_Shown):
    id: str
    properties: _IdentityProperties


class _CredentialProperties(msgspec.Struct):
    issuer: str
    subject: str
    audiences: list[str]


class _Credential(msgspec.Struct):
    name: str
    properties: _CredentialProperties


class _CredentialList(msgspec.Struct):
    value: list[_Credential]


class _Ids(msgspec.Struct, rename="camel"):
    # The instances of some scale sets name none.
    client_id: str | None = None
    principal_id: str | None = None


class _Block(msgspec.Struct, rename="camel"):
    type: str | None = None
    principal_id: str | None = None
    user_assigned_identities: dict[str, _Ids | None] | None = None


class _HostProperties(msgspec.Struct, rename="camel"):
    # null while Azure makes it
    provisioning_state: str | None = None


class _Host(_Shown):
    id: str | None = None
    identity: _Block | None = None
    etag: str | None = None
    properties: _HostProperties = msgspec.field(default_factory=_HostProperties)


class _HostList(_Shown, rename="camel"):
    value: list[_Host]
    next_link: str | None = None


class _AssignmentProperties(msgspec.Struct, rename="camel"):
    role_definition_id: str


class _Assignment(msgspec.Struct):
    properties: _AssignmentProperties


class _AssignmentList(msgspec.Struct, rename="camel"):
    value: list[_Assignment]
    next_link: str | None = None


class _Permission(msgspec.Struct, rename="camel"):
    actions: list[str] = []
    not_actions: list[str] = []


class _RoleProperties(msgspec.Struct):
    permissions: list[_Permission]


class _Role(msgspec.Struct):
    properties: _RoleProperties


class _Principal(msgspec.Struct):
    id: str


class _GraphCredential(msgspec.Struct):
    name: str
    issuer: str
    subject: str
    audiences: list[str]


class _GraphCredentialList(msgspec.Struct):
    value: list[_GraphCredential]


class _Operation(_Shown):
    status: str


class _Envelope(msgspec.Struct):
    error: _Fault | None = None
    # Compute sends these without the wrapper when it throttles.
    code: str = ""
    message: str = ""


_Shape = TypeVar("_Shape")
_ShownShape = TypeVar("_ShownShape", bound=_Shown)


def parse_identity(body: bytes) -> ManagedIdentity:
    """Return the managed identity in `body`; raise ArmError."""
    found = _shown(body, _Identity, "a managed identity")
    try:
        return ManagedIdentity(
            resource_id=ResourceId.parse(found.id),
            client_id=ClientId.parse(found.properties.client_id),
            object_id=ObjectId.parse(found.properties.principal_id),
        )
    except InvalidId as error:
        raise ArmError("BadAnswer", f"Azure sent an identity whose id {error}") from error


def parse_credentials(body: bytes) -> list[FederatedCredential]:
    """Return the federated credentials in a list, which is one page: they are few; raise ArmError.

    https://learn.microsoft.com/rest/api/managedidentity/federated-identity-credentials/list
    """
    found = _decoded(body, _CredentialList, "a list of federated credentials")
    return [
        FederatedCredential(
            name=each.name,
            issuer=each.properties.issuer,
            subject=each.properties.subject,
            audiences=tuple(each.properties.audiences),
        )
        for each in found.value
    ]


def parse_credentials_of_application(body: bytes) -> list[FederatedCredential]:
    """Return the federated credentials of an application, as Graph lists them; raise ArmError.

    https://learn.microsoft.com/graph/api/application-list-federatedidentitycredentials
    """
    found = _decoded(body, _GraphCredentialList, "a list of federated credentials")
    return [
        FederatedCredential(
            name=each.name,
            issuer=each.issuer,
            subject=each.subject,
            audiences=tuple(each.audiences),
        )
        for each in found.value
    ]


def parse_principal(body: bytes) -> str:
    """Return the object id of a service principal, as Graph shows it; raise ArmError.

    https://learn.microsoft.com/graph/api/serviceprincipal-get
    """
    return _decoded(body, _Principal, "a service principal").id


def parse_assignments(body: bytes) -> tuple[list[str], str]:
    """Return the ids (GUIDs) of the roles of one page of role assignments, and the next page's URL.

    Raises ArmError. https://learn.microsoft.com/rest/api/authorization/role-assignments/list-for-scope
    """
    found = _decoded(body, _AssignmentList, "a list of role assignments")
    roles = [each.properties.role_definition_id.rpartition("/")[2] for each in found.value]
    return roles, found.next_link or ""


def parse_role(body: bytes) -> tuple[RolePermission, ...]:
    """Return what a role grants; raise ArmError.

    https://learn.microsoft.com/rest/api/authorization/role-definitions/get
    """
    found = _decoded(body, _Role, "a role")
    return tuple(
        RolePermission(actions=tuple(each.actions), not_actions=tuple(each.not_actions))
        for each in found.properties.permissions
    )


def parse_principals(body: bytes) -> Mapping[str, str]:
    """Return the object ids of a host's identities by client id, in lower case; raise ArmError.

    "" stands for its system-assigned identity.
    """
    block = _decoded(body, _Host, "a virtual machine or scale set").identity or _Block()
    found = {
        ids.client_id.lower(): ids.principal_id
        for ids in (block.user_assigned_identities or {}).values()
        if ids is not None and ids.client_id and ids.principal_id
    }
    return {**found, **({"": block.principal_id} if block.principal_id else {})}


def parse_host(body: bytes, host: Host | None = None) -> HostIdentities:
    """Return the identities of the scale set or virtual machine in `body`; raise ArmError.

    `host` is what was asked for: an answer about nothing, or something else, shows no identities
    and must not be taken for a host that has none.
    """
    found = _shown(body, _Host, "a virtual machine or scale set")
    if host is not None and (found.id or "").lower() != host.folded:
        raise ArmError("BadAnswer", f"Azure sent something else than {host}")
    return _identities(found)


def parse_host_list(body: bytes) -> tuple[Mapping[Host, HostIdentities], str]:
    """Return the hosts of one page of a list, and the URL of the next, "" at the end.

    Raises ArmError. What is no host of ours, by its id, is left out.
    """
    found = _shown(body, _HostList, "a list of virtual machines or scale sets")
    hosts: dict[Host, HostIdentities] = {}
    for each in found.value:
        with suppress(NotAnAzureNode):
            hosts[Host.parse(each.id or "")] = _identities(each)
    return hosts, found.next_link or ""


def _identities(found: _Host) -> HostIdentities:
    block = found.identity or _Block()
    kinds = {kind.strip().lower() for kind in (block.type or "").split(",")}
    user = block.user_assigned_identities or {}
    return HostIdentities(
        state=(found.properties.provisioning_state or "").lower(),
        system=_SYSTEM.lower() in kinds,
        user={spelled.lower(): spelled for spelled in user},
        clients={
            spelled.lower(): ids.client_id.lower()
            for spelled, ids in user.items()
            if ids is not None and ids.client_id
        },
        etag=found.etag or "",
    )


def parse_operation(body: bytes) -> bool:
    """Return whether the long-running operation in `body` is done; raise ArmError if it failed."""
    found = _decoded(body, _Operation, "the state of an operation")
    state = found.status.lower()
    if state in {"failed", "canceled"}:
        fault = found.error or _Fault()
        raise ArmError(fault.code or found.status, fault.message or "Azure gives no reason")
    _refuse(found.error)
    return state == "succeeded"


def parse_end(body: bytes) -> None:
    """Raise ArmError if what a finished operation ended with is an error.

    It may be nothing, or null.
    """
    if body.strip() not in {b"", b"null"}:
        found = _decoded(body, _Envelope, "the end of an operation")
        _refuse(found.error or _Fault(found.code, found.message))


def parse_error(body: bytes, status: int, retry_after: float = 0.0) -> ArmError:
    """Return the error in `body`; it may have either of Azure's two envelopes, or none."""
    try:
        found = msgspec.json.decode(body, type=_Envelope)
    except BROKEN_JSON:
        found = _Envelope()
    fault = found.error or _Fault(found.code, found.message)
    return ArmError(
        fault.code or f"HTTP{status}",
        fault.message or "no message",
        status=status,
        retry_after=retry_after,
    )


# Ids stand between quotes, several of them with commas:
# https://github.com/Azure/aad-pod-identity/issues/466
_REFUSED_ID = re.compile(r"(?<=[',])/subscriptions/[^',]+(?=[',])", re.IGNORECASE)


def refused_identities(message: str) -> tuple[str, ...]:
    """Return the ids that Azure's message names as those that it refuses, in lower case."""
    found: dict[str, None] = {}
    for each in _REFUSED_ID.findall(message):
        with suppress(InvalidId):
            found[ResourceId.parse(each).folded] = None
    return tuple(found)


def _decoded(body: bytes, shape: type[_Shape], what: str) -> _Shape:
    try:
        return msgspec.json.decode(body, type=shape)
    except BROKEN_JSON as error:
        raise ArmError("BadAnswer", f"Azure did not send {what}: {error}") from error


def _shown(body: bytes, shape: type[_ShownShape], what: str) -> _ShownShape:
    found = _decoded(body, shape, what)
    _refuse(found.error)
    return found


def _refuse(fault: _Fault | None) -> None:
    if fault is not None and (fault.code or fault.message):
        raise ArmError(fault.code or "BadAnswer", fault.message or "Azure gives no reason")
