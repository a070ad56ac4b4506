"""What the operator chose for NMI, read where NMI has it from: the arguments of its DaemonSet."""

from __future__ import annotations

from dataclasses import dataclass

import click

from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.nmi import nmi, settings_from
from podidentity.cli.objects import DAEMON_SETS, Object, find
from podidentity.cli.rollout import DAEMON_SET, NAMESPACE
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.core.permission import Authorization
from podidentity.core.usability import STRICT, Rules
from podidentity.nmi.policies import rules_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """As far as they decide about a pod."""

    rules: Rules = STRICT
    authorization: Authorization = Authorization.RBAC
    identities_namespace: str = IDENTITIES_NAMESPACE


async def choices_of_nmi(kube: Kube) -> Choices:
    """Return what NMI's arguments say; the defaults where they cannot be read."""
    try:
        found = await find(kube, DAEMON_SETS, NAMESPACE, DAEMON_SET)
    except KubeError as error:
        if not error.forbidden:
            raise
        found = None
    return chosen(found) if found else Choices()


def chosen(daemon_set: Object) -> Choices:
    """Return what the DaemonSet's arguments say; the defaults where they are not ours."""
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    arguments = next((each.get("args") or [] for each in containers if each["name"] == "nmi"), [])
    try:
        flags = arguments[1:] if arguments[:1] == ["nmi"] else arguments
        with nmi.make_context("nmi", list(flags)) as context:
            settings = settings_from(context.params)
    except (click.ClickException, click.exceptions.Exit):
        return Choices()
    return Choices(
        rules=rules_of(settings),
        authorization=Authorization(settings.authorization),
        identities_namespace=settings.identities_namespace,
    )
