"""What the weather does to a request before the API server decides on it, and to what it has heard.

A throttled request gets text and Retry-After, no Status: the filter of API priority and fairness
answers before the API does.
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
That answer's words, and those of 500 and 503, are from memory.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Collection
from datetime import datetime

from podidentity_sandbox.cluster.authentication import NODES, User
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Change, Record, Storage
from podidentity_sandbox.plan import OWN_AGENT
from podidentity_sandbox.weather import BAD_GATEWAY, Blow, Effect, WeatherInForce

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


async def befall(weather: WeatherInForce, user: User, agent: str, info: RequestInfo) -> Blow | None:
    """Let a request meet the weather; return what befalls it, or None where it is answered.

    It takes the time that the server takes for its answers. `agent` is the User-Agent.
    """
    if agent.startswith(OWN_AGENT) or NODES in user.groups or user.name in _OWN_USERS:
        return None
    if seconds := weather.seconds("answers", "apiserver"):
        await asyncio.sleep(seconds)
    who = "principal" if _PRINCIPAL.fullmatch(user.name) else user.name
    kind = f"{who} {info.verb} {info.resource or info.path}"
    blow = weather.blow("apiserver", kind, about=info.path)
    return None if blow is None or await blow.passes() else blow


def answer_of(blow: Blow) -> tuple[int, str, str]:
    """Return the answer in place of the true one: status, content type, text."""
    match blow.effect:
        case Effect.HTML:
            return 502, "text/html", BAD_GATEWAY
        case Effect.THROTTLED:
            return 429, "text/plain", "Too many requests, please try again later.\n"
    error = _STATUS[blow.effect]
    return error.code, "application/json", json.dumps(error.body())


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
