"""Who a request is from: bearer tokens of the plan, and service-account tokens of the cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from podidentity_sandbox.cluster.storage import Record, Storage
from podidentity_sandbox.cluster.tokens import TokenIssuer
from podidentity_sandbox.cluster.users import (
    ACCOUNT_PREFIX,
    AUTHENTICATED,
    MASTERS,
    NODE_PREFIX,
    NODES,
    User,
)
from podidentity_sandbox.plan import Plan


def plan_users(plan: Plan) -> dict[bytes, User]:
    """Return the users of the plan's own tokens, by a digest of the token."""
    users = {_digest(plan.admin_token): User("admin", (MASTERS, AUTHENTICATED))}
    if plan.aks_token:
        # The name that AKS's own changes have in the audit log of a cluster.
        users[_digest(plan.aks_token)] = User("aksService", (MASTERS, AUTHENTICATED))
    for node in plan.nodes:
        users[_digest(node.token)] = User(NODE_PREFIX + node.name, (NODES, AUTHENTICATED))
    return users


def _digest(token: str) -> bytes:
    """Tokens are looked up by digest, so that the time it takes says nothing about them."""
    return hashlib.sha256(token.encode()).digest()


class Authenticator:
    """Finds the user of a token."""

    def __init__(self, users: Mapping[bytes, User], issuer: TokenIssuer, storage: Storage) -> None:
        self._users = users
        self._issuer = issuer
        self._storage = storage
        self.audiences = (issuer.issuer, "https://kubernetes.default.svc")
        """What a token must be for to be taken by this server."""

    def header(self, authorization: str) -> User | None:
        """Return the user of an Authorization header; None for one that does not hold."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return self.token(token.strip(), self.audiences)

    def token(self, token: str, audiences: Sequence[str]) -> User | None:
        """Return the user of a token for one of the audiences."""
        known = self._users.get(_digest(token))
        if known is not None:
            return known if set(audiences) & set(self.audiences) else None
        claims = self._issuer.claims(token, audiences)
        return None if claims is None else self._account(claims)

    def _account(self, claims: dict[str, Any]) -> User | None:
        """Return the service account of verified claims, if all that they are bound to lives."""
        private = claims["kubernetes.io"]
        namespace = private["namespace"]
        if self._living("serviceaccounts", namespace, private["serviceaccount"]) is None:
            return None
        extra = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
        for field in ("pod", "secret"):
            bound = private.get(field)
            if bound and self._living(field + "s", namespace, bound) is None:
                return None
        for field in ("pod", "node"):
            if bound := private.get(field):
                extra[f"authentication.kubernetes.io/{field}-name"] = [bound["name"]]
                extra[f"authentication.kubernetes.io/{field}-uid"] = [bound["uid"]]
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        name = f"{ACCOUNT_PREFIX}{namespace}:{private['serviceaccount']['name']}"
        return User(name, groups, private["serviceaccount"]["uid"], extra)

    def _living(self, key: str, namespace: str, bound: dict[str, str]) -> Record | None:
        record = self._storage.get(key, namespace, bound["name"])
        return record if record is not None and record.uid == bound["uid"] else None
