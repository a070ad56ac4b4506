"""The archived project's end-to-end scenarios of NMI, by their numbers, told to ours.

What it asserts is asserted here; where ours differs on purpose it is told twice: as it is, and with
the switch that gives the old behaviour back. Its suite: https://github.com/Azure/aad-pod-identity
test/e2e. Scenario 21, a service principal, is in test_identity_types.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import SECRET_VALUE
from tests.acceptance.directory import manifest, pod
from tests.acceptance.sandbox import Sandbox, opened
from tests.acceptance.scenario import API, TOKEN, Scenario, set_scene
from tests.sandboxes import own

NAME = own("scenarios")
EXCEPTED = {"tier": "exempt"}
SDK = """
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import ManagedIdentityCredential
class Told(RequestsTransport):
    def send(self, request, **kwargs):
        response = super().send(request, **kwargs)
        with open("/tmp/statuses", "a") as fifo:
            print(response.status_code, file=fifo)
        return response
credential = ManagedIdentityCredential(transport=Told())
print(credential.get_token("https://vault.azure.net/.default").token)
"""


Open = tuple[Sandbox, AzureOperator, asyncio.Runner]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Open]:
    with opened(NAME) as found:
        yield found


@pytest.fixture(scope="module")
def loop(sandbox: Open) -> asyncio.Runner:
    return sandbox[2]


@pytest.fixture(scope="module")
def scenario(sandbox: Open) -> Scenario:
    place, azure, loop = sandbox
    found = loop.run(set_scene(place, azure))
    found.bind("default", "orders", found.made.identity_id)
    found.bind("bank", "second", found.other_id)
    loop.run(found.give_node_its_own())
    found.apply(pod("app", label="orders"))
    return found


def by(parameter: str, value: str) -> str:
    return f"{TOKEN}&{parameter}={value}"


def test_scenario_02_an_assigned_identity_works_by_client_id_and_by_resource_id(
    scenario: Scenario, loop: asyncio.Runner
) -> None:
    async def told() -> None:
        waiting = asyncio.create_task(scenario.ask(by("client_id", scenario.made.client_id)))
        await asyncio.to_thread(scenario.apply, scenario.record("app", "orders", "Created"))
        await asyncio.to_thread(scenario.apply, scenario.record("app", "orders", "Assigned"))
        assert (await waiting).status == 200
        by_resource = await scenario.ask(by("msi_res_id", scenario.made.identity_id))
        assert await scenario.read(by_resource.json["access_token"]) == SECRET_VALUE

    scenario.enable("--operation-mode=standard")
    loop.run(told())


NOT_FOUND = '{"error":"invalid_request","error_description":"Identity not found: '
OLD_TEXT = "no azure identity found for request clientID "


@pytest.mark.parametrize(
    ("flags", "status", "says"),
    [((), 400, NOT_FOUND), (("--compat-text-errors",), 404, OLD_TEXT)],
)
def test_scenario_07_a_permitted_client_id_works_and_another_on_the_node_does_not(
    scenario: Scenario, loop: asyncio.Runner, flags: tuple[str, ...], status: int, says: str
) -> None:
    scenario.enable(*flags)
    assert loop.run(scenario.ask(by("client_id", scenario.made.client_id))).status == 200
    refused = loop.run(scenario.ask(by("client_id", scenario.other)))
    assert (refused.status, refused.body[: len(says)]) == (status, says)


@pytest.mark.parametrize("namespace", ["kube-system", "default"])
@pytest.mark.parametrize("flags", [(), ("--exception-namespaces=*",)])
def test_scenario_22_an_excepted_pod_gets_tokens_of_the_nodes_identities_directly(
    scenario: Scenario, loop: asyncio.Runner, namespace: str, flags: tuple[str, ...]
) -> None:
    scenario.enable(*flags)
    scenario.apply(
        manifest(API, "AzurePodIdentityException", "e", namespace, spec={"podLabels": EXCEPTED}),
        manifest(
            "v1",
            "Pod",
            "exempt",
            namespace,
            metadata={"labels": EXCEPTED},
            spec={"containers": [{"name": "main", "image": "idle"}]},
        ),
    )
    counts = bool(flags) or namespace == "kube-system"
    user = loop.run(
        scenario.ask(by("client_id", scenario.other), pod="exempt", namespace=namespace)
    )
    assert user.status == (200 if counts else 400)
    system = loop.run(scenario.ask(pod="exempt", namespace=namespace))
    assert system.status == (200 if counts else 400)
    if not counts:
        assert system.json["error_description"] == "Identity not found"


def test_scenario_23_an_init_container_has_a_token_before_the_pod_runs(
    scenario: Scenario, loop: asyncio.Runner
) -> None:
    scenario.enable()
    ask = f"curl -sf -H Metadata:true 'http://169.254.169.254{TOKEN}' > /kept/token"
    scenario.apply(scenario.with_init("eager", ask))
    assert '"access_token":"' in loop.run(scenario.inside("eager", "cat /kept/token"))
    assert loop.run(scenario.ask(pod="eager")).status == 200


@pytest.mark.parametrize("flags", [(), ("--compat-text-errors",)])
def test_scenario_24_other_metadata_is_imdss_needs_the_header_and_may_be_blocked(
    scenario: Scenario, loop: asyncio.Runner, flags: tuple[str, ...]
) -> None:
    open_ = [f"--metadata-allow=/metadata/{name}" for name in ("versions", "instance", "unknown")]
    scenario.enable("--block-instance-metadata", *open_, *flags)
    unknown = loop.run(scenario.ask("/metadata/unknown?api-version=2021-02-01"))
    assert unknown.status == 404
    bare = loop.run(scenario.ask("/metadata/versions", header=""))
    missing = {
        "error": "invalid_request",
        "error_description": "Required metadata header not specified",
    }
    assert (bare.status, bare.json) == (400, missing), "in JSON as before, too"
    blocked = loop.run(scenario.ask("/metadata/instance?api-version=2021-02-01"))
    assert blocked.status == 403
    closed = "This metadata is not open to pods of this cluster."
    if flags:
        assert blocked.headers["content-type"] == "text/plain; charset=utf-8"
        assert blocked.body == f"{closed}\n"
    else:
        assert blocked.headers["content-type"].startswith("application/json")
        assert blocked.json == {"error": "access_denied", "error_description": closed}


def test_scenario_26_an_sdk_that_obeys_retry_after_has_its_token_in_the_end(
    scenario: Scenario, loop: asyncio.Runner
) -> None:
    flags = ("--set-retry-after-header", "--retry-attempts-for-created=1")
    more = ("--retry-attempts-for-assigned=1", "--find-identity-retry-interval=1")
    scenario.enable("--operation-mode=standard", *flags, *more)
    scenario.apply(pod("late", label="orders"))
    refused = loop.run(scenario.ask(pod="late"))
    assert (refused.status, refused.headers["retry-after"]) == (503, "20")

    async def told() -> str:
        await scenario.inside("late", "mkfifo /tmp/statuses")
        asking = asyncio.create_task(scenario.inside("late", f"{sys.executable} -c '{SDK}'"))
        # Who reads a FIFO waits for who writes it: the SDK's first answer, then its second.
        assert await scenario.inside("late", "head -n1 /tmp/statuses") == "503\n"
        await asyncio.to_thread(scenario.apply, scenario.record("late", "orders", "Assigned"))
        assert await scenario.inside("late", "head -n1 /tmp/statuses") == "200\n"
        return await asking

    assert loop.run(told()).startswith("eyJ")


def test_scenario_28_an_identity_with_an_invalid_resource_id_is_refused_and_a_valid_one_taken(
    scenario: Scenario,
) -> None:
    """The archived suite had Gatekeeper's policy for it; without ours both are taken, as then."""

    def apply(name: str, resource_id: str) -> str:
        spec = {"type": 0, "resourceID": resource_id, "clientID": scenario.made.client_id}
        made = manifest(API, "AzureIdentity", name, "default", spec=spec)
        return scenario.place.run("kubectl", "apply", "-f", "-", given=made)

    right = scenario.made.identity_id
    wrong = right.replace("userAssignedIdentities", "systemAssignedIdentities")
    with pytest.raises(AssertionError, match=r"spec\.resourceID must match /subscriptions/"):
        apply("wrong", wrong)
    assert apply("right", right).endswith("created\n")
    scenario.place.run("podidentity", "enable", "--no-wait", "--no-admission-policies")
    assert apply("wrong", wrong).endswith("created\n")
