"""MIC in a cluster: `enable` and `disable` put it there and take it away, others look for it.

Where MIC runs, ours or that of AAD Pod Identity, it changes Azure's machines, and `add` and
`delete` leave them alone: two would undo each other's work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from podidentity.cli.admin_secret import AdminSecret
from podidentity.cli.agent_choices import expanded, of_its_own, variables_of
from podidentity.cli.commands.mic import mic, settings_from
from podidentity.cli.impostors import genuine
from podidentity.cli.mic import PODS_OF_MIC, deployments_of_mic
from podidentity.cli.objects import (
    DEPLOYMENTS,
    Object,
    apply,
    called,
    find,
    find_all,
    in_order_of_removal,
    place_of,
    ref_of,
    remove,
)
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import is_ours, troubles_of
from podidentity.manifests import ADMIN_SECRET, mic_exception
from podidentity.manifests import mic as manifests_of_mic
from podidentity.settings import MicSettings
from podidentity.wire.kube import AZURE_POD_IDENTITY_EXCEPTIONS, CLUSTER_ROLES, PODS, SECRETS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

DEPLOYMENT = "mic"
ACCOUNT = "podidentity-mic"
"""Its service account, and its roles."""
_OLD_LABELS = ("app.kubernetes.io/component=mic", "component=mic")
"""Of the archived project's chart, and of its manifests.

https://github.com/Azure/aad-pod-identity/tree/master/charts/aad-pod-identity/templates
https://github.com/Azure/aad-pod-identity/tree/master/deploy/infra
"""
OLD_EXCEPTION = "mic-exception"
"""Of its manifests, in the namespace of its MIC: `default`."""


async def archived_mics(kube: Kube) -> list[Object]:
    found = {
        ref_of(each): each
        for labels in _OLD_LABELS
        for each in await find_all(kube, DEPLOYMENTS, labelSelector=labels)
        if not is_ours(each)
    }
    return await genuine(kube, list(found.values()))


async def who_attaches(kube: Kube) -> str:
    """Return the Deployment of the controller that changes Azure's machines; "" if none does."""
    for each in (*await deployments_of_mic(kube), *await archived_mics(kube)):
        return f"MIC, Deployment {ref_of(each)}"
    return ""


async def namespaces_of_archived_exceptions(kube: Kube) -> list[str]:
    """Return where the archived MIC runs and has its exception, without which it has no token."""
    places = []
    for namespace in sorted({each["metadata"]["namespace"] for each in await archived_mics(kube)}):
        found = await find(kube, AZURE_POD_IDENTITY_EXCEPTIONS, namespace, OLD_EXCEPTION)
        if found is not None:
            places.append(namespace)
    return places


def chosen_of(flags: Sequence[str]) -> MicSettings:
    with _context(flags) as context:
        return settings_from(context.params)


def says_how_it_signs_in(flags: Sequence[str]) -> bool:
    """Return whether these flags of MIC say how it signs in to Azure, or that it does not."""
    with _context(flags) as context:
        given = [
            context.get_parameter_source(each) is ParameterSource.COMMANDLINE for each in _SIGN_IN
        ]
        return any(given) or context.params["assign"] == "none"


def refuse_without_sign_in(flags: Sequence[str], secret: AdminSecret) -> None:
    """Raise CommandError if MIC could not sign in to Azure with these flags and that Secret."""
    from podidentity.mic.signin import Configured, NoCredential, credential_of

    settings = chosen_of(flags)
    client = settings.client_id or secret.client_id
    if says_how_it_signs_in(flags) and (settings.assign == "none" or not settings.client_id):
        return
    given = Configured(
        client_id=client,
        client_secret="in place of MIC's own token" if client else "",
        tenant=settings.tenant or secret.tenant,
        managed=settings.managed_identity or secret.managed,
    )
    try:
        credential_of(given)
    except NoCredential as error:
        why = str(error).partition(". ")[0]
        raise CommandError(
            f"MIC cannot sign in to Azure: {why}. Nothing was changed",
            "Give --mic-arg=--azure-client-id=ID and --mic-arg=--azure-tenant-id=ID, or "
            "--mic-arg=--use-managed-identity, or --mic-arg=--cloudconfig=PATH: "
            "docs/how-to/run-mic.md.",
        ) from error


_SIGN_IN = ("managed_identity", "cloud_config", "client_id")
"""The settings each of which decides by what MIC signs in."""


