"""One record for each decision about a token: who got what, why, and never the token itself.

A record is a JSON object in one line. Its fields are stable: programs read them.
"""

from __future__ import annotations

from typing import NamedTuple

from podidentity.core.errors import NotReady, PodIdentityError, Refused, TokenUnavailable
from podidentity.core.ids import ObjectRef
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.telemetry.lines import json_members, present

GRANTED = "granted"
REFUSED = "refused"
FAILED = "failed"
"""Entitled, or not known: there was no token to give."""


class Decision(NamedTuple):
    """How a token request ended, here."""

    outcome: Outcome
    status: int
    node: str


def decision_of(outcome: Outcome) -> str:
    """Return which of the three it was."""
    if outcome.error is None:
        return GRANTED
    return FAILED if isinstance(outcome.error, TokenUnavailable | NotReady) else REFUSED


def reason_of(error: PodIdentityError) -> str:
    """Return the reason of a refusal, or the kind of what went wrong: a bounded set of words."""
    return str(error.refusal.reason) if isinstance(error, Refused) else type(error).__name__


def members(decision: Decision, asked: Asked) -> str:
    """Return the record without its time and its `ms`, which differ each time."""
    outcome, request = decision.outcome, asked.request
    error, observed = outcome.error, outcome.observed
    return json_members(
        present(
            {
                "decision": decision_of(outcome),
                "reason": reason_of(error) if error else None,
                "observed": str(observed.reason) if observed else None,
                "status": int(decision.status),
                "pod": _pod(outcome, asked.named),
                "service_account": outcome.pod.service_account if outcome.pod else None,
                "node": decision.node,
                "identity": _identity(outcome),
                "audience": request.resource,
                "asked": str(request.asked) if request.asked else None,
                "basis": str(outcome.basis) if outcome.basis else None,
                "origin": str(outcome.origin) if outcome.origin else None,
                "address": asked.caller.address,
                "delegated_by": str(outcome.delegate) if outcome.delegate else None,
                "proof": outcome.detail if error or outcome.delegated else None,
            }
        )
    )


def _pod(outcome: Outcome, named: ObjectRef | None) -> dict[str, object] | None:
    pod = outcome.pod
    if pod is not None:
        return {"namespace": pod.ref.namespace, "name": pod.ref.name, "uid": pod.uid}
    if named is not None:
        return {"namespace": named.namespace, "name": named.name}
    if outcome.claimed:
        # Not proved: whose address the connection had.
        return {"claimed": [str(each.ref) for each in outcome.claimed]}
    return None


def _identity(outcome: Outcome) -> dict[str, object] | None:
    identity = outcome.identity
    if identity is None:
        return None
    known = {"client_id": identity.client_id, "resource_id": identity.resource_id}
    return {
        "namespace": identity.ref.namespace,
        "name": identity.ref.name,
        **{name: str(value) for name, value in known.items() if value is not None},
    }
