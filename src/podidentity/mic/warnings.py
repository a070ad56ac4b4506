"""What keeps MIC from its work in Azure, told as events on MIC's own pod.

For those who cannot ask it: `podidentity check` and `kubectl describe` read them. Only the leader
tells, and only what lasts. MIC may create events and change none, so each telling is an event of
its own, at most one a minute and reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from math import inf

from podidentity.core.ports import Clock
from podidentity.core.resources import Pod
from podidentity.mic.calls import Obstacle, Trouble
from podidentity.wire.events import (
    AGAIN_OF_MIC,
    COMPONENT_OF_MIC,
    Happening,
    MicReason,
    render_event,
)
from podidentity.wire.kube import EVENTS, KubeApi, KubeError

LASTING = 10.0
"""Seconds after which a trouble counts as lasting."""
LOOK = 5.0
"""Seconds between two looks."""
_MOST = 5
"""Hosts, or kinds of request, that one event names."""

_REASONS = {
    Obstacle.THROTTLED: MicReason.AZURE_THROTTLES,
    Obstacle.SILENT: MicReason.AZURE_SILENT,
    Obstacle.HOST: MicReason.HOSTS_NOT_CHANGED,
}
_TEXTS = {
    MicReason.AZURE_THROTTLES: (
        "Azure throttles MIC: {}",
        "MIC goes on by itself when it may; look for what else sends so many requests",
    ),
    MicReason.AZURE_SILENT: (
        "Azure does not answer MIC: {}",
        "MIC tries on by itself; look whether MIC's pods reach the resource manager, and sign in",
    ),
    MicReason.HOSTS_NOT_CHANGED: (
        "Identities cannot be attached to, or detached from: {}",
        "MIC tries again by itself when that is mended",
    ),
}
"""What each is, and what to do about it."""

_log = logging.getLogger("podidentity.events")


def told(troubles: Iterable[Trouble]) -> dict[MicReason, str]:
    """Return the text of each reason: what it is and, after a semicolon, what to do about it."""
    found: dict[MicReason, list[str]] = {}
    for each in troubles:
        found.setdefault(_REASONS[each.obstacle], []).append(_line(each))
    return {reason: _text(reason, lines) for reason, lines in found.items()}


def _line(trouble: Trouble) -> str:
    what = trouble.what.rstrip(".").replace(";", ",")
    if not trouble.until:
        return what
    return f"{what} until {datetime.fromtimestamp(trouble.until, UTC):%H:%M:%S} UTC"


def _text(reason: MicReason, lines: list[str]) -> str:
    what, mend = _TEXTS[reason]
    more = f" and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
    return f"{what.format(', '.join(lines[:_MOST]) + more)}; {mend}"


class OwnWarnings:
    """Writes the events; `run` it as a task."""

    def __init__(
        self,
        server: KubeApi,
        clock: Clock,
        own: Pod,
        *,
        leading: Callable[[], bool],
        troubles: Callable[[], Iterable[Trouble]],
    ) -> None:
        self._server = server
        self._clock = clock
        self._own = own
        self._leading = leading
        self._troubles = troubles
        self._since: dict[MicReason, float] = {}
        self._written: dict[MicReason, float] = {}

    async def run(self) -> None:
        while True:
            await self._look()
            await self._clock.sleep(LOOK)

    async def _look(self) -> None:
        found = told(self._troubles()) if self._leading() else {}
        now = self._clock.monotonic()
        self._since = {each: self._since.get(each, now) for each in found}
        for reason, text in found.items():
            lasts = now - self._since[reason] >= LASTING
            if lasts and now - self._written.get(reason, -inf) >= AGAIN_OF_MIC:
                self._written[reason] = now
                await self._write(reason, text)

    async def _write(self, reason: MicReason, text: str) -> None:
        at = self._clock.time()
        happening = Happening(
            about=self._own, reason=reason.value, note=text, first=at, last=at, count=1
        )
        body = render_event(happening, self._own.ref.name, COMPONENT_OF_MIC)
        try:
            await self._server.create(EVENTS.path(self._own.ref.namespace), body)
        except KubeError as error:
            _log.warning("an event about %s cannot be written: %s", reason.value, error)
