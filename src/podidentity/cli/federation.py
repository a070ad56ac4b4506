"""The service account of a federated identity, and the command that makes Entra trust it.

A command creates only the cluster's part. The federated credential in Azure needs other rights, so
`add` prints the command for it, with issuer, subject and audience as Entra compares them.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click

from podidentity.cli.add_request import AddRequest
from podidentity.cli.agent_choices import Choices
from podidentity.cli.connection import right_to
from podidentity.cli.objects import Object, apply, called, find, find_all, remove
from podidentity.core.federation import account_name, has_an_account
from podidentity.core.resources import AssertionSubject, AzureIdentity, Federation, ObjectRef
from podidentity.manifests import account_tokens
from podidentity.wire.kube import SERVICE_ACCOUNTS, KubeError
from podidentity.wire.rbac import LABELS, SELECTOR, is_ours

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_OF = "aadpodidentity.k8s.io/identity"
"""Annotation of a service account: the AzureIdentity that it stands for."""
_DISCOVERY = "/.well-known/openid-configuration"
_ISSUER, _AUDIENCE = "ISSUER", "AUDIENCE"
"""Placeholders in the command for values that are not known here."""


async def make_account(kube: Kube, identity: AzureIdentity, choices: Choices) -> None:
    """Create the service account that stands for an identity with a subject of its own.

    NMI may ask for its token, by name: no pod has the account, so no node may.
    """
    if not has_an_account(identity):
        return
    namespace = choices.identities_namespace
    try:
        await _apply(kube, _account(identity.ref, namespace))
    except KubeError as error:
        if not error.not_found:
            raise
        await _apply(kube, _object("Namespace", {"name": namespace}))
        await _apply(kube, _account(identity.ref, namespace))
    await _permit(kube, account_name(identity.ref), choices)


async def permit_accounts(kube: Kube, choices: Choices) -> None:
    namespace = choices.identities_namespace
    for each in await find_all(kube, SERVICE_ACCOUNTS, namespace, labelSelector=SELECTOR):
        if _OF in (each["metadata"].get("annotations") or {}):
            await _permit(kube, each["metadata"]["name"], choices)


async def _permit(kube: Kube, account: str, choices: Choices) -> None:
    for manifest in account_tokens(
        account,
        accounts=choices.identities_namespace,
        namespace=choices.namespace,
        agent=choices.account,
    ):
        await _apply(kube, manifest)


async def remove_account(kube: Kube, identity: AzureIdentity, namespace: str) -> None:
    """Remove that service account, if `add` created it; a missing one is no failure.

    `namespace` is that of NMI's `--identities-namespace`.
    """
    manifest = _account(identity.ref, namespace)
    try:
        there = await find(kube, SERVICE_ACCOUNTS, namespace, account_name(identity.ref))
        if there is not None and not is_ours(there):
            return
        # The rights first, and where the account is gone as well: a run may have ended between.
        for right in reversed(account_tokens(account_name(identity.ref), accounts=namespace)):
            await remove(kube, right)
        if await remove(kube, manifest):
            click.echo(f"{called(manifest)} deleted")
    except KubeError as error:
        if not error.forbidden:
            raise
        where = f"{namespace}/{account_name(identity.ref)}"
        click.echo(
            f"an administrator must delete the service account {where}. {error.message}", err=True
        )


async def trust_command(
    kube: Kube, wanted: AddRequest, identity: AzureIdentity, choices: Choices
) -> str:
    """Return the command that makes Entra trust the cluster's token; "" if none is needed."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is not None:
        return ""
    subject = _subject(wanted, federation, choices.identities_namespace)
    issuer = await _issuer(kube)
    audience = federation.audience or _audience(choices)
    name = f"{wanted.ref.namespace}-{wanted.ref.name}"[:120]
    if wanted.resource_id is not None:
        return shlex.join(
            [
                *("az", "identity", "federated-credential", "create", "--name", name),
                *("--identity-name", wanted.resource_id.name),
                *("--resource-group", wanted.resource_id.group),
                *("--subscription", wanted.resource_id.subscription),
                *("--issuer", issuer, "--subject", subject, "--audiences", audience),
            ]
        )
    trust = {"name": name, "issuer": issuer, "subject": subject, "audiences": [audience]}
    return shlex.join(
        [
            *("az", "ad", "app", "federated-credential", "create"),
            *("--id", str(identity.client_id), "--parameters", json.dumps(trust)),
        ]
    )


def _subject(wanted: AddRequest, federation: Federation, namespace: str) -> str:
    if federation.subject is AssertionSubject.IDENTITY:
        return f"system:serviceaccount:{namespace}:{account_name(wanted.ref)}"
    return f"system:serviceaccount:{wanted.ref.namespace}:{wanted.service_account or 'default'}"


async def _issuer(kube: Kube) -> str:
    try:
        published = json.loads(await kube.get(_DISCOVERY))
        return str(published["issuer"])
    except (KubeError, ValueError, KeyError, TypeError) as error:
        forbidden = isinstance(error, KubeError) and error.forbidden
        why = f" ({right_to('get', _DISCOVERY)})" if forbidden else ""
        click.echo(
            f"could not read the issuer of the cluster's tokens{why}: replace {_ISSUER} by that of "
            f"kubectl get --raw {_DISCOVERY}",
            err=True,
        )
        return _ISSUER


def _audience(choices: Choices) -> str:
    if choices.cloud is not None:
        return choices.cloud.exchange_audience
    click.echo(
        f"NMI's cloud is not known here: replace {_AUDIENCE} by its exchange audience", err=True
    )
    return _AUDIENCE


def _account(identity: ObjectRef, namespace: str) -> Object:
    metadata = {
        "name": account_name(identity),
        "namespace": namespace,
        "annotations": {_OF: str(identity)},
    }
    made = _object("ServiceAccount", metadata)
    # No pod runs with it, so no pod needs its token.
    return {**made, "automountServiceAccountToken": False}


def _object(kind: str, metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {**metadata, "labels": dict(LABELS)}}


async def _apply(kube: Kube, manifest: Object) -> None:
    click.echo(f"{called(manifest)} {await apply(kube, manifest)}")
