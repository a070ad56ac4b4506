"""The errors of a request, as one tree.

    PodIdentityError
    ├── InvalidRequest        the caller must change the request
    ├── UnknownCaller         no pod of this node has the address
    ├── UnprovenCaller        the connection does not belong to the pod with its address
    ├── Refused               the rules refuse; carries the Refusal
    ├── TokenUnavailable      the pod is entitled, but there is no token
    │   ├── TokenRefused      Entra or IMDS refuses; to ask again does not help
    │   │   └── NotYetKnown   …or does not know the identity yet, which may change soon:
    │   │       ├── IdentityNotAttached  to this node, says IMDS
    │   │       └── CredentialUnknown    secret, federation or application, says Entra
    │   ├── TokenThrottled    too many requests; carries the time to wait
    │   └── TokenSourceDown   Entra or IMDS cannot be reached, or its answer makes no sense
    └── NotReady              this agent cannot decide yet

They know nothing of HTTP: `nmi.request.errors` has the one table from class to status, and a test
that every class has its row. Messages may be shown to the pod: no secret, no token, nothing of
another namespace goes into them. Causes are chained with `from`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podidentity.core.refusals import Refusal, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class PodIdentityError(Exception):
    """Base of all errors of a request; a long message is cut."""

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


class InvalidRequest(PodIdentityError):
    """IMDS would not accept the request."""


class UnknownCaller(PodIdentityError):
    """No pod of this node has the address that the connection claims."""


class UnprovenCaller(PodIdentityError):
    """The kernel does not confirm that the connection belongs to the pod with its address."""


class Refused(PodIdentityError):
    """The rules refuse, for the reason in `refusal`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.public)
        self.refusal = refusal


class TokenUnavailable(PodIdentityError):
    """The pod is entitled, but no token can be given."""

    of_caller = False
    """Whether only this pod has the error, while others may get a token of the identity."""


class TokenRefused(TokenUnavailable):
    """Entra or IMDS refused, with its HTTP `status` and OAuth `error` code."""

    def __init__(self, message: str, *, status: int, error: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error


class NotYetKnown(TokenRefused):
    """Base of what is wrong or too new: a request is held for a while, and asked again."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        error: str,
        comes: Callable[[], Coroutine[Any, Any, object]] | None = None,
        of_caller: bool = False,
    ) -> None:
        """`comes` returns when the missing object has come; None if that cannot be awaited."""
        super().__init__(message, status=status, error=error)
        self.comes = comes
        self.of_caller = of_caller


class IdentityNotAttached(NotYetKnown):
    """IMDS does not know the identity on this node."""


class CredentialUnknown(NotYetKnown):
    """Entra does not know the application or its credential, or that is not in the cluster."""


class TokenThrottled(TokenUnavailable):
    """Entra, IMDS or this agent asks to slow down; `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: int, of_caller: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.of_caller = of_caller


class TokenSourceDown(TokenUnavailable):
    """Entra or IMDS cannot be reached, does not answer in time, or its answer makes no sense."""


class NotReady(PodIdentityError):
    """The agent does not know the cluster yet, or cannot prove callers for a moment."""


NEXT_STEPS = {
    "IdentityNotAttached": "attach the identity to the node's machines: podidentity add, or MIC",
    "CredentialUnknown": "correct the credential or the federation of the AzureIdentity",
    "TokenRefused": "correct what the message names",
    "TokenThrottled": "look for pods that ask for tokens again and again",
    "TokenSourceDown": "see whether the node reaches IMDS and Entra",
}
"""For an operator, by the name of the class of a TokenUnavailable: an imperative clause."""
