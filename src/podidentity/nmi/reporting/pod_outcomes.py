"""The last token and the last refusal of each pod, for `/debug` and for the warning TokensFail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from podidentity.core.errors import NEXT_STEPS, TokenRefused, TokenUnavailable
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import FairCache
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.reporting.events import AgentWarning
from podidentity.nmi.request.decision import Failed, Granted, Outcome
from podidentity.wire.events import AgentReason

Known = Callable[[ObjectRef], Pod | None]
"""Returns the pod of this name on the node, None if it has gone."""

ROOM = 500
"""Pods that are remembered; a node has some 250."""
SHARE = 0.05
"""More failing pods than this share are a warning, as in the alert PodIdentityTokensFail."""
LASTING = 60.0
"""Seconds between the first and the last failure before NMI warns; also the time in which
`/readyz` counts the pods that asked."""
RECENT = 600.0
"""Seconds. The warning counts pods that asked within this time."""
_OF_THE_REQUEST = {"invalid_resource", "invalid_scope"}
"""Codes of Entra for a token's audience that nobody has: the pod asked for it."""


@dataclass(slots=True)
class _Pod:
    ref: ObjectRef
    given: float = -inf
    """Time of its last token, in monotonic seconds; the next two as well."""
    since: float = -inf
    """Time of its first failure after that token, of the kind of its last one."""
    ended: float = -inf
    """Time of its last failure."""
    times: int = 0
    """Failures since the last token, of the kind of the last one."""
    failed: bool = False
    """True if the pod got no token for a reason that is neither a refusal nor its own budget."""
    refusal: tuple[int, str, str] = 0, "", ""
    """Status, reason and message of the last one."""


class PodOutcomes:
    """Remembers the last token of each pod, and its last request without one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pods: FairCache[str, _Pod] = FairCache(ROOM)
        """By uid; the pod that has not asked for longest comes first."""

    def note(self, outcome: Outcome, status: int, reason: str, message: str) -> None:
        """Take note of a request; `message` is the one for operators."""
        if outcome.pod is None:
            return
        now = self._clock.monotonic()
        uid = outcome.pod.uid
        pod = self._pods.get(uid) or _Pod(outcome.pod.ref)
        self._pods.put(uid, pod, pod.ref.namespace)
        if isinstance(outcome, Granted):
            pod.given, pod.times = now, 0
            return
        error = outcome.error
        own = isinstance(error, TokenUnavailable) and error.of_caller
        own |= isinstance(error, TokenRefused) and error.error in _OF_THE_REQUEST
        failed = isinstance(outcome, Failed) and not own
        if not pod.times or failed is not pod.failed:
            pod.since, pod.times, pod.failed = now, 0, failed
        pod.ended, pod.times, pod.refusal = now, pod.times + 1, (status, reason, message)

    def shown(self, uid: str) -> dict[str, object]:
        """Return what is remembered of a pod, for `/debug`."""
        pod, now = self._pods.get(uid), self._clock.monotonic()
        shown: dict[str, object] = {"token_seconds_ago": None, "last_refusal": None}
        if pod is not None and pod.given > -inf:
            shown["token_seconds_ago"] = round(now - pod.given, 1)
        if pod is not None and pod.ended > -inf:
            status, reason, message = pod.refusal
            shown["last_refusal"] = {
                "seconds_ago": round(now - pod.ended, 1),
                "since_seconds_ago": round(now - pod.since, 1),
                "times": pod.times,
                "status": status,
                "reason": reason,
                "message": message,
            }
        return shown

    def lately(self, known: Known) -> dict[str, object]:
        """Return what `/readyz` says of the last minute: every pod reads it, so it names none."""
        failing, asked = self._failing(LASTING, known)
        now, reason = self._clock.monotonic(), _commonest(failing).refusal[1] if failing else ""
        since = round(now - min((pod.since for pod in failing), default=now), 1)
        return {
            "asked": asked,
            "failing": len(failing),
            "reason": reason,
            "since_seconds_ago": since,
        }

    def warnings(self, known: Known) -> Sequence[AgentWarning]:
        """Return that tokens fail, if they do."""
        failing, asked = self._failing(RECENT, known)
        if not failing:
            return ()
        if max(pod.ended for pod in failing) - min(pod.since for pod in failing) < LASTING:
            return ()
        last = _commonest(failing)
        reason = last.refusal[1]
        # All nodes of an outage say the same, so that `check` shows it once.
        who = f"{len(failing)} of {asked} pods that asked, such as {last.ref}"
        who = "all pods that asked" if len(failing) == asked else who
        message = last.refusal[2].replace("; ", ", ").rstrip(".")
        step = NEXT_STEPS.get(reason, "see /readyz of NMI there")
        text = f"tokens fail for {who} ({reason}): {message}; {step}"
        return (AgentWarning(AgentReason.TOKENS_FAIL, text, cause=reason),)

    def _failing(self, seconds: float, known: Known) -> tuple[list[_Pod], int]:
        """Return the pods that get no token, none up to `SHARE`, and how many asked lately."""
        oldest = self._clock.monotonic() - seconds
        recent = []
        for uid, pod in self._pods.items():
            there = known(pod.ref)
            if max(pod.given, pod.ended) > oldest and there is not None and there.uid == uid:
                recent.append(pod)
        failing = [pod for pod in recent if pod.failed and pod.times]
        return (failing if len(failing) > SHARE * len(recent) else []), len(recent)


def _commonest(failing: Sequence[_Pod]) -> _Pod:
    """Return the pod that failed last for the commonest reason; of two, for the later one."""
    latest = sorted(failing, key=lambda pod: pod.ended)[::-1]
    [(reason, _)] = Counter(pod.refusal[1] for pod in latest).most_common(1)
    return next(pod for pod in latest if pod.refusal[1] == reason)
