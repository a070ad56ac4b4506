"""Tokens of a pod's service account, bound to the pod."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from podidentity_sandbox.node.services import Services
from podidentity_sandbox.node.spec import PodSpec


@dataclass(frozen=True, slots=True)
class Token:
    """A token, and from when to when it is good."""

    text: str = field(repr=False)
    began: datetime
    ends: datetime


async def request_token(services: Services, spec: PodSpec, audience: str, seconds: int) -> Token:
    """Ask for a token for `audience`, "" for the API server itself; raise ApiError."""
    path = f"/api/v1/namespaces/{spec.namespace}/serviceaccounts/{spec.service_account}/token"
    wish = {
        "expirationSeconds": seconds,
        "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": spec.name, "uid": spec.uid},
        **({"audiences": [audience]} if audience else {}),
    }
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wish}
    api, now = services.api, services.clock.now()
    answer = await api.insist(lambda: api.request("POST", path, body))
    state = answer["status"]
    return Token(state["token"], now, datetime.fromisoformat(state["expirationTimestamp"]))
