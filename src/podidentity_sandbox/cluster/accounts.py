"""TokenRequest: a client asks for a token of a service account, bound to a pod if it likes.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

from collections.abc import Sequence

from podidentity_sandbox.cluster import objects, status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.status import Cause
from podidentity_sandbox.cluster.storage import Record, Storage, field_of
from podidentity_sandbox.cluster.tokens import Bound, TokenIssuer

GROUP = "authentication.k8s.io"
LEAST_SECONDS = 600
DEFAULT_SECONDS = 3600
MOST_SECONDS = 24 * 3600
"""AKS's limit; a longer wish is shortened to it."""


def request_token(
    storage: Storage, issuer: TokenIssuer, audiences: Sequence[str], account: Record, body: Obj
) -> Obj:
    """Return the answer to a TokenRequest; raise 400, 404, 409 or 422."""
    spec = body.get("spec") or {}
    seconds = spec.get("expirationSeconds")
    seconds = DEFAULT_SECONDS if seconds is None else seconds
    faults = _faults(seconds)
    if faults:
        raise status.invalid_object("TokenRequest", GROUP, "", faults)
    wanted = spec.get("audiences") or list(audiences)
    reference = spec.get("boundObjectRef")
    bound = _bound(storage, account, reference) if reference else _plain(account)
    token, ends = issuer.issue(bound, wanted, min(seconds, MOST_SECONDS))
    return {
        "kind": "TokenRequest",
        "apiVersion": f"{GROUP}/v1",
        "metadata": {
            "name": account.name,
            "namespace": account.namespace,
            "creationTimestamp": objects.stamp(issuer.now()),
        },
        "spec": {"audiences": wanted, "expirationSeconds": seconds, "boundObjectRef": reference},
        "status": {"token": token, "expirationTimestamp": objects.stamp(ends)},
    }


def check_node_request(storage: Storage, node: str, namespace: str, body: Obj) -> None:
    """Refuse a kubelet's wish for a token that is not bound to a pod of its own.

    The words are those of the real plugin NodeRestriction.
    """
    reference = (body.get("spec") or {}).get("boundObjectRef") or {}
    if reference.get("kind") != "Pod":
        cause = "node requested token not bound to a pod"
    elif not reference.get("uid"):
        cause = "node requested token with a pod binding without a uid"
    else:
        pod = storage.get("pods", namespace, reference.get("name", ""))
        if pod is not None and field_of(pod.object, "spec.nodeName") == node:
            return
        cause = "node requested token bound to a pod scheduled on a different node"
    raise status.forbidden("serviceaccounts", "", "", cause)


def _faults(seconds: int) -> list[Cause]:
    where = "spec.expirationSeconds"
    if seconds < LEAST_SECONDS:
        detail = "may not specify a duration less than 10 minutes"
        return [status.invalid(where, seconds, detail)]
    if seconds > 2**32:
        detail = "may not specify a duration larger than 2^32 seconds"
        return [status.invalid(where, seconds, detail)]
    return []


def _plain(account: Record) -> Bound:
    return Bound(account=(account.name, account.uid), namespace=account.namespace)


def _bound(storage: Storage, account: Record, reference: Obj) -> Bound:
    """Return what the token is bound to; the words are those of the real server's token.go."""
    kind, name = reference.get("kind"), reference.get("name", "")
    keys = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}
    if kind not in keys or reference.get("apiVersion", "v1") != "v1":
        where = f"{reference.get('apiVersion', '')}, Kind={kind}"
        raise status.bad_request(f"cannot bind token to object of type {where}")
    key = keys[kind]
    record = storage.get(key, "" if kind == "Node" else account.namespace, name)
    if record is None:
        raise status.not_found(key, "", name)
    if kind == "Pod" and field_of(record.object, "spec.serviceAccountName") != account.name:
        raise status.bad_request(
            f'cannot bind token for serviceaccount "{account.name}" to pod running with '
            "different serviceaccount name."
        )
    uid = reference.get("uid")
    if uid and uid != record.uid:
        cause = (
            f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise status.conflict(kind, "", name, cause)
    return Bound(
        account=(account.name, account.uid),
        namespace=account.namespace,
        pod=(name, record.uid) if kind == "Pod" else None,
        secret=(name, record.uid) if kind == "Secret" else None,
        node=_node_of(storage, record) if kind == "Pod" else _itself(kind, record),
    )


def _itself(kind: str, record: Record) -> tuple[str, str] | None:
    return (record.name, record.uid) if kind == "Node" else None


def _node_of(storage: Storage, pod: Record) -> tuple[str, str] | None:
    name = field_of(pod.object, "spec.nodeName")
    node = storage.get("nodes", "", name) if name else None
    return (node.name, node.uid) if node is not None else None
