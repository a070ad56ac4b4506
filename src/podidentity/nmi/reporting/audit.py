"""One record for each decision about a token: who got what, why, and never the token itself.

A record is a JSON object in one line. Its fields are stable: programs read them. With
`--audit-required` no answer leaves before its record was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from podidentity.core.errors import NotReady, PodIdentityError, Refused
from podidentity.core.resources import AzureIdentity, ObjectRef
from podidentity.nmi.request.outcome import Failed, Granted, Outcome, TokenQuery
from podidentity.telemetry.lines import json_members, present
from podidentity.telemetry.writer import Writer

GRANTED = "granted"
REFUSED = "refused"
FAILED = "failed"
"""Entitled, or not known: there was no token to give."""

WRITE_SECONDS = 1.0
"""That an answer waits for its record; then it is 503, because the disk or the pipe has stalled."""


class AuditLog:
    """The writer of the audit log, and whether answers wait for it."""

    def __init__(self, writer: Writer, *, required: bool) -> None:
        """`required`: no answer leaves before its record is written."""
        self.writer = writer
        self.required = required
        self.write = writer.write

    def problems(self) -> Sequence[str]:
        """Return what keeps requests from being answered."""
        return self._failures() if self.required else ()

    def warnings(self) -> Sequence[str]:
        """Return what is wrong while requests are answered all the same."""
        return () if self.required else self._failures()

    def _failures(self) -> Sequence[str]:
        failure = self.writer.failure
        return (f"the audit log cannot be written: {failure}",) if failure else ()

    async def commit(self, line: str) -> None:
        """Return when `line` is written, in a group with those of other requests.

        Raises NotReady if it cannot be; it may still be written later, without an answer.
        """
        written = self.writer.commit(line)
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                failure = await written
        except TimeoutError:
            failure = "it takes no record"
        if failure:
            raise NotReady("the agent's audit log cannot be written")


def decision_of(outcome: Outcome) -> str:
    """Return which of the three it was."""
    if isinstance(outcome, Granted):
        return GRANTED
    return FAILED if isinstance(outcome, Failed) else REFUSED


def reason_of(error: PodIdentityError) -> str:
    """Return the reason of a refusal, or the kind of error: a bounded set of words."""
    return str(error.refusal.reason) if isinstance(error, Refused) else type(error).__name__


def audit_members(query: TokenQuery, outcome: Outcome, status: int, node: str) -> str:
    """Return the record without its time and its `ms`, which differ each time."""
    request, evidence, observed = query.request, outcome.evidence, outcome.observed
    error = None if isinstance(outcome, Granted) else outcome.error
    pod = outcome.pod
    return json_members(
        present(
            {
                "decision": decision_of(outcome),
                "reason": reason_of(error) if error else None,
                "observed": str(observed.reason) if observed else None,
                "status": int(status),
                "pod": _pod(outcome),
                "asked_for": None if pod else _name(query.asked_for),
                "service_account": pod.service_account if pod else None,
                "node": node,
                "identity": _identity(outcome.identity),
                "audience": request.resource,
                "asked": str(request.asked) if request.asked else None,
                "basis": str(outcome.basis) if outcome.basis else None,
                "origin": str(outcome.fetched.origin) if isinstance(outcome, Granted) else None,
                "address": query.address,
                "delegated_by": str(evidence.delegate) if evidence.delegate else None,
                "proof": evidence.detail if error or evidence.delegated else None,
            }
        )
    )


def _pod(outcome: Outcome) -> dict[str, object] | None:
    pod = outcome.pod
    if pod is not None:
        return {"namespace": pod.ref.namespace, "name": pod.ref.name, "uid": pod.uid}
    if not isinstance(outcome, Granted) and outcome.claimed:
        # Not proved: these have the connection's address.
        return {"claimed": [str(each.ref) for each in outcome.claimed]}
    return None


def _name(ref: ObjectRef | None) -> dict[str, object] | None:
    return {"namespace": ref.namespace, "name": ref.name} if ref else None


def _identity(identity: AzureIdentity | None) -> dict[str, object] | None:
    if identity is None:
        return None
    known = {"client_id": identity.client_id, "resource_id": identity.resource_id}
    return {
        "namespace": identity.ref.namespace,
        "name": identity.ref.name,
        **{name: str(value) for name, value in known.items() if value is not None},
    }
