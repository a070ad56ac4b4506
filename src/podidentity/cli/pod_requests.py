"""What NMI answered a pod last: by the pod's events, NMI's event about its node, and `/debug`.

Events tell of failures alone, and NMI writes each at most once a minute. Only `/debug` knows of
tokens; most people may not read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import TYPE_CHECKING

import msgspec

from podidentity.adapters.clock import SystemClock
from podidentity.cli.chain import Failure, Requests
from podidentity.cli.connection import right_to
from podidentity.cli.nmi_debug import NotTold, read_debug
from podidentity.cli.objects import Object, find_all, unless_forbidden
from podidentity.cli.rollout import OF_AGENTS, lasts, seen
from podidentity.core.errors import CredentialUnknown, TokenRefused
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
    *(Reason.NOT_AMONG, Reason.AMBIGUOUS, Reason.NOT_A_PROVIDER, Reason.NO_CSI_VOLUME),
    *(Reason.MADE_BY_PROXY, Reason.ADDRESS_CONTESTED, Reason.RUNTIME_CLASS),
}
OF_THE_OBJECTS = frozenset(Reason) - _OF_THE_REQUEST
"""Refusals that are judged by the objects as they are now, whatever NMI said before."""
OF_A_CREDENTIAL = {CredentialUnknown.__name__, TokenRefused.__name__}
"""Refusals that are over when the Secret was changed: NMI writes anew what lasts."""


class _Refused(msgspec.Struct):
    reason: str
    message: str
    seconds_ago: float
    since_seconds_ago: float


class _Page(msgspec.Struct):
    token_seconds_ago: float | None = None
    last_refusal: _Refused | None = None


async def requests_of(
    kube: Kube, pod: Pod, agent: Object | None, port: int, changed: float
) -> Requests:
    """Return what became of a pod's last requests; raise KubeError.

    `agent` is NMI's pod on its node, None if that is not known; `port` its secure port; its Secrets
    are `changed` since then.
    """
    now = SystemClock().time()
    lacks: list[str] = []
    page = await _page(kube, pod, agent, port, lacks) if agent else _Page()
    events = await _events(kube, pod.ref.namespace, pod.uid, lacks)
    of_nmi: list[Object] = []
    if agent:
        meta = agent["metadata"]
        of_nmi = await _events(kube, meta["namespace"], meta["uid"], lacks)
    served = page.token_seconds_ago
    since = -inf if served is None else now - served
    failures = [each for each in _failures(page, events, of_nmi, now) if each.last > since]

    def counts(failure: Failure) -> bool:
        return _counts(failure, now) and not is_mended(failure.reason, failure.last, changed)

    lasting = max(failures, key=lambda each: (counts(each), each.last), default=None)
    if lasting and counts(lasting):
        return Requests(served=served, failure=lasting, text=_told(lasting, now))
    told = [f"served {served:.0f} s ago"] if served is not None else []
    if lasting:
        over = "; the objects allow it now" if lasting.reason in OF_THE_OBJECTS else ""
        if is_mended(lasting.reason, lasting.last, changed):
            over = "; its Secret was changed since"
        told.append(f"{_told(lasting, now)}{over}")
    nothing = "NMI knows of none" if agent else "not known"
    return Requests(served=served, text="; ".join([*told, *lacks]) or nothing)


async def _page(kube: Kube, pod: Pod, agent: Object, port: int, lacks: list[str]) -> _Page:
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


async def _events(kube: Kube, namespace: str, uid: str, lacks: list[str]) -> list[Object]:
    only = f"involvedObject.uid={uid},{OF_AGENTS}"
    asked = find_all(kube, EVENTS, namespace, fieldSelector=only)
    if (found := await unless_forbidden(asked, None)) is None:
        lacks.append(f"failures are not known: {right_to('list', 'events', namespace)}")
    return found or []


def _failures(
    page: _Page, events: Sequence[Object], of_nmi: Sequence[Object], now: float
) -> Iterator[Failure]:
    """Yield how requests failed: by NMI's page, events on the pod, and events on NMI itself."""
    if (told := page.last_refusal) is not None:
        since, last = now - told.since_seconds_ago, now - told.seconds_ago
        yield Failure(told.reason, told.message, since, last)
    for each in events:
        if each.get("type") == "Warning":
            yield _failure(each)
    for each in of_nmi:
        if each.get("reason") == AgentReason.TOKENS_FAIL and lasts(each, now):
            yield _failure(each)


def is_mended(reason: str, at: float, changed: float) -> bool:
    """Whether a refusal of this time is for a credential whose Secret was `changed` since."""
    return reason in OF_A_CREDENTIAL and at < changed


def _counts(failure: Failure, now: float) -> bool:
    if failure.reason == AgentReason.TOKENS_FAIL:
        return True  # NMI repeats it more rarely than every FRESH seconds
    return failure.reason not in OF_THE_OBJECTS and failure.last > now - FRESH


def _failure(event: Object) -> Failure:
    since = seen({"lastTimestamp": event.get("firstTimestamp")})
    return Failure(str(event.get("reason")), str(event.get("message")), since, seen(event))


def _told(failure: Failure, now: float) -> str:
    ago = max(now - failure.last, 0.0)
    return f"failed {ago:.0f} s ago ({failure.reason}): {failure.message}"
