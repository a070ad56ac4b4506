"""What the rest of the cluster demands of a new object: its namespace and account must be there.

The words are those of the real plugins NamespaceLifecycle and ServiceAccount:
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.apiaccess import mount_token
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Storage


class Admissions:
    """The checks that every creation passes."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def check(self, kind: ResourceType, obj: Obj) -> None:
        """Raise 403 or 404 where an object may not be made now."""
        if not kind.namespaced:
            return
        self._namespace(kind, obj)
        if kind.key == "pods":
            self._account(kind, obj)

    def _namespace(self, kind: ResourceType, obj: Obj) -> None:
        name = obj["metadata"]["namespace"]
        namespace = self._storage.get("namespaces", "", name)
        if namespace is None:
            raise status.not_found("namespaces", "", name)
        if namespace.deleted:
            cause = Cause(
                "metadata.namespace",
                "NamespaceTerminating",
                f"namespace {name} is being terminated",
            )
            raise status.forbidden(
                kind.plural,
                kind.group,
                _shown(obj),
                f"unable to create new content in namespace {name} because it is being terminated",
                [cause],
            )

    def _account(self, kind: ResourceType, pod: Obj) -> None:
        namespace, account = pod["metadata"]["namespace"], pod["spec"]["serviceAccountName"]
        found = self._storage.get("serviceaccounts", namespace, account)
        if found is None:
            raise status.forbidden(
                kind.plural,
                kind.group,
                _shown(pod),
                f"error looking up service account {namespace}/{account}: "
                f'serviceaccount "{account}" not found',
            )
        mount_token(pod, found.object)


def _shown(obj: Obj) -> str:
    """Return the name in a refusal: these plugins are asked before a name is generated."""
    metadata = obj["metadata"]
    return str(metadata.get("generateName") or metadata.get("name", ""))
