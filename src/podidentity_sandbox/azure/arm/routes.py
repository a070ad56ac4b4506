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


def _of_kind(method: str, kind: str, action: str, handler: Handler) -> Route:
    path = f"{_GROUP}/providers/{re.escape(kind)}{_NAME}"
    return _route(method, path, f"{kind}/{action}", handler)


def _on_one(kind: str, action: str, handler: Handler) -> Route:
    path = f"(?P<resource>{_GROUP}/providers/{re.escape(kind)}{_NAME})/{action}"
    return _route("POST", path, f"{kind}/{action}/action", handler)


def _lists(kind: str, handler: Handler) -> tuple[Route, Route]:
    in_group = f"{_GROUP}/providers/{re.escape(kind)}"
    in_all = f"{_SUBSCRIPTION}/providers/{re.escape(kind)}"
    # Each handler shows what its caller may read: the list itself needs no permission.
    return _route("GET", in_group, "", handler), _route("GET", in_all, "", handler)


_ROLES = "Microsoft.Authorization/roleAssignments"


def _features() -> tuple[Route, ...]:
    namespace = "/(?P<namespace>[^/]+)"
    one = rf"{_SUBSCRIPTION}/providers/microsoft\.features/providers{namespace}/features{_NAME}"
    kind = "Microsoft.Features/providers/features"
    return (
        _route("GET", one, f"{kind}/read", subscription.get_feature),
        _route("POST", f"{one}/register", f"{kind}/register/action", subscription.register),
        _route("GET", f"{_SUBSCRIPTION}/providers{namespace}", "", subscription.get_provider),
        _route(
            "POST",
            f"{_SUBSCRIPTION}/providers{namespace}/register",
            "Microsoft.Resources/subscriptions/providers/register/action",
            subscription.get_provider,
        ),
    )


def _clusters() -> tuple[Route, ...]:
    pools = rf"(?P<resource>{_GROUP}/providers/{re.escape(CLUSTERS)}{_NAME})/agentpools"
    provider = rf"{_SUBSCRIPTION}/providers/microsoft\.containerservice"
    return (
        _of_kind("GET", CLUSTERS, "read", clusters.get_cluster),
        _of_kind("PUT", CLUSTERS, "write", clusters.put_cluster),
        *_lists(CLUSTERS, clusters.list_clusters),
        _on_one(CLUSTERS, "listClusterUserCredential", clusters.user_credential),
        _on_one(CLUSTERS, "listClusterAdminCredential", clusters.admin_credential),
        _route("GET", pools, f"{CLUSTERS}/agentPools/read", clusters.list_pools),
        _route(
            "GET",
            f"{provider}/locations/[^/]+/operations{_NAME}",
            "",
            operations.get_operation,
        ),
    )


def _credentials() -> tuple[Route, ...]:
    every = f"{_GROUP}/providers/{re.escape(identities.KIND)}{_NAME}/{identities.CREDENTIALS}"
    return (
        _route("GET", every, f"{identities.CREDENTIAL_KIND}/read", identities.list_credentials),
        *(
            _route(
                method,
                f"{every}/(?P<credential>[^/]+)",
                f"{identities.CREDENTIAL_KIND}/{action}",
                handler,
            )
            for method, action, handler in (
                ("GET", "read", identities.get_credential),
                ("PUT", "write", identities.put_credential),
                ("DELETE", "delete", identities.delete_credential),
            )
        ),
    )


