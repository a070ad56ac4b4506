"""Every route of the sandbox's ARM on one page: method, path, the action that it needs, handler.

Paths are matched without regard to case. An action of "" needs a valid token and no role.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from podidentity_sandbox.azure.aks import clusters
from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.arm import (
    assignments,
    identities,
    operations,
    scalesets,
    storage,
    subscription,
    vaults,
)
from podidentity_sandbox.azure.arm.call import ArmCall, Handler
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import (
    Group,
    L,
    ScaleSet,
    StorageAccount,
    UserAssignedIdentity,
    Vault,
    VirtualMachine,
)


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table."""

    method: str
    pattern: re.Pattern[str]
    action: str
    handler: Handler


_SUBSCRIPTION = "/subscriptions/(?P<subscription>[^/]+)"
_GROUPS = f"{_SUBSCRIPTION}/resourcegroups"
_GROUP = f"{_GROUPS}/(?P<group>[^/]+)"
_NAME = "/(?P<name>[^/]+)"
_AUTHORIZATION = (
    rf"(?P<scope>{_SUBSCRIPTION}(?:/resourcegroups/[^/]+(?:/providers/[^/]+(?:/[^/]+/[^/]+)+)?)?)"
    r"/providers/microsoft\.authorization"
)


def _route(method: str, path: str, action: str, handler: Handler) -> Route:
    return Route(method, re.compile(path, re.IGNORECASE), action, handler)


_VERBS = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}


def _one(path: str, kind: str, **handlers: Handler) -> tuple[Route, ...]:
    return tuple(_route(m, path, f"{kind}/{_VERBS[m]}", do) for m, do in handlers.items())


def _kind(
    record: type[L], shown: Callable[[ArmCall, L], dict[str, Any]], **handlers: Handler
) -> tuple[Route, ...]:
    """Return the routes to a resource in a group, and to its kind's lists.

    `shown` gives the document of one. The lists show what their caller may read: they need no
    permission.
    """
    provider = f"/providers/{re.escape(record.TYPE)}"

    def one(call: ArmCall) -> Reply:
        return Reply.json(shown(call, call.existing(record)))

    def every(call: ArmCall) -> Reply:
        return Reply.json({"value": [shown(call, each) for each in call.listed(record)]})

    return (
        *_one(f"{_GROUP}{provider}{_NAME}", record.TYPE, GET=one, **handlers),
        _route("GET", f"{_GROUP}{provider}", "", every),
        _route("GET", f"{_SUBSCRIPTION}{provider}", "", every),
    )


def _on_one(kind: str, action: str, handler: Handler) -> Route:
    path = f"{_GROUP}/providers/{re.escape(kind)}{_NAME}/{action}"
    return _route("POST", path, f"{kind}/{action}/action", handler)


_FEATURE = "Microsoft.Features/providers/features"
_NAMESPACE = f"{_SUBSCRIPTION}/providers/(?P<namespace>[^/]+)"
_ONE_FEATURE = (
    rf"{_SUBSCRIPTION}/providers/microsoft\.features/providers/(?P<namespace>[^/]+)/features{_NAME}"
)
_POOLS = rf"{_GROUP}/providers/{re.escape(ManagedCluster.TYPE)}{_NAME}/agentpools"
_CREDENTIALS = (
    rf"{_GROUP}/providers/{re.escape(UserAssignedIdentity.TYPE)}{_NAME}/{identities.CREDENTIALS}"
)
_ROLES = "Microsoft.Authorization/roleAssignments"
_DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


def _in_locations(provider: str, what: str, handler: Handler) -> Route:
    path = rf"{_SUBSCRIPTION}/providers/microsoft\.{provider}/locations/[^/]+/{what}{_NAME}"
    return _route("GET", path, "", handler)


ROUTES = (
    _route("GET", "/subscriptions", "", subscription.list_subscriptions),
    *_one(_SUBSCRIPTION, "Microsoft.Resources/subscriptions", GET=subscription.get_subscription),
    _route("GET", _GROUPS, "", subscription.list_groups),
    _route("HEAD", _GROUP, f"{Group.TYPE}/read", subscription.head_group),
    *_one(
        _GROUP,
        Group.TYPE,
        GET=subscription.get_group,
        PUT=subscription.put_group,
        DELETE=subscription.delete_group,
    ),
    _route("GET", f"{_GROUP}/resources", "", subscription.list_resources),
    _route("GET", f"{_SUBSCRIPTION}/resources", "", subscription.list_resources),
    *_one(_ONE_FEATURE, _FEATURE, GET=subscription.get_feature),
    _route(
        "POST", f"{_ONE_FEATURE}/register", f"{_FEATURE}/register/action", subscription.register
    ),
    _route("GET", _NAMESPACE, "", subscription.get_provider),
    _route(
        "POST",
        f"{_NAMESPACE}/register",
        "Microsoft.Resources/subscriptions/providers/register/action",
        subscription.get_provider,
    ),
    *_kind(ManagedCluster, clusters.shown, PUT=clusters.put_cluster),
    _on_one(ManagedCluster.TYPE, "listClusterUserCredential", clusters.user_credential),
    _on_one(ManagedCluster.TYPE, "listClusterAdminCredential", clusters.admin_credential),
    *_one(_POOLS, f"{ManagedCluster.TYPE}/agentPools", GET=clusters.list_pools),
    _in_locations("containerservice", "operations", operations.get_operation),
    *_kind(
        UserAssignedIdentity,
        identities.shown,
        PUT=identities.put_identity,
        # Scale sets that name it keep the name, and get no token for it.
        DELETE=lambda call: call.removed(UserAssignedIdentity),
    ),
    *_one(_CREDENTIALS, identities.CREDENTIAL_TYPE, GET=identities.list_credentials),
    *_one(
        f"{_CREDENTIALS}/(?P<credential>[^/]+)",
        identities.CREDENTIAL_TYPE,
        GET=identities.get_credential,
        PUT=identities.put_credential,
        DELETE=identities.delete_credential,
    ),
    *(
        route
        for record in (ScaleSet, VirtualMachine)
        for route in _kind(
            record,
            scalesets.shown,
            PATCH=partial(scalesets.patch, record),
            DELETE=partial(scalesets.delete, record),
        )
    ),
    *_kind(Vault, vaults.shown, PUT=vaults.put_vault, DELETE=lambda call: call.removed(Vault)),
    *_kind(
        StorageAccount,
        storage.shown,
        PUT=storage.put_account,
        DELETE=lambda call: call.removed(StorageAccount),
    ),
    _on_one(StorageAccount.TYPE, "listKeys", storage.list_keys),
    _route(
        "POST",
        rf"{_SUBSCRIPTION}/providers/microsoft\.storage/checknameavailability",
        "Microsoft.Storage/checknameavailability/read",
        storage.check_name,
    ),
    *_one(f"{_AUTHORIZATION}/roledefinitions", _DEFINITIONS, GET=assignments.list_definitions),
    *_one(
        f"{_AUTHORIZATION}/roledefinitions{_NAME}",
        _DEFINITIONS,
        GET=assignments.get_definition,
        PUT=assignments.put_definition,
        DELETE=assignments.delete_definition,
    ),
    *_one(f"{_AUTHORIZATION}/roleassignments", _ROLES, GET=assignments.list_assignments),
    *_one(
        f"{_AUTHORIZATION}/roleassignments{_NAME}",
        _ROLES,
        PUT=assignments.put_assignment,
        DELETE=assignments.delete_assignment,
    ),
    _in_locations("compute", "operations", operations.get_operation),
)
