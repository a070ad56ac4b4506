"""The decision table of the node agent, row by row: situation, answer, and whether it waits.

Rows 0 to 2 and 14 are the routes' (test_routes), 3 and 4 the callers' (test_callers).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from podidentity.core.decision import Ambiguity, Rules, Use
from podidentity.core.errors import (
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
)
from podidentity.core.resources import (
    AzurePodIdentityException,
    ClientId,
    ObjectId,
    ObjectRef,
    ResourceId,
    TokenRequest,
    WorkloadIdentity,
)
from podidentity.nmi.request.decision import Granted, Outcome
from podidentity.nmi.request.errors import answer
from podidentity.nmi.request.hold import HoldTimes
from tests.core.objects import TENANT
from tests.fakes import (
    CLIENT,
    NOW,
    OTHER_CLIENT,
    RESOURCE_ID,
    VAULT,
    assigned,
    binding,
    identity,
    pod,
)
from tests.nmi.worlds import OLD, World, error_of

NONE = TokenRequest(resource=VAULT)
OURS = TokenRequest(resource=VAULT, client_id=ClientId.parse(CLIENT))
OTHERS = TokenRequest(resource=VAULT, client_id=ClientId.parse(OTHER_CLIENT))
BY_OBJECT = TokenRequest(resource=VAULT, object_id=ObjectId.parse(CLIENT))
BY_RESOURCE = TokenRequest(resource=VAULT, resource_id=ResourceId.parse(RESOURCE_ID.upper()))

YOUNG, LONG_AGO = pod(started=NOW - 3), pod(started=OLD)
BOUND = (identity(object_id=ObjectId.parse(CLIENT)), binding())
SECOND = identity("second", client_id=ClientId.parse(OTHER_CLIENT), resource_id=None)
BOTH = (*BOUND, SECOND, binding("b2", identity="second", weight=5))
UNLABELLED = pod(labels={"tier": "web"})
EXCEPTION = AzurePodIdentityException(ref=ObjectRef("shop", "e"), pod_labels={"tier": "web"})
LISTED = AzurePodIdentityException(
    ref=ObjectRef("shop", "e"),
    pod_labels={"tier": "web"},
    identities=(ClientId.parse(OTHER_CLIENT),),
)
ACCOUNT = WorkloadIdentity(
    ref=ObjectRef("shop", "default"), client_id=ClientId.parse(OTHER_CLIENT), tenant=TENANT
)
EXCEPTED = {"rules": Rules(exception_namespaces=frozenset({"shop"}))}
STANDARD = {"rules": Rules(standard=True)}
IMDS_SAYS = TokenRefused("IMDS: no", status=400, error="invalid_resource")
ENTRA_SAYS = TokenRefused("AADSTS7000215: wrong secret", status=401, error="invalid_client")
LATER = NotYetKnown("IMDS: Identity not found", status=400, error="invalid_request")


@dataclass
class Row:
    """One case: what there is, what is asked, what comes of it."""

    number: int
    sentence: str
    objects: tuple[Any, ...]
    answer: str
    """The name of the identity that answers, or status and machine-readable word."""
    asks: TokenRequest = NONE
    policy: dict[str, Any] = field(default_factory=dict)
    waits: float | None = None
    """Seconds until it is refused for good; None: it waits for nothing."""
    denied: tuple[str, ...] = ()
    """Names that the cluster's RBAC does not grant."""
    fails: tuple[Any, ...] = ()
    """What the source of tokens says."""
    says: str = ""

    def __str__(self) -> str:
        return f"{self.number} {self.sentence}"


