"""AKS at work: carries out one order after the other, in Azure and in the cluster.

First the machines have an identity, then the cluster's objects entitle pods to it; the other way
round when it goes. Custom resources that people made stay when the add-on is disabled, and so do
the definitions: without them, everybody's objects would be gone. The rules of the nodes stay, too,
as with `podidentity disable`: nothing opens by itself.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

import msgspec

from podidentity.manifests import crds, nmi
from podidentity_sandbox.apiserver import ApiRefusal, ApiServer, ApiUnreachable, Object
from podidentity_sandbox.azure.aks import objects
from podidentity_sandbox.azure.aks.profile import AddOn, ManagedCluster
from podidentity_sandbox.azure.arm import scalesets
from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.journal import Journal, NotSaved
from podidentity_sandbox.azure.state import Machines, World
from podidentity_sandbox.azure.verification import Caller
from podidentity_sandbox.plan import Plan

# ---- The cluster: a few calls of the Kubernetes API, as AKS's own user

JSON_PATCH = "application/json-patch+json"


class Kubernetes(ApiServer):
    """The API server of a cluster. An async context manager."""

    def __init__(self, plan: Plan, url: str) -> None:
        trust = ssl.create_default_context(cafile=str(plan.ca_certificate))
        super().__init__(url, trust, lambda: plan.aks_token, agent="aks/sandbox")
        self._plurals: dict[tuple[str, str], tuple[str, bool]] = {}

    async def apply(self, manifest: Object) -> None:
        """Create an object, or give it what `manifest` says; labels of others stay."""
        path = await self._path(manifest)
        try:
            found = await self.request("GET", path)
        except ApiRefusal as refusal:
            if refusal.status != 404:
                raise
            await self.request("POST", path.rpartition("/")[0], manifest)
            return
        said = {key: manifest[key] for key in manifest.keys() - {"apiVersion", "kind", "metadata"}}
        for key in manifest["metadata"].keys() & {"labels", "annotations"}:
            there = found["metadata"].get(key, {})
            said[f"metadata/{key}"] = {**there, **manifest["metadata"][key]}
        steps = [{"op": "add", "path": f"/{key}", "value": value} for key, value in said.items()]
        await self.request("PATCH", path, steps, content_type=JSON_PATCH)

    async def delete(self, manifest: Object) -> None:
        with _unless(404):
            await self.request("DELETE", await self._path(manifest))

    async def all(self, api: str, kind: str, selector: str = "") -> list[Object]:
        """Return the objects of a kind in all namespaces; none where there is no such kind."""
        found: list[Object] = []
        with _unless(404):
            plural, _ = await self._resource(api, kind)
            query = {"labelSelector": selector} if selector else {}
            found = (await self.request("GET", f"{_root(api)}/{plural}", params=query))["items"]
        return [{**item, "apiVersion": api, "kind": kind} for item in found]

    async def until(
        self, path: str, query: Mapping[str, str], done: Callable[[Mapping[str, Object]], bool]
    ) -> None:
        """Return when `done` holds of the objects at `path`, by name; asked after each change."""
        while True:
            page = await self.request("GET", path, params=query)
            found = {item["metadata"]["name"]: item for item in page["items"]}
            since = {"resourceVersion": page["metadata"]["resourceVersion"]}
            if done(found):
                return
            with _unless(410):  # too old by now: list again
                async with aclosing(self.watch(path, {**query, **since})) as events:
                    async for event in events:
                        _follow(found, event)
                        if done(found):
                            return

    async def _path(self, manifest: Object) -> str:
        api, kind, metadata = manifest["apiVersion"], manifest["kind"], manifest["metadata"]
        plural, namespaced = await self._resource(api, kind)
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{_root(api)}{where}/{plural}/{metadata['name']}"

    async def _resource(self, api: str, kind: str) -> tuple[str, bool]:
        """Return the plural of a kind, and whether it lives in namespaces."""
        if (api, kind) not in self._plurals:
            listed = await self.request("GET", _root(api))
            kinds = (one for one in listed["resources"] if "/" not in one["name"])
            self._plurals |= {(api, one["kind"]): (one["name"], one["namespaced"]) for one in kinds}
        if (api, kind) not in self._plurals:
            raise ApiRefusal(404, "NotFound", f"the cluster has no {kind} in {api}")
        return self._plurals[api, kind]


@contextmanager
def _unless(status: int) -> Iterator[None]:
    try:
        yield
    except ApiRefusal as error:
        if error.status != status:
            raise


def _follow(found: dict[str, Object], event: Object) -> None:
    name = event["object"]["metadata"]["name"]
    if event["type"] == "DELETED":
        found.pop(name, None)
    else:
        found[name] = event["object"]


def _root(api: str) -> str:
    return f"/apis/{api}" if "/" in api else f"/api/{api}"


# ---- Identities of the cluster's machines
#
# The cluster's own identity assigns them, by the same rules as anybody's PATCH. An identity on
# which the cluster is no Managed Identity Operator fails with ARM's own message, and does not
# hinder the others.

Sleep = Callable[[float], Awaitable[None]]


class MachineIdentities:
    """The machines of a cluster's nodes."""

    def __init__(self, world: World, cluster: ManagedCluster, sleep: Sleep) -> None:
        who = cluster.principal
        self._world = world
        self._caller = Caller(app_id=who.app_id, object_id=who.object_id, issuer="")
        self._sleep = sleep

    async def attach(self, identities: Iterable[str]) -> dict[str, ArmError | None]:
        """Give every machine the identities; return for each id, as given, why it failed."""
        outcome: dict[str, ArmError | None] = dict.fromkeys(identities)
        for machines in self._machines():
            settled = await self._settled(machines)
            lacking = [one for one in outcome if not _has(settled, one)]
            outcome |= {one: self._refusal(settled, one) for one in lacking}
            granted = [one for one in lacking if outcome[one] is None]
            await self._patch(settled, {one: {} for one in granted})
        return outcome

    async def detach(self, identities: Iterable[str]) -> None:
        for machines in self._machines():
            settled = await self._settled(machines)
            await self._patch(settled, {one: None for one in identities if _has(settled, one)})

    def has(self, identity: str) -> bool:
        return all(_has(machines, identity) for machines in self._machines())

    def _machines(self) -> list[Machines]:
        """Return the scale sets and virtual machines of the cluster's nodes, each once."""
        found = map(self._world.machines_of, self._world.plan.nodes)
        return list({one.id.lower(): one for one in found if one}.values())

    async def _settled(self, machines: Machines) -> Machines:
        """Return the machines once no other change of it is under way."""
        current: Machines | None = machines
        while current and (left := current.settled_at - self._world.clock()) > 0:
            await self._sleep(left)
            current = self._world.find(Machines, machines.id)
        return current or machines

    def _refusal(self, machines: Machines, identity: str) -> ArmError | None:
        try:
            scalesets.with_identity(
                self._world, self._caller, machines, _patch(machines, {identity: {}})
            )
        except ArmError as error:
            return error
        return None

    async def _patch(self, machines: Machines, change: dict[str, Any]) -> None:
        if not change:
            return
        changed = scalesets.with_identity(
            self._world, self._caller, machines, _patch(machines, change)
        )
        seconds = self._world.weather.outcome().seconds
        now = self._world.clock()
        scalesets.put(self._world, replace(changed, settled_at=now + seconds))
        await self._sleep(seconds)


