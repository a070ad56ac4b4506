"""Ask an API server for a permission, twice where the first answer would take it away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from podidentity.core.ports import Clock
from podidentity.lasting import ASK_AGAIN
from podidentity.wire.kube import KubeError
from podidentity.wire.reviews import UnsureReview


async def confirmed(
    ask: Callable[[], Awaitable[bool]],
    clock: Clock,
    *,
    before: bool | None,
    was_forbidden: bool = False,
) -> bool:
    """Return the decision that `ask` gets; raise what it raises the second time.

    `before` is the decision so far. It asks again after `ASK_AGAIN` where a permission would end,
    where an authorizer failed, and where the API server refuses the question itself. What was
    refused before is not asked twice.
    """
    try:
        allowed = await ask()
        if allowed or not before:
            return allowed
    except UnsureReview:
        if before is False:
            return False
    except KubeError as error:
        if not error.forbidden or was_forbidden:
            raise
    await clock.sleep(ASK_AGAIN)
    try:
        return await ask()
    except UnsureReview:
        return False
