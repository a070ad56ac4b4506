"""Azure for the commands: the nodes' machines, the record of attachments, and Azure's refusals.

The record lets `delete` detach only the identities that podidentity attached. It is an annotation
on each AzureIdentity that names the same Azure identity: the ids of the hosts, as a JSON list. It
is written before Azure is asked, so that a crash in between forgets nothing. Attachments by others,
such as that of the kubelet's own identity, are never in it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import click

from podidentity.cli.changes import changing
from podidentity.cli.connection import running_command
from podidentity.cli.objects import Object, find_all, identity_of
from podidentity.cli.output import CommandError
from podidentity.core.authorities import PUBLIC, STACK, Cloud
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import AzureIdentity, ResourceId
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import NODES
from podidentity.wire.proxies import parse_proxies

if TYPE_CHECKING:
    import httpx2

    from podidentity.adapters.arm import Arm
    from podidentity.adapters.azure_login import AzureLogin
    from podidentity.adapters.graph import Graph
    from podidentity.adapters.kube import Kube

_T = TypeVar("_T")
_SAY_EVERY = 10.0

# An action that Azure refuses → the built-in role that grants it, and where.
# https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
_ROLES = (
    ("microsoft.managedidentity/", "Managed Identity Operator", "the identity"),
    ("microsoft.compute/", "Virtual Machine Contributor", "the nodes' resource group"),
)
_ACTION = re.compile(r"perform action '([^']+)' on the linked scope|perform action '([^']+)'")


def azure(cloud: Cloud | None, longest: float | None = None) -> Arm:
    """Return a connection to Azure as the person at the shell; raise CommandError.

    It waits for an operation `longest` seconds, or as long as any takes. `cloud` is
    None if NMI runs in an Azure Stack Hub, which only a file on its nodes describes.
    """
    if cloud is None or not cloud.resource_manager:
        raise CommandError(
            "The URL of this cloud's Azure Resource Manager is not known",
            f"Give --cloud={STACK} and --azure-environment-file, with resourceManagerEndpoint.",
        )
    from podidentity.adapters.arm import Arm  # the HTTP client, which help must not load
    from podidentity.adapters.clock import SystemClock

    made = Arm(_login(cloud), SystemClock(), cloud=cloud, transport=by_https())
    if longest is not None:
        made.longest = longest
    return made


def by_https() -> httpx2.AsyncBaseTransport:
    """Return a way to Azure, and to issuers: directly or by the environment's proxy."""
    from podidentity.adapters.azure_transport import AzureTransport

    return AzureTransport(parse_proxies(os.environ))


def graph(cloud: Cloud | None) -> Graph | None:
    """Return a connection to Microsoft Graph as the person at the shell; None if there is none."""
    if cloud is None or not cloud.graph:
        return None
    from podidentity.adapters.graph import Graph

    return Graph(_login(cloud), url=cloud.graph, transport=by_https())


def _login(cloud: Cloud) -> AzureLogin:
    from podidentity.adapters.azure_login import AzureLogin

    # azure-identity has variables of its own for that; the one that all else obeys will do.
    other = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    trusted = None if other else os.environ.get("SSL_CERT_FILE")
    return AzureLogin(authority=authority_of(cloud), trusted=trusted)


def authority_of(cloud: Cloud) -> str | None:
    """Return the authority to sign in at; None in the public cloud: the environment decides."""
    return None if cloud is PUBLIC else cloud.authority.url


def host_name(host: Host) -> str:
    return f"{'scale set' if host.is_scale_set else 'virtual machine'} {host.name}"


def detach_command(host: Host, identity: str) -> str:
    kind = "vmss" if host.is_scale_set else "vm"
    where = ("--resource-group", host.group, "--name", host.name)
    subscription = ("--subscription", host.subscription)
    command = ("az", kind, "identity", "remove", *where, *subscription, "--identities", identity)
    return shlex.join(command)


async def hosts_of(kube: Kube) -> list[Host]:
    """Return the scale sets and virtual machines of the cluster's nodes.

    Raises CommandError if no node is an Azure machine.
    """
    hosts: dict[Host, None] = {}
    others: list[str] = []
    for node in await find_all(kube, NODES):
        try:
            hosts[Host.of_node(node.get("spec", {}).get("providerID", ""))] = None
        except NotAnAzureNode as error:
            others.append(f"node {node['metadata']['name']}: {error}")
    if not hosts:
        raise CommandError(
            f"No node of this cluster is an Azure machine ({'; '.join(others) or 'no node'})",
            "With --no-attach only the Kubernetes objects are created.",
        )
    for other in others:
        click.echo(f"skipped: {other}", err=True)
    return list(hosts)


