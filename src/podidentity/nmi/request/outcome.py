"""How a token request ends, as values: the answer, the log and the metrics are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from podidentity.core.attestation import Verdict
from podidentity.core.decision import Allowed
from podidentity.core.errors import NotReady, PodIdentityError, TokenUnavailable
from podidentity.core.matching import Basis
from podidentity.core.refusals import Refusal
from podidentity.core.resources import AzureIdentity, ObjectRef, Pod
from podidentity.core.tokens import AccessToken, Fetched, TokenRequest


class TokenQuery(NamedTuple):
    """A token request as it arrived."""

    address: str
    """Of the connection."""
    request: TokenRequest
    asked_for: ObjectRef | None = None
    """The pod that the client names, at the route of the CSI driver's provider; a claim."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was found out about the client of a connection."""

    verdict: Verdict | None = None
    """None if the kernel was not asked."""
    detail: str = ""
    """For operators: the kernel's words."""
    delegated: bool = False
    """Whether the token is asked for in a pod's name, from the node."""
    delegate: ObjectRef | None = None
    """The pod that asks in its name, if it is a pod."""


NO_EVIDENCE = Evidence()


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod whose token is asked for; the client may have it, by what was found out."""

    pod: Pod
    evidence: Evidence = NO_EVIDENCE


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A token is given."""

    subject: Subject
    allowed: Allowed
    fetched: Fetched
    others: tuple[AccessToken, ...] = ()
    """Those of the identity's auxiliary tenants, if an old switch asks for them."""

    @property
    def pod(self) -> Pod:
        """The pod, as it was when it was decided."""
        return self.allowed.pod

    @property
    def identity(self) -> AzureIdentity:
        """Whose token it is."""
        return self.allowed.identity

    @property
    def basis(self) -> Basis:
        """What entitled the pod."""
        return self.allowed.entitlement.basis

    @property
    def observed(self) -> Refusal | None:
        """What `--authorization=rbac` would have refused, while it only observes."""
        return self.allowed.observed

    @property
    def evidence(self) -> Evidence:
        """What was found out about the client."""
        return self.subject.evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class _WithoutToken:
    error: PodIdentityError
    evidence: Evidence = NO_EVIDENCE
    pod: Pod | None = None
    """The pod whose token was asked for, once that is proved."""
    claimed: tuple[Pod, ...] = ()
    """The pods that have the connection's address, while it is not proved to be theirs."""
    identity: AzureIdentity | None = None
    """The identity that the decision was about, if there was one."""
    basis: Basis | None = None
    """What entitled the pod, if it was entitled."""
    observed: Refusal | None = None


class Rejected(_WithoutToken):
    """The request, its client or the rules are the reason that there is no token."""

    __slots__ = ()


class Failed(_WithoutToken):
    """Entitled, or not known whether: there was no token to give."""

    __slots__ = ()


Outcome = Granted | Rejected | Failed


def no_token(
    error: PodIdentityError,
    subject: Subject | None = None,
    *,
    evidence: Evidence = NO_EVIDENCE,
    claimed: tuple[Pod, ...] = (),
    allowed: Allowed | None = None,
    identity: AzureIdentity | None = None,
    observed: Refusal | None = None,
) -> Rejected | Failed:
    """Return the outcome of a request that ended with `error`, as far as it got."""
    pod = allowed.pod if allowed else subject.pod if subject else None
    kind = Failed if isinstance(error, TokenUnavailable | NotReady) else Rejected
    return kind(
        error=error,
        evidence=subject.evidence if subject else evidence,
        pod=pod,
        claimed=claimed,
        identity=allowed.identity if allowed else identity,
        basis=allowed.entitlement.basis if allowed else None,
        observed=allowed.observed if allowed else observed,
    )
