"""What a federated identity needs beside its AzureIdentity: a service account, and Entra's trust.

Only the cluster's part is made here. The federated credential is made in Azure by whoever may; the
command for it is printed, with issuer, subject and audience as Entra will compare them.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-create-trust
"""

from __future__ import annotations

import json
import shlex

import click

from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.objects import NAMESPACES, Object, apply, called, find, remove
from podidentity.cli.wanted import Wanted
from podidentity.core.authorities import PUBLIC
from podidentity.core.federation import IDENTITIES_NAMESPACE, account_name
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import AzureIdentity, Federation, Subject
from podidentity.wire.grants import LABELS
from podidentity.wire.kube import SERVICE_ACCOUNTS

_OF = "aadpodidentity.k8s.io/identity"
"""On a service account: which AzureIdentity it stands for."""


async def make_account(kube: Kube, identity: AzureIdentity) -> None:
    """Make the service account that stands for an identity with a subject of its own."""
    if not _stands_alone(identity):
        return
    if await find(kube, NAMESPACES, "", IDENTITIES_NAMESPACE) is None:
        await _apply(kube, _object("Namespace", {"name": IDENTITIES_NAMESPACE}))
    await _apply(kube, _account(identity.ref))


async def remove_account(kube: Kube, identity: AzureIdentity) -> None:
    """Remove that service account, if `add` made it; what is not there is no failure."""
    if not _stands_alone(identity):
        return
    manifest = _account(identity.ref)
    try:
        there = await find(kube, SERVICE_ACCOUNTS, IDENTITIES_NAMESPACE, account_name(identity.ref))
        labels = (there or {}).get("metadata", {}).get("labels") or {}
        if LABELS.items() <= labels.items() and await remove(kube, manifest):
            click.echo(f"{called(manifest)} deleted")
    except KubeError as error:
        if not error.forbidden:
            raise
        where = f"{IDENTITIES_NAMESPACE}/{account_name(identity.ref)}"
        click.echo(f"left for an administrator: service account {where}", err=True)


async def trust_command(kube: Kube, wanted: Wanted, identity: AzureIdentity) -> str:
    """Return the command that makes Entra trust the cluster's token; "" where it need not."""
    federation = _federation(identity)
    if federation is None or federation.via is not None:
        return ""
    subject = _subject(wanted, federation)
    issuer = await _issuer(kube)
    audience = federation.audience or PUBLIC.exchange_audience
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


def _federation(identity: AzureIdentity) -> Federation | None:
    return identity.entra.federation if identity.entra else None


def _stands_alone(identity: AzureIdentity) -> bool:
    federation = _federation(identity)
    return federation is not None and federation.subject is Subject.IDENTITY


def _subject(wanted: Wanted, federation: Federation) -> str:
    if federation.subject is Subject.IDENTITY:
        return f"system:serviceaccount:{IDENTITIES_NAMESPACE}:{account_name(wanted.ref)}"
    return f"system:serviceaccount:{wanted.ref.namespace}:{wanted.service_account or 'default'}"


async def _issuer(kube: Kube) -> str:
    """Return the issuer of the cluster's tokens, as the API server publishes it."""
    try:
        published = json.loads(await kube.get("/.well-known/openid-configuration"))
        return str(published["issuer"])
    except (KubeError, ValueError, KeyError, TypeError):
        return "ISSUER"


def _account(identity: ObjectRef) -> Object:
    metadata = {
        "name": account_name(identity),
        "namespace": IDENTITIES_NAMESPACE,
        "annotations": {_OF: str(identity)},
    }
    made = _object("ServiceAccount", metadata)
    # Nothing runs by it: no pod gets its token.
    return {**made, "automountServiceAccountToken": False}


def _object(kind: str, metadata: Object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {**metadata, "labels": dict(LABELS)}}


async def _apply(kube: Kube, manifest: Object) -> None:
    click.echo(f"{called(manifest)} {await apply(kube, manifest)}")
