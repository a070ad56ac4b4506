"""Authentication: bearer tokens of the plan, and service-account tokens of the cluster."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.storage import Record, Storage
from podidentity_sandbox.cluster.tokens import TokenIssuer
from podidentity_sandbox.plan import Plan

# ---- Users, and decisions about them

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


def refusal(user: User, info: RequestInfo, reason: str) -> str:
    """Return the real server's words for a refused request on a resource."""
    resource = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    text = (
        f'User "{user.name}" cannot {info.verb} resource "{resource}" '
        f'in API group "{info.group}" {where}'
    )
    return f"{text}: {reason}" if reason else text


# ---- Bearer tokens


def plan_users(plan: Plan) -> dict[bytes, User]:
    """Return the users of the plan's own tokens, by a digest of the token."""
    users = {digest(plan.admin_token): User("admin", (MASTERS, AUTHENTICATED))}
    if plan.aks_token:
        # The name that AKS's own changes have in the audit log of a cluster.
        users[digest(plan.aks_token)] = User("aksService", (MASTERS, AUTHENTICATED))
    for node in plan.nodes:
        users[digest(node.token)] = User(NODE_PREFIX + node.name, (NODES, AUTHENTICATED))
    return users


def person_of(plan: Plan, token: str) -> User | None:
    """Return the user of a token that AKS gave; None for any other token.

    Without a user principal name, Entra's object id is the user's name:
    https://learn.microsoft.com/azure/aks/azure-ad-rbac
    """
    object_id = token.partition(".")[0]
    if not plan.aks_token or not hmac.compare_digest(
        token.encode(), plan.person_token(object_id).encode()
    ):
        return None
    return User(object_id, (AUTHENTICATED,))


def digest(token: str) -> bytes:
    """Tokens are looked up by digest, so that the time it takes says nothing about them."""
    return hashlib.sha256(token.encode()).digest()


class Authenticator:
    """Finds the user of a token."""

    def __init__(self, plan: Plan, issuer: TokenIssuer, storage: Storage) -> None:
        self._users = plan_users(plan)
        self._person = partial(person_of, plan)
        self._issuer = issuer
        self._storage = storage
        self.audiences = (issuer.issuer, "https://kubernetes.default.svc")
        """The audience of tokens for this server."""

    def header(self, authorization: str) -> User | None:
        """Return the user of an Authorization header; None for one that does not hold."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self.token(token.strip(), self.audiences)

    def token(self, token: str, audiences: Sequence[str]) -> User | None:
        """Return the user of a token for one of the audiences."""
        known = self._users.get(digest(token)) or self._person(token)
        if known is not None:
            return known if set(audiences) & set(self.audiences) else None
        claims = self._issuer.claims(token, audiences)
        return None if claims is None else self._account(claims)

    def common(self, token: str, audiences: Sequence[str]) -> list[str]:
        """Return those of the audiences that a token which holds is for."""
        claims = self._issuer.claims(token, audiences)
        own = self.audiences if claims is None else claims["aud"]
        return [each for each in audiences if each in own]

    def _account(self, claims: dict[str, Any]) -> User | None:
        """Return the service account of verified claims, if all that they are bound to lives."""
        private = claims["kubernetes.io"]
        namespace = private["namespace"]
        if self._living("serviceaccounts", namespace, private["serviceaccount"]) is None:
            return None
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        pod = private.get("pod")
        if pod and self._living("pods", namespace, pod) is None:
            return None
        for kind in ("pod", "node"):
            if bound := private.get(kind):
                extra[f"authentication.kubernetes.io/{kind}-name"] = [bound["name"]]
                extra[f"authentication.kubernetes.io/{kind}-uid"] = [bound["uid"]]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        name = f"{ACCOUNT_PREFIX}{namespace}:{private['serviceaccount']['name']}"
        return User(name, groups, private["serviceaccount"]["uid"], extra)

    def _living(self, key: str, namespace: str, bound: dict[str, str]) -> Record | None:
        record = self._storage.get(key, namespace, bound["name"])
        return record if record is not None and record.uid == bound["uid"] else None
