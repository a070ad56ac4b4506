"""`podidentity migrate adopt`: MIC takes as its own what the archived MIC has attached.

MIC detaches only what its ledgers say that it attached itself. What the archived MIC attached is in
none, and stays on the machines for good. Its records say what that was, as long as they carry its
finalizer: ours takes that off when it begins. So this comes before, while neither of them works.

Whoever may write records could have identities of others detached by that. Therefore a record
counts only if all of it is as the archived MIC writes it, and as the objects of today say, and if
the namespace of its pod was granted the identity: the record, the pod and an AzureIdentity with any
ARM id are a tenant's to write, and a grant is not. What an operator had attached before the
archived MIC needed it, its records do not tell: a person looks.

MIC attaches nothing for pods that ask IMDS itself, of the node's network or excepted, and holds
nothing for them, but for an excepted pod as long as that is there. What one of them needs is left
out, whoever else needs it, and so stays attached.

https://azure.github.io/aad-pod-identity/docs/concepts/azureassignedidentity/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.cli import controller
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.mic import deployments_of_mic
from podidentity.cli.objects import (
    BINDINGS,
    EVERY_POD,
    EXCEPTIONS,
    IDENTITIES,
    Object,
    find,
    find_all,
    identity_of,
    list_parsed,
    ref_of,
)
from podidentity.cli.output import CommandError, ask_first
from podidentity.cli.use_roles import Roles
from podidentity.core.assignments import attachment
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.migration import archived_rules, attached_past_nmi
from podidentity.core.resources import (
    Assignment,
    AzureAssignedIdentity,
    AzureIdentity,
    Malformed,
    ObjectRef,
    ResourceId,
)
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITY_LEDGERS,
    NODES,
)
from podidentity.wire.ledgers import NotALedger, ledger_name, parse_ledger, render_ledger
from podidentity.wire.manifests import FINALIZER, NODE_LABEL, parse_assigned

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


def adopt(*, target: ClusterTarget, namespace: str, yes: bool) -> None:
    async def work(kube: Kube) -> None:
        for mic in (*await deployments_of_mic(kube), *await controller.archived_mics(kube)):
            # It writes the ledgers, or detaches by itself.
            if mic["spec"].get("replicas", 1) or mic.get("status", {}).get("replicas"):
                place, name = ref_of(mic)
                raise CommandError(
                    f"MIC works: Deployment {place}/{name}",
                    f"Stop it first: kubectl scale -n {place} deployment/{name} --replicas=0.",
                )
        claims = await _claims(kube)
        # Before the question stands what it is about, however much else a tenant has written.
        for each in sorted(claims, key=lambda one: not one.why):
            click.echo(str(each))
        wanted = [each for each in claims if not each.why]
        if not wanted:
            click.echo("No record says what the archived MIC has attached.")
            return
        if not yes:
            ask_first("May MIC detach these, when no pod needs them?")
        for ledger, version in await _ledgers(kube, namespace, wanted):
            await _write(kube, namespace, ledger, version)

    on_cluster(target, work)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a record says of an identity on a host, or why it does not count."""

    record: ObjectRef
    why: str = ""
    """Why it does not count, as a clause; "" if it does."""
    host: Host | None = None
    identity: ResourceId | None = None
    client_id: str = ""

    def __str__(self) -> str:
        if self.host is None or self.identity is None:
            return f"AzureAssignedIdentity {self.record} does not count: {self.why}"
        return f"{self.identity} on {self.host.name}, by AzureAssignedIdentity {self.record}"


class DoesNotCount(ValueError):
    """Why a record does not say what the archived MIC has attached, as a clause."""


def claim_of(
    found: Object,
    identities: Mapping[ObjectRef, AzureIdentity],
    nodes: Mapping[str, str],
    granted: Callable[[str, str], bool],  # whether pods of a namespace may use a client id
    past_nmi: Mapping[tuple[Host, str], ObjectRef],
) -> Claim:
    """Return what a record claims; `past_nmi` are pods that ask IMDS itself, by host and ARM id."""
    ref = ref_of(found)
    try:
        record = _as_written(found, ref)
        identity, wanted = _as_today(found, record.identity, identities)
        client, namespace = str(identity.client_id or ""), record.pod.namespace
        if not granted(namespace, client):
            return Claim(record=ref, why=f"namespace {namespace} was not granted {client}")
        host = Host.of_node(nodes.get(record.node, ""))
    except NotAnAzureNode:
        return Claim(record=ref, why="its node is no machine of Azure, or is gone")
    except DoesNotCount as error:
        return Claim(record=ref, why=str(error))
    if (pod := past_nmi.get((host, wanted.folded))) is not None:
        why = f"pod {pod} asks IMDS itself for {wanted} on {host.name}, so it stays attached"
        return Claim(record=ref, why=why)
    return Claim(record=ref, host=host, identity=wanted, client_id=client)


