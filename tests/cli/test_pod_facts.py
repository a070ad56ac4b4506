"""What `explain` and `check` read of a pod, of whatever its tenant wrote."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest

from podidentity.adapters.entra.certificates import Certificates
from podidentity.cli import pod_facts
from podidentity.cli.chain import LinkState
from podidentity.core.resources import AzureIdentity, IdentityType, ObjectRef
from podidentity.core.secrets import Secret, unusable
from podidentity.wire.manifests import parse_identity
from tests.fakes import CLIENT, FakeKubeApi


def identity(namespace: str, name: str, secret: str) -> AzureIdentity:
    spec = {
        "type": IdentityType.CERTIFICATE.value,
        "tenantID": "contoso.com",
        "clientID": CLIENT,
        "clientPassword": {"name": secret, "namespace": namespace},
    }
    meta = {"name": name, "namespace": namespace}
    found = parse_identity(json.dumps({"metadata": meta, "spec": spec}).encode())
    assert isinstance(found, AzureIdentity), found
    return found


class Server(FakeKubeApi):
    """Has every secret."""

    async def get(self, path: str) -> bytes:
        parts = path.split("/")
        meta = {"namespace": parts[4], "name": parts[6], "uid": "u", "resourceVersion": "1"}
        data = {"certificate": base64.b64encode(b"x").decode()}
        return json.dumps({"metadata": meta, "data": data}).encode()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[ObjectRef]:
    """The secrets that were opened: each takes eight seconds, and is none."""
    refs: list[ObjectRef] = []

    async def of(_: Certificates, secret: Secret) -> Any:
        refs.append(secret.ref)
        raise unusable(secret, "it takes too much time or memory to open")

    monkeypatch.setattr(Certificates, "of", of)
    monkeypatch.setattr("podidentity.cli.pod_facts.time.monotonic", lambda: 8.0 * len(refs))
    return refs


def facts(*identities: AzureIdentity) -> list[LinkState]:
    server: Any = Server()
    found = asyncio.run(pod_facts.credentials_of(server, identities, "accounts"))
    return [found[each.ref].state for each in identities]


def test_a_secret_is_opened_once_however_many_identities_name_it(opened: list[ObjectRef]) -> None:
    states = facts(*(identity("shop", f"i{n}", "slow") for n in range(500)))
    assert opened == [ObjectRef("shop", "slow")]
    assert set(states) == {LinkState.BROKEN}


def test_slow_certificates_of_one_namespace_end_no_check_and_hide_no_other_namespace(
    opened: list[ObjectRef],
) -> None:
    slow = [identity("shop", f"i{n}", f"slow{n}") for n in range(500)]
    *states, of_another = facts(*slow, identity("mail", "i", "certificate"))
    assert len(opened) < 10
    assert (states[0], states[-1]) == (LinkState.BROKEN, LinkState.UNKNOWN)
    assert of_another is LinkState.BROKEN
    assert opened[-1] == ObjectRef("mail", "certificate")