ROUTES = (
    _route("GET", "/subscriptions", "", subscription.list_subscriptions),
    _route(
        "GET",
        _SUBSCRIPTION,
        "Microsoft.Resources/subscriptions/read",
        subscription.get_subscription,
    ),
    _route("GET", _GROUPS, "", subscription.list_groups),
    _route("GET", _GROUP, f"{subscription.KIND}/read", subscription.get_group),
    _route("HEAD", _GROUP, f"{subscription.KIND}/read", subscription.head_group),
    _route("PUT", _GROUP, f"{subscription.KIND}/write", subscription.put_group),
    _route("DELETE", _GROUP, f"{subscription.KIND}/delete", subscription.delete_group),
    _route("GET", f"{_GROUP}/resources", "", subscription.list_resources),
    _route("GET", f"{_SUBSCRIPTION}/resources", "", subscription.list_resources),
    *_features(),
    *_clusters(),
    _of_kind("GET", identities.KIND, "read", identities.get_identity),
    _of_kind("PUT", identities.KIND, "write", identities.put_identity),
    _of_kind("DELETE", identities.KIND, "delete", identities.delete_identity),
    *_lists(identities.KIND, identities.list_identities),
    *_credentials(),
    _of_kind("GET", scalesets.KIND, "read", scalesets.get_scale_set),
    _of_kind("PATCH", scalesets.KIND, "write", scalesets.patch_scale_set),
    _of_kind("DELETE", scalesets.KIND, "delete", scalesets.delete_scale_set),
    *_lists(scalesets.KIND, scalesets.list_scale_sets),
    _of_kind("GET", scalesets.VM_KIND, "read", scalesets.get_machine),
    _of_kind("PATCH", scalesets.VM_KIND, "write", scalesets.patch_machine),
    _of_kind("DELETE", scalesets.VM_KIND, "delete", scalesets.delete_machine),
    *_lists(scalesets.VM_KIND, scalesets.list_machines),
    _of_kind("GET", vaults.KIND, "read", vaults.get_vault),
    _of_kind("PUT", vaults.KIND, "write", vaults.put_vault),
    _of_kind("DELETE", vaults.KIND, "delete", vaults.delete_vault),
    *_lists(vaults.KIND, vaults.list_vaults),
    _of_kind("GET", storage.KIND, "read", storage.get_account),
    _of_kind("PUT", storage.KIND, "write", storage.put_account),
    _of_kind("DELETE", storage.KIND, "delete", storage.delete_account),
    *_lists(storage.KIND, storage.list_accounts),
    _on_one(storage.KIND, "listKeys", storage.list_keys),
    _route(
        "POST",
        rf"{_SUBSCRIPTION}/providers/microsoft\.storage/checknameavailability",
        "Microsoft.Storage/checknameavailability/read",
        storage.check_name,
    ),
    _route(
        "GET",
        rf"{_SUBSCRIPTION}/providers/microsoft\.storage/locations/[^/]+/asyncoperations{_NAME}",
        "",
        storage.get_result,
    ),
    _route(
        "GET",
        f"{_AUTHORIZATION}/roledefinitions",
        "Microsoft.Authorization/roleDefinitions/read",
        assignments.list_definitions,
    ),
    *(
        _route(
            method,
            f"{_AUTHORIZATION}/roledefinitions{_NAME}",
            f"Microsoft.Authorization/roleDefinitions/{action}",
            handler,
        )
        for method, action, handler in (
            ("GET", "read", assignments.get_definition),
            ("PUT", "write", assignments.put_definition),
            ("DELETE", "delete", assignments.delete_definition),
        )
    ),
    _route(
        "GET", f"{_AUTHORIZATION}/roleassignments", f"{_ROLES}/read", assignments.list_assignments
    ),
    *(
        _route(method, f"{_AUTHORIZATION}/roleassignments{_NAME}", f"{_ROLES}/{action}", handler)
        for method, action, handler in (
            ("PUT", "write", assignments.put_assignment),
            ("DELETE", "delete", assignments.delete_assignment),
        )
    ),
    _route(
        "GET",
        rf"{_SUBSCRIPTION}/providers/microsoft\.compute/locations/[^/]+/operations{_NAME}",
        "",
        operations.get_operation,
    ),
    _route("GET", f"{_SUBSCRIPTION}/operationresults{_NAME}", "", operations.get_empty_result),
)