def _as_written(found: Object, ref: ObjectRef) -> AzureAssignedIdentity:
    """Return the record in an object that is as the archived MIC writes it; raise DoesNotCount."""
    meta = found["metadata"]
    if FINALIZER not in (meta.get("finalizers") or ()):
        raise DoesNotCount("it has no finalizer of the archived MIC")
    record = parse_assigned(json.dumps(found).encode())
    if isinstance(record, Malformed):
        raise DoesNotCount(record.why)
    if record.state is not Assignment.ASSIGNED:
        raise DoesNotCount(f"it says {record.state.value}")
    name = f"{record.pod.name}-{record.pod.namespace}-{record.identity.name}"
    if ref.name != name or (meta.get("labels") or {}).get(NODE_LABEL) != record.node:
        raise DoesNotCount("its name or its label is not as the archived MIC writes it")
    return record


def _as_today(
    found: Object, ref: ObjectRef, identities: Mapping[ObjectRef, AzureIdentity]
) -> tuple[AzureIdentity, ResourceId]:
    """Return the identity of a record if it is still the one of its copy; raise DoesNotCount."""
    identity = identities.get(ref)
    wanted = attachment(identity) if identity else None
    if identity is None or wanted is None:
        raise DoesNotCount(f"there is no AzureIdentity {ref} with a resource id")
    copies = map(found["spec"].get, ("azureIdentityRef", "AzureIdentityRef", "azureidentityref"))
    try:
        before = identity_of(next(filter(None, copies)))
    except ValueError as error:
        raise DoesNotCount(f"its copy of the AzureIdentity cannot be read: {error}") from error
    if not isinstance(before, AzureIdentity) or before.resource_id != wanted:
        raise DoesNotCount(f"AzureIdentity {ref} names another identity today")
    return identity, wanted


async def _claims(kube: Kube) -> list[Claim]:
    found = await list_parsed(kube, IDENTITIES)
    identities = {each.ref: each for each in found if isinstance(each, AzureIdentity)}
    nodes = {
        each["metadata"]["name"]: str((each.get("spec") or {}).get("providerID", ""))
        for each in await find_all(kube, NODES)
    }
    pods = await list_parsed(kube, EVERY_POD)
    bindings, exceptions = await list_parsed(kube, BINDINGS), await list_parsed(kube, EXCEPTIONS)
    cluster = WatchedCluster.of(
        SystemClock(), pods=pods, identities=found, bindings=bindings, exceptions=exceptions
    )
    # By the rules that let most pods past: the archived NMI may still serve them.
    rules = archived_rules((), namespaced=False)
    past_nmi = {}
    for pod in pods:
        for _, identity in attached_past_nmi(pod, cluster, rules, rules):
            with suppress(NotAnAzureNode):
                host = Host.of_node(nodes.get(pod.node, ""))
                past_nmi[host, identity.folded] = pod.ref
    records = await find_all(kube, AZURE_ASSIGNED_IDENTITIES)
    roles = await Roles.read(kube)
    if roles is None:
        raise CommandError(
            "It cannot be seen which identities are granted",
            f"You need {Roles.RIGHT}: podidentity rights migrate lists all that the command needs.",
        )

    def granted(namespace: str, client: str) -> bool:
        return not roles.lacking(namespace, [client])

    return [claim_of(each, identities, nodes, granted, past_nmi) for each in records]


async def _ledgers(kube: Kube, namespace: str, claims: Sequence[Claim]) -> list[tuple[Ledger, str]]:
    """Return each host's ledger with these in it, and the version of the one that is there."""
    now = SystemClock().time()
    made = []
    for host in dict.fromkeys(each.host for each in claims if each.host):
        there = await find(kube, AZURE_IDENTITY_LEDGERS, namespace, ledger_name(host))
        ledger, version = Ledger(host=host), ""
        if there is not None:
            version = str(there["metadata"]["resourceVersion"])
            try:
                ledger = parse_ledger(json.dumps(there).encode())
            except NotALedger as error:
                raise CommandError(
                    f"AzureIdentityLedger {namespace}/{ledger_name(host)} cannot be read: {error}",
                    "Delete it: then nothing is detached by it.",
                ) from error
        after = adopting(ledger, (each for each in claims if each.host == host), now)
        if after != ledger:
            made.append((after, version))
    return made


def adopting(ledger: Ledger, claims: Iterable[Claim], now: float) -> Ledger:
    """Return the ledger with what these claim; what it speaks of already stays as it is."""
    attached = dict(ledger.attached)
    for each in claims:
        if each.identity is not None:
            folded = each.identity.folded
            if folded not in {*attached, *ledger.attaching, *ledger.detaching}:
                attached[folded] = LedgerEntry(each.identity.spelling, now, each.client_id)
    return replace(ledger, attached=attached)


async def _write(kube: Kube, namespace: str, ledger: Ledger, version: str) -> None:
    body: Any = render_ledger(ledger, namespace, version)
    name = body["metadata"]["name"]
    if version:
        await kube.merge(AZURE_IDENTITY_LEDGERS.path(namespace, name), body)
    else:
        await kube.create(AZURE_IDENTITY_LEDGERS.path(namespace), body)
    click.echo(
        f"azureidentityledger.aadpodidentity.k8s.io/{name} has {len(ledger.attached)} identities"
    )
