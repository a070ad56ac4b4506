"""Acting as somebody else: the Impersonate headers, and the rights that they need.

Constrained impersonation (1.36: beta, on) has two rights for each mode: `impersonate:MODE`, whom
one may be, and `impersonate-on:MODE:VERB`, what one may do as such. The right to be the node that
one runs on, `associated-node`, is for pods' service accounts whose token names that node. Older
servers know `impersonate` alone, which newer ones try last.

https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/, https://kep.k8s.io/5284
https://github.com/kubernetes/kubernetes/blob/v1.36.0/staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation/mode.go
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from urllib.parse import unquote

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.authentication import (
    ACCOUNT_PREFIX,
    AUTHENTICATED,
    MASTERS,
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


_OLD = ""
"""The old mode, which is bound to no verb of the request."""
_CONSTRAINED = ("associated-node", "arbitrary-node", "serviceaccount", "user-info")


def _suits(mode: str, requestor: User, wanted: User) -> bool:
    """Whether a mode is for the two at all."""
    alone = not (wanted.groups or wanted.uid or wanted.extra)
    node, account = _node(wanted.name), bool(_account(wanted.name))
    match mode:
        case "associated-node":
            own = requestor.extra.get(NODE_NAME, []) == [node]
            return alone and own and bool(node) and bool(_account(requestor.name))
        case "arbitrary-node":
            return alone and bool(node)
        case "serviceaccount":
            return alone and account
        case "user-info":
            return not node and not account
        case _:
            return True


def _demands(mode: str, wanted: User, info: RequestInfo) -> Iterator[RequestInfo]:
    """Yield what the requestor must be allowed."""
    plain = _GROUP if mode else ""  # the API group of users and groups
    right = partial(RequestInfo, path="", version="v1", verb=f"impersonate:{mode}".rstrip(":"))
    if mode:
        yield replace(info, verb=f"impersonate-on:{mode}:{info.verb}")
    if mode.endswith("-node"):
        # To be one's own node is granted for every node: the real server keeps the answer for all.
        name = "*" if mode == "associated-node" else _node(wanted.name)
        yield right(group=plain, resource="nodes", name=name)
    elif pair := _account(wanted.name):
        yield right(group=plain, resource="serviceaccounts", namespace=pair[0], name=pair[1])
    else:
        yield right(group=plain, resource="users", name=wanted.name)
    if wanted.uid:
        yield right(group=_GROUP, resource="uids", name=wanted.uid)
    for group in wanted.groups:
        yield right(group=plain, resource="groups", name=group)
    for key, value in ((key, each) for key, values in wanted.extra.items() for each in values):
        yield right(group=_GROUP, resource="userextras", name=value, subresource=key)


def _result(mode: str, wanted: User) -> User:
    """Return the user that the request counts as."""
    groups = (NODES,) if mode.endswith("-node") else wanted.groups
    if (pair := _account(wanted.name)) and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{pair[0]}")
    everybody = _UNAUTHENTICATED if wanted.name == _ANONYMOUS else AUTHENTICATED
    if not {everybody, _UNAUTHENTICATED} & set(groups):
        groups = (*groups, everybody)
    return replace(wanted, groups=groups)


class Impersonation:
    """Decides as whom a request counts."""

    def __init__(self, authorizer: Authorizer, *, minor: int) -> None:
        self._authorizer = authorizer
        self._modes = (*_CONSTRAINED, _OLD) if minor >= CONSTRAINED_SINCE else (_OLD,)

    def user(self, requestor: User, headers: Headers, info: RequestInfo) -> User:
        """Return the requestor, or whom he may be for this request; raise 400 or 403."""
        wanted = wanted_user(headers)
        if wanted is None:
            return requestor
        first: StatusError | None = None
        for mode in self._modes:
            if _suits(mode, requestor, wanted):
                error = self._lacking(mode, requestor, wanted, info)
                if error is None:
                    return _result(mode, wanted)
                first = first or error
        raise first or status.unauthorized()

    def _lacking(
        self, mode: str, requestor: User, wanted: User, info: RequestInfo
    ) -> StatusError | None:
        """Return the refusal of the first right that is missing; None for none."""
        for asked in _demands(mode, wanted, info):
            decision = self._authorizer.decide(requestor, asked)
            never = mode and asked.resource == "groups" and asked.name in ("", MASTERS)
            if decision.allowed and not never:
                continue
            if not asked.resource:
                return status.forbidden_path(requestor.name, asked.verb, asked.path)
            cause = (
                "impersonating the system:masters group is not allowed"
                if never
                else decision.reason
            )
            words = refusal(requestor, asked, cause)
            return status.forbidden(asked.resource, asked.group, asked.name, words)
        return None


def _node(user: str) -> str:
    """Return the node of a user name; "" for none."""
    name = user.removeprefix(NODE_PREFIX)
    return name if user != name and not subdomain_faults(name) else ""


def _account(user: str) -> tuple[str, str] | None:
    """Return namespace and name of a service account's user name."""
    namespace, _, name = user.removeprefix(ACCOUNT_PREFIX).partition(":")
    whole = user.startswith(ACCOUNT_PREFIX) and namespace and name and ":" not in name
    return (namespace, name) if whole else None
