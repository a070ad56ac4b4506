"""Findings: what is wrong with which object, how bad that is, and what mends it.

A reason is one of a closed set, and each has an entry in docs/reference/check.md under its own
name: so a link that is printed leads somewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from podidentity.cli.objects import Object, ref_of
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef
from podidentity.wire.events import AgentReason, MicReason

PAGE = "docs/reference/check.md"
MOST_NAMED = 5
"""Objects of one kind that one finding names."""


class Severity(StrEnum):
    """How bad a finding is; values are stable, for programs."""

    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"
    """Nobody could look. It counts as an error: what is not known is not well."""


class CheckReason(StrEnum):
    """What only `check` finds; values are stable, for programs."""

    NOT_READ = "NotRead"
    # The rules
    CREDENTIAL = "Credential"
    AUDIENCE = "AudienceNotNamed"
    ANY_LABEL = "AnyLabel"
    # Pods
    MISSPELT_LABEL = "MisspeltLabel"
    EGRESS = "EgressClosed"
    NO_TOKENS = "NoTokens"
    REQUESTS_FAIL = "RequestsFail"
    # NMI
    NOT_READY = "NotReady"
    UPDATE_STUCK = "UpdateStuck"
    ONE_CONTAINER = "OneContainer"
    TWO_AGENTS = "TwoAgents"
    TWO_IMAGES = "TwoImages"
    WEAKER_PROOF = "WeakerProof"
    NO_PROBE_POD = "NoProbePod"
    ANY_TOKENS = "TokensOfAnyPod"
    # Nodes
    NO_AGENT = "NoAgent"
    HOST_ROUTING = "HostRouting"
    FAILS_OPEN = "FailsOpen"
    CUTS_OFF = "CutsOff"
    # MIC
    NO_CONTROLLER = "NoController"
    CONTROLLER_NOT_READY = "ControllerNotReady"
    CONTROLLER_PAUSED = "ControllerPaused"
    # Versions
    VERSIONS = "VersionsDiffer"
    NO_DEFINITION = "NoDefinition"
    OLD_DEFINITION = "OldDefinition"
    # Programs
    LACKS_RIGHTS = "LacksRights"
    NODE_UNPROVED = "NodeUnproved"
    # Federation
    ISSUER_SILENT = "IssuerSilent"
    ISSUER_UNREADABLE = "IssuerUnreadable"
    ISSUER_DIFFERS = "IssuerDiffers"
    CREDENTIAL_DIFFERS = "CredentialDiffers"
    NO_CREDENTIAL = "NoFederatedCredential"
    CREDENTIALS_FULL = "CredentialsFull"
    # Machines
    NOT_ATTACHED = "NotAttached"
    LACKS_ROLE = "LacksRole"
    # Before an install
    TOO_OLD = "ClusterTooOld"
    CONFLICT = "Conflict"
    PORT_TAKEN = "PortTaken"
    AUTOMATIC = "AksAutomatic"
    POD_SECURITY = "PodSecurity"
    NOT_SERVED = "NotServed"
    # Nodes, and what is left of others
    OPEN_START = "OpenWhileStarting"
    TAKER = "OtherTaker"
    ARCHIVED = "ArchivedRelease"
    STUCK = "StuckDeletion"
    UNKEPT = "UnkeptRecords"
    OUTLIVED = "GrantOutlives"
    LOST = "LostRelease"
    # What Azure answers MIC, by the condition of an AzureIdentity
    DENIED = "Denied"
    FORBIDDEN = "Forbidden"
    REFUSED_BY_AZURE = "RefusedByAzure"


_OF_REQUESTS = {
    *(Reason.NO_LABEL, Reason.NO_TENANT, Reason.NOT_ASSIGNED, Reason.POD_ENDED),
    *(Reason.NOT_AMONG, Reason.AMBIGUOUS, Reason.NOT_A_PROVIDER, Reason.NO_CSI_VOLUME),
    Reason.ADDRESS_CONTESTED,
}
"""Refusals that only a request has: no object is wrong."""
REASONS: frozenset[str] = frozenset(
    {
        *CheckReason,
        *(each for each in Reason if each not in _OF_REQUESTS),
        *(each for each in AgentReason if each.is_warning),
        *MicReason,
    }
)
"""All reasons of findings: each has a heading of its name on PAGE, by test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An object that the rules refuse, or something else that is not as it should be."""

    kind: str
    about: ObjectRef
    reason: str
    what: str
    """The reason, as a sentence."""
    mend: str
    """The next step, as a sentence."""
    switch: str = ""
    """The flag of NMI that would allow it; "" if none does."""
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        """Raise ValueError for a reason that no page explains."""
        if self.reason not in REASONS:
            raise ValueError(f"no page explains {self.reason}")

    @property
    def link(self) -> str:
        return f"{PAGE}#{self.reason.lower()}"


def not_read(what: str, mend: str = "") -> Finding:
    """Return that a part of the check was not possible; `what` names the right that is missing."""
    return Finding(
        kind="Check",
        about=ObjectRef("", ""),
        reason=CheckReason.NOT_READ,
        what=sentence(what),
        mend=mend or "podidentity rights check lists all that the command needs.",
        severity=Severity.UNKNOWN,
    )


def of_daemon_set(
    daemon_set: Object, reason: str, what: str, mend: str, severity: Severity = Severity.ERROR
) -> Finding:
    about = ref_of(daemon_set)
    return Finding(
        kind="DaemonSet", about=about, reason=reason, what=what, mend=mend, severity=severity
    )


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def named(names: Sequence[str], kind: str = "nodes") -> str:
    """Return the first names, each once, and how many more objects of the kind there are."""
    names = list(dict.fromkeys(names))
    shown = ", ".join(names[:MOST_NAMED])
    return f"{shown} and {len(names) - MOST_NAMED} more {kind}" if names[MOST_NAMED:] else shown


def by_reason(lines: Sequence[str]) -> list[str]:
    """Return lines `NODE: why` with each node once, and nodes with the same reasons together."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        node, _, why = line.partition(": ")
        if why not in reasons.setdefault(node, []):
            reasons[node].append(why)
    alike: dict[str, list[str]] = {}
    for node, whys in sorted(reasons.items()):
        alike.setdefault("; ".join(whys), []).append(node)
    return [f"{named(nodes)}: {why}" for why, nodes in alike.items()]


def first_lines(lines: Sequence[str]) -> str:
    more = f" And {len(lines) - MOST_NAMED} more." if len(lines) > MOST_NAMED else ""
    return f"{'; '.join(lines[:MOST_NAMED]).rstrip('.')}.{more}"
