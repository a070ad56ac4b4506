"""Reads the facts about a pod for `explain` and `check`, as far as the person at the shell may.

The facts are: all objects that the rules read, the permissions that the pod needs, the credentials
of its identities, its node's machine, and NMI there. A fact that the person may not read is
reported as unknown. The value of a secret is never shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from secrets import token_bytes
from typing import TYPE_CHECKING

import click
import msgspec

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.entra.certificates import Certificates
from podidentity.cli.azure_access import asking, host_name, recorded_hosts
from podidentity.cli.chain import Credentials, Fact, LinkState, Permissions, is_assigned
from podidentity.cli.connection import right_to
from podidentity.cli.objects import (
    ACCOUNTS,
    BINDINGS,
    EXCEPTIONS,
    IDENTITIES,
    RECORDS,
    Object,
    find,
    list_parsed,
    unless_forbidden,
)
from podidentity.cli.rollout import nmi_of, pods_of_nmi, ready, trouble
from podidentity.core.decision import Authorization, Entitlement, Match, Use, uses_of
from podidentity.core.errors import TokenUnavailable
from podidentity.core.federation import account_name, has_an_account
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import AzureIdentity, IdentityType, ObjectRef, Pod
from podidentity.core.secrets import Secret, client_secret, unusable
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    LEASES,
    NODES,
    SECRETS,
    SERVICE_ACCOUNTS,
    KubeError,
    Resource,
    parse_object,
)
from podidentity.wire.reviews import PATH, InconclusiveReview, parse_review, review
from podidentity.wire.secrets import changed_at, parse_secret

if TYPE_CHECKING:
    from podidentity.adapters.arm import Arm
    from podidentity.adapters.kube import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class PodObjects:
    """All objects that the rules read for one pod."""

    cluster: WatchedCluster
    records: Mapping[ObjectRef, Sequence[Host]]
    """For each AzureIdentity, the hosts that podidentity attached it to."""


async def objects_of(kube: Kube, pod: Pod) -> PodObjects:
    """Return all objects that can affect the decision on `pod`.

    Identities and bindings of other namespaces are included, because one of them may be the reason
    of a refusal. A person who may not read those gets only the objects of the pod's namespace.
    """
    namespace = pod.ref.namespace
    exceptions = await list_parsed(kube, EXCEPTIONS, namespace)
    accounts = await list_parsed(kube, ACCOUNTS, namespace)
    identities = await _all_or_namespace(kube, AZURE_IDENTITIES, namespace)
    bindings = await _all_or_namespace(kube, AZURE_IDENTITY_BINDINGS, namespace)
    assigned = await _all_or_namespace(kube, AZURE_ASSIGNED_IDENTITIES, namespace)
    counted = IDENTITIES.parsed(identities)
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=[pod],
        identities=counted,
        bindings=BINDINGS.parsed(bindings),
        exceptions=exceptions,
        assigned=RECORDS.parsed(assigned),
        accounts=[each for each in accounts if not isinstance(each, ObjectRef)],
    )
    records = {
        each.ref: recorded_hosts(parse_object(item))
        for each, item in zip(counted, identities, strict=True)
        if isinstance(each, AzureIdentity)
    }
    return PodObjects(cluster=cluster, records=records)


async def _all_or_namespace(
    kube: Kube, resource: Resource, namespace: str
) -> Sequence[msgspec.Raw]:
    page = await unless_forbidden(kube.list_all(resource.path()), None)
    if page is None:
        right = right_to("list", resource.plural)
        click.echo(f"other namespaces are not looked at: {right}", err=True)
        page = await kube.list_all(resource.path(namespace))
    return page.items


async def permissions_of(kube: Kube, match: Match, authorization: Authorization) -> Permissions:
    uses = {use for each in match.entitlements for use in uses_of(match.pod, each)}
    return {use: await _permission(kube, use, authorization) for use in uses}


async def _permission(kube: Kube, use: Use, authorization: Authorization) -> Fact:
    who = f"service account {use.service_account}"
    if authorization is Authorization.OFF:
        return Fact(LinkState.UNKNOWN, f"not checked for {who}: NMI has --authorization=off")
    try:
        allowed = parse_review(await kube.ask(PATH, review(use)))
    except InconclusiveReview as error:
        return Fact(LinkState.UNKNOWN, str(error))
    except KubeError as error:
        if not error.forbidden:
            raise
        right = right_to("create", "subjectaccessreviews")
        return Fact(LinkState.UNKNOWN, f"whether {who} may use {use.name} is not known: {right}")
    if allowed:
        return Fact(LinkState.HOLDS, f"{who} may use {use.name}")
    if authorization is Authorization.OBSERVE:
        told = "NMI only reports it (--authorization=observe)"
        return Fact(LinkState.UNKNOWN, f"{who} may not use {use.name}; {told}")
    return Fact(LinkState.BROKEN, f"{who} may not use {use.name}")


async def credentials_of(
    kube: Kube, identities: Iterable[AzureIdentity], identities_namespace: str
) -> Credentials:
    found: dict[ObjectRef, Fact] = {}
    secrets = _Secrets(kube)
    for identity in identities:
        secret = identity.entra.secret if identity.entra else None
        if secret is not None:
            certificate = identity.type is IdentityType.CERTIFICATE
            found[identity.ref] = await secrets.fact(secret, certificate=certificate)
        elif has_an_account(identity):
            account = ObjectRef(identities_namespace, account_name(identity.ref))
            told = f"ServiceAccount {account} exists; only Entra knows if it trusts it"
            found[identity.ref] = Fact(LinkState.HOLDS, told)
            try:
                await kube.get(SERVICE_ACCOUNTS.path(*account))
            except KubeError as error:
                right = right_to("get", "serviceaccounts", account.namespace)
                found[identity.ref] = _unread(error, f"ServiceAccount {account}", right)
    return found


async def secrets_changed(kube: Kube, found: Match) -> float:
    """Return since when the Secrets of a pod's identities hold what they hold; -inf: not known.

    In seconds since 1970, by the API server's clock. Of several Secrets the one that stands
    longest counts: any of them may be the one that was refused.
    """
    credentials = (each.identity.entra for each in found.entitlements)
    refs = {each.secret for each in credentials if each and each.secret}
    secrets = [await unless_forbidden(find(kube, SECRETS, *ref), None) for ref in refs]
    return min((changed_at(each) if each else -inf for each in secrets), default=-inf)


PATIENCE = 30.0
"""Seconds for the certificates of one namespace; an honest one takes a third of one."""


class _Secrets:
    """The secrets that identities name: each is read once, however many name it.

    A tenant may store certificates that are slow to open, and name each a thousand times: the
    command of an administrator who looks at all of them must end.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._certificates = Certificates()
        self._known: dict[tuple[ObjectRef, bool], Fact] = {}
        self._spent: dict[str, float] = {}
        """Seconds, by namespaces."""

    async def fact(self, ref: ObjectRef, *, certificate: bool) -> Fact:
        """Return whether a secret has a certificate, or a client secret, that can be used."""
        if (ref, certificate) not in self._known:
            self._known[ref, certificate] = await self._fact(ref, certificate=certificate)
        return self._known[ref, certificate]

    async def _fact(self, ref: ObjectRef, *, certificate: bool) -> Fact:
        try:
            secret = parse_secret(await self._kube.get(SECRETS.path(*ref)), key=token_bytes())
        except KubeError as error:
            return _unread(error, f"Secret {ref}", right_to("get", "secrets", ref.namespace))
        except ValueError as error:
            return Fact(LinkState.BROKEN, f"Secret {ref} cannot be read: {error}")
        try:
            if certificate:
                return await self._opened(secret)
            client_secret(secret)
        except TokenUnavailable as error:
            return Fact(LinkState.BROKEN, str(error).rstrip("."))
        return Fact(LinkState.HOLDS, f"Secret {ref} has a client secret")

    async def _opened(self, secret: Secret) -> Fact:
        """Open a certificate, as long as those of its namespace have not taken too long."""
        ref = secret.ref
        spent = self._spent.get(ref.namespace, 0.0)
        if spent > PATIENCE:
            slow = f"those of namespace {ref.namespace} took {spent:.0f} s to open"
            return Fact(LinkState.UNKNOWN, f"the certificate in Secret {ref} is not known: {slow}")
        began = time.monotonic()
        try:
            found = await self._certificates.of(secret)
        finally:
            self._spent[ref.namespace] = spent + time.monotonic() - began
        if fault := found.fault(time.time()):
            raise unusable(secret, fault)
        ends = datetime.fromtimestamp(found.ends, UTC)
        return Fact(LinkState.HOLDS, f"Secret {ref} has a certificate, valid until {ends:%Y-%m-%d}")


