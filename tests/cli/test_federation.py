"""The command by which Entra trusts the cluster, where not all of it can be known here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity.cli.add_request import AddRequest
from podidentity.cli.agent_choices import Choices
from podidentity.cli.federation import trust_command
from podidentity.core.federation import has_an_account
from podidentity.core.resources import (
    AssertionSubject,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    ObjectRef,
    ResourceId,
    Tenant,
)
from podidentity.wire.kube import KubeError
from tests.cli.ids import CLIENT, IDENTITY

OWN = Entra(
    tenant=Tenant.parse("contoso.com"), federation=Federation(subject=AssertionSubject.IDENTITY)
)
WANTED = AddRequest(
    ref=ObjectRef("shop", "orders"),
    selector="orders",
    type=IdentityType.FEDERATED,
    client_id=ClientId.parse(CLIENT),
    entra=OWN,
)


class Silent:
    """An API server that publishes nothing."""

    async def get(self, path: str) -> bytes:
        raise KubeError(f"no {path}", status=403)


async def test_what_cannot_be_known_stands_open_in_the_command_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kube: Any = Silent()
    command = await trust_command(kube, WANTED, WANTED.identity, Choices(cloud=None))
    said = capsys.readouterr().err
    for name in ("ISSUER", "AUDIENCE"):
        assert f'"{name}"' in command
        assert f"replace {name} by" in said


def test_an_account_of_its_own_is_of_no_use_where_another_identity_signs_in() -> None:
    assert has_an_account(WANTED.identity)
    via = Federation(subject=AssertionSubject.IDENTITY, via=ResourceId.parse(IDENTITY))
    assert not has_an_account(replace(WANTED.identity, entra=replace(OWN, federation=via)))
