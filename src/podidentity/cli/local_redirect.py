"""Cilium's local redirect policy (`--backend=lrp`): what it needs, and what NMI tells of each node.

The policy fails open: where no pod is ready that it may lead to, Cilium sends requests on to IMDS.
NMI's routing rules close that. A clusterwide policy of denial closes it, too, and from a node's
start on. But Cilium judges it before the node's own rules see a packet. So pods whose requests come
by these would be cut off, and it is made only where every NMI has told that they come by Cilium.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from podidentity.adapters.clock import SystemClock
from podidentity.cli.objects import (
    CLUSTERWIDE_NETWORK_POLICIES,
    CRDS,
    DAEMON_SETS,
    LOCAL_REDIRECT_POLICIES,
    Object,
    apply,
    called,
    create_once,
    find,
    find_all,
    find_where_known,
    removal,
    remove,
)
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import OF_AGENTS, lasts, pods_of_nmi, seen, until
from podidentity.core.data_path import Backend
from podidentity.core.resources import ObjectRef
from podidentity.manifests import local_redirect
from podidentity.wire.events import AgentReason
from podidentity.wire.kube import EVENTS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

NOTHING = ""
"""In place of a backend: NMI has not told one, or tells that no request arrives."""

_NO_CRD = (
    "Have Cilium serve it (Helm: localRedirectPolicies.enabled=true, before 1.17 "
    "localRedirectPolicy=true; AKS has it from 1.29 on with Azure CNI powered by Cilium), or leave "
    "--backend out."
)
_TOO_OLD = (
    "this Cilium knows no enableDefaultDeny (it is before 1.16): a policy that denies IMDS would "
    "deny pods everything else, too"
)


async def require_policies(kube: Kube) -> None:
    if await find(kube, CRDS, "", f"{LOCAL_REDIRECT_POLICIES.plural}.cilium.io") is None:
        raise CommandError(
            "this cluster has no CiliumLocalRedirectPolicy, which --backend=lrp needs", _NO_CRD
        )


async def apply_policy(kube: Kube, policy: Object) -> str:
    """Create the local redirect policy, or another in the place of one that differs.

    Cilium does not take changes of one that is there.
    """
    meta = policy["metadata"]
    found = await find(kube, LOCAL_REDIRECT_POLICIES, meta["namespace"], meta["name"])
    if found is not None and _wants(policy["spec"], found.get("spec")):
        return "unchanged"
    if found is not None:
        await remove(kube, policy)
    created = await create_once(kube, policy)
    return "replaced" if found is not None else str(created)


def _wants(wanted: Object, found: object) -> bool:
    """Whether all that is wanted is there: the API server adds defaults."""
    return isinstance(found, dict) and all(found.get(name) == wanted[name] for name in wanted)


async def take_away(kube: Kube, namespace: str) -> None:
    """Take away what an earlier `enable --backend=lrp` has made, if it has; the denial first.

    Afterwards NMI's routing rules close IMDS. Raises KubeError.
    """
    manifests = local_redirect(namespace=namespace)
    if await find(kube, DAEMON_SETS, namespace, manifests[0]["metadata"]["name"]) is None:
        return
    for manifest in reversed(manifests):
        click.echo(await removal(kube, manifest))


async def deny_where_possible(kube: Kube, deny: Object, namespace: str, seconds: float) -> None:
    """Make the policy of denial if all requests of pods come by Cilium.

    If it is known that some do not, take it away; where nothing is known it stays as it is. It
    waits so many seconds until each NMI has told. Raises KubeError.
    """
    if not await knows_default_deny(kube):
        why, cuts_off = _TOO_OLD, True
    else:
        told = await _told(kube, namespace, seconds)
        why, cuts_off = why_not(told), Backend.NFTABLES in told.values()
    if not why:
        click.echo(f"{called(deny)} {await apply(kube, deny)}")
        return
    if cuts_off and await remove(kube, deny):
        click.echo(f"{called(deny)} deleted")
    click.echo(
        f"{called(deny)} is not made: {why}. NMI's routing rules close IMDS meanwhile. Run "
        "podidentity enable --backend=lrp again when that has changed.",
        err=True,
    )


def why_not(told: Mapping[str, str]) -> str:
    if not told:
        return "NMI is on no node yet"
    if others := [node for node, backend in told.items() if backend == Backend.NFTABLES]:
        where = ", ".join(sorted(others))
        return f"on {where} pods' requests come by the node's rules, before which it is judged"
    if silent := [node for node, backend in told.items() if not backend]:
        return f"of {', '.join(sorted(silent))} it is not known how pods' requests come to NMI"
    return ""


async def _told(kube: Kube, namespace: str, seconds: float) -> dict[str, str]:
    """Return what leads requests to each NMI; wait so many seconds until each has told."""
    pods = await pods_of_nmi(kube, namespace)
    only = {"fieldSelector": OF_AGENTS}
    events = await find_all(kube, EVENTS, namespace, **only)
    told = backends(pods, events, SystemClock().time())

    def look(events: Mapping[str, Object]) -> bool:
        told.update(backends(pods, list(events.values()), SystemClock().time()))
        return all(told.values())

    with suppress(TimeoutError):
        if seconds and not all(told.values()):
            async with asyncio.timeout(seconds):
                await until(kube, EVENTS.path(namespace), only, look)
    return told


DENIAL = ObjectRef("", str(local_redirect()[-1]["metadata"]["name"]))


async def denial_is_there(kube: Kube) -> bool:
    # Cilium may have gone, and its kinds with it.
    """Whether IMDS is denied to pods by policy; raise KubeError, also for who may not look."""
    there = await find_where_known(kube, CLUSTERWIDE_NETWORK_POLICIES, *DENIAL)
    return there is not None


async def knows_default_deny(kube: Kube) -> bool:
    """Whether a clusterwide policy can deny one thing and leave the rest as it is."""
    crd = await find(kube, CRDS, "", f"{CLUSTERWIDE_NETWORK_POLICIES.plural}.cilium.io")
    if crd is None:
        return False
    schemas = [each.get("schema", {}) for each in crd["spec"]["versions"] if each.get("served")]
    specs = [
        each.get("openAPIV3Schema", {}).get("properties", {}).get("spec", {}) for each in schemas
    ]
    return any("enableDefaultDeny" in each.get("properties", {}) for each in specs)


def backends(pods: Sequence[Object], events: Sequence[Object], now: float) -> dict[str, str]:
    """Return for each node with NMI what leads requests to it, NOTHING where nothing is known.

    `pods` are NMI's; `now` in seconds since 1970.
    """
    nodes = {each["metadata"]["uid"]: each["spec"].get("nodeName", "") for each in pods}
    found = dict.fromkeys(filter(None, nodes.values()), NOTHING)
    for each in sorted(events, key=seen):
        node = nodes.get(each["involvedObject"].get("uid", ""))
        if node and lasts(each, now) and each.get("reason") == AgentReason.BACKEND:
            told = each.get("message", "")
            found[node] = told if told in set(Backend) else NOTHING
    return found


def lines(told: Mapping[str, str]) -> Iterator[str]:
    yield "Pods' requests come to NMI:"
    alike: dict[str, list[str]] = {}
    for node, backend in sorted(told.items()):
        alike.setdefault(backend, []).append(node)
    for backend, nodes in sorted(alike.items(), reverse=True):
        how = f"by {backend}" if backend else "not known, as NMI has told nothing"
        yield f"  on {', '.join(nodes)}: {how}"
