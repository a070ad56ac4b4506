"""Creates, changes, finds and removes Kubernetes objects; results in kubectl's words."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from podidentity.core.budgets import within_budget
from podidentity.core.resources import AzureIdentity, Malformed, ObjectRef
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_IDENTITY_LEDGERS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    PODS,
    SERVICE_ACCOUNTS,
    KubeError,
    Resource,
    parse_object,
    parse_object_version,
)
from podidentity.wire.manifests import (
    BINDING_KIND,
    EXCEPTION_KIND,
    IDENTITY_KIND,
    SERVICE_ACCOUNT_KIND,
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_identity,
    parse_service_account,
)
from podidentity.wire.pods import parse_pod

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

Object = dict[str, Any]
"""A Kubernetes object as JSON."""

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CRDS = Resource("/apis/apiextensions.k8s.io/v1", "customresourcedefinitions")
DAEMON_SETS = Resource("/apis/apps/v1", "daemonsets")
DEPLOYMENTS = Resource("/apis/apps/v1", "deployments")
DISRUPTION_BUDGETS = Resource("/apis/policy/v1", "poddisruptionbudgets")
NAMESPACES = Resource("/api/v1", "namespaces")
POLICIES = Resource("/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies")
POLICY_BINDINGS = Resource(
    "/apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings"
)
ROLES = Resource(RBAC, "roles")
ROLE_BINDINGS = Resource(RBAC, "rolebindings")
LOCAL_REDIRECT_POLICIES = Resource("/apis/cilium.io/v2", "ciliumlocalredirectpolicies")
CLUSTERWIDE_NETWORK_POLICIES = Resource("/apis/cilium.io/v2", "ciliumclusterwidenetworkpolicies")

_BY_KIND = {
    "CustomResourceDefinition": CRDS,
    "ConfigMap": CONFIG_MAPS,
    "Namespace": NAMESPACES,
    "ServiceAccount": SERVICE_ACCOUNTS,
    "Role": ROLES,
    "ValidatingAdmissionPolicy": POLICIES,
    "ValidatingAdmissionPolicyBinding": POLICY_BINDINGS,
    "RoleBinding": ROLE_BINDINGS,
    "ClusterRole": CLUSTER_ROLES,
    "ClusterRoleBinding": CLUSTER_ROLE_BINDINGS,
    "DaemonSet": DAEMON_SETS,
    "Deployment": DEPLOYMENTS,
    "PodDisruptionBudget": DISRUPTION_BUDGETS,
    "CiliumLocalRedirectPolicy": LOCAL_REDIRECT_POLICIES,
    "CiliumClusterwideNetworkPolicy": CLUSTERWIDE_NETWORK_POLICIES,
    "AzureIdentity": AZURE_IDENTITIES,
    "AzureIdentityBinding": AZURE_IDENTITY_BINDINGS,
    "AzureIdentityLedger": AZURE_IDENTITY_LEDGERS,
    "AzurePodIdentityException": AZURE_POD_IDENTITY_EXCEPTIONS,
}


def spec_of(found: Object) -> Object:
    """Return the spec of an object; {} where that is none, as older definitions let it be."""
    spec = found.get("spec")
    return spec if isinstance(spec, dict) else {}


_TRIES = 3
"""Times that an object is applied, or deleted, where the server fails."""
_T = TypeVar("_T")
_Other = TypeVar("_Other")


class ApplyResult(StrEnum):
    """The effect of `apply`."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


def called(manifest: Object) -> str:
    """Return the object's name in kubectl's form: `daemonset.apps/nmi`."""
    group = manifest["apiVersion"].rpartition("/")[0]
    kind = manifest["kind"].lower() + (f".{group}" if group else "")
    return f"{kind}/{manifest['metadata']['name']}"


async def apply(kube: Kube, manifest: Object) -> ApplyResult:
    """Create the object, or merge `manifest` into it; raise KubeError.

    Fields that the manifest does not name stay unchanged; those that are None are taken out. Where
    the server fails it looks again what is there: whether the change was made is not known then.
    """
    return await _insisting(kube, lambda: _applied(kube, manifest))


