"""What the weather does to a request before the API server decides on it, and to what it has heard.

A throttled request gets text and Retry-After, no Status: the filter of API priority and fairness
answers before the API does.
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
That answer's words, and those of 500 and 503, are from memory.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Collection
from datetime import datetime

from aiohttp import web

from podidentity_sandbox.cluster.authentication import NODES, User
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, Storage
from podidentity_sandbox.plan import OWN_AGENT
from podidentity_sandbox.weather import BAD_GATEWAY, Effect, WeatherInForce, cut

_OWN_USERS = {"aksService"}
"""They meet no weather, nor do the sandbox's kubelets and its commands."""
_PRINCIPAL = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Principals of Entra are one kind: their names differ from run to run, and a seed must not."""
_STATUS = {
    Effect.BROKEN: StatusError(500, "InternalError", "etcdserver: request timed out"),
    Effect.UNAVAILABLE: StatusError(
        503, "ServiceUnavailable", "the server is currently unable to handle the request"
    ),
}


async def befall(
    weather: WeatherInForce, request: web.Request, info: RequestInfo, user: User
) -> web.Response | None:
    """Let a request meet the weather; return its answer, or None for the true one.

    It takes the time that the server takes for its answers. Raises StatusError.
    """
    own = request.headers.get("User-Agent", "").startswith(OWN_AGENT)
    if own or NODES in user.groups or user.name in _OWN_USERS:
        return None
    if seconds := weather.seconds("answers", "apiserver"):
        await asyncio.sleep(seconds)
    who = "principal" if _PRINCIPAL.fullmatch(user.name) else user.name
    kind = f"{who} {info.verb} {info.resource or info.path}"
    blow = weather.blow("apiserver", kind, about=info.path)
    if blow is None or await blow.passes():
        return None
    match blow.effect:
        case Effect.RESET:
            cut(request.transport)
            return web.Response(status=500)  # nobody is there to read it
        case Effect.HTML:
            return web.Response(status=502, text=BAD_GATEWAY, content_type="text/html")
        case Effect.THROTTLED:
            text = "Too many requests, please try again later.\n"
            return web.Response(status=429, text=text, headers=blow.headers)
    error = _STATUS[blow.effect]
    return web.json_response(error.body(), status=error.code, headers=blow.headers)


class LateReads:
    """Some types of a storage as one hears of them who is told of each change a little later."""

    def __init__(
        self,
        storage: Storage,
        keys: Collection[str],
        late: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        """`late` gives the seconds until the next change is heard of."""
        self._storage = storage
        self._keys = keys
        self._late = late
        self._now = now
        self._unheard: list[tuple[float, Change]] = []

    def listen(self) -> None:
        """Hear of each change from now on; what is there has been heard of."""
        self._storage.observers.append(self._observe)

    def all(self, key: str, namespace: str = "") -> list[Record]:
        """Return the objects of a type, of one namespace or of all, in the order of names."""
        recent, now = self._recent(), self._storage.all(key, namespace)
        if not recent:
            return now
        found = {(each.namespace, each.name): each for each in now}
        for change in reversed(recent):
            record = change.record
            if change.key != key or (namespace and record.namespace != namespace):
                continue
            found.pop((record.namespace, record.name), None)
            if change.previous is not None:
                found[record.namespace, record.name] = change.previous
        return [found[place] for place in sorted(found)]

    def get(self, key: str, namespace: str, name: str) -> Record | None:
        """Return one object."""
        for change in self._recent():
            record = change.record
            if (change.key, record.namespace, record.name) == (key, namespace, name):
                return change.previous  # of the first change that it has not heard of
        return self._storage.get(key, namespace, name)

    def _observe(self, change: Change) -> None:
        if change.key not in self._keys or not (late := self._late()):
            return
        last = self._unheard[-1][0] if self._unheard else 0.0
        self._unheard.append((max(last, self._now().timestamp() + late), change))

    def _recent(self) -> list[Change]:
        now = self._now().timestamp()
        while self._unheard and self._unheard[0][0] <= now:
            del self._unheard[0]
        return [change for _, change in self._unheard]