def _unread(error: KubeError, what: str, right: str) -> Fact:
    if error.forbidden:
        return Fact(LinkState.UNKNOWN, f"{what} is not known: {right}")
    if not error.not_found:
        raise error
    return Fact(LinkState.BROKEN, f"{what} does not exist")


async def attached_of(
    kube: Kube,
    pod: Pod,
    entitlements: Sequence[Entitlement],
    records: Mapping[ObjectRef, Sequence[Host]],
    azure: Callable[[], Arm] | None,
) -> dict[ObjectRef, Fact]:
    """Return which identities are attached to the machine of `pod`.

    `azure` connects to Azure, None asks it nothing.
    """
    identities = [each.identity for each in entitlements if is_assigned(each.identity)]
    if not pod.node:
        unknown = Fact(LinkState.UNKNOWN, "the pod is on no node yet")
        return {each.ref: unknown for each in identities}
    host = await _host_of(kube, pod.node) if identities else None
    attached: dict[ObjectRef, Fact] = {}
    for identity in identities:
        if not isinstance(host, Host):
            attached[identity.ref] = host or Fact(LinkState.UNKNOWN, "")
        elif azure:
            async with azure() as arm:
                attached[identity.ref] = await _asked(arm, host, identity)
        elif host in records.get(identity.ref, ()):
            told = f"attached to {host_name(host)} by podidentity add"
            attached[identity.ref] = Fact(LinkState.HOLDS, told)
        else:
            told = f"not known for {host_name(host)}; --azure asks Azure"
            attached[identity.ref] = Fact(LinkState.UNKNOWN, told)
    return attached