async def _insisting(kube: Kube, change: Callable[[], Awaitable[_T]]) -> _T:
    """Make a change that may be made twice, again where the server fails; raise KubeError."""
    for _ in range(_TRIES - 1):
        try:
            return await change()
        except KubeError as error:
            if error.throttled:  # that was waited for
                raise
            await kube.after(error)
    return await change()


async def _applied(kube: Kube, manifest: Object) -> ApplyResult:
    try:
        before = _as_asked(await kube.get(_path(manifest)))
    except KubeError as error:
        if not error.not_found:
            raise
        namespace = manifest["metadata"].get("namespace", "")
        await kube.create(_BY_KIND[manifest["kind"]].path(namespace), without_none(manifest))
        return ApplyResult.CREATED
    after = _as_asked(await kube.merge(_path(manifest), manifest))
    return ApplyResult.UNCHANGED if after == before else ApplyResult.CONFIGURED


def _as_asked(raw: bytes) -> Object:
    """Return an object without what a controller writes meanwhile: the status, by a new version."""
    found = {**parse_object(raw), "status": None}
    for each in ("managedFields", "resourceVersion"):
        found["metadata"].pop(each, None)
    return found


def without_none(manifest: Object) -> Object:
    """Return the manifest without the fields that are None: those of an object that is new."""
    return {
        key: without_none(value) if isinstance(value, dict) else value
        for key, value in manifest.items()
        if value is not None
    }


async def create_once(kube: Kube, manifest: Object) -> ApplyResult:
    namespace = manifest["metadata"].get("namespace", "")
    try:
        await kube.create(_BY_KIND[manifest["kind"]].path(namespace), manifest)
    except KubeError as error:
        if not error.conflict:
            raise
        return ApplyResult.UNCHANGED
    return ApplyResult.CREATED


async def is_unchanged(kube: Kube, manifest: Object) -> bool | None:
    """Return whether the object is unchanged since its creation; None if it does not exist."""
    found = await find_where_known(kube, _BY_KIND[manifest["kind"]], *ref_of(manifest))
    if found is None:
        return None
    labels: Object = found["metadata"].get("labels") or {}
    wanted: Object = manifest["metadata"].get("labels", {})
    return wanted.items() <= labels.items() and found.get("spec") == manifest["spec"]


async def remove(kube: Kube, manifest: Object) -> bool:
    try:
        await _insisting(kube, lambda: kube.delete(_path(manifest)))
    except KubeError as error:
        if not error.not_found:
            raise
        return False
    return True


async def removal(kube: Kube, manifest: Object) -> str:
    """Delete the object; return what kubectl would say of it; raise KubeError."""
    return f"{called(manifest)} {'deleted' if await remove(kube, manifest) else 'not found'}"


def in_order_of_removal(manifests: Iterable[Object]) -> list[Object]:
    """Return the objects in an order in which a removal that was interrupted can go on.

    What is in namespaces goes first, and of that what was made last, which runs. While some of it
    is there a ClusterRoleBinding names the namespace (`place_of`). A right goes before the policy
    that bounds it, and a ClusterRole, by which others look whether something is left, behind its
    binding.
    """

    def turn(manifest: Object) -> int:
        if "namespace" in manifest["metadata"]:
            return 0
        return 1 if manifest["kind"] == "ClusterRoleBinding" else 2

    last_first = list(manifests)[::-1]
    return sorted(last_first, key=turn)


async def place_of(kube: Kube, account: str) -> str:
    """Return the namespace of a service account of ours, by the ClusterRoleBinding of its name.

    "" where there is none; raise KubeError.
    """
    found = await find(kube, CLUSTER_ROLE_BINDINGS, "", account) or {}
    places = [each.get("namespace", "") for each in found.get("subjects") or ()]
    return str(places[0]) if places else ""


