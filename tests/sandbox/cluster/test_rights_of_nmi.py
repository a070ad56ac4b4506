"""NMI does its work with the rights of its manifest, and needs each of them.

Its own parts ask the API server as its service account: with all rights nothing is refused, and
without one of them exactly what needs it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx2
import pytest

from podidentity import manifests
from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.entra.client_credentials import Assertions
from podidentity.adapters.kube import Kube
from podidentity.adapters.node_identity import NodeIdentity
from podidentity.adapters.path_permissions import PathPermissions
from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.adapters.startup_taint import StartupTaint
from podidentity.cli.cluster_rights import Places, Single, held_by, singles
from podidentity.cli.rights import roles
from podidentity.core.decision import Use
from podidentity.core.errors import NotReady, TokenUnavailable
from podidentity.core.resources import ObjectRef, Pod
from podidentity.nmi.reporting.events import PodEvents
from podidentity.nmi.reporting.metrics import NmiMetrics
from podidentity.nmi.sync.secret_watch import WatchedSecrets
from podidentity.nmi.sync.watches import Scope, Watches
from podidentity.telemetry.metrics import Registry
from podidentity.wire.events import AgentReason
from tests.fakes import CLIENT, FakeTokenSource
from tests.sandbox.cluster.conftest import Served, pod

SYSTEM, SHOP = "/api/v1/namespaces/kube-system", "/api/v1/namespaces/shop"
CUSTOM = "aadpodidentity.k8s.io/v1"
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


def of_roles(made: Sequence[Any]) -> list[Single]:
    """Return each right that the roles among these manifests give."""
    return singles(held_by(made), Places())


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


@dataclass
class Place:
    """An API server, and NMI's client of it."""

    admin: httpx2.AsyncClient
    kube: Kube
    pod: Pod
    token: str
    sent: set[tuple[str, str]] = field(default_factory=set)
    """The verb and the resource of each request of NMI's."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """The verb and the resource of each request that was refused."""

    async def make(self, path: str, body: Any) -> Any:
        answer = await self.admin.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def change(self, path: str, body: Any) -> None:
        kind = {"Content-Type": "application/merge-patch+json"}
        answer = await self.admin.patch(path, json=body, headers=kind)
        assert answer.status_code == 200, answer.text

    async def until(self, holds: Callable[[], object]) -> None:
        """Return when something holds, or NMI was refused anything."""
        async with asyncio.timeout(30):
            while not (holds() or self.refused):  # noqa: ASYNC110 - nothing tells of both
                await asyncio.sleep(0.01)


def asked(method: str, path: str) -> tuple[str, str]:
    """Return verb and resource of a request."""
    words = path.strip("/").split("/")
    words = words[2:] if words[0] == "api" else words[3:]
    group = "" if path.startswith("/api/") else f".{path.split('/')[2]}"
    words = words[2:] if words[0] == "namespaces" and len(words) > 2 else words
    resource = f"{words[0]}/{words[2]}" if len(words) > 2 else words[0]
    verbs = {"WATCH": "watch", "POST": "create", "PATCH": "patch"}
    reading = "get" if len(words) > 1 else "list"
    return verbs.get(method, reading), f"{resource}{group}"


@asynccontextmanager
async def opened(
    served: Served, given: Sequence[Any], without: Single | None
) -> AsyncIterator[Place]:
    """Yield a cluster with a pod, and NMI with these manifests' rights, but for one."""
    async with served.client() as admin:
        place = Place(admin, Kube(admin), Pod(ref=ObjectRef("", ""), uid=""), "")
        for crd in manifests.crds():
            await place.make("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
        await place.make("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await place.make("/api/v1/nodes", {"metadata": {"name": "node-0"}})
        for path, name in ((SYSTEM, manifests.ACCOUNT), (SHOP, "default"), (SHOP, "ours")):
            await admin.post(f"{path}/serviceaccounts", json={"metadata": {"name": name}})
        for each in given:
            await put(place, each, without)
        made = await place.make(f"{SHOP}/pods", of_shop("app"))
        ref = ObjectRef("shop", "app")
        place.pod = Pod(ref=ref, uid=made["metadata"]["uid"], service_account="default")
        place.token = await token_of_nmi(place)
        failed, client = place.refused, served.client(place.token, of_program=True)

        async def note(request: httpx2.Request) -> None:
            method = "WATCH" if request.url.params.get("watch") else request.method
            place.sent.add(asked(method, request.url.path))

        client.event_hooks["request"].append(note)
        place.kube = Kube(client, lambda *what: failed.add(asked(*what)))
        yield place
        await place.kube.close()


def of_shop(name: str) -> Any:
    made = pod(name, nodeName="node-0", serviceAccountName="default")
    return {**made, "metadata": {**made["metadata"], "namespace": "shop"}}


async def put(place: Place, manifest: Any, without: Single | None) -> None:
    """Make a role, a binding or a policy."""
    kind, namespace = manifest["kind"], manifest["metadata"].get("namespace")
    if kind in {"DaemonSet", "ServiceAccount"}:
        return
    if without and "rules" in manifest:
        left = [each for each in of_roles([manifest]) if not is_same(each, without)]
        manifest = {
            **manifest,
            "rules": [rule for each in roles(left, "x") for rule in each["rules"]],
        }
    plural = f"{kind.lower()[:-1]}ies" if kind.endswith("y") else f"{kind.lower()}s"
    where = f"/namespaces/{namespace}" if namespace else ""
    await place.make(f"/apis/{manifest['apiVersion']}{where}/{plural}", manifest)


def is_same(one: Single, other: Single) -> bool:
    return (one.resource, one.verb, one.name) == (other.resource, other.verb, other.name)


async def token_of_nmi(place: Place) -> str:
    agent = pod("nmi-0", nodeName="node-0", serviceAccountName=manifests.ACCOUNT)
    agent = {**agent, "metadata": {**agent["metadata"], "namespace": "kube-system"}}
    uid = (await place.make(f"{SYSTEM}/pods", agent))["metadata"]["uid"]
    bound = {"apiVersion": "v1", "kind": "Pod", "name": "nmi-0", "uid": uid}
    path = f"{SYSTEM}/serviceaccounts/{manifests.ACCOUNT}/token"
    asked_for = await place.make(path, {"spec": {"boundObjectRef": bound}})
    return str(asked_for["status"]["token"])


async def work(
    place: Place, *, records: bool = True, types: Collection[int] = manifests.EVERY_TYPE
) -> None:
    """Do all that NMI does at the API server, in its mode and for these types of identities."""
    await watch(place, records=records)
    if {manifests.SERVICE_PRINCIPAL, manifests.CERTIFICATE} & set(types):
        await read_a_secret(place)
    await ask_for_permissions(place)
    await take_a_taint_off(place)
    await tell_events(place)
    if manifests.FEDERATED not in types:
        return
    with suppress(TokenUnavailable):
        assertions = Assertions(place.kube, FakeTokenSource(), SystemClock())
        await assertions.of_account(ObjectRef("shop", "default"), AUDIENCES[0], place.pod)


async def watch(place: Place, *, records: bool) -> None:
    """Follow all that NMI follows: something of each kind comes later."""
    watched = {kind: path for kind, path in WATCHED.items() if records or "Assigned" not in kind}
    cluster, heard = WatchedCluster(SystemClock()), set[str]()
    cluster.follow(lambda kind, ref: heard.add(kind) if ref.name == "later" else None)
    scope = Scope(node="node-0", records=records, labelled=False)
    watching = asyncio.create_task(Watches(place.kube, cluster, SystemClock(), scope=scope).run())
    await place.until(lambda: cluster.synced)
    for kind, path in watched.items():
        body = {"apiVersion": CUSTOM, "kind": kind, "metadata": {"name": "later"}}
        await place.make(path, {**body, "spec": SPECS[kind]})
    annotated = {"azure.workload.identity/client-id": CLIENT}
    account = {"metadata": {"name": "later", "annotations": annotated}}
    await place.make(f"{SHOP}/serviceaccounts", account)
    await place.make(f"{SHOP}/pods", of_shop("later"))
    await place.until(lambda: heard >= {*watched, "ServiceAccount", "Pod"})
    watching.cancel()


async def read_a_secret(place: Place) -> None:
    """Read a Secret, and learn that it has changed."""
    secrets, rotated = WatchedSecrets(place.kube, SystemClock()), list[ObjectRef]()
    await place.make(f"{SHOP}/secrets", {"metadata": {"name": "mail"}, "stringData": {"a": "b"}})
    with suppress(TokenUnavailable):
        await secrets.read(ObjectRef("shop", "mail"))
        secrets.follow(rotated.append)
        await place.change(f"{SHOP}/secrets/mail", {"stringData": {"a": "c"}})
        await place.until(lambda: rotated)
    ending = asyncio.create_task(secrets.run())
    await asyncio.sleep(0)
    ending.cancel()


async def ask_for_permissions(place: Place) -> None:
    """Ask whether a pod may use an identity, and whether somebody may read the metrics."""
    permissions = RbacPermissions(place.kube, SystemClock())
    with suppress(NotReady):
        await permissions.ask(Use(ObjectRef("shop", "default"), CLIENT), 0)
    metrics = PathPermissions(place.kube, SystemClock(), path="/metrics")
    await metrics.access(f"Bearer {place.token}".encode(), "10.244.0.9")


async def take_a_taint_off(place: Place) -> None:
    taints = [{"key": TAINT, "effect": "NoSchedule"}]
    await place.change("/api/v1/nodes/node-0", {"spec": {"taints": taints}})
    taint = StartupTaint(place.kube, SystemClock(), node="node-0", key=TAINT, ready=lambda: True)
    await taint.look()


async def tell_events(place: Place) -> None:
    """Tell something of a pod, and then something else."""
    counted = NmiMetrics(Registry()).events
    events = PodEvents(place.kube, SystemClock(), counted, node="node-0")

    def told(times: int) -> bool:
        return counted.of("written").value + counted.of("repeated").value >= times

    writing = asyncio.create_task(events.run())
    for number, word in enumerate(("nftables", "lrp"), start=1):
        events.tell(place.pod, AgentReason.BACKEND, word)
        await place.until(partial(told, number))
    writing.cancel()


async def test_nothing_that_nmi_does_is_refused(served: Served) -> None:
    async with opened(served, of_nmi(), None) as place:
        await work(place)
        assert place.refused == set()


@pytest.mark.parametrize("right", of_roles(of_nmi()), ids=lambda one: f"{one.verb} {one.resource}")
async def test_nmi_needs_each_right_of_its_manifest(served: Served, right: Single) -> None:
    async with opened(served, of_nmi(), right) as place:
        await work(place)
        assert place.refused == {(right.verb, right.resource)}


# ---- By mode, and by the types of identities: nothing unused


@pytest.mark.parametrize("standard", [False, True], ids=["managed", "standard"])
@pytest.mark.parametrize(
    "types", [(0,), (1,), (2,), (3,), (0, 3), manifests.EVERY_TYPE], ids=lambda types: f"{types}"
)
async def test_in_each_mode_nmi_has_the_rights_that_it_uses_and_no_others(
    served: Served, standard: bool, types: tuple[int, ...]
) -> None:
    given = of_nmi(standard=standard, types=types)
    async with opened(served, given, None) as place:
        await work(place, records=standard, types=types)
        assert place.refused == set()
        assert place.sent == {(each.verb, each.resource) for each in of_roles(given)}


@pytest.mark.parametrize("option", [{"as_node": True}, {"policy": True}])
def test_without_federated_identities_nothing_is_made_for_their_tokens(option: Any) -> None:
    made = manifests.nmi(types=(0, 1, 2), **option)
    assert made == manifests.nmi(types=(0, 1, 2))


# ---- From 1.36 on: as its node


async def asked_as_node(place: Place) -> set[str]:
    """Ask who it is and for each token; return what is refused."""
    node = place.kube.acting_as("system:node:node-0")
    identity = NodeIdentity(node, SystemClock(), node="node-0")
    await identity.look()
    lacking = {"who it is"} if identity.problems() else set()
    assertions = Assertions(place.kube, FakeTokenSource(), SystemClock(), as_node=node)
    wanted: list[tuple[str, ObjectRef, str, Pod | None]] = [
        (each, ObjectRef("shop", "default"), each, place.pod) for each in AUDIENCES
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


async def test_as_its_node_nmi_asks_with_the_rights_of_its_manifest(newest: Served) -> None:
    async with opened(newest, as_node(), None) as place:
        assert await asked_as_node(place) == set()


@pytest.mark.parametrize(
    "right", of_roles(as_node()), ids=lambda one: f"{one.verb} {one.resource} {one.name}".strip()
)
async def test_as_its_node_nmi_needs_each_right_too(newest: Served, right: Single) -> None:
    async with opened(newest, as_node(), right) as place:
        assert await asked_as_node(place) == expected(right)


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
