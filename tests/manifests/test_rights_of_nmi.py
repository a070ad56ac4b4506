"""NMI does its work with the rights of its manifest, and needs each of them.

Its own parts ask the API server as its service account: with all rights nothing is refused, and
without one of them exactly what needs it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import pytest

from podidentity import manifests
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.entra.client_credentials import Assertions
from podidentity.adapters.node_identity import NodeIdentity
from podidentity.adapters.path_permissions import PathPermissions
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.adapters.startup_taint import StartupTaint
from podidentity.cli.cluster_rights import Single
from podidentity.core.decision import Use
from podidentity.core.errors import NotReady, TokenUnavailable
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.reporting.events import PodEvents
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.sync.secret_watch import WatchedSecrets
from podidentity.nmi.sync.watches import Scope, Watches
from podidentity.telemetry.metrics import Registry
from podidentity.wire.debug_access import METRICS_AUDIENCE
from podidentity.wire.events import AgentReason
from tests.fakes import CLIENT, FakeTokenSource
from tests.manifests.conftest import Served
from tests.manifests.rights import (
    CUSTOM,
    SHOP,
    Program,
    in_namespace,
    of_roles,
    program,
)

TAINT = manifests.STARTUP_TAINT
AUDIENCES = [
    "api://AzureADTokenExchange",
    "api://AzureADTokenExchangeUSGov",
    "api://AzureADTokenExchangeChina",
]
WATCHED = {
    "AzureIdentity": f"/apis/{CUSTOM}/namespaces/shop/azureidentities",
    "AzureIdentityBinding": f"/apis/{CUSTOM}/namespaces/shop/azureidentitybindings",
    "AzurePodIdentityException": f"/apis/{CUSTOM}/namespaces/shop/azurepodidentityexceptions",
    "AzureAssignedIdentity": f"/apis/{CUSTOM}/namespaces/shop/azureassignedidentities",
}
SPECS: dict[str, Any] = {
    "AzureIdentity": {"type": 0, "clientID": CLIENT},
    "AzureIdentityBinding": {"azureIdentity": "later", "selector": "orders"},
    "AzurePodIdentityException": {"podLabels": {"app": "exempt"}},
    "AzureAssignedIdentity": {"pod": "later", "podNamespace": "shop", "nodename": "node-0"},
}


def of_nmi(**options: Any) -> list[Any]:
    """Return NMI's own manifests, with the start-up taint's: not those of readers of its pages.

    Standard mode has all rights of managed mode, and those on records.
    """
    options = {"standard": True, **options}
    return [
        each
        for each in manifests.nmi(policy=True, startup_taint=TAINT, **options)
        if not each["metadata"]["name"].endswith("-reader")
    ]


def as_node() -> list[Any]:
    """Return what NMI has from Kubernetes 1.36 on to ask as its node, and for an account."""
    usual = {each["metadata"]["name"] for each in manifests.nmi()}
    made = [each for each in manifests.nmi(as_node=True) if each["metadata"]["name"] not in usual]
    return [*made, *manifests.account_tokens("ours", accounts="shop")]


@asynccontextmanager
async def opened(
    served: Served, given: Sequence[Any], without: Single | None
) -> AsyncIterator[tuple[Program, Pod]]:
    """Yield NMI with these manifests' rights, but for one, and a pod of its node."""
    async with program(served, manifests.ACCOUNT, given, without) as nmi:
        await nmi.admin.post(f"{SHOP}/serviceaccounts", json={"metadata": {"name": "ours"}})
        made = await nmi.make(f"{SHOP}/pods", in_namespace("shop", "app"))
        uid = made["metadata"]["uid"]
        yield nmi, Pod(ref=ObjectRef("shop", "app"), uid=uid, service_account="default")


