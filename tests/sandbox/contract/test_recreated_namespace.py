"""A namespace that is deleted and made anew is another: nothing of what was decided for the first.

NMI's own watch and cache of permissions, before an API server with RBAC, its controller of
namespaces and its garbage collector.
"""

from __future__ import annotations

import asyncio
from typing import Any

from podidentity import manifests
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.core.decision import Allowed, Ambiguity
from podidentity.core.errors import NotReady, Refused
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef, TokenRequest
from podidentity.nmi.request.decision import (
    Decider,
    DecisionPolicy,
    Failed,
    Rejected,
    Subject,
)
from podidentity.nmi.request.hold import HoldTimes
from podidentity.nmi.sync.watches import Scope, Watches
from podidentity.wire import rbac
from tests.fakes import CLIENT, RESOURCE_ID, VAULT
from tests.sandbox.cluster.conftest import Client, pod
from tests.sandbox.contract.conftest import Judged

APP = ObjectRef("shop", "app")
NAMESPACE = "/api/v1/namespaces/shop"
CUSTOM = "aadpodidentity.k8s.io/v1"
GRANTS = f"/apis/{rbac.RBAC}/v1/clusterrolebindings"


async def make(admin: Client, path: str, body: Any) -> Any:
    answer = await admin.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def shop(admin: Client) -> str:
    """Make the namespace, an identity that is bound there, and a pod; return the first's uid."""
    made = await make(admin, "/api/v1/namespaces", {"metadata": {"name": "shop"}})
    await admin.post(f"{NAMESPACE}/serviceaccounts", json={"metadata": {"name": "default"}})
    for kind, plural, spec in (
        ("AzureIdentity", "azureidentities", {"clientID": CLIENT, "resourceID": RESOURCE_ID}),
        ("AzureIdentityBinding", "azureidentitybindings", {"azureIdentity": "x", "selector": "y"}),
    ):
        body = {"apiVersion": CUSTOM, "kind": kind, "metadata": {"name": "x"}, "spec": spec}
        await make(admin, f"/apis/{CUSTOM}/namespaces/shop/{plural}", body)
    app = pod("app", nodeName="node-0", serviceAccountName="default")
    app["metadata"] = {"name": "app", "namespace": "shop", "labels": {"aadpodidbinding": "y"}}
    await make(admin, f"{NAMESPACE}/pods", app)
    return str(made["metadata"]["uid"])


async def gone(admin: Client, path: str) -> None:
    async with asyncio.timeout(60):
        while (await admin.get(path)).status_code != 404:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def seen(cluster: WatchedCluster, *, but: str = "") -> Subject:
    """Return the pod when NMI has seen it, and what it is bound to; another one than `but`."""
    async with asyncio.timeout(60):
        while True:
            found = cluster.pod(APP)
            bound = cluster.all_bindings() and cluster.all_identities()
            if found is not None and found.uid != but and bound:
                return Subject(found)
            await cluster.changed()


async def test_nothing_is_allowed_in_a_namespace_that_was_made_anew(served: Judged) -> None:
    async with served.client() as admin:
        for crd in manifests.crds():
            await make(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await make(admin, "/api/v1/nodes", {"metadata": {"name": "node-0"}})
        uid = await shop(admin)
        given = rbac.binding(CLIENT, rbac.Grantee("shop"), rbac.Giver.GRANT, uid)
        await make(admin, f"/apis/{rbac.RBAC}/v1/clusterroles", rbac.role(CLIENT))
        await make(admin, GRANTS, given)

        clock, kube = SystemClock(), Kube(admin)
        cluster, permissions = WatchedCluster(clock), RbacPermissions(kube, clock)
        policy = DecisionPolicy(hold=HoldTimes(change=0))
        decider = Decider(cluster=cluster, permissions=permissions, clock=clock, policy=policy)
        scope = Scope(node="node-0", records=False, labelled=False)
        watching = asyncio.create_task(Watches(kube, cluster, clock, scope=scope).run())

        async def asked(subject: Subject) -> Allowed | Rejected | Failed:
            request, begun = TokenRequest(resource=VAULT), clock.monotonic()
            return await decider.decide(subject, request, Ambiguity.WEIGHT, begun=begun)

        first = await seen(cluster)
        async with asyncio.timeout(60):
            while isinstance(answer := await asked(first), Failed):
                assert isinstance(answer.error, NotReady)  # some kind is not listed yet
                await asyncio.sleep(0.1)
        assert isinstance(answer, Allowed)

        await admin.delete(NAMESPACE)
        await admin.delete(f"{NAMESPACE}/pods/app", params={"gracePeriodSeconds": "0"})
        await gone(admin, NAMESPACE)
        await gone(admin, f"{GRANTS}/{given['metadata']['name']}")
        await shop(admin)

        second = await seen(cluster, but=first.pod.uid)
        # A "no" counts when it has lasted for 5 s. Each request waits 3 s for it.
        while not isinstance(refused := await asked(second), Rejected):
            assert isinstance(refused, Failed)
        assert isinstance(refused.error, Refused)
        assert refused.error.refusal.reason is Reason.NOT_PERMITTED
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await permissions.close()