async def _host_of(kube: Kube, node: str) -> Host | Fact:
    unread = Fact(LinkState.UNKNOWN, f"node {node} is not known: {right_to('get', 'nodes')}")
    found = await unless_forbidden(find(kube, NODES, "", node), unread)
    if isinstance(found, Fact):
        return found
    try:
        return Host.of_node((found or {}).get("spec", {}).get("providerID", ""))
    except NotAnAzureNode as error:
        return Fact(LinkState.UNKNOWN, f"node {node} is no Azure machine: {error}")


async def _asked(arm: Arm, host: Host, identity: AzureIdentity) -> Fact:
    if identity.resource_id is None:
        return Fact(LinkState.UNKNOWN, "its AzureIdentity has no resourceID to ask Azure about")
    where = host_name(host)
    with asking(f"read the identities of {where}", identity.resource_id):
        if (await arm.host(host)).has(identity.resource_id):
            return Fact(LinkState.HOLDS, f"attached to {where}, according to Azure")
    return Fact(
        LinkState.BROKEN, f"not attached to {where}, according to Azure; run podidentity add"
    )


async def nmi_of_node(kube: Kube, namespace: str, node: str) -> tuple[Fact, Object | None]:
    """Return whether NMI is ready on a node, and its pod if it is; `namespace` is NMI's."""
    if not node:
        return Fact(LinkState.UNKNOWN, "the pod is on no node yet"), None
    there = pods_of_nmi(kube, namespace, fieldSelector=f"spec.nodeName={node}")
    if (pods := await unless_forbidden(there, None)) is None:
        return Fact(LinkState.UNKNOWN, f"not known: {right_to('list', 'pods', namespace)}"), None
    if not pods:
        return Fact(LinkState.BROKEN, await _why_none(kube, namespace, node)), None
    agent = max(pods, key=ready)
    name = agent["metadata"]["name"]
    if ready(agent):
        text = f"{name} is ready on node {node}"
        return said_ready(text, await _silence(kube, node)), agent
    return Fact(LinkState.BROKEN, f"{name} on node {node} is not ready: {trouble(agent)}"), None


async def _why_none(kube: Kube, namespace: str, node: str) -> str:
    from podidentity.cli.checks.nodes import why_without  # slow to import, and rarely needed

    try:
        daemon_set = await nmi_of(kube, namespace)
        found = await find(kube, NODES, "", node)
    except KubeError as error:
        if not error.forbidden:
            raise
        return f"no NMI on node {node}; podidentity check says why"
    if daemon_set is None:
        return f"no NMI on node {node}, nor in this cluster; run podidentity enable"
    why, mend = why_without(daemon_set, found or {"metadata": {}})
    return f"no NMI on node {node}: {why}. {mend}"


SILENT = 20.0
"""Seconds after which a kubelet is silent: it shows that it lives every ten.

https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats
"""
_LEASES_OF_NODES = "kube-node-lease"


def said_ready(text: str, silence: float | str) -> Fact:
    """Return the fact that NMI is ready, which `text` says, and its kubelet `silence` seconds ago.

    A text in place of seconds says why they are not known; "": no kubelet shows that it lives.
    """
    if isinstance(silence, str):
        when = f", as its kubelet said last ({silence})" if silence else ""
        return Fact(LinkState.HOLDS, f"{text}{when}")
    if silence < SILENT:
        return Fact(LinkState.HOLDS, text)
    return Fact(
        LinkState.UNKNOWN,
        f"{text}, as its kubelet said last, which is silent for {silence:.0f} s by this machine's "
        "clock",
    )


async def _silence(kube: Kube, node: str) -> float | str:
    """Return the seconds since a node's kubelet has shown that it lives, or why nobody knows."""
    unread = f"how long ago is not known: {right_to('get', 'leases', _LEASES_OF_NODES)}"
    found = await unless_forbidden(find(kube, LEASES, _LEASES_OF_NODES, node), unread)
    if isinstance(found, str):
        return found
    try:
        renewed = datetime.fromisoformat(str(((found or {}).get("spec") or {}).get("renewTime")))
        return time.time() - renewed.timestamp()
    except ValueError:
        return ""
