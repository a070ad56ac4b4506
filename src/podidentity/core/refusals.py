"""Why the rules say no, as a value.

One refusal serves the answer to the pod, the log line, `podidentity explain` and the console: they
never word it anew. `public` is what the pod may read; `message` may also name what lies in other
namespaces, and is for the cluster's operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from podidentity.core.ids import ObjectRef


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A no, with its reason and what to do about it."""

    reason: Reason
    message: str
    """One sentence for operators; may name objects of other namespaces."""
    next_step: str
    """What the operator can do, as an imperative sentence."""
    about: ObjectRef | None = None
    """The object at fault, if there is one."""
    told: str = ""
    """What the pod is told, where it must know less than the operator; "" where it may know all."""

    @property
    def public(self) -> str:
        """What the pod may read."""
        return self.told or self.message

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}"
