"""Everything that can go wrong while a request is served, as one tree.

    PodIdentityError
    ├── InvalidRequest        the caller must change the request
    ├── UnknownCaller         no pod of this node has the address
    ├── UnprovenCaller        the connection is not that of the pod whose address it has
    ├── Refused               the rules say no; carries the Refusal
    ├── TokenUnavailable      entitled, but there is no token
    │   ├── TokenRefused      whoever issues tokens said no; asking again does not help
    │   │   └── NotYetKnown   …or it has not heard of the identity yet, which may pass
    │   ├── TokenThrottled    too many requests; carries when to ask again
    │   └── TokenSourceDown   whoever issues tokens cannot be reached or makes no sense
    └── NotReady              this agent cannot decide yet

They know nothing of HTTP: `nmi.request.errors` has the one table from class to status, and a test
that every class has its row. Messages may be shown to the pod: no secret, no token, nothing of
another namespace goes into them. Causes are chained with `from`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from podidentity.core.refusals import Refusal


class PodIdentityError(Exception):
    """Base of all errors of a request."""


class InvalidRequest(PodIdentityError):
    """The request is not one that IMDS would accept."""


class UnknownCaller(PodIdentityError):
    """No pod of this node has the address that the connection claims."""


class UnprovenCaller(PodIdentityError):
    """The kernel does not confirm that the connection belongs to the pod whose address it has."""


class Refused(PodIdentityError):
    """The rules refuse; `refusal` says why, in the same words for log, explain and console."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.public)
        self.refusal = refusal


class TokenUnavailable(PodIdentityError):
    """The pod is entitled, but there is no token to hand out."""

    of_caller = False
    """Whether it is so for the pod that asks alone: others may have a token of the identity."""


class TokenRefused(TokenUnavailable):
    """Entra or IMDS refused; `status` and `error` are theirs (HTTP status, OAuth error code)."""

    def __init__(self, message: str, *, status: int, error: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class NotYetKnown(TokenRefused):
    """Entra or IMDS knows no such identity, credential or attachment: wrong, or a moment old."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error: str,
        comes: Callable[[], Coroutine[Any, Any, object]] | None = None,
        of_caller: bool = False,
    ) -> None:
        """`comes` returns when it has come; None where only asking again tells."""
        super().__init__(message, status=status, error=error)
        self.comes = comes
        self.of_caller = of_caller


class TokenThrottled(TokenUnavailable):
    """Entra, IMDS or this agent asks to slow down; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: int, of_caller: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.of_caller = of_caller


class TokenSourceDown(TokenUnavailable):
    """Entra or IMDS cannot be reached, does not answer in time, or answers rubbish."""


class NotReady(PodIdentityError):
    """The agent does not know the cluster yet, or cannot prove callers for a moment."""