ROWS = [
    Row(5, "no label, account or exception", (UNLABELLED, *BOUND), "400 invalid_request"),
    Row(5, "an empty label", (pod(labels={"aadpodidbinding": ""}), *BOUND), "400 invalid_request"),
    Row(5, "an annotated service account", (UNLABELLED, ACCOUNT), "default"),
    Row(6, "an excepted pod", (UNLABELLED, EXCEPTION), "e", policy=EXCEPTED),
    Row(6, "asks for any id", (UNLABELLED, EXCEPTION), "e", OTHERS, policy=EXCEPTED),
    Row(6, "within its list", (UNLABELLED, LISTED), "e", OTHERS, policy=EXCEPTED),
    Row(6, "not in its list", (UNLABELLED, LISTED), "400 invalid_request", OURS, policy=EXCEPTED),
    Row(6, "elsewhere it is ignored", (UNLABELLED, EXCEPTION), "400 invalid_request"),
    Row(6, "ignored, the binding counts", (pod(), EXCEPTION, *BOUND), "orders"),
    Row(7, "label, no binding, young", (YOUNG, identity()), "404 not_found", waits=5),
    Row(7, "label, no binding, old", (LONG_AGO, identity()), "404 not_found"),
    Row(7, "label, no identity, young", (YOUNG, binding()), "404 not_found", waits=5),
    Row(7, "label, no identity, old", (LONG_AGO, binding()), "404 not_found"),
    Row(7, "no hold was chosen", (YOUNG,), "404 not_found", policy={"hold": HoldTimes(change=0)}),
    Row(8, "nobody has begun", (pod(), *BOUND), "404 not_found", policy=STANDARD, waits=80),
    Row(
        8,
        "a controller has begun",
        (LONG_AGO, *BOUND, assigned(state="Created")),
        "404 not_found",
        policy=STANDARD,
        waits=100,
    ),
    Row(8, "it is assigned", (LONG_AGO, *BOUND, assigned()), "orders", policy=STANDARD),
    Row(
        8,
        "another node's record says nothing",
        (LONG_AGO, *BOUND, assigned(node="n2")),
        "404 not_found",
        policy=STANDARD,
        waits=80,
    ),
    Row(8, "an account needs no record", (UNLABELLED, ACCOUNT), "default", policy=STANDARD),
    Row(9, "its own by client id", (pod(), *BOTH), "orders", OURS),
    Row(9, "its own by object id", (pod(), *BOTH), "orders", BY_OBJECT),
    Row(9, "its own by resource id", (pod(), *BOTH), "orders", BY_RESOURCE),
    Row(
        9,
        "a foreign id",
        (pod(), *BOUND),
        "400 invalid_request",
        OTHERS,
        says=f"It may use: orders ({CLIENT}).",
    ),
    Row(
        9,
        "a foreign id, and its own not permitted",
        (pod(), *BOUND),
        "400 invalid_request",
        OTHERS,
        denied=(CLIENT,),
        says="It may use: none.",
    ),
    Row(
        9,
        "its own, not permitted",
        (pod(), *BOTH),
        "403 access_denied",
        OURS,
        denied=(CLIENT,),
        says=f"It may use: second ({OTHER_CLIENT}).",
    ),
    Row(
        9,
        "an id that may be that of an identity not there yet",
        (YOUNG, *BOUND, binding("b2", identity="second")),
        "400 invalid_request",
        OTHERS,
        waits=5,
    ),
    Row(10, "the heaviest", (pod(), *BOTH), "second"),
    Row(10, "the heaviest is denied", (pod(), *BOTH), "orders", denied=(OTHER_CLIENT,)),
    Row(
        10,
        "rejected where chosen",
        (pod(), *BOTH),
        "400 invalid_request",
        policy={"ambiguity": Ambiguity.REJECT},
        says="Multiple user assigned identities exist",
    ),
    Row(11, "IMDS refused", (pod(), *BOUND), "400 invalid_resource", fails=(IMDS_SAYS,)),
    Row(11, "Entra refused", (pod(), *BOUND), "401 invalid_client", fails=(ENTRA_SAYS,)),
    Row(11, "not known, old", (LONG_AGO, *BOUND), "400 invalid_request", fails=(LATER,)),
    Row(12, "down", (pod(), *BOUND), "503 service_unavailable", fails=(TokenSourceDown("x"),)),
    Row(
        12,
        "throttled",
        (pod(), *BOUND),
        "429 too_many_requests",
        fails=(TokenThrottled("x", retry_after=7),),
    ),
]


def told(outcome: Outcome) -> str:
    """Return the name of the identity that answers, or status and word."""
    if isinstance(outcome, Granted):
        return outcome.identity.ref.name
    found = answer(outcome.error)
    return f"{found.status:d} {found.error}"


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_each_row_has_its_answer_and_waits_no_longer_than_it_should(row: Row) -> None:
    world = World(*row.objects, **row.policy)
    for name in row.denied:
        world.permissions.allowed[Use(ObjectRef("shop", "default"), name)] = False
    world.tokens.failures = list(row.fails)
    if row.waits is None:
        outcome = await world.ask(row.asks)
    else:
        asking = await world.asking(row.asks)
        assert world.clock.slept == [row.waits]
        world.clock.advance(row.waits)
        outcome = await asking
    assert told(outcome) == row.answer
    assert not row.says or row.says in str(error_of(outcome))
    assert row.waits is not None or world.clock.slept == []


def test_every_row_that_the_service_decides_is_in_the_table() -> None:
    assert {row.number for row in ROWS} == set(range(5, 13))
