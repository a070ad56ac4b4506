"""NMI on an API server with constrained impersonation: it asks for pods' tokens as its own node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import SECRET_VALUE
from tests.acceptance.directory import Directory, register
from tests.acceptance.sandbox import Sandbox, needs_control_plane, opened
from tests.sandboxes import own

pytestmark = needs_control_plane
Open = tuple[Sandbox, AzureOperator, asyncio.Runner]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Open]:
    with opened(own("nodes")) as found:
        yield found


@pytest.fixture(scope="module")
def loop(sandbox: Open) -> asyncio.Runner:
    return sandbox[2]


@pytest.fixture(scope="module")
def here(sandbox: Open) -> Directory:
    place, azure, loop = sandbox
    place.run("podidentity", "enable")
    return loop.run(register(place, azure, unserved=["by-identity"]))


@pytest.mark.parametrize(("name", "pod"), [("by-pod", "app"), ("annotated", "annotated")])
def test_pods_are_served_by_tokens_that_nmi_asked_for_as_its_node(
    here: Directory, loop: asyncio.Runner, name: str, pod: str
) -> None:
    assert loop.run(here.read(here.client_ids[name], pod=pod)) == SECRET_VALUE


def test_nmi_says_that_it_may_act_as_its_node_and_has_no_right_of_its_own(
    here: Directory, loop: asyncio.Runner
) -> None:
    address = here.place.plan.nodes[0].address
    answer = loop.run(here.inside("app", f"curl -s http://{address}:8085/readyz"))
    assert json.loads(answer)["checks"]["node-tokens"] == "ok"
    assert "TokensOfAnyPod" not in {each["reason"] for each in here.place.check()}


def test_an_identity_with_a_subject_of_its_own_is_served_by_a_right_for_its_account_alone(
    here: Directory, loop: asyncio.Runner
) -> None:
    here.let_nmi_ask_for("by-identity")
    loop.run(here.until_known("by-identity"))
    assert loop.run(here.read(here.client_ids["by-identity"])) == SECRET_VALUE
