"""When the cluster's RBAC is asked for a permission again.

What it allows counts for long, what it refuses for a short time: an operator may be about to grant
it. When a grant comes or goes it is asked at once, and then twice more, because the API server that
answers may learn of the change later than the one that told us.

A "no" counts when it has lasted (`podidentity.lasting`). Until then MIC deletes and detaches
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from podidentity.backoff import backoff
from podidentity.core.decision import Use
from podidentity.lasting import ASK_AGAIN, Lasting
from podidentity.mic.calls import Failure, Result

SURE = (1.0, 4.0)
"""Seconds between the answers after a change of grants."""
_LONGEST = 30.0
"""Seconds between two tries of a question that has no answer."""


class PermissionQuestions:
    """The permissions that are asked for. Times are in seconds."""

    def __init__(self, *, allowed: float, denied: float) -> None:
        """`allowed` and `denied` say how long each answer counts."""
        self._counts = {True: allowed, False: denied}
        self._failures: dict[Use, int] = {}
        """In a row."""
        self._unsure: dict[Use, int] = {}
        """How many answers have come since a grant came or went."""
        self._refusals: dict[Use, Lasting] = {}

    def doubt(self, uses: Iterable[Use]) -> None:
        self._unsure.update(dict.fromkeys(uses, 0))

    def forget(self, use: Use) -> None:
        self._failures.pop(use, None)
        self._unsure.pop(use, None)
        self._refusals.pop(use, None)

    def counts(self, use: Use, result: Result, now: float) -> bool:
        """Take an answer, or none; return whether it decides."""
        if result is False:
            return self._refusals.setdefault(use, Lasting()).refused(now)
        self._refusals.pop(use, None)
        return result is True

    def again(self, use: Use, result: Result, number: int, *, counts: bool = True) -> float:
        """Return after how many seconds to ask again, now that an answer has come, or none.

        `counts` says whether the answer decides. `number` differs from question to question: what
        was asked together is not asked together again.
        """
        if isinstance(result, bool):
            self._failures.pop(use, None)
            spread = 1 - (number % 97) / 970
            asked = self._unsure.pop(use, len(SURE))
            sure = inf if asked == len(SURE) else SURE[asked]
            if asked < len(SURE):
                self._unsure[use] = asked + 1
            return min(self._counts[result] * spread if counts else ASK_AGAIN, sure)
        failures = self._failures.get(use, 0) + 1
        self._failures[use] = failures
        after = result.retry_after if isinstance(result, Failure) else 0.0
        return max(after, backoff(1.0, failures, _LONGEST))
