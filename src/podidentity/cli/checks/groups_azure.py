"""What only Azure knows (`--azure`): attached identities, what Entra trusts, and MIC's roles."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial

import click

from podidentity.adapters.arm import Arm
from podidentity.adapters.graph import Graph
from podidentity.adapters.published_issuer import DISCOVERY
from podidentity.cli import controller
from podidentity.cli.azure_access import host_name, next_step
from podidentity.cli.checks import azure_roles, federation, machines, rules
from podidentity.cli.checks.azure_roles import MicPrincipal, NeededRole
from podidentity.cli.checks.check import Check, Group
from podidentity.cli.checks.findings import Finding, not_read
from podidentity.cli.checks.reading import Reading
from podidentity.cli.objects import Object, find_all, ref_of
from podidentity.cli.use_roles import Roles
from podidentity.core.authorities import PUBLIC
from podidentity.core.decision import Authorization, permission_names
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import AzureIdentity, ClientId, InvalidId, ObjectRef, ResourceId
from podidentity.wire.arm import ArmError, RolePermission
from podidentity.wire.kube import NODES

_ROLES_OF_MIC = "the roles of MIC"
_BY_HAND = (
    "Look yourself: az role assignment list --all --assignee CLIENT-ID. docs/reference/mic.md has "
    "the roles that it needs."
)


def of_azure(arm: Arm, graph: Graph | None) -> Group:
    """Return the checks that ask Azure as the person at the shell; `graph`: None without one."""
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
                look=partial(_trusted, arm, graph),
                right=f"the issuer: you need the right to get {DISCOVERY}, and to list "
                "clusterroles and clusterrolebindings",
            ),
            Check(
                holds="MIC has the roles to attach what is bound",
                look=partial(_roles, arm, graph),
                right=f"{_ROLES_OF_MIC}: you need the right to list deployments and nodes, and "
                "pods where MIC is",
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
    found: dict[str, Host] = {}
    for node in nodes:
        try:
            provider = node.get("spec", {}).get("providerID", "")
            found[node["metadata"]["name"]] = Host.of_node(provider)
        except NotAnAzureNode:
            continue
    return found


# ---- Federated credentials


async def _trusted(arm: Arm, graph: Graph | None, reading: Reading) -> AsyncIterator[Finding]:
    """Yield what Entra does not trust of what was granted.

    What comes of it are commands, by which Entra trusts whoever wrote the AzureIdentity.
    """
    cloud = reading.choices.cloud or PUBLIC
    for identity in await _federated(reading):
        trusting = identity.resource_id or identity.client_id
        if trusting is None:
            continue
        issuer = str(json.loads(await reading.kube.get(DISCOVERY)).get("issuer", ""))
        what = f"the federated credentials of {federation.called(trusting)}"
        try:
            if isinstance(trusting, ResourceId):
                there = await arm.federated_credentials(trusting)
            else:
                there = await _asked(graph).federated_credentials(trusting)
        except ArmError as error:
            yield (
                _refused(what, error, trusting)
                if isinstance(trusting, ResourceId)
                else not_read(
                    f"could not read {what}. Graph says {error}",
                    f"Where it is an application, run az ad app federated-credential list --id "
                    f"{trusting}, and compare issuer ({issuer}), subject and audience byte for "
                    "byte; where it is a managed identity, name it in spec.resourceID.",
                )
            )
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
        found = list(federation.untrusted(identity.ref, trusting, needed, trusts, len(there)))
        for finding in (await _of_another(arm, identity) if found else ()) or found:
            yield finding


async def _federated(reading: Reading) -> list[AzureIdentity]:
    """Return the federated identities that are bound and granted; raise KubeError."""
    usable = rules.usable_identities(await reading.cluster(), reading.choices.rules)
    federated = list(filter(federation.is_federated, usable))
    if not federated or reading.choices.authorization is Authorization.OFF:
        return federated
    roles = await Roles.read(reading.kube)
    return [
        each
        for each in federated
        if roles and not roles.lacking(each.ref.namespace, permission_names(each))
    ]


async def _of_another(arm: Arm, identity: AzureIdentity) -> Sequence[Finding]:
    """Return what is wrong with an identity whose ARM id is not that of its client id.

    A tenant may write any ARM id beside the client id that was granted to him.
    """
    managed = identity.resource_id
    if managed is None or identity.client_id is None:
        return ()
    try:
        client = (await arm.identity(managed)).client_id
    except ArmError as error:
        return (_refused(f"the client id of {managed.name}", error, managed),)
    if client == identity.client_id:
        return ()
    why = f"{managed.name} has the client id {client}, and spec.clientID is {identity.client_id}"
    return (rules.cannot_sign_in(identity.ref, why),)


def _asked(graph: Graph | None) -> Graph:
    if graph is None:
        raise ArmError("NoGraph", "this cloud has no Microsoft Graph that is known")
    return graph


def _refused(what: str, error: ArmError, about: ResourceId) -> Finding:
    return not_read(f"could not read {what}. Azure says {error}", next_step(error, about))


# ---- MIC's roles


async def _roles(arm: Arm, graph: Graph | None, reading: Reading) -> AsyncIterator[Finding]:
    deployments = await reading.mics()
    usable = rules.usable_identities(await reading.cluster(), reading.choices.rules)
    hosts = _hosts(await find_all(reading.kube, NODES))
    needs = azure_roles.needed(usable, hosts.values())
    for deployment in deployments if needs else ():
        try:
            principals = await _principals(arm, graph, reading, deployment, hosts)
        except _NotKnown as error:
            yield not_read(f"could not check {_ROLES_OF_MIC}: {error}", _BY_HAND)
            continue
        for principal in principals:
            async for each in _lacking(_RolesOf(arm), ref_of(deployment), principal, needs):
                yield each


async def _lacking(
    roles: _RolesOf, mic: ObjectRef, principal: MicPrincipal, needs: Sequence[NeededRole]
) -> AsyncIterator[Finding]:
    for need in needs:
        try:
            held = await roles.held(need.scope, principal.object_id)
        except ArmError as error:
            yield not_read(
                f"could not read {_ROLES_OF_MIC} at {need.called}. Azure says {error}",
                f"{next_step(error, need.scope)} {_BY_HAND}".strip(),
            )
            continue
        for each in azure_roles.lacking(mic, principal, need, held):
            yield each


class _NotKnown(Exception):
    """Why it is not known as whom MIC signs in; the message is a clause."""


async def _principals(
    arm: Arm, graph: Graph | None, reading: Reading, deployment: Object, hosts: Mapping[str, Host]
) -> Sequence[MicPrincipal]:
    """Return as whom MIC signs in, on each machine that it is on; raise _NotKnown."""
    try:
        settings = controller.settings_of(deployment)
    except click.ClickException as error:
        why = error.format_message().rstrip(".")
        raise _NotKnown(f"its flags cannot be read: {why}") from error
    if settings.assign == "none":
        return ()
    if settings.cloud_config:
        raise _NotKnown(f"{settings.cloud_config} of its nodes says as whom MIC signs in")
    if settings.managed_identity:
        pods = await controller.pods(reading.kube, deployment["metadata"]["namespace"])
        names = {each["spec"].get("nodeName", "") for each in pods}
        places = sorted({hosts[each] for each in names & hosts.keys()}, key=str)
        if not places:
            raise _NotKnown("it is on no machine of Azure's")
        found = [await _of_machine(arm, each, settings.managed_client_id) for each in places]
        return tuple(dict.fromkeys(found))
    return (await _of_application(graph, settings.client_id),)


async def _of_application(graph: Graph | None, client_id: str) -> MicPrincipal:
    """Return the application as which MIC signs in; raise _NotKnown."""
    try:
        client = ClientId.parse(client_id)
    except InvalidId:
        raise _NotKnown("a Secret has its client id, and is not read") from None
    try:
        found = await _asked(graph).principal(client)
    except ArmError as error:
        raise _NotKnown(f"application {client} is not found. Graph says {error}") from error
    return MicPrincipal(object_id=found, called=f"application {client}")


async def _of_machine(arm: Arm, host: Host, client: str) -> MicPrincipal:
    """Return the managed identity of a machine by which MIC signs in there; raise _NotKnown."""
    called = f"managed identity {client}" if client else f"the own identity of {host_name(host)}"
    try:
        found = (await arm.principals(host)).get(client.strip().lower())
    except ArmError as error:
        raise _NotKnown(f"{called} is not known. Azure says {error}") from error
    if found is None:
        raise _NotKnown(f"{host_name(host)}, on which it is, has no {called}")
    return MicPrincipal(object_id=found, called=called)


class _RolesOf:
    """What principals may do where, each role read once."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self._known: dict[str, tuple[RolePermission, ...]] = {}

    async def held(self, scope: str, principal: str) -> list[RolePermission]:
        """Return the permissions of a principal at a scope; raise ArmError."""
        held: list[RolePermission] = []
        for role in await self._arm.roles(scope, principal):
            if role not in self._known:
                self._known[role] = await self._arm.role(scope, role)
            held += self._known[role]
        return held
