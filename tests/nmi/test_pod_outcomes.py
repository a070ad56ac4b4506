"""What the agent remembers of the last requests of each pod, and when it warns of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from podidentity.cli.checks.agents import agent_warnings
from podidentity.core.errors import (
    IdentityNotAttached,
    PodIdentityError,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.main import _warnings
from podidentity.nmi.reporting.events import AgentWarning
from podidentity.nmi.reporting.pod_outcomes import RECENT, ROOM, PodOutcomes
from podidentity.wire.events import AgentReason, Happening, render_event
from tests.fakes import NOW, FakeClock, pod
from tests.nmi.outcomes import QUERY, granted, refused
from tests.nmi.recorded import Recorded

DOWN = TokenSourceDown("IMDS did not answer within 9 s")
ABSENT = IdentityNotAttached("IMDS: Identity not found", status=400, error="invalid_request")
SLOW = TokenThrottled("IMDS: Too many requests", retry_after=7)


class Node:
    """The record of a node's requests."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.recorded = Recorded(self.clock)
        self.gone: set[str] = set()

    def known(self, ref: ObjectRef) -> Pod | None:
        return None if ref.name in self.gone else pod(ref.name)

    def warnings(self) -> Sequence[AgentWarning]:
        return self.outcomes.warnings(self.known)

    @property
    def outcomes(self) -> PodOutcomes:
        return self.recorded.record.outcomes

    async def ask(self, *numbers: int, error: PodIdentityError | None = None) -> None:
        """Record a request of each of these pods: it gets a token, or this error."""
        for number in numbers:
            asker = pod(f"p{number}")
            outcome = refused(error, asker) if error else granted(to=asker)
            await self.recorded.record.token(QUERY, outcome, 503 if error else 200, 0.0)

    async def fail(self, *numbers: int, error: PodIdentityError = DOWN, seconds: int = 60) -> None:
        """Record two failures of these pods, so many seconds apart."""
        await self.ask(*numbers, error=error)
        self.clock.advance(seconds)
        await self.ask(*numbers, error=error)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            DOWN,
            "tokens fail for all pods that asked (TokenSourceDown): IMDS did not answer within "
            "9 s; see whether the node reaches IMDS and Entra",
        ),
        (
            SLOW,
            "tokens fail for all pods that asked (TokenThrottled): IMDS: Too many requests; look "
            "for pods that ask for tokens again and again",
        ),
        (
            ABSENT,
            "tokens fail for all pods that asked (IdentityNotAttached): IMDS: Identity not found; "
            "attach the identity to the node's machines: podidentity add, or MIC",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_tokens_that_fail_for_a_minute_are_a_warning_with_reason_and_next_step(
    error: PodIdentityError, text: str
) -> None:
    node = Node()
    await node.fail(1, 2, error=error, seconds=59)
    assert node.warnings() == ()
    node.clock.advance(1)
    await node.ask(1, error=error)
    [warning] = node.warnings()
    assert warning == (AgentReason.TOKENS_FAIL, text, type(error).__name__)


async def test_the_warning_has_the_share_of_the_pods_and_the_commonest_reason() -> None:
    node = Node()
    await node.ask(1, 2, 3, 4, 5)
    await node.fail(6, error=ABSENT)
    await node.fail(7, 8)
    [warning] = node.warnings()
    assert warning.text.startswith(
        "tokens fail for 3 of 8 pods that asked, such as shop/p8 (TokenSource"
    )


async def test_the_warning_names_the_trouble_of_this_moment_and_no_pod_that_has_gone() -> None:
    node = Node()
    await node.fail(1, error=ABSENT)
    await node.fail(2)
    await node.fail(3, error=SLOW)
    [warning] = node.warnings()
    assert warning.cause == "TokenThrottled"
    node.gone = {"p1", "p2", "p3"}
    assert not node.warnings()


async def test_readyz_counts_the_failures_of_this_minute_and_names_no_pod() -> None:
    node = Node()
    nothing = {"asked": 0, "failing": 0, "reason": "", "since_seconds_ago": 0.0}
    assert node.outcomes.lately(node.known) == nothing
    await node.ask(1, 2, 3)
    await node.ask(2, error=ABSENT)
    node.clock.advance(5)
    await node.ask(3, error=DOWN)
    node.clock.advance(15)
    found = {"asked": 3, "failing": 2, "reason": "TokenSourceDown", "since_seconds_ago": 20.0}
    assert node.outcomes.lately(node.known) == found
    node.clock.advance(60)
    assert node.outcomes.lately(node.known) == nothing


async def test_one_pod_of_twenty_is_no_warning_and_two_are_one() -> None:
    node = Node()
    await node.ask(*range(1, 20))
    await node.fail(20)
    assert node.warnings() == ()
    await node.ask(19, error=DOWN)
    assert len(node.warnings()) == 1


async def test_the_warning_ends_with_the_next_tokens_or_after_ten_minutes() -> None:
    node = Node()
    await node.fail(1)
    assert node.warnings()
    await node.ask(1)
    assert not node.warnings()
    await node.fail(1)
    node.clock.advance(RECENT)
    assert not node.warnings()


@pytest.mark.parametrize(
    "own",
    [
        TokenThrottled("The pod requests new tokens too often", retry_after=1, of_caller=True),
        TokenRefused("AADSTS500011: The resource …", status=400, error="invalid_resource"),
        TokenRefused("AADSTS70011: The scope …", status=400, error="invalid_scope"),
    ],
    ids=["too often", "no such resource", "no such scope"],
)
async def test_what_a_pod_causes_itself_is_no_warning(own: TokenUnavailable) -> None:
    node = Node()
    await node.fail(1, error=own)
    assert node.warnings() == ()
    assert node.outcomes.lately(node.known)["failing"] == 0
    assert node.outcomes.shown("uid-p1")["last_refusal"] is not None


async def test_a_failure_after_a_pods_refusals_is_no_minute_of_failures() -> None:
    node = Node()
    own = TokenThrottled("The pod requests new tokens too often", retry_after=1, of_caller=True)
    await node.fail(1, error=own)
    await node.ask(1, error=DOWN)
    assert node.warnings() == ()
    await node.fail(1)
    assert len(node.warnings()) == 1


async def test_a_pods_last_token_and_last_refusal_are_shown() -> None:
    node = Node()
    assert node.outcomes.shown("uid-p1") == {"token_seconds_ago": None, "last_refusal": None}
    await node.ask(1)
    node.clock.advance(100)
    await node.fail(1, seconds=30)
    node.clock.advance(2)
    assert node.outcomes.shown("uid-p1") == {
        "token_seconds_ago": 132.0,
        "last_refusal": {
            "seconds_ago": 2.0,
            "since_seconds_ago": 32.0,
            "times": 2,
            "status": 503,
            "reason": "TokenSourceDown",
            "message": "IMDS did not answer within 9 s",
        },
    }


async def test_pods_beyond_the_room_push_out_the_pod_that_has_not_asked_for_longest() -> None:
    node = Node()
    await node.ask(1, 2, error=DOWN)
    await node.ask(1, error=DOWN)
    await node.ask(*range(3, ROOM + 2))
    assert node.outcomes.shown("uid-p1")["last_refusal"]
    assert not node.outcomes.shown("uid-p2")["last_refusal"]


async def test_a_namespace_whose_pods_come_and_go_pushes_out_its_own() -> None:
    node = Node()
    await node.ask(1, error=DOWN)
    for number in range(2 * ROOM):
        other = pod(f"g{number}", ref=ObjectRef("greedy", f"g{number}"))
        await node.recorded.record.token(QUERY, granted(to=other), 200, 0.0)
    assert node.outcomes.shown("uid-p1")["last_refusal"]


async def test_check_shows_the_warning_of_all_nodes_once() -> None:
    """`check` reads the events on NMI's own pods: of two nodes in the same outage."""
    agents, events = [], []
    for name in ("a", "b"):
        node = Node()
        await node.fail(1, error=ABSENT)
        [warned] = node.warnings()
        about = pod(f"nmi-{name}", ref=ObjectRef("kube-system", f"nmi-{name}"))
        warning = Happening(
            about=about,
            reason=AgentReason.TOKENS_FAIL,
            note=warned.text,
            first=NOW,
            last=NOW,
            count=1,
        )
        events.append(dict(render_event(warning, name)))
        metadata = {"namespace": "kube-system", "name": about.ref.name, "uid": about.uid}
        agents.append({"metadata": metadata, "spec": {"nodeName": name}})
    [finding] = agent_warnings(agents, events, NOW + 10)
    assert (finding.reason, str(finding.severity)) == ("TokensFail", "error")
    assert finding.what == (
        "On a, b: tokens fail for all pods that asked (IdentityNotAttached): IMDS: Identity "
        "not found."
    )
    assert finding.mend.startswith("Attach the identity to the node's machines")


async def test_what_every_pod_can_read_of_the_agent_names_no_pod() -> None:
    """`/readyz` shows these warnings, and every pod reaches it."""
    node, quiet = Node(), SimpleNamespace(state=None, warnings=tuple)
    await node.fail(1)
    seen: Any = SimpleNamespace(audit=None, requests=node.recorded.record)
    some: Any = quiet
    look = _warnings(some, some, seen, None, {}, watches=some)
    assert node.warnings()
    assert AgentReason.TOKENS_FAIL not in {warning.reason for warning in look()}
