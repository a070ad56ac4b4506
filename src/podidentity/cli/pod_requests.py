"""What NMI answered a pod last: by the pod's events, NMI's event about its node, and `/debug`.

Events tell of failures alone, and NMI writes each at most once a minute. Only `/debug` knows of
tokens; most people may not read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from podidentity.adapters.clock import SystemClock
from podidentity.cli.chain import Failure, Requests
from podidentity.cli.connection import right_to
from podidentity.cli.nmi_debug import NotTold, read_debug
from podidentity.cli.objects import Object, find_all
from podidentity.cli.rollout import OF_AGENTS, lasts, seen
from podidentity.core.refusals import Reason
from podidentity.core.resources import Pod
from podidentity.wire import BROKEN_JSON
from podidentity.wire.events import AgentReason
from podidentity.wire.kube import EVENTS, KubeError

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

FRESH = 300.0
"""Seconds after which a failure does not count any more: the pod has asked since, or will not."""
_OF_THE_REQUEST = {
    *(Reason.NOT_AMONG, Reason.NOT_A_PROVIDER, Reason.NO_CSI_VOLUME),
    *(Reason.MADE_BY_PROXY, Reason.ADDRESS_CONTESTED, Reason.RUNTIME_CLASS),
}
_OF_THE_OBJECTS = frozenset(Reason) - _OF_THE_REQUEST
"""Refusals that the other links of the chain judge by the objects as they are now."""


class _Refused(msgspec.Struct):
    reason: str
    message: str
    seconds_ago: float
    since_seconds_ago: float


class _Page(msgspec.Struct):
    token_seconds_ago: float | None = None
    last_refusal: _Refused | None = None


async def requests_of(kube: Kube, pod: Pod, agent: Object | None, port: int) -> Requests:
    """Return what became of a pod's last requests; raise KubeError.

    `agent` is NMI's pod on its node, None if that is not known; `port` its secure port.
    """
    now = SystemClock().time()
    lacks: list[str] = []
    page = await _page(kube, pod, agent, port, lacks) if agent else _Page()
    only = f"involvedObject.uid={pod.uid},{OF_AGENTS}"
    events = await _events(kube, pod.ref.namespace, only, lacks)
    failures = list(_failures(page, events, now))
    if agent:
        of_nmi = await _events(kube, agent["metadata"]["namespace"], OF_AGENTS, lacks)
        failures += _of_node(of_nmi, agent, now)
    served = page.token_seconds_ago
    newest = max(failures, key=lambda each: each.last, default=None)
    lasting = newest if newest and (served is None or newest.last > now - served) else None
    if lasting and lasting.reason not in _OF_THE_OBJECTS and lasting.last > now - FRESH:
        return Requests(served=served, failure=lasting, text=_told(lasting, now))
    told = [f"served {served:.0f} s ago"] if served is not None else []
    if lasting:
        over = "; the objects allow it now" if lasting.reason in _OF_THE_OBJECTS else ""
        told.append(f"{_told(lasting, now)}{over}")
    nothing = "NMI knows of none" if agent else "not known"
    return Requests(served=served, text="; ".join([*told, *lacks]) or nothing)


async def _page(kube: Kube, pod: Pod, agent: Object, port: int, lacks: list[str]) -> _Page:
    """Return what NMI's page says of a pod, as far as the person may read it."""
    try:
        return msgspec.json.decode(await read_debug(kube, agent, port, pod.ref), type=_Page)
    except NotTold as error:
        lacks.append(f"what NMI answered last is not known: {error}")
    except BROKEN_JSON as error:
        lacks.append(f"NMI's page cannot be read: {error}")
    except KubeError as error:
        right = "you lack the right to read it: " if error.forbidden else ""
        lacks.append(f"when it was served is not known: {right}{error.message}")
    return _Page()


async def _events(kube: Kube, namespace: str, only: str, lacks: list[str]) -> list[Object]:
    try:
        return await find_all(kube, EVENTS, namespace, fieldSelector=only)
    except KubeError as error:
        if not error.forbidden:
            raise
        lacks.append(f"failures are not known: {right_to('list', 'events', namespace)}")
        return []


def _failures(page: _Page, events: Sequence[Object], now: float) -> Iterator[Failure]:
    if (told := page.last_refusal) is not None:
        since, last = now - told.since_seconds_ago, now - told.seconds_ago
        yield Failure(told.reason, told.message, since, last)
    for each in events:
        if each.get("type") == "Warning":
            reason, message = str(each.get("reason")), str(each.get("message"))
            yield Failure(reason, message, _first_seen(each), seen(each))


def _of_node(events: Sequence[Object], agent: Object, now: float) -> Iterator[Failure]:
    """Yield that most pods of the node get no token, as NMI tells of itself while it lasts."""
    for each in events:
        of_it = each["involvedObject"].get("uid") == agent["metadata"]["uid"]
        if of_it and each.get("reason") == AgentReason.TOKENS_FAIL and lasts(each, now):
            # NMI repeats it every few minutes: it counts as of now.
            yield Failure(str(each["reason"]), str(each.get("message")), _first_seen(each), now)


def _first_seen(event: Object) -> float:
    return seen({"lastTimestamp": event.get("firstTimestamp")})


def _told(failure: Failure, now: float) -> str:
    ago = max(now - failure.last, 0.0)
    return f"failed {ago:.0f} s ago ({failure.reason}): {failure.message}"