async def work(
    nmi: Program,
    pod: Pod,
    *,
    records: bool = True,
    types: Collection[int] = manifests.EVERY_TYPE,
) -> None:
    """Do all that NMI does at the API server, in its mode and for these types of identities."""
    await watch(nmi, records=records)
    if {manifests.SERVICE_PRINCIPAL, manifests.CERTIFICATE} & set(types):
        await read_a_secret(nmi)
    await ask_for_permissions(nmi)
    await take_a_taint_off(nmi)
    await tell_events(nmi, pod)
    if manifests.FEDERATED not in types:
        return
    with suppress(TokenUnavailable):
        assertions = Assertions(nmi.kube, FakeTokenSource(), SystemClock())
        await assertions.of_account(ObjectRef("shop", "default"), AUDIENCES[0], pod)


async def watch(nmi: Program, *, records: bool) -> None:
    """Follow all that NMI follows: something of each kind comes later."""
    watched = {kind: path for kind, path in WATCHED.items() if records or "Assigned" not in kind}
    cluster, heard = WatchedCluster(SystemClock()), set[str]()
    cluster.follow(lambda kind, ref: heard.add(kind) if ref.name == "later" else None)
    scope = Scope(node="node-0", records=records, labelled=False)
    watching = asyncio.create_task(Watches(nmi.kube, cluster, SystemClock(), scope=scope).run())
    await nmi.until(lambda: cluster.synced)
    for kind, path in watched.items():
        body = {"apiVersion": CUSTOM, "kind": kind, "metadata": {"name": "later"}}
        await nmi.make(path, {**body, "spec": SPECS[kind]})
    annotated = {"azure.workload.identity/client-id": CLIENT}
    account = {"metadata": {"name": "later", "annotations": annotated}}
    await nmi.make(f"{SHOP}/serviceaccounts", account)
    await nmi.make(f"{SHOP}/pods", in_namespace("shop", "later"))
    await nmi.until(lambda: heard >= {*watched, "ServiceAccount", "Pod"})
    watching.cancel()


async def read_a_secret(nmi: Program) -> None:
    """Read a Secret, and learn that it has changed."""
    secrets, rotated = WatchedSecrets(nmi.kube, SystemClock()), list[ObjectRef]()
    await nmi.make(f"{SHOP}/secrets", {"metadata": {"name": "mail"}, "stringData": {"a": "b"}})
    with suppress(TokenUnavailable):
        await secrets.read(ObjectRef("shop", "mail"))
        secrets.follow(rotated.append)
        await nmi.change(f"{SHOP}/secrets/mail", {"stringData": {"a": "c"}})
        await nmi.until(lambda: rotated)
    ending = asyncio.create_task(secrets.run())
    await asyncio.sleep(0)
    ending.cancel()


async def ask_for_permissions(nmi: Program) -> None:
    """Ask whether a pod may use an identity, and whether somebody may read the metrics."""
    permissions = RbacPermissions(nmi.kube, SystemClock())
    with suppress(NotReady):
        await permissions.ask(Use(ObjectRef("shop", "default"), CLIENT), 0)
    metrics = PathPermissions(nmi.kube, SystemClock(), path="/metrics", audience=METRICS_AUDIENCE)
    await metrics.access(f"Bearer {nmi.token}".encode(), "10.244.0.9")


async def take_a_taint_off(nmi: Program) -> None:
    taints = [{"key": TAINT, "effect": "NoSchedule"}]
    await nmi.change("/api/v1/nodes/node-0", {"spec": {"taints": taints}})
    taint = StartupTaint(nmi.kube, SystemClock(), node="node-0", key=TAINT, ready=lambda: True)
    await taint.look()


async def tell_events(nmi: Program, pod: Pod) -> None:
    """Tell something of a pod, and then something else."""
    counted = NmiMetrics(Registry()).events
    events = PodEvents(nmi.kube, SystemClock(), counted, node="node-0")

    def told(times: int) -> bool:
        return counted.of("written").value + counted.of("repeated").value >= times

    writing = asyncio.create_task(events.run())
    for number, word in enumerate(("nftables", "lrp"), start=1):
        events.tell(pod, AgentReason.BACKEND, word)
        await nmi.until(partial(told, number))
    writing.cancel()


async def test_nothing_that_nmi_does_is_refused(served: Served) -> None:
    async with opened(served, of_nmi(), None) as (nmi, pod):
        await work(nmi, pod)
        assert nmi.refused == set()