def _has(machines: Machines, identity: str) -> bool:
    return identity.lower() in {one.id.lower() for one in machines.identity.user}


def _patch(machines: Machines, change: dict[str, Any]) -> dict[str, Any]:
    """Return the value of `identity` that makes `change` and keeps all else."""
    system = "SystemAssigned" if machines.identity.system else ""
    going = {name.lower() for name, value in change.items() if value is None}
    adding = any(value is not None for value in change.values())
    if not adding and {one.id.lower() for one in machines.identity.user} <= going:
        return {"type": system or "None"}
    kind = ", ".join(filter(None, (system, "UserAssigned")))
    return {"type": kind, "userAssignedIdentities": change}


# ---- Changes of the add-on

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds for the add-on to be at work on every node, or gone."""
_PODS = "/api/v1/namespaces/kube-system/pods"
_DAEMON_SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_OURS = {"labelSelector": "app.kubernetes.io/name=podidentity"}
_NMI = {"labelSelector": "app.kubernetes.io/name=podidentity,app.kubernetes.io/component=nmi"}


class AksProvider:
    """The resource provider behind managed clusters."""

    def __init__(
        self,
        world: World,
        apiserver: str,
        journal: Journal | None = None,
        *,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Work on the cluster at the URL `apiserver`; `journal` keeps what it did."""
        self._journal = journal
        self._world = world
        self._apiserver = apiserver
        self._sleep = sleep

    async def run(self) -> None:
        while True:
            await self.carry_out(await self._world.orders.get())
            try:
                if self._journal:
                    self._journal.save()
            except NotSaved as error:
                log.warning("aks: %s", error)

    async def carry_out(self, name: str) -> None:
        """Carry out the order of that operation, and say how it ended."""
        operation = self._world.operations[name]
        cluster = self._world.find(ManagedCluster, operation.subject)
        if cluster is None:
            return
        error: tuple[str, str] | None = None
        try:
            async with asyncio.timeout(PATIENCE):
                cluster = await self._reconciled(cluster)
        except (ApiRefusal, ApiUnreachable, ArmError) as failure:
            error = "InternalOperationError", f"Pod identity add-on: {failure}."
        except TimeoutError:
            message = f"The pod identity add-on is not at work after {PATIENCE:.0f} s."
            error = "OperationTimeout", message
        log.info("aks: %s", error[1] if error else "the cluster is as it was asked for")
        self._world.put(replace(cluster, state="Failed" if error else "Succeeded"))
        done = replace(operation, due_at=self._world.clock(), error=error)
        self._world.operations[name] = done

    async def _reconciled(self, cluster: ManagedCluster) -> ManagedCluster:
        add_on = cluster.add_on
        if add_on is None:
            return cluster
        async with Kubernetes(self._world.plan, self._apiserver) as api:
            if add_on.enabled:
                for definition in crds():
                    await api.apply(definition)
                await api.until(_CRDS, _OURS, lambda found: all(map(_established, found.values())))
                for manifest in nmi():
                    await api.apply(objects.marked(manifest))
                await api.until(
                    _DAEMON_SETS,
                    _NMI,
                    lambda found: bool(found) and all(map(_at_work, found.values())),
                )
            await _prune(api, add_on)
            assigned = await self._assigned(cluster, add_on)
            await _entitle(api, assigned.add_on or add_on)
            if not add_on.enabled:
                for manifest in reversed(nmi()):
                    await api.delete(manifest)
                await api.until(_PODS, _NMI, lambda found: not found)
        return assigned

    async def _assigned(self, cluster: ManagedCluster, add_on: AddOn) -> ManagedCluster:
        """Return the cluster once its machines have exactly the identities of the add-on."""
        machines = MachineIdentities(self._world, cluster, self._sleep)
        staying = [one for one in add_on.identities if one.provisioning_state != "Deleting"]
        kept = {one.identity.resource_id.lower() for one in staying}
        await machines.detach(cluster.attached - kept)
        foreign = {each for each in kept - cluster.attached if machines.has(each)}
        outcome = await machines.attach(kept)
        ours = {each for each, error in outcome.items() if error is None} - foreign
        for identity, error in outcome.items():
            if error is not None:
                log.info("aks: pod identity %s failed: %s", identity, error)
        settled = [one.settled(outcome[one.identity.resource_id.lower()]) for one in staying]
        add_on = msgspec.structs.replace(add_on, user_assigned_identities=tuple(settled) or None)
        return replace(cluster, add_on=add_on, attached=frozenset(ours))


