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
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True)
class _Mode:
    """A kind of impersonation: "" is the old one, which is bound to no verb of the request."""

    name: str

    def suits(self, requestor: User, wanted: User) -> bool:
        """Whether this mode is for the two at all."""
        alone = not (wanted.groups or wanted.uid or wanted.extra)
        match self.name:
            case "associated-node":
                node = _node(wanted.name)
                running = requestor.extra.get(NODE_NAME, [])
                return alone and bool(node) and bool(_account(requestor.name)) and running == [node]
            case "arbitrary-node":
                return alone and bool(_node(wanted.name))
            case "serviceaccount":
                return alone and bool(_account(wanted.name))
            case "user-info":
                return not _node(wanted.name) and not _account(wanted.name)
            case _:
                return True

    @property
    def verb(self) -> str:
        """The verb of the right to be somebody."""
        return f"impersonate:{self.name}" if self.name else "impersonate"

    def demands(self, wanted: User, info: RequestInfo) -> Iterator[RequestInfo]:
        """Yield what the requestor must be allowed."""
        if self.name:
            yield replace(info, verb=f"impersonate-on:{self.name}:{info.verb}")
        yield self._whom(wanted)
        if wanted.uid:
            yield self._right(_GROUP, "uids", wanted.uid)
        for group in wanted.groups:
            yield self._right(self._plain, "groups", group)
        for key, values in wanted.extra.items():
            for value in values:
                yield self._right(_GROUP, "userextras", value, subresource=key)

    @property
    def _plain(self) -> str:
        """The API group of users and groups."""
        return _GROUP if self.name else ""

    def _whom(self, wanted: User) -> RequestInfo:
        if self.name == "associated-node":
            # The grant is for every node: the real server keeps the answer for all of them.
            return self._right(self._plain, "nodes", "*")
        if self.name == "arbitrary-node":
            return self._right(self._plain, "nodes", _node(wanted.name))
        if pair := _account(wanted.name):
            return self._right(self._plain, "serviceaccounts", pair[1], namespace=pair[0])
        return self._right(self._plain, "users", wanted.name)

    def _right(self, group: str, resource: str, name: str, **more: str) -> RequestInfo:
        return RequestInfo(
            path="", verb=self.verb, group=group, version="v1", resource=resource, name=name, **more
        )

    def result(self, wanted: User) -> User:
        """Return the user that the request counts as."""
        groups = wanted.groups
        if self.name.endswith("-node"):
            groups = (NODES,)
        elif (pair := _account(wanted.name)) and not groups:
            groups = ("system:serviceaccounts", f"system:serviceaccounts:{pair[0]}")
        everybody = _UNAUTHENTICATED if wanted.name == _ANONYMOUS else AUTHENTICATED
        if not {everybody, _UNAUTHENTICATED} & set(groups):
            groups = (*groups, everybody)
        return replace(wanted, groups=groups)


_OLD = _Mode("")
_CONSTRAINED = tuple(
    _Mode(name) for name in ("associated-node", "arbitrary-node", "serviceaccount", "user-info")
)


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
            if mode.suits(requestor, wanted):
                error = self._lacking(mode, requestor, wanted, info)
                if error is None:
                    return mode.result(wanted)
                first = first or error
        raise first or status.unauthorized()

    def _lacking(
        self, mode: _Mode, requestor: User, wanted: User, info: RequestInfo
    ) -> StatusError | None:
        """Return the refusal of the first right that is missing; None for none."""
        for asked in mode.demands(wanted, info):
            decision = self._authorizer.decide(requestor, asked)
            never = mode.name and asked.resource == "groups" and asked.name in ("", MASTERS)
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
