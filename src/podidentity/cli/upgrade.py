"""Grants for what is in a cluster when podidentity comes: written once, never for what comes later.

Where an older release ran, nobody granted anything, and every pod that was served must stay served.
So the first `enable` grants each namespace the identities that are bound in it. It leaves a record
that it did: whoever creates an AzureIdentity afterwards must be granted it by somebody who may.
"""

from __future__ import annotations

import click

from podidentity import __version__
from podidentity.adapters.kube import Kube
from podidentity.cli.objects import CONFIG_MAPS, Object, apply, called, find
from podidentity.cli.rollout import NAMESPACE
from podidentity.cli.use_roles import give
from podidentity.core.permission import permission_names
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS
from podidentity.wire.manifests import parse_binding, parse_identity
from podidentity.wire.rbac import LABELS, Giver, Grantee

NAME = "podidentity-grants"


async def grant_what_is_there(kube: Kube, *, wanted: bool) -> None:
    """Grant what is bound, unless that was done before; not `wanted`: only leave the record."""
    if await find(kube, CONFIG_MAPS, NAMESPACE, NAME) is not None:
        return
    bound = await _bound(kube) if wanted else []
    for identity in bound:
        names, grantee = permission_names(identity), Grantee(identity.ref.namespace)
        await give(kube, names, grantee, Giver.ENABLE)
    if bound:
        click.echo(
            f"Granted what {len(bound)} AzureIdentities have bound already. Whoever creates one "
            "from now on needs podidentity grant, or add."
        )
    made = _record([str(identity.ref) for identity in bound])
    click.echo(f"{called(made)} {await apply(kube, made)}")


async def _bound(kube: Kube) -> list[AzureIdentity]:
    """Return the identities that can be used and that a binding of their namespace names."""
    identities = await kube.list_all(AZURE_IDENTITIES.path())
    bindings = await kube.list_all(AZURE_IDENTITY_BINDINGS.path())
    named = {
        (each.ref.namespace, each.identity)
        for each in map(parse_binding, bindings.items)
        if isinstance(each, AzureIdentityBinding)
    }
    return [
        each
        for each in map(parse_identity, identities.items)
        if isinstance(each, AzureIdentity) and (each.ref.namespace, each.ref.name) in named
    ]


def _record(granted: list[str]) -> Object:
    metadata = {"name": NAME, "namespace": NAMESPACE, "labels": dict(LABELS)}
    data = {"by": f"podidentity enable {__version__}", "for": "\n".join(granted)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
