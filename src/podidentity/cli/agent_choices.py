"""The operator's choices for NMI, parsed from the container of NMI's DaemonSet.

Variables and files of this machine do not count: they are not those of NMI.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import click

from podidentity.cli.connection import right_to
from podidentity.cli.nmi import nmi, settings_from
from podidentity.cli.objects import Object, unless_forbidden
from podidentity.cli.output import CommandError
from podidentity.cli.redirects import redirect_of
from podidentity.cli.rollout import namespace_of_nmi, nmi_of, pods_of_nmi, ready
from podidentity.core.attestation import STRICT_TRUST, AttestationMode, Trust
from podidentity.core.authorities import PUBLIC, STACK, Cloud
from podidentity.core.data_path import Backend
from podidentity.core.decision import STRICT, Authorization, Rules
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.kernel.rules import Redirect
from podidentity.manifests import ACCOUNT, NAMESPACE
from podidentity.manifests import nmi as nmi_manifests
from podidentity.nmi.rules import rules_of, trust_of

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """Where NMI is, and its flags that affect decisions on a pod."""

    namespace: str = NAMESPACE
    account: str = ACCOUNT
    """NMI's service account; its ClusterRole has the same name."""
    rules: Rules = STRICT
    authorization: Authorization = Authorization.RBAC
    identities_namespace: str = IDENTITIES_NAMESPACE
    attestation: AttestationMode = AttestationMode.KERNEL
    trust: Trust = STRICT_TRUST
    redirect: Redirect = field(default_factory=Redirect)
    tokens_as_node: bool = False
    """Whether NMI asks for pods' tokens as its node."""
    cloud: Cloud | None = PUBLIC
    """None if only a file on NMI's nodes names it."""
    startup_taint: str = ""
    backend: Backend = Backend.NFTABLES
    probe_port: int = 8085
    secure_port: int = 9447
    """Of all metrics, and of what NMI knows; 0: none."""
    on_exit: Literal["keep", "remove", "close"] = "keep"
    """What becomes of NMI's rules when it stops."""
    doubt: str = ""
    """A sentence about flags that could not be read and their assumed values; else ""."""


async def choices_of_nmi(kube: Kube, namespace: str | None = None) -> Choices:
    """Return the choices of NMI; the defaults without NMI, or, with a warning, if unreadable.

    Without a `namespace` NMI is looked for.
    """
    place = await unless_forbidden(namespace_of_nmi(kube, namespace), None)
    if place is None:
        place = NAMESPACE
        right = right_to("list", "daemonsets and clusterrolebindings")
        click.echo(f"NMI is looked for in {place} alone: {right}", err=True)
    unread = _defaults(right_to("list", "daemonsets", place))
    found = await unless_forbidden(nmi_of(kube, place), unread)
    choices = found if isinstance(found, Choices) else chosen(found) if found else Choices()
    if choices.doubt and isinstance(found, dict):
        # An update is stuck at these flags: NMI before it serves on by its own.
        pods: list[Object] = await unless_forbidden(pods_of_nmi(kube, place), [])
        serving = [chosen({**found, "spec": {"template": pod}}) for pod in filter(ready, pods)]
        choices = next((each for each in serving if not each.doubt), choices)
    choices = replace(choices, namespace=place)
    if choices.doubt:
        click.echo(choices.doubt, err=True)
    return choices


def chosen(daemon_set: Object) -> Choices:
    """Return the choices in the DaemonSet; the defaults, with a doubt, if they cannot be parsed."""
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    by_name = {each["name"]: each for each in containers}
    namespace = daemon_set["metadata"].get("namespace", NAMESPACE)
    # Manifests with one container, as in the archived project, call it `nmi`.
    container = by_name.get("serve") or by_name.get("nmi")
    if container is None:
        name = daemon_set["metadata"]["name"]
        return _defaults(f"DaemonSet {namespace}/{name} has no container serve or nmi")
    variables = variables_of(container, namespace)
    arguments = [expanded(each, variables) for each in container.get("args") or []]
    flags = arguments[1:] if arguments[:1] in (["serve"], ["nmi"]) else arguments
    try:
        choices = _parsed(flags, variables)
    except click.ClickException as error:
        choices = _defaults(error.format_message())
    account = daemon_set["spec"]["template"]["spec"].get("serviceAccountName", ACCOUNT)
    return replace(choices, account=account)


def choices_of_flags(flags: Sequence[str]) -> Choices:
    """Return the choices that these flags of NMI make; raise CommandError for wrong ones.

    NMI would end with the same words on each node, after it was put there.
    """
    (container, *_) = nmi_manifests(extra_args=flags)[-1]["spec"]["template"]["spec"]["containers"]
    try:
        _parsed(container["args"][1:], {})
    except click.ClickException as error:
        raise CommandError(
            f"NMI would not start with these flags: {error.format_message()}",
            "Correct --nmi-arg, or PODIDENTITY_NMI_ARGS. docs/reference/nmi.md has all flags.",
        ) from error
    return chosen(nmi_manifests(extra_args=flags)[-1])


def _defaults(why: str) -> Choices:
    return Choices(
        doubt=f"NMI's flags cannot be read, so its defaults are assumed: {why.rstrip('.')}."
    )


def _parsed(flags: list[str], variables: Mapping[str, str]) -> Choices:
    command, known = of_its_own(nmi, variables)
    with command.make_context("nmi", flags, default_map=known) as context:
        given = dict(context.params)
        stack = given["cloud"].strip().lower() == STACK.lower()
        # The file is on NMI's nodes; a file of the same name here would be another one.
        given |= {"cloud": PUBLIC.name, "environment_file": ""} if stack else {}
        settings = settings_from(given)
    choices = Choices(
        rules=rules_of(settings),
        authorization=Authorization(settings.authorization),
        identities_namespace=settings.identities_namespace,
        attestation=settings.attestation,
        trust=trust_of(settings),
        redirect=redirect_of(settings),
        tokens_as_node=settings.tokens_as == "node",
        cloud=settings.cloud,
        startup_taint=settings.startup_taint,
        backend=settings.backend,
        probe_port=settings.probe_port,
        secure_port=settings.metrics_secure_port,
        on_exit=settings.on_exit,
    )
    if not stack:
        return choices
    doubt = "NMI's --azure-environment-file cannot be read here: its authority counts as unknown."
    return replace(choices, cloud=None, doubt=doubt)


def of_its_own(
    program: click.Command, variables: Mapping[str, str]
) -> tuple[click.Command, dict[str, Any]]:
    """Return a copy of a program's command without this shell's variables, and its own ones."""
    command = copy.copy(program)
    command.add_help_option = False
    command.params = [copy.copy(each) for each in program.params if not each.is_eager]
    known = {
        each.name: variables[each.envvar]
        for each in program.params
        if each.name and isinstance(each.envvar, str) and variables.get(each.envvar)
    }
    for each in command.params:
        each.envvar = None
    return command, known


def variables_of(container: Object, namespace: str) -> dict[str, str]:
    """Return a container's variables whose values its pod's template itself contains."""
    found: dict[str, str] = {}
    for each in container.get("env") or []:
        field = ((each.get("valueFrom") or {}).get("fieldRef") or {}).get("fieldPath")
        if field == "metadata.namespace":
            found[each["name"]] = namespace
        elif "value" in each:
            found[each["name"]] = expanded(each["value"], found)
    return found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as a kubelet does; unknown names stay unchanged.

    https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-container/
    """
    for name, value in variables.items():
        text = text.replace(f"$({name})", value)
    return text