def progress(what: str) -> Callable[[float], None]:
    """Return a callback that prints every ten seconds that `what` is not done yet."""
    said = 0.0

    def say(elapsed: float) -> None:
        nonlocal said
        if elapsed - said >= _SAY_EVERY:
            said = elapsed
            click.echo(f"  {what}: {elapsed:.0f} s")

    return say


async def on_each(hosts: Sequence[_T], change: Callable[[_T], Awaitable[None]]) -> None:
    """Change all hosts at once, each to its end; then raise the first failure, if any.

    A scale set takes a minute; ten of them, one after the other, would take ten.
    """
    import asyncio

    results = await asyncio.gather(*map(change, hosts), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    for failure in failures[1:]:
        click.echo(f"error: {failure}", err=True)
    if failures:
        raise failures[0]


async def detach_from(arm: Arm, host: Host, *identities: ResourceId) -> None:
    """Detach identities from a machine and say how it goes; one that is gone has none.

    Raises CommandError.
    """
    where, names = host_name(host), ", ".join(each.name for each in identities)
    click.echo(f"detaching from {where}")
    with asking(f"detach {names} from {where}", identities[0]):
        try:
            with changing(f"detach {names} from {where}"):
                await arm.detach(host, *identities, progress=progress(f"detaching from {where}"))
        except ArmError as error:
            if not error.gone:
                raise
            click.echo(f"{where} is gone")
        else:
            click.echo(f"detached from {where}")


@contextmanager
def asking(what: str, about: ResourceId) -> Iterator[None]:
    """Turn an ArmError of the block into a CommandError: `Cannot WHAT. Azure says …`."""
    try:
        yield
    except ArmError as error:
        raise CommandError(f"Cannot {what}. Azure says {error}", next_step(error, about)) from error


def next_step(error: ArmError, about: ResourceId | str) -> str:
    """Return what a person can do about `error`; "" if its own message says it."""
    code = error.code.lower()
    if code in {"authorizationfailed", "linkedauthorizationfailed"}:
        command = running_command()
        more = f" (podidentity rights {command} lists the actions that it needs)" if command else ""
        role = f"{_role(error.message, about)}{more}"
        return f"Ask for the role {role}, then run the command again."
    if "denyassignment" in code:
        return "A deny assignment of the cluster's owner forbids it: no role can grant it."
    if code in {"resourcenotfound", "resourcegroupnotfound", "subscriptionnotfound"}:
        return f"Check the id: az identity show --ids {about}"
    if code == "failedidentityoperation":
        return f"Does the identity exist? az identity show --ids {about}"
    if "throttl" in code or error.status == 429:
        return "Azure is throttling: run the command again in some minutes."
    if code == "timeout":
        return "Azure goes on with it: run the command again, and it goes on, too."
    if code == "unreachable":
        return "Check the network, HTTPS_PROXY and SSL_CERT_FILE."
    return ""


def _role(message: str, about: ResourceId | str) -> str:
    refused = _ACTION.findall(message)
    # In a linked refusal the second action is the missing one.
    action = (refused[-1][0] or refused[-1][1]).lower() if refused else ""
    for prefix, role, scope in _ROLES:
        if action.startswith(prefix):
            where = f"{scope} {about}" if scope == "the identity" else scope
            return f"{role!r} on {where}"
    return "that grants this action"


ATTACHED_TO = "aadpodidentity.k8s.io/attached-to"


def recorded_hosts(identity: Object) -> list[Host]:
    text = (identity["metadata"].get("annotations") or {}).get(ATTACHED_TO, "[]")
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError):
        return []
    hosts = []
    for each in ids if isinstance(ids, list) else ():
        with suppress(NotAnAzureNode):
            hosts.append(Host.parse(str(each)))
    return hosts


def left_attached(identities: Iterable[Object]) -> Iterator[str]:
    """Yield a warning for each machine that AzureIdentities say they are attached to.

    Their owners may write that, and any ARM id: so each warning says whose word it is.
    """
    for each in identities:
        found = identity_of(each)
        if isinstance(found, AzureIdentity) and found.resource_id is not None:
            for host in recorded_hosts(each):
                yield (
                    f"warning: {found.resource_id} stays attached to {host_name(host)}, as "
                    f"AzureIdentity {found.ref} says: without rules each pod there gets its tokens "
                    "of IMDS. If it is for that namespace alone, detach it:\n"
                    f"  {detach_command(host, str(found.resource_id))}"
                )


def record_hosts(identity: Object, hosts: Iterable[Host]) -> None:
    ids = sorted(host.resource_id for host in set(hosts))
    identity["metadata"].setdefault("annotations", {})[ATTACHED_TO] = json.dumps(ids)


def identities_of(identities: Iterable[Object], wanted: ResourceId) -> list[Object]:
    found = []
    for each in identities:
        parsed = identity_of(each)
        if isinstance(parsed, AzureIdentity) and parsed.resource_id == wanted:
            found.append(each)
    return found