async def find(kube: Kube, resource: Resource, namespace: str, name: str) -> Object | None:
    """Return the object of that name, or None; raise KubeError, also for an unknown type."""
    try:
        return parse_object(await kube.get(resource.path(namespace, name)))
    except KubeError as error:
        if error.not_found and error.reason == "NotFound":
            return None
        raise


async def find_where_known(
    kube: Kube, resource: Resource, namespace: str, name: str
) -> Object | None:
    """Return the object of that name; None also where the cluster does not know its type."""
    try:
        return await find(kube, resource, namespace, name)
    except KubeError as error:
        if not error.not_found:
            raise
        return None


async def unless_forbidden(asked: Awaitable[_T], otherwise: _Other) -> _T | _Other:
    """Return what is asked for, or `otherwise` if the person lacks the right; raise KubeError."""
    try:
        return await asked
    except KubeError as error:
        if not error.forbidden:
            raise
        return otherwise


async def find_all(
    kube: Kube, resource: Resource, namespace: str = "", **params: str
) -> list[Object]:
    page = await kube.list_all(resource.path(namespace), params)
    return [parse_object(item) for item in page.items]


async def find_all_where_known(kube: Kube, resource: Resource) -> list[Object]:
    """Return all objects of the cluster; [] also where it does not know their type."""
    try:
        return await find_all(kube, resource)
    except KubeError as error:
        if not error.not_found:
            raise
        return []


@dataclass(frozen=True, slots=True)
class Kind(Generic[_T]):
    """A kind of tenants' objects, and how they are read."""

    resource: Resource
    parse: Callable[[msgspec.Raw], _T]
    budget: str = ""
    """Its name in `core.budgets`; "" where NMI reads only the objects of its own node."""

    def parsed(self, items: Iterable[msgspec.Raw]) -> list[_T]:
        """Return a whole list as NMI and MIC have it: what they leave out is Malformed."""
        if not self.budget:
            return [self.parse(item) for item in items]
        metas = ((parse_object_version(item), item) for item in items)
        listed = ((meta.ref, meta.created, self.parse(item)) for meta, item in metas)
        return within_budget(self.budget, listed)  # type: ignore[return-value] # parsers give Malformed, too


IDENTITIES = Kind(AZURE_IDENTITIES, parse_identity, IDENTITY_KIND)
BINDINGS = Kind(AZURE_IDENTITY_BINDINGS, parse_binding, BINDING_KIND)
EXCEPTIONS = Kind(AZURE_POD_IDENTITY_EXCEPTIONS, parse_exception, EXCEPTION_KIND)
ACCOUNTS = Kind(SERVICE_ACCOUNTS, parse_service_account, SERVICE_ACCOUNT_KIND)
RECORDS = Kind(AZURE_ASSIGNED_IDENTITIES, parse_assigned)
EVERY_POD = Kind(PODS, parse_pod)


async def list_parsed(kube: Kube, kind: Kind[_T], namespace: str = "") -> list[_T]:
    """Return all objects of a namespace, or of the cluster, as they count; raise KubeError."""
    return kind.parsed((await kube.list_all(kind.resource.path(namespace))).items)


def ref_of(found: Object) -> ObjectRef:
    return ObjectRef(found["metadata"]["namespace"], found["metadata"]["name"])


def identity_of(found: Object) -> AzureIdentity | Malformed:
    return parse_identity(json.dumps(found).encode())


async def minor_version(kube: Kube) -> int:
    """Return the minor version that the API server behaves as: 36 of 1.36; 0 if it says none.

    https://kubernetes.io/docs/concepts/cluster-administration/compatibility-version/
    """
    version: Object = json.loads(await kube.get("/version"))
    found = re.match(r"[0-9]+", str(version.get("emulationMinor") or version.get("minor", "")))
    return int(found[0]) if found and version.get("major") == "1" else 0


def _path(manifest: Object) -> str:
    meta = manifest["metadata"]
    return _BY_KIND[manifest["kind"]].path(meta.get("namespace", ""), meta["name"])
