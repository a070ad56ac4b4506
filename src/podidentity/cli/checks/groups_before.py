"""The order in which a cluster is looked at before NMI is in it (`--pre`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from podidentity.cli import controller
from podidentity.cli.checks import before, leftovers, programs, versions
from podidentity.cli.checks.check import Check, Group, Line
from podidentity.cli.checks.findings import Finding
from podidentity.cli.checks.groups import look_for_takers
from podidentity.cli.checks.nodes import host_routed
from podidentity.cli.checks.reading import Reading
from podidentity.cli.cluster_rights import Places, singles
from podidentity.cli.enable import PROTECTED
from podidentity.cli.needed_rights import COMMANDS
from podidentity.cli.objects import (
    DAEMON_SETS,
    NAMESPACES,
    POLICY_BINDINGS,
    find,
    find_all,
    find_where_known,
    minor_version,
)
from podidentity.manifests import crds
from podidentity.wire.kube import NODES

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


# ---- The cluster, and who installs


async def _version(reading: Reading) -> Iterable[Finding | Line]:
    return before.version(await minor_version(reading.kube))


async def _rights(reading: Reading) -> Iterable[Finding]:
    rows = COMMANDS["enable"].of(()).cluster
    wanted = singles(rows, Places(nmi=reading.choices.namespace))
    return before.caller_lacks(await reading.reviewed(REVIEWS, programs.own_review, wanted))


async def _automatic(reading: Reading) -> AsyncIterator[Finding]:
    found = await find_where_known(reading.kube, POLICY_BINDINGS, "", PROTECTED)
    if reading.choices.namespace == "kube-system":
        for each in before.automatic(found):
            yield each


async def _namespace(reading: Reading) -> Iterable[Finding | Line]:
    name = reading.choices.namespace
    return before.pod_security(name, await find(reading.kube, NAMESPACES, "", name))


# ---- What is there already


async def _definitions(reading: Reading) -> AsyncIterator[Finding | Line]:
    ours, found = crds(), await reading.definitions()
    there = [each for each in ours if found[each["metadata"]["name"]] is not None]
    yield f"{len(there)} of {len(ours)} custom resources are there; enable makes the others."
    for each in versions.definitions(there, found):
        yield each


async def _conflicts(reading: Reading) -> Iterable[Finding]:
    found = await find_all(reading.kube, DAEMON_SETS)
    return before.conflicts(found, reading.choices.namespace)


async def _controllers(reading: Reading) -> Iterable[Finding]:
    mics = await controller.archived_mics(reading.kube)
    return leftovers.archived([{"kind": "Deployment", **found} for found in mics])


async def _ports(reading: Reading) -> Iterable[Finding]:
    return before.ports_taken(await find_all(reading.kube, DAEMON_SETS))


# ---- Nodes


async def _served(reading: Reading) -> AsyncIterator[Finding | Line]:
    nodes = await find_all(reading.kube, NODES)
    for each in before.unreachable(nodes):
        yield each
    for line in before.kinds(nodes):
        yield line


async def _routing(reading: Reading) -> Iterable[Finding]:
    return host_routed(await find_all(reading.kube, NODES), {})


_DAEMON_SETS = "what is there: you need the right to list daemonsets"
BEFORE = (
    Group(
        title="Cluster",
        checks=(
            Check(
                holds="the API server serves what the manifests have",
                look=_version,
                right="the version: you need the right to get /version",
            ),
            Check(
                holds="you may do all that enable does",
                look=_rights,
                right="your rights: you need the right to create selfsubjectaccessreviews",
            ),
            Check(
                holds="AKS lets NMI into its namespace",
                look=_automatic,
                right="whether this is AKS Automatic: you need the right to get "
                f"validatingadmissionpolicybindings {PROTECTED}",
            ),
            Check(
                holds="Pod Security lets NMI into its namespace",
                look=_namespace,
                right="Pod Security: you need the right to get namespaces {nmi}",
            ),
        ),
    ),
    Group(
        title="What is there already",
        checks=(
            Check(
                holds="the custom resources that are there know each field",
                look=_definitions,
                right="the definitions: you need the right to get customresourcedefinitions",
            ),
            Check(holds="nothing stands in NMI's place", look=_conflicts, right=_DAEMON_SETS),
            Check(
                holds="MIC of AAD Pod Identity is not there",
                look=_controllers,
                right="MIC: you need the right to list deployments and clusterrolebindings",
            ),
            Check(holds="NMI's ports of the nodes are free", look=_ports, right=_DAEMON_SETS),
            Check(
                holds="nobody else takes requests to the metadata address",
                look=look_for_takers,
                right=_DAEMON_SETS,
            ),
        ),
    ),
    Group(
        title="Nodes",
        checks=(
            Check(
                holds="NMI can be on every node",
                look=_served,
                right="the nodes: you need the right to list nodes",
            ),
            Check(
                holds="packets would pass NMI's rules on every node",
                look=_routing,
                right="the nodes: you need the right to list nodes",
            ),
        ),
    ),
)
