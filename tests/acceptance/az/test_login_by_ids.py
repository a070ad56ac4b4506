"""`az login --identity` by every id that it knows, and what it says when it gets no token.

az asks once and prints the description of the error as it is, so these words are all that its user
has. Its options: https://learn.microsoft.com/cli/azure/authenticate-azure-cli-managed-identity
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from podidentity_sandbox.demo.prepare import Prepared, prepare
from podidentity_sandbox.node.client import ExecResult, execute
from podidentity_sandbox.weather import CALM
from tests.acceptance.directory import pod
from tests.acceptance.sandbox import PATIENCE, Sandbox, opened
from tests.sandboxes import own

AZ = Path(__file__).parents[3] / ".venvs/az/tools/az"
LOGIN = f"{AZ} login --identity {{flags}} --allow-no-subscriptions -o none"
TOKEN = f"{AZ} account get-access-token --resource https://vault.azure.net --query accessToken"
NAME = own("az-ids")
STRANGER = "00000000-0000-0000-0000-000000000001"

pytestmark = pytest.mark.net


class Here:
    """A pod that is bound to an identity, another that is not, and az in both."""

    def __init__(self, place: Sandbox, loop: asyncio.Runner, made: Prepared) -> None:
        self.place, self.loop = place, loop
        self.ids = {"client": made.client_id, "resource": made.identity_id}

    def az(self, flags: str = "", name: str = "app") -> ExecResult:
        """Sign out, sign in and ask for a vault's token."""
        told = f"export HOME=$(mktemp -d); {LOGIN.format(flags=flags)} && {TOKEN} -o tsv"
        ran = execute(self.place.plan, "default", name, ["sh", "-c", told], timeout=PATIENCE)
        return self.loop.run(ran)


@pytest.fixture(scope="module")
def here() -> Iterator[Here]:
    # Calm: az asks once, and what it is told then is the subject.
    with opened(NAME, weather=CALM) as (place, azure, loop):
        loop.run(place.bind())
        place.start_pod()
        place.apply(pod("stranger", label=""))
        found = Here(place, loop, loop.run(prepare(place.plan)))
        made = loop.run(azure.arm("GET", found.ids["resource"]))
        found.ids["object"] = made["properties"]["principalId"]
        yield found


@pytest.mark.parametrize("by", ["", "client", "object", "resource"])
def test_az_signs_in_by_any_id_and_by_none(here: Here, by: str) -> None:
    ran = here.az(f"--{by}-id {here.ids[by]}" if by else "")
    assert ran.exit == 0, ran.stderr
    part = ran.stdout.decode().split(".")[1]
    claims = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["appid"] == here.ids["client"]


def test_az_is_told_at_once_that_an_id_is_not_the_pods_and_which_is(here: Here) -> None:
    ran = here.az(f"--client-id {STRANGER}")
    assert ran.exit == 1
    mine = f"It may use: bound ({here.ids['client']})."
    said = f"ERROR: Identity not found: pod default/app has no identity {STRANGER}. {mine}"
    assert said in _said(ran)


def test_az_in_a_pod_that_is_not_bound_says_what_it_says_without_an_identity(here: Here) -> None:
    ran = here.az(name="stranger")
    assert ran.exit == 1
    assert "ERROR: Identity not found" in _said(ran)


def test_az_gets_no_answer_where_nmi_is_away(here: Here) -> None:
    here.place.run("podidentity", "disable")
    ran = here.az()
    assert ran.exit == 1
    assert "Connection refused" in _said(ran)


def _said(ran: ExecResult) -> str:
    return ran.stderr.decode()
