"""A pod reads no more of NMI's pages than every pod may; with the permission it reads all metrics.

What NMI knows (`/debug`) it never reads; an operator does, through the API server.
"""

from __future__ import annotations

import asyncio
import json
import tarfile
from pathlib import Path
from typing import Any

from podidentity_sandbox.node.client import execute
from tests.acceptance.sandbox import PATIENCE, Sandbox, one_node

READERS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: readers}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: podidentity-metrics-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: default}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: default}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, namespace: default}
spec:
  serviceAccountName: reader
  containers:
    - {name: main, image: idle, volumeMounts: [{name: token, mountPath: /metrics-token}]}
  volumes:
    - name: token
      projected:
        sources: [{serviceAccountToken: {audience: podidentity-nmi/metrics, path: token}}]
"""
NODE = "10.240.0.4"
"""The first node's own address: `world.blueprint`."""
TOKEN = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)"
PLAIN = f"curl -s http://{NODE}:9090/metrics"
SECURE = f"curl -skS https://{NODE}:9447/metrics -w '%{{http_code}}'"
BEARER = f'-H "Authorization: Bearer {TOKEN}"'


UNKNOWN = "A token of the cluster for the audience of this page is needed.\n"
DEBUG = f"curl -skS https://{NODE}:9447/debug -w '%{{http_code}}'"


async def test_a_pod_learns_of_other_tenants_only_with_the_permission(tmp_path: Path) -> None:
    async with one_node("metrics") as place:
        await place.bind()
        place.start_pod()
        assert (await place.ask())[0] == 200

        async def said(command: str) -> str:
            return (await place.shell(command)).stdout.decode()

        plain = await said(PLAIN)
        assert "aadpodidentity_nmi_operations_duration_seconds_count" in plain
        assert 'namespace="",resource=""' in plain
        assert "vault.azure.net" not in plain
        assert 'namespace="default"' not in plain
        readiness = await said(f"curl -s http://{NODE}:8085/readyz")
        assert '"ready":true' in readiness
        for named in ("default", "bound", "app", "vault"):
            assert named not in readiness
        assert (await said(SECURE)).endswith("401")
        assert (await said(f"{SECURE} -H 'Authorization: Bearer {'x' * 40}'")).endswith("401")
        assert (await said(f"{SECURE} {BEARER}")).endswith("401"), "a token for the API server"
        for header in (BEARER, BEARER.replace("Authorization", "Podidentity-Authorization")):
            assert await said(f"{DEBUG} {header}") == f"{UNKNOWN}401"
        an_operator_reads_what_nmi_knows(place, tmp_path / "ticket.tar.gz")
        place.apply(READERS)
        read = ["sh", "-c", f'{SECURE} -H "Authorization: Bearer $(cat /metrics-token/token)"']

        async def whole() -> str:
            asked = await execute(place.plan, "default", "reader", read)
            return (asked.stderr + asked.stdout).decode()

        async with asyncio.timeout(PATIENCE):
            while not (found := await whole()).endswith("200"):
                assert found.endswith("403"), found
                await asyncio.sleep(1)  # the API server counts a new binding a little later
        assert 'namespace="default",resource="https://vault.azure.net"' in found


def an_operator_reads_what_nmi_knows(place: Sandbox, archive: Path) -> None:
    """Ask for it as the deployer does, through the API server; `check` has findings besides."""
    place.run("sh", "-c", f"podidentity check --bundle {archive} || test $? = 1")
    known = of_agent(archive)
    assert "default/app" in [each["pod"] for each in known["pods"] if each["decision"]["given"]]
    assert [each["audience"] for each in known["tokens"]] == ["https://vault.azure.net"]


def of_agent(archive: Path) -> dict[str, Any]:
    """Return what NMI knows, of an archive for a ticket; nothing may be missing in that."""
    with tarfile.open(archive) as opened:
        texts = {
            each.name.rpartition("/")[2]: opened.extractfile(each).read().decode()  # type: ignore[union-attr]
            for each in opened.getmembers()
        }
    assert texts["missing.txt"] == ""
    assert not [name for name, text in texts.items() if "eyJ" in text]
    (page,) = (text for name, text in texts.items() if name.endswith("-debug.json"))
    found: dict[str, Any] = json.loads(page)
    return found
