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
        self._heard = 0
        self._unheard: list[tuple[float, int]] = []
        """When which revision of these types is heard of, the next one first."""

    def listen(self) -> None:
        """Hear of each change from now on; what is there has been heard of."""
        for key in self._keys:
            self._storage.shelf(key)  # its history begins
        self._storage.observers.append(self._observe)

    def all(self, key: str, namespace: str = "") -> list[Record]:
        """Return the objects of a type, of one namespace or of all, in the order of names."""
        if self._is_up_to_date():
            return self._storage.all(key, namespace)
        known = self._storage.snapshot(key, self._heard)
        return [known[place] for place in sorted(known) if namespace in ("", place[0])]

    def get(self, key: str, namespace: str, name: str) -> Record | None:
        """Return one object."""
        if self._is_up_to_date():
            return self._storage.get(key, namespace, name)
        return self._storage.snapshot(key, self._heard).get((namespace, name))

    def _observe(self, change: Change) -> None:
        if change.key not in self._keys or not (late := self._late()):
            return
        if self._is_up_to_date():
            self._heard = change.record.revision - 1
        last = self._unheard[-1][0] if self._unheard else 0.0
        heard = max(last, self._now().timestamp() + late)
        self._unheard.append((heard, change.record.revision))

    def _is_up_to_date(self) -> bool:
        """Hear of what is due; say whether that is all."""
        while self._unheard and self._unheard[0][0] <= self._now().timestamp():
            self._heard = self._unheard.pop(0)[1]
        return not self._unheard
