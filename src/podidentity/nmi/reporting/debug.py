"""What the agent knows, as JSON, for people: no token, no secret.

On the node it is on loopback (`OnLoopback`), if that was chosen. Elsewhere it is on the TLS port,
for callers with a token for it (`endpoints`, `wire.debug_access`).

`/debug` shows everything; `/debug?pod=NAMESPACE/NAME` shows one pod: what entitles it, what a
request that names no identity would get, as this agent decides by what it has watched and asked,
and how the pod's last requests ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import parse_qs

import msgspec

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.token_cache import CacheEntry
from podidentity.core.decision import Allowed, Decision, Denied, Match, Undecided, Use
from podidentity.core.refusals import Refusal
from podidentity.core.resources import AzureIdentity, ObjectRef, Pod
from podidentity.nmi.reporting.pod_outcomes import PodOutcomes
from podidentity.nmi.server.messages import Handler, Request, Response

Part = Callable[[], object]
"""Returns something for JSON: what one part of the agent knows."""
Decided = Callable[[Pod], tuple[Match, Decision]]
"""Decides about a request of a pod that names no identity, without waiting for anybody."""


_AT_ONCE = 8
"""Pods that are decided about in one turn of the event loop: less than a millisecond."""


class OnLoopback:
    """The handler of the listener on loopback: asked by loopback's own names alone."""

    def __init__(self, page: Handler) -> None:
        self._page = page

    async def __call__(self, request: Request) -> Response:
        """Answer who asks for loopback."""
        if _is_for_loopback(request.headers.get("host", [])):
            return await self._page(request)
        # A page in a browser on the node could be made to ask by a name of its own.
        return _response(HTTPStatus.FORBIDDEN, {"error": "ask by the address 127.0.0.1"})


class Debug:
    """The page itself."""

    def __init__(
        self,
        cluster: WatchedCluster,
        decided: Decided,
        parts: Mapping[str, Part],
        outcomes: PodOutcomes,
    ) -> None:
        self._cluster = cluster
        self._outcomes = outcomes
        self._decides = decided
        self._parts = parts

    async def __call__(self, request: Request) -> Response:
        path, _, query = request.target.partition("?")
        if path != "/debug" or request.method != "GET":
            return _response(HTTPStatus.NOT_FOUND, {"error": "only GET /debug is here"})
        named = parse_qs(query).get("pod")
        return self._of_pod(named[0]) if named else await self._all()

    async def _all(self) -> Response:
        decided = []
        for number, pod in enumerate(self._cluster.pods()):
            decided.append(self._decided(pod))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        known = {
            "synced": self._cluster.synced,
            "revision": self._cluster.revision,
            "pods": decided,
            **{name: part() for name, part in self._parts.items()},
        }
        return _response(HTTPStatus.OK, known)

    def _of_pod(self, text: str) -> Response:
        namespace, _, name = text.partition("/")
        pod = self._cluster.pod(ObjectRef(namespace, name))
        if pod is None:
            return _response(HTTPStatus.NOT_FOUND, {"error": "no such pod is known on this node"})
        return _response(HTTPStatus.OK, self._decided(pod))

    def _decided(self, pod: Pod) -> dict[str, object]:
        found, decision = self._decides(pod)
        return {
            "pod": str(pod.ref),
            "uid": pod.uid,
            "service_account": pod.service_account,
            "addresses": pod.addresses,
            "phase": str(pod.phase),
            "selector": pod.selector,
            **_shown(found),
            "decision": _decision(decision),
            **self._outcomes.shown(pod.uid),
        }


def _shown(found: Match) -> dict[str, object]:
    return {
        "exception": str(found.exception.ref) if found.exception else None,
        "entitled": [
            {
                "identity": _identity(each.identity),
                "basis": str(each.basis),
                "binding": str(each.binding.ref) if each.binding else None,
                "awaited": each.awaited.message if each.awaited else None,
            }
            for each in found.entitlements
        ],
        "refused": [_refusal(each) for each in found.refusals],
    }


def _decision(decision: Decision) -> dict[str, object]:
    observed = None if isinstance(decision, Undecided) else decision.observed
    return {
        "given": isinstance(decision, Allowed),
        "identity": _identity(decision.identity) if decision.identity else None,
        "refused": _refusal(decision.refusal) if isinstance(decision, Denied) else None,
        "to_be_asked": str(decision.question) if isinstance(decision, Undecided) else None,
        "observed": _refusal(observed) if observed else None,
    }


def _refusal(refusal: Refusal) -> dict[str, str]:
    return {
        "reason": str(refusal.reason),
        "message": refusal.message,
        "next_step": refusal.next_step,
    }


def _identity(identity: AzureIdentity) -> dict[str, str]:
    return {
        "name": str(identity.ref),
        "type": identity.type.name.lower(),
        "client_id": str(identity.client_id or ""),
    }


def tokens_shown(kept: Iterable[CacheEntry], now: float) -> list[dict[str, object]]:
    """Return what is kept in a cache, without what is secret in it."""
    return [
        {
            "identity": _identity(each.grant.identity),
            "tenant": str(each.grant.tenant or ""),
            "audience": each.token.resource,
            "fetched_for": str(each.grant.pod.ref),
            "expires_in": each.token.life(now),
        }
        for each in kept
    ]


def permissions_shown(decisions: Iterable[tuple[Use, bool, float]]) -> list[dict[str, object]]:
    """Return what the cluster's RBAC said, and how long ago."""
    return [
        {
            "service_account": str(use.service_account),
            "name": use.name,
            "allowed": allowed,
            "asked_seconds_ago": round(seconds, 1),
        }
        for use, allowed, seconds in decisions
    ]


def _is_for_loopback(hosts: Iterable[str]) -> bool:
    """Whether the Host header names an address of loopback, or `localhost`."""
    host = next(iter(hosts), "").rpartition(":")[0] or next(iter(hosts), "")
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _response(status: HTTPStatus, body: object) -> Response:
    text = msgspec.json.format(msgspec.json.encode(body, enc_hook=str), indent=2)
    return Response(status, text + b"\n")
