"""A chain of values, as `explain` follows it, broken where a test wants it."""

from __future__ import annotations

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import Custom, WatchedCluster
from podidentity.cli.chain import Credentials, Explanation, Fact, Node, State, follow
from podidentity.core.decision import decide
from podidentity.core.ids import ClientId, ObjectRef, ResourceId
from podidentity.core.matching import match
from podidentity.core.permission import uses_of
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    IdentityType,
    Malformed,
    Pod,
    WorkloadIdentity,
)
from podidentity.core.tokens import TokenRequest
from podidentity.core.usability import STRICT, Rules
from tests.cli.scripted import CLIENT, IDENTITY

POD = Pod(
    ref=ObjectRef("shop", "orders-0"),
    uid="u",
    node="node-0",
    labels={BINDING_LABEL: "orders"},
)
GOOD = AzureIdentity(
    ref=ObjectRef("shop", "orders"),
    type=IdentityType.USER_ASSIGNED,
    client_id=ClientId.parse(CLIENT),
    resource_id=ResourceId.parse(IDENTITY),
)
BINDING = AzureIdentityBinding(
    ref=ObjectRef("shop", "orders-binding"), identity="orders", selector="orders"
)
ATTACHED = Fact(State.HOLDS, "attached to scale set pool")
PERMITTED = Fact(State.HOLDS, "service account shop/default may use it")
READY = Fact(State.HOLDS, "nmi-x is ready on node node-0")


def explained(
    pod: Pod = POD,
    *objects: Custom,
    attached: Fact = ATTACHED,
    nmi: Fact = READY,
    permission: Fact = PERMITTED,
    credentials: Credentials | None = None,
    rules: Rules = STRICT,
) -> Explanation:
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=[pod],
        identities=[
            each
            for each in objects
            if isinstance(each, AzureIdentity)
            or (isinstance(each, Malformed) and each.kind == "AzureIdentity")
        ],
        bindings=[
            each
            for each in objects
            if isinstance(each, AzureIdentityBinding)
            or (isinstance(each, Malformed) and each.kind == "AzureIdentityBinding")
        ],
        exceptions=[each for each in objects if isinstance(each, AzurePodIdentityException)],
        accounts=[each for each in objects if isinstance(each, WorkloadIdentity)],
    )
    matched = match(pod, cluster, rules)
    bound = matched.entitlements
    node = Node(attached={each.identity.ref: attached for each in bound}, nmi=nmi)
    permissions = {use: permission for each in bound for use in uses_of(pod, each)}
    decision = decide(
        matched,
        TokenRequest(resource=""),
        lambda use: permissions[use].state is not State.BROKEN,
    )
    return follow(matched, decision, permissions, node, credentials or {})


def chain(explanation: Explanation) -> list[tuple[str, str]]:
    return [(link.name, link.state.value) for link in explanation.links]


def pod(**changed: object) -> Pod:
    known: dict[str, object] = {
        "ref": POD.ref,
        "uid": POD.uid,
        "node": POD.node,
        "labels": POD.labels,
    }
    return Pod(**{**known, **changed})  # type: ignore[arg-type]


BROKEN = "no"
