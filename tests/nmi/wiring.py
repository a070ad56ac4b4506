"""The request pipeline with whatever a test has behind its ports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podidentity.core.attestation import STRICT_TRUST, Trust
from podidentity.core.delegation import Delegation
from podidentity.core.ports import Attestor, Clock, Cluster, Permissions, TokenSource
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import Decider, DecisionPolicy
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.request.pipeline import AnswerCache, RequestPipeline, RoutePolicy
from podidentity.settings import METADATA_ALLOWED
from podidentity.wire.imds import AllowList
from tests.nmi.metadata import FakeMetadata
from tests.nmi.recorded import Recorded


def pipeline_over(
    cluster: Cluster,
    clock: Clock,
    *,
    attestor: Attestor | None,
    permissions: Permissions,
    tokens: TokenSource,
    decider: Decider | DecisionPolicy,
    metadata: FakeMetadata | None = None,
    answers: AnswerCache | None = None,
    record: Recorded | None = None,
    delegation: Delegation | None = None,
    trust: Trust = STRICT_TRUST,
    recorded_first: bool = False,
    take_probe: Callable[[str, int, str, str], bool] = lambda *_: False,
    **routes: Any,
) -> RequestPipeline:
    """Return a pipeline; `routes` are fields of its RoutePolicy.

    `decider` may be the policy of one. What is not given is made, and nobody sees it.
    """
    if isinstance(decider, DecisionPolicy):
        decider = Decider(cluster=cluster, permissions=permissions, clock=clock, policy=decider)
    return RequestPipeline(
        callers=Callers(cluster, attestor, clock, trust=trust),
        host_callers=HostCallers(cluster, attestor, clock, delegation=delegation or Delegation()),
        decider=decider,
        tokens=tokens,
        metadata=metadata or FakeMetadata(),
        answers=AnswerCache(cluster, permissions, clock) if answers is None else answers,
        log=(record or Recorded(clock)).record,
        clock=clock,
        policy=RoutePolicy(**({"allow": AllowList(METADATA_ALLOWED)} | routes)),
        recorded_first=recorded_first,
        take_probe=take_probe,
    )
