"""AKS beside a real API server: an order is given to ARM, carried out, and seen in the cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from podidentity_sandbox.azure.aks.provider import AksProvider
from podidentity_sandbox.azure.arm.subscription import POD_IDENTITY
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.main import make_cluster, serve
from podidentity_sandbox.world.authority import write_certificates
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.plans import Clock
from tests.sandbox.cluster.conftest import listener

GROUP = "aadpodidentity.k8s.io"
RBAC = "rbac.authorization.k8s.io"


class Managed:
    """A managed cluster: Azure without sockets, the cluster's API server on the loopback."""

    def __init__(self, folder: Path, cluster: Cluster, url: str) -> None:
        self.direct = Direct(folder)
        self.cluster = cluster
        self.provider = AksProvider(self.direct.world, url, sleep=self._sleep)
        plan = self.direct.plan
        self.path = (
            f"resourceGroups/{plan.cluster_group}/providers/Microsoft.ContainerService"
            f"/managedClusters/{plan.cluster_name}"
        )
        self.direct.world.features[POD_IDENTITY.lower()] = 0.0

    async def _sleep(self, seconds: float) -> None:
        clock: Clock = self.direct.clock
        clock.now += seconds
        await asyncio.sleep(0)

    def document(self) -> Any:
        """Return the cluster as ARM shows it."""
        return self.direct.made("GET", self.path)

    def order(self, profile: object) -> str:
        """Ask for a profile; return the path at which the operation is asked after."""
        sent = self.document()
        sent["properties"]["podIdentityProfile"] = profile
        status, answer, headers = self.direct.arm("PUT", self.path, sent)
        assert status == 200, answer
        assert answer["properties"]["provisioningState"] == "Updating"
        assert headers["Retry-After"] == "1"
        return headers["Azure-AsyncOperation"].removeprefix("https://management.azure.com")

    async def ordered(self, profile: object) -> Any:
        """Ask for a profile and have it carried out; return how the operation ended."""
        where = self.order(profile)
        assert self.direct.made("GET", where)["status"] == "InProgress"
        await self.provider.carry_out(self.direct.world.orders.get_nowait())
        return self.direct.made("GET", where)

    def found(self, plural: str) -> dict[str, Any]:
        """Return the specs of custom resources in the cluster, by namespace/name."""
        records = self.cluster.storage.all(f"{plural}.{GROUP}")
        return {f"{one.namespace}/{one.name}": one.object["spec"] for one in records}

    def permitted(self) -> dict[str, tuple[str, str]]:
        """Return who may use which identity, by the name of the ClusterRoleBinding."""
        storage = self.cluster.storage
        found = {}
        for record in storage.all(f"clusterrolebindings.{RBAC}"):
            role = storage.get(f"clusterroles.{RBAC}", "", record.object["roleRef"]["name"])
            assert role is not None
            if "use" in role.object["rules"][0]["verbs"]:
                (rule,), (subject,) = role.object["rules"], record.object["subjects"]
                (name,) = rule["resourceNames"]
                found[record.name] = (str(subject["name"]), str(name))
        return found

    def on_machines(self) -> list[str]:
        """Return the names of the identities that the scale set has, sorted."""
        answer = self.direct.made("GET", self.direct.plan.scale_set_id)
        names = answer["identity"]["userAssignedIdentities"]
        return sorted(name.rpartition("/")[2] for name in names)

    def states(self) -> dict[str, str]:
        """Return the states of the pod identities, by name."""
        profile = self.document()["properties"]["podIdentityProfile"]
        items = profile.get("userAssignedIdentities", [])
        return {item["name"]: item["provisioningState"] for item in items}


@contextlib.asynccontextmanager
async def managed_cluster(folder: Path) -> AsyncIterator[Managed]:
    """Serve a cluster without nodes, and AKS for it."""
    plan = Direct(folder).plan
    write_certificates(plan)
    plan.save()
    cluster, sock = make_cluster(folder), listener()
    runner = await serve(cluster, folder, [sock])
    controllers = asyncio.create_task(cluster.loop.run())
    yield Managed(folder, cluster, f"https://127.0.0.1:{sock.getsockname()[1]}")
    await runner.cleanup()
    controllers.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await controllers
