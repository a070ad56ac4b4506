"""What the weather does to a request before the API server decides on it.

A throttled request gets text and Retry-After, no Status: the filter of API priority and fairness
answers before the API does.
https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
That answer's words, and those of 500 and 503, are from memory.
"""

from __future__ import annotations

import asyncio
import json
import re

from podidentity_sandbox.cluster.authentication import NODES, User
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.status import StatusError
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
