"""Refusals of the rules, as values.

One refusal serves the answer to the pod, the log line, `podidentity explain` and the console, in
the same words. `public` is the text for the pod; `message` is for operators and may also name
objects of other namespaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from podidentity.core.resources import ObjectRef


class Reason(StrEnum):
    """The kinds of refusal; values are stable, for logs and metrics."""

    NO_LABEL = "NoLabel"
    EXCEPTION_IGNORED = "ExceptionIgnored"
    NO_BINDING = "NoBinding"
    OTHER_NAMESPACE = "OtherNamespace"
    NO_IDENTITY = "NoIdentity"
    MALFORMED_BINDING = "MalformedBinding"
    MALFORMED_IDENTITY = "MalformedIdentity"
    UNKNOWN_AUTHORITY = "UnknownAuthority"
    FOREIGN_SECRET = "ForeignSecret"  # noqa: S105 - a reason
    NO_TENANT = "NoTenant"
    NOT_ASSIGNED = "NotAssigned"
    NOT_PERMITTED = "NotPermitted"
    HOST_NETWORK = "HostNetwork"
    POD_ENDED = "PodEnded"
    NOT_AMONG = "NotAmongThePodsIdentities"
    AMBIGUOUS = "SeveralIdentities"
    NOT_A_PROVIDER = "NotAProvider"
    NO_CSI_VOLUME = "NoCsiVolume"
    MADE_BY_PROXY = "MadeByProxy"
    ADDRESS_CONTESTED = "AddressContested"
    RUNTIME_CLASS = "RuntimeClass"


LONGEST = 1000
"""Characters of one text. A tenant's words are in it, and each refusal is answered and logged."""


def shortened(text: str) -> str:
    """Return `text` with at most LONGEST characters."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal, with its reason and the next step."""

    reason: Reason
    message: str
    """One sentence for operators; may name objects of other namespaces."""
    next_step: str
    """What the operator can do, as an imperative sentence."""
    about: ObjectRef | None = None
    """The object at fault, if there is one."""
    told: str = ""
    """Text for the pod, if it must know less than the operator; else ""."""

    def __post_init__(self) -> None:
        for name in ("message", "next_step", "told"):
            object.__setattr__(self, name, shortened(getattr(self, name)))

    @property
    def public(self) -> str:
        return self.told or self.message

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}"