@pytest.mark.parametrize("right", of_roles(of_nmi()), ids=lambda one: f"{one.verb} {one.resource}")
async def test_nmi_needs_each_right_of_its_manifest(served: Served, right: Single) -> None:
    async with opened(served, of_nmi(), right) as (nmi, pod):
        await work(nmi, pod)
        assert nmi.refused == {(right.verb, right.resource)}


# ---- By mode, and by the types of identities: nothing unused


@pytest.mark.parametrize("standard", [False, True], ids=["managed", "standard"])
@pytest.mark.parametrize(
    "types", [(0,), (1,), (2,), (3,), (0, 3), manifests.EVERY_TYPE], ids=lambda types: f"{types}"
)
async def test_in_each_mode_nmi_has_the_rights_that_it_uses_and_no_others(
    served: Served, standard: bool, types: tuple[int, ...]
) -> None:
    given = of_nmi(standard=standard, types=types)
    async with opened(served, given, None) as (nmi, pod):
        await work(nmi, pod, records=standard, types=types)
        assert nmi.refused == set()
        assert nmi.answered == {(each.verb, each.resource) for each in of_roles(given)}


@pytest.mark.parametrize("option", [{"as_node": True}, {"policy": True}])
def test_without_federated_identities_nothing_is_made_for_their_tokens(option: Any) -> None:
    made = manifests.nmi(types=(0, 1, 2), **option)
    assert made == manifests.nmi(types=(0, 1, 2))


# ---- From 1.36 on: as its node


async def asked_as_node(nmi: Program, pod: Pod) -> set[str]:
    """Ask who it is and for each token; return what is refused."""
    node = nmi.kube.acting_as("system:node:node-0")
    identity = NodeIdentity(node, SystemClock(), node="node-0")
    await identity.look()
    lacking = {"who it is"} if identity.problems() else set()
    assertions = Assertions(nmi.kube, FakeTokenSource(), SystemClock(), as_node=node)
    wanted: list[tuple[str, ObjectRef, str, Pod | None]] = [
        (each, ObjectRef("shop", "default"), each, pod) for each in AUDIENCES
    ]
    wanted.append(("of the account", ObjectRef("shop", "ours"), AUDIENCES[0], None))
    for name, account, audience, bound in wanted:
        try:
            await assertions.of_account(account, audience, bound)
        except TokenUnavailable:
            lacking.add(name)
    return lacking


def expected(right: Single) -> set[str]:
    """Return what NMI cannot do without a right."""
    if right.verb == "create":
        return {"of the account"}
    if right.verb == "request-serviceaccounts-token-audience":
        return {right.resource}
    refused = {
        "nodes.authentication.k8s.io": {"who it is", *AUDIENCES},
        "serviceaccounts/token": set(AUDIENCES),
        "selfsubjectreviews.authentication.k8s.io": {"who it is"},
    }
    return refused[right.resource]


async def test_as_its_node_nmi_asks_with_the_rights_of_its_manifest(served: Served) -> None:
    async with opened(served, as_node(), None) as (nmi, pod):
        assert await asked_as_node(nmi, pod) == set()


@pytest.mark.parametrize(
    "right", of_roles(as_node()), ids=lambda one: f"{one.verb} {one.resource} {one.name}".strip()
)
async def test_as_its_node_nmi_needs_each_right_too(served: Served, right: Single) -> None:
    async with opened(served, as_node(), right) as (nmi, pod):
        assert await asked_as_node(nmi, pod) == expected(right)


# ---- The other pods


def pods_of(made: Sequence[Any]) -> Iterator[Any]:
    for each in made:
        if each["kind"] == "DaemonSet" and each["metadata"]["name"] != "nmi":
            yield pytest.param(each["spec"]["template"]["spec"], id=each["metadata"]["name"])


@pytest.mark.parametrize("spec", [*pods_of(manifests.nmi()), *pods_of(manifests.local_redirect())])
def test_the_probe_and_what_cilium_leads_to_have_no_token_and_no_right(spec: Any) -> None:
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert not any("projected" in each for each in spec.get("volumes", ()))
