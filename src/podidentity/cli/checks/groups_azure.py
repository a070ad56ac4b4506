"""What only Azure knows (`--azure`): attached identities, and what Entra trusts."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial

from podidentity.adapters.arm import Arm
from podidentity.adapters.published_issuer import DISCOVERY
from podidentity.cli.azure_access import host_name, next_step
from podidentity.cli.checks import federation, machines, rules
from podidentity.cli.checks.findings import Finding, not_read
from podidentity.cli.checks.groups import Check, Group
from podidentity.cli.checks.reading import Reading
from podidentity.cli.objects import Object, find_all
from podidentity.core.authorities import PUBLIC
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import ResourceId
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import NODES


def of_azure(arm: Arm) -> Group:
    """Return the checks that ask Azure, as the person at the shell."""
    return Group(
        title="Azure",
        checks=(
            Check(
                holds="each identity is attached to the machines of its pods",
                look=partial(_attached, arm),
                right="which machines there are: you need the right to list nodes",
            ),
            Check(
                holds="Entra trusts the tokens of each federated identity",
                look=partial(_trusted, arm),
                right=f"the issuer: you need the right to get {DISCOVERY}",
            ),
        ),
    )


async def _attached(arm: Arm, reading: Reading) -> AsyncIterator[Finding]:
    hosts = _hosts(await find_all(reading.kube, NODES))
    for host, wanted in machines.needed(await reading.matches(), hosts).items():
        try:
            has = await arm.host(host)
        except ArmError as error:
            yield _refused(f"the identities of {host_name(host)}", error, min(wanted).managed)
            continue
        for each in machines.unattached(host, wanted, has):
            yield each


def _hosts(nodes: list[Object]) -> dict[str, Host]:
    """Return the machines of the nodes, by the nodes' names."""
    found: dict[str, Host] = {}
    for node in nodes:
        try:
            provider = node.get("spec", {}).get("providerID", "")
            found[node["metadata"]["name"]] = Host.of_node(provider)
        except NotAnAzureNode:
            continue
    return found


async def _trusted(arm: Arm, reading: Reading) -> AsyncIterator[Finding]:
    cloud = reading.choices.cloud or PUBLIC
    for identity in rules.usable_identities(await reading.cluster(), reading.choices.rules):
        managed = identity.resource_id
        if managed is None or not federation.is_federated(identity):
            continue  # an application's credentials are in Graph, which is not asked
        issuer = str(json.loads(await reading.kube.get(DISCOVERY)).get("issuer", ""))
        try:
            there = await arm.federated_credentials(managed)
        except ArmError as error:
            yield _refused(f"the federated credentials of {managed.name}", error, managed)
            continue
        needed = federation.wanted(
            identity,
            issuer,
            cloud.exchange_audience,
            await reading.matches(),
            reading.choices.identities_namespace,
        )
        trusts = [
            federation.TrustedSubject(issuer=each.issuer, subject=each.subject, audience=audience)
            for each in there
            for audience in each.audiences
        ]
        for finding in federation.untrusted(identity.ref, managed, needed, trusts, len(there)):
            yield finding


def _refused(what: str, error: ArmError, about: ResourceId) -> Finding:
    return not_read(f"could not read {what}. Azure says {error}", next_step(error, about))