def _context(flags: Sequence[str]) -> click.Context:
    command, _ = of_its_own(mic, {})
    return command.make_context("mic", ["--own-namespace=kube-system", *flags])


def settings_of(deployment: Object) -> MicSettings:
    """Return the settings of a MIC in the cluster; raise click.UsageError.

    Variables whose values are in Secrets are not known, and those of this shell do not count.
    """
    namespace = deployment["metadata"]["namespace"]
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    variables = variables_of(container, namespace)
    command, known = of_its_own(mic, variables)
    flags = [expanded(each, variables) for each in flags_of(deployment)]
    known = {"own_namespace": namespace, **known}
    with command.make_context("mic", flags, default_map=known) as context:
        return settings_from(context.params)


async def lacks_sign_in(kube: Kube, deployment: Object) -> bool:
    """Return whether nothing says how a MIC of the cluster signs in; raise KubeError.

    False where that is not known: flags that cannot be read, or a Secret of another name.
    """
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    sources = [each.get("valueFrom") or {} for each in container.get("env") or ()]
    secrets = {each["secretKeyRef"]["name"] for each in sources if each.get("secretKeyRef")}
    if container.get("envFrom") or secrets - {ADMIN_SECRET}:
        return False
    namespace = deployment["metadata"]["namespace"]
    try:
        settings = settings_of(deployment)
        # A Secret is looked for where alone it can say it: `admin_secret.read`.
        secret = await find(kube, SECRETS, namespace, ADMIN_SECRET)
    except click.ClickException:
        return False
    told = settings.managed_identity or settings.cloud_config or settings.client_id
    return not (told or secret or settings.assign == "none")


def flags_of(deployment: Object) -> list[str]:
    (container, *_) = deployment["spec"]["template"]["spec"]["containers"]
    return [each for each in container.get("args", ()) if each != "mic"]


def flags_of_nmi(settings: MicSettings) -> list[str]:
    return ["--operation-mode=standard"] if settings.assign == "pods" else []


async def put(kube: Kube, wanted: Sequence[Object]) -> None:
    """Create MIC's objects, or change them; without an exception that it needs no more."""
    if not wanted:
        return
    for manifest in wanted:
        click.echo(f"{called(manifest)} {await apply(kube, manifest)}")
    exception = mic_exception(wanted[-1]["metadata"]["namespace"])
    if exception not in wanted and await remove(kube, exception):
        click.echo(f"{called(exception)} deleted: MIC signs in without it")
    for each in await archived_mics(kube):
        click.echo(
            f"MIC of AAD Pod Identity, Deployment {ref_of(each)}, works still: ours waits until it "
            "is deleted.",
            err=True,
        )


async def places(kube: Kube, namespace: str) -> list[str]:
    """Return the namespaces of what there is of MIC; [] if there is nothing.

    Where its Deployment is gone, with its namespace or in a removal that did not end, what is left
    is found by its cluster-wide roles; `namespace` where these alone are.
    """
    if found := [each["metadata"]["namespace"] for each in await deployments_of_mic(kube)]:
        return found
    if place := await place_of(kube, ACCOUNT):
        return [place]
    return [namespace] if await find(kube, CLUSTER_ROLES, "", ACCOUNT) is not None else []


async def take_away(kube: Kube, namespace: str) -> None:
    """Delete MIC's objects, last of all what `places` finds; its ledgers and records stay."""
    manifests = manifests_of_mic(namespace=namespace, managed_identity=True)
    for manifest in in_order_of_removal(manifests):
        if await remove(kube, manifest):
            click.echo(f"{called(manifest)} deleted")


async def is_ready(kube: Kube, deployment: Object) -> bool:
    found = await find(kube, DEPLOYMENTS, *ref_of(deployment))
    return found is not None and replicas(found)[0]


def replicas(deployment: Object) -> tuple[bool, str]:
    """Return whether all replicas are those of the newest template and ready, and it in words."""
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    observed = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 1)
    ready = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
    words = f"MIC is ready in {ready} of {wanted} replicas" if observed else ""
    return observed and ready >= wanted, words


async def pods(kube: Kube, namespace: str) -> list[Object]:
    found = await find_all(kube, PODS, namespace, labelSelector=PODS_OF_MIC)
    return list(filter(is_ours, found))


async def troubles(kube: Kube, namespace: str) -> list[str]:
    return await troubles_of(kube, await pods(kube, namespace))
