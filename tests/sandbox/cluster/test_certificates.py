"""Who comes with a client certificate: kind, k3s, and AKS with --admin, give one to people.

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from podidentity.adapters.kube import Kube
from podidentity.wire.kube import KubeError
from podidentity_sandbox.cluster.certificates import ClientCertificates
from podidentity_sandbox.world.authority import Authority
from tests.sandbox.cluster.conftest import (
    ADMIN,
    Client,
    Served,
    check_refusal,
    node_plan,
    saved_plan,
    serving,
)
from tests.sandbox.kubectl.stages import VERSIONS, find

WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass
class Office:
    """A cluster whose authority has signed certificates, and one of another authority."""

    folder: Path
    served: Served

    def files(self, name: str) -> tuple[Path, Path]:
        return self.folder / f"{name}.crt", self.folder / f"{name}.key"

    async def who(self, name: str, token: str = "", *, highest: Any = None) -> httpx2.Response:
        """Ask who one is, with a certificate and perhaps a token."""
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if highest:
            tls.maximum_version = highest
        if name:
            tls.load_cert_chain(*self.files(name))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = self.served.url
        async with Client(verify=tls, trust_env=False, headers=headers) as client:
            return await client.post(f"{url}{WHO}", json={})

    def certified(self, name: str) -> str:
        """Write the kubeconfig of somebody with this certificate; return its path."""
        certificate, key = map(str, self.files(name))
        user = {"client-certificate": certificate, "client-key": key}
        path = self.folder / "kubeconfig"
        path.write_text(json.dumps(self.served.kubeconfig(**user)))
        return str(path)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    saved_plan(tmp_path, node_plan(0))
    authority, other = Authority.new("ours"), Authority.new("ours")
    (tmp_path / "ca.crt").write_text(authority.pem)
    authority.issue(["127.0.0.1"], tmp_path / "apiserver.crt", tmp_path / "apiserver.key")
    async with serving(tmp_path) as served:
        found = Office(tmp_path, served)
        authority.issue_client("jane", ["readers", "system:masters"], *found.files("jane"))
        authority.issue_client("", ["system:masters"], *found.files("nameless"))
        other.issue_client("jane", ["system:masters"], *found.files("forged"))
        ended = timedelta(minutes=-1)
        authority.issue_client("jane", ["system:masters"], *found.files("expired"), life=ended)
        yield found


@pytest.mark.parametrize("highest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_user_is_the_common_name_in_the_groups_of_his_organisations(
    office: Office, highest: ssl.TLSVersion
) -> None:
    found = (await office.who("jane", highest=highest)).json()["status"]["userInfo"]
    assert found["username"] == "jane"
    assert found["groups"] == ["readers", "system:masters", "system:authenticated"]
    (digest,) = found["extra"]["authentication.kubernetes.io/credential-id"]
    assert re.fullmatch("X509SHA256=.{64}", digest)


@pytest.mark.parametrize("name", ["forged", "nameless", "expired", ""])
async def test_a_certificate_that_is_nobodys_is_unauthorized(office: Office, name: str) -> None:
    """Of another authority, without a name, of yesterday; and none."""
    for highest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        check_refusal(await office.who(name, highest=highest), 401, "Unauthorized")


async def test_beside_a_token_that_holds_a_foreign_certificate_does_not_matter(
    office: Office,
) -> None:
    found = (await office.who("forged", ADMIN)).json()["status"]["userInfo"]
    assert found["username"] == "admin"
    both = (await office.who("jane", "nonsense")).json()["status"]["userInfo"]
    assert both["username"] == "jane"


def test_a_certificate_holds_as_long_as_it_says_and_for_clients(tmp_path: Path) -> None:
    authority = Authority.new("ours")
    authority.issue_client("jane", [], tmp_path / "crt", tmp_path / "key")
    raw = ssl.PEM_cert_to_DER_cert((tmp_path / "crt").read_text())
    time = [datetime.now(UTC)]
    judge = ClientCertificates(authority.pem, lambda: time[0])
    for days, holds in ((-1, False), (1, True), (364, True), (2, False)):
        time[0] += timedelta(days=days)
        assert (judge.user(raw) is not None) is holds
    authority.issue(["127.0.0.1"], tmp_path / "server", tmp_path / "key")
    of_server = ssl.PEM_cert_to_DER_cert((tmp_path / "server").read_text())
    time[0] = datetime.now(UTC)
    assert [judge.user(each) for each in (of_server, b"no", b"", None)] == [None] * 4
    assert ClientCertificates("", lambda: datetime.now(UTC)).user(raw) is None


@pytest.mark.parametrize("version", VERSIONS)
async def test_kubectl_is_who_its_certificate_says(office: Office, version: str) -> None:
    async def said(name: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            *(find(version), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"),
            env={"KUBECONFIG": office.certified(name), "HOME": str(office.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return process.returncode, (await process.communicate())[0].decode()

    assert (await said("jane"))[1] == "jane"
    assert "Unauthorized" in (await said("forged"))[1]


async def test_the_products_client_is_who_its_certificate_says(office: Office) -> None:
    for name, status in (("jane", 201), ("forged", 401)):
        kube = Kube.connect(office.certified(name), user_agent="test/1", trust_env=False)
        try:
            if status == 201:
                assert b'"jane"' in await kube.create(WHO, {})
            else:
                with pytest.raises(KubeError, match="Unauthorized"):
                    await kube.create(WHO, {})
        finally:
            await kube.close()
