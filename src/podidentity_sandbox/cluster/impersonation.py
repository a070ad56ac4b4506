"""Acting as somebody else: the Impersonate headers, and the rights that they need.

Constrained impersonation (1.36: beta, on) has two rights for each mode: `impersonate:MODE`, whom
one may be, and `impersonate-on:MODE:VERB`, what one may do as such. Of the modes there is one here:
the right to be the node that one runs on, `associated-node`, is for pods' service accounts whose
token names that node. Older servers know `impersonate` alone, which newer ones try last.

https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/, https://kep.k8s.io/5284
https://github.com/kubernetes/kubernetes/blob/v1.36.0/staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation/mode.go
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import unquote

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.authentication import (
    ACCOUNT_PREFIX,
    AUTHENTICATED,
    NODE_PREFIX,
    NODES,
    Authorizer,
    User,
    refusal,
)
from podidentity_sandbox.cluster.names import subdomain_faults
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.status import StatusError

CONSTRAINED_SINCE = 36
"""The minor version that has constrained impersonation without a feature gate."""
NODE_NAME = "authentication.kubernetes.io/node-name"
_GROUP = "authentication.k8s.io"
_ANONYMOUS, _UNAUTHENTICATED = "system:anonymous", "system:unauthenticated"
_USER, _UID, _GROUPS = "impersonate-user", "impersonate-uid", "impersonate-group"
_EXTRA = "impersonate-extra-"


Headers = Iterable[tuple[str, str]]
"""Names and values, in their order; a name may come again."""


def wanted_user(headers: Headers) -> User | None:
    """Return whom the headers name; None without any; raise 400 for parts of a user."""
    given: dict[str, list[str]] = {}
    for header, value in headers:
        given.setdefault(header.lower(), []).append(value)
    name, uid = given.get(_USER, [""])[0], given.get(_UID, [""])[0]
    groups = tuple(given.get(_GROUPS, ()))
    extra = {
        unquote(header.removeprefix(_EXTRA)): values
        for header, values in given.items()
        if header.startswith(_EXTRA)
    }
    if name:
        return User(name, groups, uid, extra)
    if uid or groups or extra:
        raise status.bad_request("requested impersonation without impersonating a user name")
    return None


def _is_node_of(requestor: User, wanted: User) -> bool:
    """Whether a pod's account wants to be the node that its token names, and nothing beside."""
    node = wanted.name.removeprefix(NODE_PREFIX)
    alone = wanted == User(NODE_PREFIX + node)
    own = requestor.extra.get(NODE_NAME, []) == [node]
    return alone and own and not subdomain_faults(node) and bool(_account(requestor.name))


def _of_own_node(info: RequestInfo) -> Iterator[RequestInfo]:
    """Yield what is to be allowed for a request as one's own node.

    The grant is for every node: the real server keeps the answer for all of them.
    """
    mode = "associated-node"
    yield replace(info, verb=f"impersonate-on:{mode}:{info.verb}")
    yield _right("nodes", "*", verb=f"impersonate:{mode}", group=_GROUP)


def _of_anybody(wanted: User) -> Iterator[RequestInfo]:
    """Yield what is to be allowed by the old right, which is bound to no verb of the request."""
    if pair := _account(wanted.name):
        yield _right("serviceaccounts", pair[1], namespace=pair[0])
    else:
        yield _right("users", wanted.name)
    if wanted.uid:
        yield _right("uids", wanted.uid, group=_GROUP)
    for group in wanted.groups:
        yield _right("groups", group)
    for key, value in ((key, each) for key, values in wanted.extra.items() for each in values):
        yield _right("userextras", value, group=_GROUP, subresource=key)


def _right(resource: str, name: str, *, verb: str = "impersonate", **more: str) -> RequestInfo:
    return RequestInfo(path="", verb=verb, version="v1", resource=resource, name=name, **more)


class Impersonation:
    """Decides as whom a request counts."""

    def __init__(self, authorizer: Authorizer, *, minor: int) -> None:
        self._authorizer = authorizer
        self._constrained = minor >= CONSTRAINED_SINCE

    def user(self, requestor: User, headers: Headers, info: RequestInfo) -> User:
        """Return the requestor, or whom he may be for this request; raise 400 or 403."""
        wanted = wanted_user(headers)
        if wanted is None:
            return requestor
        refused: StatusError | None = None
        if self._constrained and _is_node_of(requestor, wanted):
            refused = self._lacking(requestor, _of_own_node(info))
            if refused is None:
                return replace(wanted, groups=(NODES, AUTHENTICATED))
        lacking = self._lacking(requestor, _of_anybody(wanted))
        if lacking is not None:
            raise refused or lacking
        groups = wanted.groups
        if (pair := _account(wanted.name)) and not groups:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{pair[0]}")
        everybody = _UNAUTHENTICATED if wanted.name == _ANONYMOUS else AUTHENTICATED
        if not {everybody, _UNAUTHENTICATED} & set(groups):
            groups = (*groups, everybody)
        return replace(wanted, groups=groups)

    def _lacking(self, requestor: User, demands: Iterable[RequestInfo]) -> StatusError | None:
        """Return the refusal of the first right that is missing; None for none."""
        for asked in demands:
            decision = self._authorizer.decide(requestor, asked)
            if decision.allowed:
                continue
            if not asked.resource:
                return status.forbidden_path(requestor.name, asked.verb, asked.path)
            words = refusal(requestor, asked, decision.reason)
            return status.forbidden(asked.resource, asked.group, asked.name, words)
        return None


def _account(user: str) -> tuple[str, str] | None:
    """Return namespace and name of a service account's user name."""
    namespace, _, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
    whole = user.startswith(ACCOUNT_PREFIX) and namespace and name and ":" not in name
    return (namespace, name) if whole else None
