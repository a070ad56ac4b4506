"""What has the API server refuse the custom resources that NMI could not use.

`enable` puts these policies into a cluster, with the manifest's words (`admission-policies.yaml`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from podidentity.cli.objects import POLICIES, ApplyResult, Object, apply, called, find, removal
from podidentity.cli.output import CommandError
from podidentity.manifests import OWN_SECRETS, admission_policies
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS, KubeError
from podidentity.wire.manifests import API_VERSION, BINDING_KIND, IDENTITY_KIND

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

SINCE = 30
"""The minor version of Kubernetes that has ValidatingAdmissionPolicy."""
KINDS = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
MOST_SECONDS = 30.0
"""How long `enable` waits until a dry-run proves that a policy is in force."""
UNPROVED_SECONDS = 2.0
"""How long `enable` waits for a policy that no dry-run proves. Kubernetes needs up to a second."""
_PAUSE = 0.2
_GUID = "00000000-0000-4000-8000-000000000000"
_REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "podidentity-azureidentities": (IDENTITY_KIND, {"clientID": "no GUID"}),
    OWN_SECRETS: (
        IDENTITY_KIND,
        {
            "type": 1,
            "clientID": _GUID,
            "tenantID": _GUID,
            "clientPassword": {"name": "a", "namespace": "another"},
        },
    ),
    "podidentity-azureidentitybindings": (
        BINDING_KIND,
        {"azureIdentity": "No Name", "selector": "a"},
    ),
}
"""Kind and spec that each policy refuses, and no other policy of ours."""


def wanted(minor: int, *, asked: bool | None, foreign_secrets: bool) -> list[Object]:
    """Return the policies for an API server of this minor version; raise CommandError.

    `asked` is what somebody wants of them; None: to have them where that is possible.
    """
    if asked and minor < SINCE:
        raise CommandError(
            "--admission-policies needs Kubernetes 1.30, which has ValidatingAdmissionPolicy",
            "Leave it out: NMI refuses what it cannot use, and podidentity check names it.",
        )
    if asked is False or minor < SINCE:
        return []
    return admission_policies(foreign_secrets=foreign_secrets)


async def put(kube: Kube, namespace: str, policies: Sequence[Object], *, wait: bool) -> None:
    """Apply these policies, and remove other policies that an earlier `enable` made.

    With `wait`, return when all of that is in force. Raises CommandError.
    """
    removed = await _too_many(kube, policies)
    for each in removed:
        click.echo(await removal(kube, each))
    made = {}
    for each in policies:
        result = await apply(kube, each)
        click.echo(f"{called(each)} {result}")
        if _name(each) in _REFUSED or result is not ApplyResult.UNCHANGED:
            made[_name(each)] = True
    if wait:
        await _in_force(kube, namespace, made | {_name(each): False for each in removed})


async def _in_force(kube: Kube, namespace: str, policies: Mapping[str, bool]) -> None:
    """Return when the API server follows each policy that is True, and none that is False.

    A dry-run proves it for one API server. No dry-run proves a policy for NMI's account, so such a
    policy gets two seconds.
    """
    unproved = False
    for name, wanted in policies.items():
        try:
            async with asyncio.timeout(MOST_SECONDS):
                while True:
                    refuses = await _refuses(kube, namespace, name)
                    if refuses in {wanted, None}:
                        break
                    await asyncio.sleep(_PAUSE)
        except TimeoutError as error:
            raise CommandError(
                f"The API server did not follow the change of ValidatingAdmissionPolicy {name} "
                f"within {MOST_SECONDS:.0f} s. NMI was not changed",
                f"See kubectl describe validatingadmissionpolicy {name}, and run enable again.",
            ) from error
        unproved = unproved or refuses is None
    if unproved:
        await asyncio.sleep(UNPROVED_SECONDS)


async def _refuses(kube: Kube, namespace: str, policy: str) -> bool | None:
    """Return whether a policy refuses what it must refuse; None if no dry-run can tell."""
    if policy not in _REFUSED:
        return None
    kind, spec = _REFUSED[policy]
    resource = AZURE_IDENTITIES if kind == IDENTITY_KIND else AZURE_IDENTITY_BINDINGS
    metadata = {"name": "podidentity-dry-run"}
    body = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    try:
        await kube.ask(resource.path(namespace), body, {"dryRun": "All"})
    except KubeError as error:
        if f"ValidatingAdmissionPolicy '{policy}'" in error.said:
            return True
        if error.status // 100 != 4 or error.throttled:
            raise
        click.echo(
            f"Whether ValidatingAdmissionPolicy {policy} is in force was not proved: {error.said}",
            err=True,
        )
        return None
    return False


async def _too_many(kube: Kube, kept: Sequence[Object]) -> list[Object]:
    names = {each["metadata"]["name"] for each in kept}
    others = [each for each in reversed(admission_policies()) if _name(each) not in names]
    there = {
        _name(each)
        for each in others
        if each["kind"] == "ValidatingAdmissionPolicy"
        and await find(kube, POLICIES, "", _name(each)) is not None
    }
    return [each for each in others if _name(each) in there]


def _name(manifest: Object) -> str:
    return str(manifest["metadata"]["name"])
