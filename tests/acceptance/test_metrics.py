"""A pod reads no more of the metrics than every pod may; with the permission it reads all."""

from __future__ import annotations

import asyncio

from podidentity_sandbox.node.client import execute
from tests.acceptance.sandbox import one_node

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
spec: {serviceAccountName: reader, containers: [{name: main, image: idle}]}
"""
NODE = "10.240.0.4"
"""The first node's own address: `world.blueprint`."""
TOKEN = "$(cat /var/run/secrets/kubernetes.io/serviceaccount/token)"
PLAIN = f"curl -s http://{NODE}:9090/metrics"
SECURE = f"curl -skS https://{NODE}:9447/metrics -w '%{{http_code}}'"
BEARER = f'-H "Authorization: Bearer {TOKEN}"'


async def test_a_pod_learns_of_other_tenants_only_with_the_permission() -> None:
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
        assert (await said(f"{SECURE} {BEARER}")).endswith("403")
        place.apply(READERS)
        read = ["sh", "-c", f"{SECURE} {BEARER}"]

        async def whole() -> str:
            asked = await execute(place.plan, "default", "reader", read)
            return (asked.stderr + asked.stdout).decode()

        async with asyncio.timeout(30):
            while not (found := await whole()).endswith("200"):
                assert found.endswith("403"), found
                await asyncio.sleep(1)  # the API server counts a new binding a little later
        assert 'namespace="default",resource="https://vault.azure.net"' in found
