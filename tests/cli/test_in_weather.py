"""`add` and `delete` where Azure and the API server are late, throttle and fail."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from podidentity_sandbox.weather import CALM, Weather, changed, named
from tests.cli.azure import attached, made_identity
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
REAL = named("real", seed=1)
STORM = changed(named("storm", seed=1), ["scale-sets=[0.2, 2]", "answers=[0, 0.02]"])
"""All that befalls requests in a storm; only what takes time takes less of it."""
CAUSES = (
    "ScopeLocked",
    "DenyAssignmentAuthorizationFailed",
    "OperationNotAllowed",
    "OperationPreempted",
    "InternalExecutionError",
    "SubscriptionRequestsThrottled",
    "InternalServerError",
    "ServiceUnavailable",
    "AADSTS9003",
    "etcdserver: request timed out",
    "Too many requests",
    "unable to handle the request",
    "cannot be asked",
)
"""What a refusal may name: what befell the last request of the command."""


def until_done(podidentity: Run, *words: str) -> list[str]:
    """Run a command as a person does, again where it is refused; return the refusals."""
    refused: list[str] = []
    while (ran := podidentity(*words)).code:
        refused.append(ran.err)
        assert any(cause in ran.err for cause in CAUSES), ran.err
        assert "Traceback" not in ran.err
        assert len(refused) < 10, refused
    return refused


def test_in_real_weather_a_command_ends_when_the_machines_have_the_identity(
    world: World, podidentity: Run, sky: Callable[[Weather], None]
) -> None:
    identity = made_identity(world)
    where = ["--namespace", world.namespace(f"n-{uuid.uuid4().hex[:8]}"), "--name", "orders"]
    before = attached(world)
    sky(REAL)
    ran = podidentity("add", *where, "--identity-resource-id", identity.id)
    assert ran.code == 0, ran.err
    assert attached(world) == before | {identity.id.lower()}
    assert podidentity("delete", *where).code == 0
    assert attached(world) == before


def test_who_may_do_what_is_asked_again_where_the_api_server_fails_once(
    podidentity: Run, sky: Callable[[Weather], None]
) -> None:
    """`check` asks a hundred such questions: in a storm it never came to an end."""
    before = podidentity("check", "--pre", "-o", "json")
    failing = "{effect: 500, first: 1, kind: '* create selfsubjectaccessreviews*'}"
    sky(changed(CALM, [f"apiserver=[{failing}]"]))
    assert podidentity("check", "--pre", "-o", "json") == before


def test_a_storm_is_weathered_or_named_and_leaves_nothing_half_done(
    world: World, podidentity: Run, sky: Callable[[Weather], None]
) -> None:
    identity = made_identity(world)
    ns = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    before = attached(world)
    for seed in (1, 2, 3):
        where = ["--namespace", ns, "--name", f"orders-{seed}"]
        sky(changed(STORM, [f"seed={seed}"]))
        until_done(podidentity, "add", *where, "--identity-resource-id", identity.id)
        sky(CALM)
        assert attached(world) == before | {identity.id.lower()}
        assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders-{seed}")
        assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentitybindings/orders-{seed}-binding")
        sky(changed(STORM, [f"seed={seed}"]))
        until_done(podidentity, "delete", *where)
        sky(CALM)
        assert attached(world) == before
        assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/orders-{seed}") is None
