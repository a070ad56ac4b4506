"""Who asked, and how it ended: what the answer, the log, the audit and the metrics are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from podidentity.core.attestation import Verdict
from podidentity.core.entitlements import Basis
from podidentity.core.errors import PodIdentityError
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Origin
from podidentity.core.refusals import Refusal
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.core.tokens import AccessToken, Grant, TokenRequest
from podidentity.nmi.server.messages import Caller


class Asked(NamedTuple):
    """A token request, as it arrived."""

    caller: Caller
    request: TokenRequest
    named: ObjectRef | None = None
    """The pod that another asks for, at the route of the CSI driver's provider."""


@dataclass(slots=True)
class Outcome:
    """How a request ended, for the answer and the log line; filled as far as it went."""

    token: AccessToken | None = None
    others: tuple[AccessToken, ...] = ()
    """Those of the identity's auxiliary tenants, where an old switch asks for them."""
    error: PodIdentityError | None = None
    pod: Pod | None = None
    identity: AzureIdentity | None = None
    basis: Basis | None = None
    """What entitled the pod, once something did."""
    observed: Refusal | None = None
    """What `--authorization=rbac` would have refused, where it only observes."""
    grant: Grant | None = None
    """What the rules gave, once they did."""
    origin: Origin | None = None
    detail: str = ""
    """For the operator's eyes: what the kernel said."""
    verdict: Verdict | None = None
    """What the kernel said, in one word; None where it was not asked."""
    claimed: tuple[Pod, ...] = ()
    """The pods whose address the connection has, while it is not proved to be theirs."""
    delegated: bool = False
    """Whether another asked in the pod's name."""
    delegate: ObjectRef | None = None
    """The pod that did, where it is one."""
