"""Every route of the sandbox's ARM on one page: method, path, the action that it needs, handler.

Paths are matched without regard to case. An action of "" needs a valid token and no role.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from podidentity_sandbox.azure.aks import clusters
from podidentity_sandbox.azure.aks.profile import KIND as CLUSTERS
from podidentity_sandbox.azure.arm import (
    assignments,
    identities,
    operations,
    scalesets,
    storage,
    subscription,
    vaults,
)
from podidentity_sandbox.azure.arm.call import Handler


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
    """Return the routes to one resource of that kind, by their methods."""
    return tuple(_route(m, path, f"{kind}/{_VERBS[m]}", do) for m, do in handlers.items())


def _kind(kind: str, *, every: Handler, **handlers: Handler) -> tuple[Route, ...]:
    """Return the routes to a resource in a group, and to its kind's lists.

    The handler of the lists shows what its caller may read: they need no permission.
    """
    provider = f"/providers/{re.escape(kind)}"
    return (
        *_one(f"{_GROUP}{provider}{_NAME}", kind, **handlers),
        _route("GET", f"{_GROUP}{provider}", "", every),
        _route("GET", f"{_SUBSCRIPTION}{provider}", "", every),
    )


def _on_one(kind: str, action: str, handler: Handler) -> Route:
    path = f"(?P<resource>{_GROUP}/providers/{re.escape(kind)}{_NAME})/{action}"
    return _route("POST", path, f"{kind}/{action}/action", handler)


_FEATURE = "Microsoft.Features/providers/features"
_NAMESPACE = f"{_SUBSCRIPTION}/providers/(?P<namespace>[^/]+)"
_ONE_FEATURE = (
    rf"{_SUBSCRIPTION}/providers/microsoft\.features/providers/(?P<namespace>[^/]+)/features{_NAME}"
)
_POOLS = rf"(?P<resource>{_GROUP}/providers/{re.escape(CLUSTERS)}{_NAME})/agentpools"
_CREDENTIALS = f"{_GROUP}/providers/{re.escape(identities.KIND)}{_NAME}/{identities.CREDENTIALS}"
_ROLES = "Microsoft.Authorization/roleAssignments"
_DEFINITIONS = "Microsoft.Authorization/roleDefinitions"


def _in_locations(provider: str, what: str, handler: Handler) -> Route:
    path = rf"{_SUBSCRIPTION}/providers/microsoft\.{provider}/locations/[^/]+/{what}{_NAME}"
    return _route("GET", path, "", handler)


ROUTES = (
    _route("GET", "/subscriptions", "", subscription.list_subscriptions),
    *_one(_SUBSCRIPTION, "Microsoft.Resources/subscriptions", GET=subscription.get_subscription),
    _route("GET", _GROUPS, "", subscription.list_groups),
    _route("HEAD", _GROUP, f"{subscription.KIND}/read", subscription.head_group),
    *_one(
        _GROUP,
        subscription.KIND,
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
    *_kind(
        CLUSTERS,
        every=clusters.list_clusters,
        GET=clusters.get_cluster,
        PUT=clusters.put_cluster,
    ),
    _on_one(CLUSTERS, "listClusterUserCredential", clusters.user_credential),
    _on_one(CLUSTERS, "listClusterAdminCredential", clusters.admin_credential),
    *_one(_POOLS, f"{CLUSTERS}/agentPools", GET=clusters.list_pools),
    _in_locations("containerservice", "operations", operations.get_operation),
    *_kind(
        identities.KIND,
        every=identities.list_identities,
        GET=identities.get_identity,
        PUT=identities.put_identity,
        DELETE=identities.delete_identity,
    ),
    *_one(_CREDENTIALS, identities.CREDENTIAL_KIND, GET=identities.list_credentials),
    *_one(
        f"{_CREDENTIALS}/(?P<credential>[^/]+)",
        identities.CREDENTIAL_KIND,
        GET=identities.get_credential,
        PUT=identities.put_credential,
        DELETE=identities.delete_credential,
    ),
    *_kind(
        scalesets.KIND,
        every=scalesets.list_scale_sets,
        GET=scalesets.get_scale_set,
        PATCH=scalesets.patch_scale_set,
        DELETE=scalesets.delete_scale_set,
    ),
    *_kind(
        scalesets.VM_KIND,
        every=scalesets.list_machines,
        GET=scalesets.get_machine,
        PATCH=scalesets.patch_machine,
        DELETE=scalesets.delete_machine,
    ),
    *_kind(
        vaults.KIND,
        every=vaults.list_vaults,
        GET=vaults.get_vault,
        PUT=vaults.put_vault,
        DELETE=vaults.delete_vault,
    ),
    *_kind(
        storage.KIND,
        every=storage.list_accounts,
        GET=storage.get_account,
        PUT=storage.put_account,
        DELETE=storage.delete_account,
    ),
    _on_one(storage.KIND, "listKeys", storage.list_keys),
    _route(
        "POST",
        rf"{_SUBSCRIPTION}/providers/microsoft\.storage/checknameavailability",
        "Microsoft.Storage/checknameavailability/read",
        storage.check_name,
    ),
    _in_locations("storage", "asyncoperations", storage.get_result),
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
    _route("GET", f"{_SUBSCRIPTION}/operationresults{_NAME}", "", operations.get_empty_result),
)