async def _prune(api: Kubernetes, add_on: AddOn) -> None:
    staying = tuple(
        one.settled(None) for one in add_on.identities if one.provisioning_state != "Deleting"
    )
    kept = msgspec.structs.replace(add_on, user_assigned_identities=staying)
    wanted = set(map(objects.key, objects.wanted(kept)))
    for group, kind, mark in objects.KINDS:
        for found in await api.all(group, kind, objects.selector(mark)):
            if objects.key(found) not in wanted:
                await api.delete(found)


async def _entitle(api: Kubernetes, add_on: AddOn) -> None:
    manifests = objects.wanted(add_on)
    # Nobody is told to make the namespace before `az aks pod-identity add` in AKS's instructions.
    for name in {manifest["metadata"].get("namespace") for manifest in manifests} - {None}:
        await api.apply(objects.namespace(name))
    for manifest in manifests:
        await api.apply(manifest)


def _established(definition: Object) -> bool:
    conditions = definition.get("status", {}).get("conditions", [])
    return any((each["type"], each["status"]) == ("Established", "True") for each in conditions)


def _at_work(daemon_set: Object) -> bool:
    status = daemon_set.get("status", {})
    desired = status.get("desiredNumberScheduled", 0)
    counts = (status.get("updatedNumberScheduled", 0), status.get("numberReady", 0))
    newest = status.get("observedGeneration", 0) >= daemon_set["metadata"]["generation"]
    return bool(newest) and min(counts) >= desired
