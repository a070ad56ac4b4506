"""Who asks, and what he wants: what authentication finds and authorisation judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.paths import RequestInfo

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
NODES = "system:nodes"
NODE_PREFIX = "system:node:"
ACCOUNT_PREFIX = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated user."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request is allowed, and why or why not."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Judges requests."""

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether `user` may do this."""

    def rules(self, user: User, namespace: str) -> list[Obj]:
        """Return the rules that let a user do what he may."""


def refusal(user: User, info: RequestInfo, reason: str) -> str:
    """Return the real server's words for a refused request on a resource."""
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    text = (
        f'User "{user.name}" cannot {info.verb} resource "{resource}" '
        f'in API group "{info.group}" {where}'
    )
    return f"{text}: {reason}" if reason else text
