"""`podidentity enable` and `disable`: put the custom resources and NMI into a cluster, or out."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from podidentity import __version__
from podidentity.cli import (
    admin_secret,
    admission_policies,
    attachments,
    controller,
    local_redirect,
    lost_releases,
)
from podidentity.cli.agent_choices import Choices, choices_of_flags, chosen
from podidentity.cli.azure_access import left_attached
from podidentity.cli.changes import only_waiting
from podidentity.cli.checks.versions import version_of
from podidentity.cli.commands import enable as command_line
from podidentity.cli.connection import ClusterTarget, on_cluster, right_to
from podidentity.cli.federation import permit_accounts
from podidentity.cli.impostors import genuine
from podidentity.cli.kept_options import RECORD, Told, kept_of, told_now
from podidentity.cli.mic import deployments_of_mic
from podidentity.cli.objects import (
    BINDINGS,
    DAEMON_SETS,
    IDENTITIES,
    NAMESPACES,
    POLICY_BINDINGS,
    Object,
    apply,
    called,
    create_once,
    find,
    find_all,
    find_all_where_known,
    find_where_known,
    in_order_of_removal,
    is_unchanged,
    list_parsed,
    minor_version,
    place_of,
    ref_of,
    removal,
    remove,
    unless_forbidden,
    without_none,
)
from podidentity.cli.output import CommandError, ask_first, documents
from podidentity.cli.rollout import (
    DAEMON_SET,
    NO_IMAGE,
    has_one_container,
    is_archived_nmi,
    namespace_of_nmi,
    nmi_of,
    nmis,
    release_of,
    troubles,
    until_gone,
    until_ready,
    until_served,
)
from podidentity.cli.use_roles import adopt, give, take_all
from podidentity.core.authorities import Cloud
from podidentity.core.data_path import Backend
from podidentity.core.decision import permission_names
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding
from podidentity.manifests import (
    ACCOUNT,
    EVERY_TYPE,
    IMAGE,
    NAMESPACE,
    OWN_NAMESPACE,
    LocalRedirect,
    aks_exceptions,
    automatic_tolerations,
    crds,
    nmi,
    startup_taint_rights,
)
from podidentity.manifests import admission_policies as every_policy
from podidentity.manifests import local_redirect as manifests_of_redirect
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    KubeError,
)
from podidentity.wire.rbac import LABELS, Giver, Grantee

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


def enable(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    agents: str | None,
    nmi_arg: tuple[str, ...],
    nmi_args: str,
    grants: bool,
    node_labels: tuple[tuple[str, str | None], ...],
    with_mic: bool | None,
    mic_arg: tuple[str, ...],
    forget: tuple[str, ...],
    wait: bool,
    timeout: float,
    dry_run: bool,
    output: str,
    **_kept: Any,  # noqa: ANN401 - click's; `told_now` reads those that were given
) -> None:
    if nmi_args:
        click.echo(f"flags of NMI: {nmi_args}", err=True)
    try:
        words = shlex.split(nmi_args)
    except ValueError as error:
        raise click.UsageError(f"PODIDENTITY_NMI_ARGS cannot be read: {error}.") from None
    now = told_now(ctx, (*words, *nmi_arg))
    if mic_arg:
        controller.chosen_of(mic_arg)
        with_mic = True if with_mic is None else with_mic
    wanted = partial(
        _wanted,
        agents=agents,
        node_labels=dict(node_labels),
        mic=_MicWanted(there=with_mic, flags=mic_arg),
        grants=grants,
        wait=wait,
        seconds=timeout,
    )
    # Faults of the options themselves are told before the cluster is asked.
    alone = wanted(Told().and_now(now))
    if dry_run:
        click.echo(documents(list(map(without_none, _without_cluster(alone))), output))
    else:
        work = partial(_enable_as, now=now, forget=forget, wanted_of=wanted)
        on_cluster(target, work, undo=lambda _: "  podidentity disable")


def _wanted(
    told: Told,
    *,
    agents: str | None,
    node_labels: Mapping[str, str | None],
    mic: _MicWanted,
    grants: bool,
    wait: bool,
    seconds: float,
) -> _Wanted:
    choices = choices_of_flags(told.flags)
    options = told.options
    profile = command_line.Profile(options.get("profile", command_line.Profile.STANDARD))
    automatic = profile is command_line.Profile.AKS_AUTOMATIC
    redirect = None
    if options.get("backend") == Backend.LRP:
        # Where Cilium leads requests from and to, by NMI's own flags.
        redirect = LocalRedirect(
            metadata_ip=choices.redirect.metadata_ip,
            metadata_port=choices.redirect.metadata_port,
            port=choices.redirect.listen_port,
            probe_port=choices.probe_port,
        )
    image, startup_taint = options.get("image", IMAGE), options.get("startup_taint", "")
    proxy_secret = options.get("proxy_secret", "")
    made = partial(
        nmi,
        image=image,
        extra_args=told.flags,
        audiences=options.get("audiences", ()),
        identities=choices.identities_namespace,
        startup_taint=startup_taint,
        tolerations=tolerations_of(profile, options.get("tolerations", ())),
        node_labels=node_labels,
        redirect=redirect,
        proxy_secret=proxy_secret,
        types=[int(each) for each in options.get("types", ())] or EVERY_TYPE,
    )
    if automatic and agents == NAMESPACE:
        raise CommandError(
            f"AKS Automatic keeps {NAMESPACE} to itself",
            f"Choose another --namespace, or none: NMI is in {OWN_NAMESPACE} then.",
        )
    return _Wanted(
        made=made,
        flags=told.flags,
        record=shlex.join(told.record(command_line.enable)),
        agents=agents,
        automatic=automatic,
        exceptions=[] if automatic or not options.get("with_aks", True) else aks_exceptions(),
        node_tokens=options.get("node_tokens"),
        policies=options.get("with_policies"),
        foreign_secrets=choices.rules.foreign_secrets,
        startup_taint=bool(startup_taint),
        redirect=redirect,
        mic=replace(mic, image=image, proxy_secret=proxy_secret),
        grants=grants,
        wait=wait,
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _MicWanted:
    """What somebody wants of MIC."""

    image: str = IMAGE
    there: bool | None
    """None: as it is."""
    flags: tuple[str, ...]
    proxy_secret: str = ""

    def manifests(
        self, flags: Sequence[str], namespace: str, *, admin_identity: bool = False
    ) -> list[Object]:
        return controller.manifests(
            self.image, flags, namespace, self.proxy_secret, admin_identity=admin_identity
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What somebody wants of `enable`."""

    made: Callable[..., list[Object]]
    """Returns the manifests, given what only the cluster tells."""
    flags: tuple[str, ...]
    record: str
    """What the next `enable` is to know of it."""
    agents: str | None
    """Namespace of NMI; None: where it is, or the usual one."""
    automatic: bool
    exceptions: list[Object]
    node_tokens: bool | None
    policies: bool | None
    """Those for custom resources; None: where the API server has them."""
    foreign_secrets: bool
    startup_taint: bool
    redirect: LocalRedirect | None
    """Where Cilium leads requests; None if it leads none."""
    mic: _MicWanted
    grants: bool
    wait: bool
    seconds: float

    @property
    def usual(self) -> str:
        return OWN_NAMESPACE if self.automatic else NAMESPACE

    def manifests(self, **known: Any) -> list[Object]:  # noqa: ANN401 - those of `manifests.nmi`
        manifests = self.made(**known)
        if self.record:
            manifests[-1]["metadata"]["annotations"] = {RECORD: self.record}
        return manifests


def _without_cluster(wanted: _Wanted) -> list[Object]:
    """Return all objects, as far as they are known without the cluster.

    Nobody knows which namespaces of extensions are there, and whether a policy that denies IMDS
    would cut pods off. The exceptions come last: the API server must serve the custom resources
    first.
    """
    always = [each for each in wanted.exceptions if each["metadata"]["namespace"] == NAMESPACE]
    namespace = wanted.agents or wanted.usual
    mode: list[str] = []
    of_mic: list[Object] = []
    if wanted.mic.there:
        mode = controller.flags_of_nmi(controller.chosen_of(wanted.mic.flags))
        of_mic = wanted.mic.manifests(wanted.mic.flags, namespace)
    manifests = wanted.manifests(
        derived_args=mode,
        namespace=namespace,
        as_node=bool(wanted.node_tokens),
        policy=True,
        standard=_is_standard((*mode, *wanted.flags)),
    )
    policies = admission_policies.wanted(
        admission_policies.SINCE, asked=wanted.policies, foreign_secrets=wanted.foreign_secrets
    )
    return [*crds(), *policies, *manifests, *of_mic, *always]


def _is_standard(flags: Sequence[str]) -> bool:
    return chosen(nmi(extra_args=flags)[-1]).rules.standard


async def _enable_as(
    kube: Kube, now: Told, forget: Sequence[str], wanted_of: Callable[[Told], _Wanted]
) -> None:
    await _refuse_release(kube, "`helm upgrade` changes it")
    wanted = wanted_of(await _told(kube, now, forget))
    if not wanted.automatic:
        await _refuse_automatic(kube)
    if wanted.redirect:
        await local_redirect.require_policies(kube)
    namespace = await _one_place(kube, wanted.agents, wanted.usual)
    await _refuse_archived_of_our_name(kube, namespace)
    there = [
        each
        for each in wanted.exceptions
        if await find(kube, NAMESPACES, "", each["metadata"]["namespace"]) is not None
    ]
    archived = await controller.namespaces_of_archived_exceptions(kube)
    counting = exceptions_flag(there, namespace, archived)
    for_mic, of_mic = await _mic(kube, wanted.mic, namespace)
    before = await nmi_of(kube, namespace)
    waits_for_mic = (
        bool(of_mic and before and not chosen(before).rules.standard)
    ) and _is_standard((*for_mic, *wanted.flags))
    if waits_for_mic and not wanted.wait and not await controller.is_ready(kube, of_mic[-1]):
        for_mic = []
        click.echo(
            "NMI stays in managed mode, for MIC is not ready. When MIC is: podidentity enable",
            err=True,
        )
    minor = await minor_version(kube)
    policies = admission_policies.wanted(
        minor, asked=wanted.policies, foreign_secrets=wanted.foreign_secrets
    )
    if wanted.startup_taint and minor < admission_policies.SINCE:
        raise CommandError(
            "--startup-taint needs Kubernetes 1.30: without a ValidatingAdmissionPolicy NMI could "
            "change every node",
            "Close the window by the node unit or AKS's IMDS restriction instead.",
        )
    as_node = wanted.node_tokens
    derived = (*counting, *for_mic)
    manifests = wanted.manifests(
        derived_args=derived,
        standard=_is_standard((*derived, *wanted.flags)),
        namespace=namespace,
        as_node=minor >= NODE_TOKENS_SINCE if as_node is None else as_node,
        policy=minor >= admission_policies.SINCE,
    )
    manifests[-1]["metadata"].setdefault("annotations", {RECORD: None})
    await _take_back(kube, namespace, wanted)
    await _enable(
        kube,
        namespace,
        manifests,
        there,
        policies=policies if minor >= admission_policies.SINCE else None,
        of_mic=of_mic,
        record=namespace if wanted.automatic else NAMESPACE,
        waits_for_mic=waits_for_mic and wanted.wait,
        wanted=wanted,
    )
    await _finish(kube, wanted, namespace, [] if waits_for_mic else of_mic)
    await _tell_of_archived_nmi(kube)


async def _finish(kube: Kube, wanted: _Wanted, namespace: str, of_mic: Sequence[Object]) -> None:
    if wanted.wait:
        with nullcontext() if wanted.redirect else only_waiting(_COMES_UP):
            if of_mic:
                await _mic_ready(kube, of_mic, wanted.seconds)
            await _ready(kube, namespace, wanted.seconds)
    if wanted.redirect:
        deny = manifests_of_redirect(wanted.redirect, namespace)[-1]
        seconds = TOLD_SECONDS if wanted.wait else 0.0
        await local_redirect.deny_where_possible(kube, deny, namespace, seconds)


async def _told(kube: Kube, now: Told, forget: Sequence[str]) -> Told:
    """Return what counts of what enable was told before, with what it is told now; say the first.

    Raises CommandError if nobody can read what it was told.
    """
    there = await nmi_of(kube, await namespace_of_nmi(kube))
    if command_line.EVERYTHING in forget:
        return Told().and_now(now)
    before = kept_of(there, command_line.enable)
    kept = before.without(forget).left_by(now)
    if words := kept.words(command_line.enable):
        click.echo(
            f"keeps {shlex.join(words)}: an earlier enable was told so. To take one back: --forget",
            err=True,
        )
    version = version_of(there) if there and "image" in kept.options else ""
    if version not in {"", __version__}:
        click.echo(
            f"warning: the image that it keeps is of version {version}, and this command of "
            f"{__version__}: name the new one by --image.",
            err=True,
        )
    return kept.and_now(now)


async def _mic(kube: Kube, wanted: _MicWanted, namespace: str) -> tuple[list[str], list[Object]]:
    """Return NMI's flags because of MIC, and MIC's manifests; take MIC away if it is not wanted."""
    deployments = await deployments_of_mic(kube)
    if wanted.there is False or not (wanted.there or deployments):
        # Of a removal that did not end there may be something without a Deployment.
        places = await controller.places(kube, namespace)
        for place in places:
            await controller.take_away(kube, place)
        if places:
            click.echo(
                "What MIC attached stays attached: its ledgers (AzureIdentityLedgers) say what "
                "that is, and MIC goes on by them when it is back."
            )
        return [], []
    flags = list(wanted.flags)
    if deployments and not flags:
        flags = controller.flags_of(deployments[0])
    if deployments:
        namespace = deployments[0]["metadata"]["namespace"]
    of_nmi = controller.flags_of_nmi(controller.chosen_of(flags))
    secret = admin_secret.AdminSecret()
    if not controller.says_how_it_signs_in(flags):
        secret = await admin_secret.read(kube, namespace)
    if wanted.there:
        controller.refuse_without_sign_in(flags, secret)
    return of_nmi, wanted.manifests(flags, namespace, admin_identity=secret.managed)


async def _take_back(kube: Kube, namespace: str, wanted: _Wanted) -> None:
    if not wanted.startup_taint:
        await _without_startup_taint(kube)
    if not wanted.redirect:
        await local_redirect.take_away(kube, namespace)


TOLD_SECONDS = 20.0
"""How long an NMI that is ready may need to tell how requests come to it."""


NODE_TOKENS_SINCE = 36
"""The minor version of Kubernetes that has constrained impersonation without being asked.

https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/#constrained-impersonation
"""


PROTECTED = "aks-managed-protect-system-namespaces-binding"
"""What denies writes to AKS's own namespaces, kube-system among them; it audits only, or is absent,
on other clusters. Its words on a cluster, of May 2026:

    ValidatingAdmissionPolicy 'aks-managed-protect-system-namespaces' with binding
    'aks-managed-protect-system-namespaces-binding' denied request: Modification of resources in
    managed system namespaces is not allowed

https://learn.microsoft.com/azure/aks/automatic/aks-automatic-managed-system-node-pools-about
"""


async def _refuse_release(kube: Kube, otherwise: str) -> None:
    """Raise CommandError, before anything is made, where NMI is of a Helm release.

    What Helm made, its next upgrade would make anew, and its values would no longer say what is.
    """
    for each in await nmis(kube):
        if release := release_of(each):
            raise CommandError(
                f"NMI is here already: DaemonSet {ref_of(each)} is of the Helm release {release}. "
                "Nothing was changed",
                f"{otherwise}: docs/how-to/install-with-helm.md.",
            )


async def _refuse_automatic(kube: Kube) -> None:
    """Raise CommandError, before anything is made, where the API server would refuse half of it."""
    found = await find_where_known(kube, POLICY_BINDINGS, "", PROTECTED)
    if found is not None and "Deny" in (found["spec"].get("validationActions") or ()):
        raise CommandError(
            "This is AKS Automatic: it keeps kube-system to itself, and NMI cannot be there",
            "Run podidentity enable --profile aks-automatic.",
        )


async def _refuse_archived_of_our_name(kube: Kube, namespace: str) -> None:
    """Raise CommandError, before anything is made, where NMI of AAD Pod Identity has our name.

    So its manifests call it, and AKS's add-on. Its pods may stay beside ours, its DaemonSet not.
    """
    found = await find(kube, DAEMON_SETS, namespace, DAEMON_SET)
    if found is None or not is_archived_nmi(found):
        return
    labels = found["spec"]["selector"]["matchLabels"]
    pods = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    raise CommandError(
        f"DaemonSet {namespace}/{DAEMON_SET} is NMI of AAD Pod Identity, and has the name of ours",
        "Its pods serve until ours do, in this order: kubectl delete daemonset -n "
        f"{namespace} {DAEMON_SET} --cascade=orphan; podidentity enable; kubectl delete pods -n "
        f"{namespace} -l {pods}. Or choose another --namespace.",
    )


async def _tell_of_archived_nmi(kube: Kube) -> None:
    for each in filter(is_archived_nmi, await find_all(kube, DAEMON_SETS)):
        namespace, name = ref_of(each)
        click.echo(
            f"DaemonSet {namespace}/{name} is NMI of AAD Pod Identity. Where ours is ready it gets "
            "no new request; it serves nodes without ours, and keeps ports. When ours is on every "
            f"node: kubectl delete daemonset -n {namespace} {name}",
            err=True,
        )


def tolerations_of(profile: command_line.Profile, more: Sequence[Object]) -> list[Object]:
    """Return what NMI's pods tolerate in a profile, [] if that is every taint; raise CommandError.

    `more` are those that somebody asks for.
    """
    if profile is command_line.Profile.STANDARD:
        if more:
            raise CommandError(
                "NMI tolerates every taint", "Leave --toleration out, or choose another --profile."
            )
        return []
    if any(each["key"] == CRITICAL for each in more):
        raise CommandError(
            f"AKS Automatic refuses pods that tolerate {CRITICAL}",
            "Its own nodes have that taint, and no pods of yours.",
        )
    return [*automatic_tolerations(), *more]


CRITICAL = "CriticalAddonsOnly"
"""Key of the taint of AKS's own nodes: https://learn.microsoft.com/azure/aks/use-system-pools"""


async def _one_place(kube: Kube, wanted: str | None, usual: str) -> str:
    """Return the namespace for NMI, `usual` unless another is wanted or it is there already.

    Raises CommandError if it is in another one than is wanted.
    """
    there = await namespace_of_nmi(kube)
    if await nmi_of(kube, there) is None:
        return wanted or usual
    if wanted in {None, there}:
        return there
    raise CommandError(
        f"NMI is in namespace {there}, and a node has one NMI",
        f"Run podidentity disable first, or enable --namespace {there}.",
    )


def exceptions_flag(
    exceptions: Iterable[Object], namespace: str, more: Iterable[str] = ()
) -> list[str]:
    """Return the flag by which exceptions outside of kube-system count; [] if it is not needed.

    They count in the namespaces `more`, too. A namespace that is not there is not named: whoever
    makes it later would make exceptions in it.
    """
    others = {each["metadata"]["namespace"] for each in exceptions} | set(more)
    others -= {NAMESPACE}
    if not others:
        return []
    return [f"--exception-namespaces={','.join(sorted({*others, NAMESPACE, namespace}))}"]


async def _have_crds(kube: Kube, seconds: float) -> None:
    for crd in crds():
        click.echo(f"{called(crd)} {await apply(kube, crd)}")
    try:
        async with asyncio.timeout(seconds):
            await until_served(kube)
    except TimeoutError as error:
        raise CommandError(
            f"The custom resources are not served after {seconds:.0f} s",
            "See kubectl describe crd azureidentities.aadpodidentity.k8s.io.",
        ) from error


async def _enable(
    kube: Kube,
    namespace: str,
    manifests: list[Object],
    exceptions: list[Object],
    *,
    policies: list[Object] | None,
    of_mic: list[Object],
    record: str,
    waits_for_mic: bool,
    wanted: _Wanted,
) -> None:
    """Make all objects, NMI after MIC.

    `policies` are None where the API server has no such kind. `waits_for_mic`: NMI serves in
    managed mode, and changes to standard mode when MIC is ready.
    """
    await _have_crds(kube, wanted.seconds)
    if manifests[0]["kind"] == "Namespace":
        own, *manifests = manifests
        click.echo(f"{called(own)} {await apply(kube, own)}")
    if policies is not None:
        # NMI gets no right before the policy that bounds it is in force.
        bounds = [each for each in manifests if each["kind"] in admission_policies.KINDS]
        manifests = [each for each in manifests if each not in bounds]
        await admission_policies.put(kube, namespace, [*policies, *bounds], wait=wanted.wait)
    await grant_what_is_there(kube, record, wanted=wanted.grants)
    await adopt(kube)
    for exception in exceptions:
        click.echo(f"{called(exception)} {await create_once(kube, exception)}")
    choices = replace(chosen(manifests[-1]), namespace=namespace)
    await permit_accounts(kube, choices)
    await controller.put(kube, of_mic)
    if waits_for_mic:
        await _mic_ready(kube, of_mic, wanted.seconds, "NMI stays in managed mode. ")
    for manifest in manifests:
        if (manifest["kind"], manifest["metadata"]["name"]) == ("DaemonSet", DAEMON_SET):
            await _stop_an_agent_that_cannot_hand_over(kube, manifest)
        is_policy = manifest["kind"] == "CiliumLocalRedirectPolicy"
        put = local_redirect.apply_policy if is_policy else apply
        click.echo(f"{called(manifest)} {await put(kube, manifest)}")


_COMES_UP = (
    "All of it is made, and comes up by itself: podidentity nodes says how far it is. To take it "
    "away: podidentity disable."
)


async def _mic_ready(
    kube: Kube, of_mic: Sequence[Object], seconds: float, otherwise: str = ""
) -> None:
    namespace = of_mic[-1]["metadata"]["namespace"]
    try:
        async with asyncio.timeout(seconds):
            await controller.until_ready(kube, namespace, click.echo)
    except TimeoutError as error:
        unread = [f"why is not known: {right_to('list', 'pods and events', namespace)}"]
        for line in await unless_forbidden(controller.troubles(kube, namespace), unread):
            click.echo(f"  {line}", err=True)
        raise CommandError(
            f"MIC is not ready after {seconds:.0f} s",
            f"{otherwise}See kubectl logs -n {namespace} deployment/mic, and run enable again. "
            "To go back: podidentity enable --no-mic.",
        ) from error


async def _without_startup_taint(kube: Kube) -> None:
    """Take back the right of an earlier `enable --startup-taint`, if there was one.

    The right goes before the policy that bounds it; last the role, which alone gives nobody a
    right, and by which a removal that did not end is found.
    """
    *policy, role, binding = startup_taint_rights()
    if await find(kube, CLUSTER_ROLES, "", role["metadata"]["name"]) is None:
        return
    for manifest in (binding, *reversed(policy), role):
        click.echo(await removal(kube, manifest))
    click.echo(
        "NMI takes no taint off new nodes any more: take it out of the configuration of their "
        "pools, too."
    )


async def _stop_an_agent_that_cannot_hand_over(kube: Kube, manifest: Object) -> None:
    """Delete the DaemonSet of 0.1: its pods would keep the ports from those that replace them."""
    found = await find(kube, DAEMON_SETS, manifest["metadata"]["namespace"], DAEMON_SET)
    if found is not None and has_one_container(found):
        click.echo(
            f"{called(manifest)} deleted: it cannot hand over, and pods get no token until the new "
            "one is ready"
        )
        await remove(kube, manifest)


async def _ready(kube: Kube, namespace: str, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await until_ready(kube, namespace, click.echo)
    except TimeoutError as error:
        unread = [f"why is not known: {right_to('list', 'pods and events', namespace)}"]
        lines = await unless_forbidden(troubles(kube, namespace), unread)
        for line in lines:
            click.echo(f"  {line}", err=True)
        step = f"See kubectl logs -n {namespace} daemonset/nmi, and run enable again."
        if any(reason in line for reason in NO_IMAGE for line in lines):
            step = (
                "Build its image with ./scripts/image, push it where the nodes may pull it, and "
                "run enable --image with its name there."
            )
        raise CommandError(f"NMI is not ready on every node after {seconds:.0f} s", step) from error


def disable(
    *,
    target: ClusterTarget,
    agents: str | None,
    keep_crds: bool,
    yes: bool,
    timeout: float,
    detach: bool,
    cloud: Cloud | None,
) -> None:
    if not keep_crds and not yes:
        ask_first(
            "Delete all AzureIdentities and bindings of all namespaces?",
            "Without --purge they are kept.",
        )
    leaving = _Leaving(
        agents=agents, purge=not keep_crds, seconds=timeout, detach=detach, cloud=cloud
    )
    on_cluster(target, lambda kube: _disable(kube, leaving))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving:
    """What somebody wants of `disable`."""

    agents: str | None
    purge: bool
    seconds: float
    detach: bool
    cloud: Cloud | None
    """None: NMI's."""


async def _disable(kube: Kube, wanted: _Leaving) -> None:
    await _refuse_release(kube, "`helm uninstall` takes it away")
    there = await nmis(kube)
    # Without NMI: of a removal that did not end there may be something in its namespace.
    left = "" if there else await place_of(kube, ACCOUNT)
    namespace = await namespace_of_nmi(kube, wanted.agents or left)
    there = [each for each in there if each["metadata"]["namespace"] == namespace]
    choices = chosen(there[0]) if there else Choices()
    after = _RULES_AFTER[choices.on_exit]
    if choices.on_exit == "remove" and (archived := await _archived(kube)):
        after = (
            f"NMI took its rules with it (--on-exit=remove). DaemonSet {ref_of(archived[0])} of "
            "AAD Pod Identity serves the pods of each node that it runs on; on other nodes the "
            "identities are open to their pods."
        )
    places = await controller.places(kube, namespace)
    for place in places:
        await controller.take_away(kube, place)
    of_mic = {*places, namespace}
    if wanted.detach:
        cloud = wanted.cloud or choices.cloud
        await attachments.detach(kube, cloud, of_mic, wanted.seconds)
    else:
        await attachments.say_left(kube, of_mic, forgotten=wanted.purge)
    await attachments.take_finalizers_off(kube)
    await lost_releases.say_lost(kube)
    await _without_startup_taint(kube)
    await local_redirect.take_away(kube, namespace)
    made = [*every_policy(), *nmi(namespace=namespace, as_node=True, policy=True)]
    objects = [each for each in in_order_of_removal(made) if each["kind"] != "Namespace"]
    if not any([await _removed(kube, each) for each in objects]):
        click.echo(f"{called(objects[0])} not found")
    await _without_exceptions(kube)
    if wanted.purge:
        await _purge(kube, namespace)
    await _nmi_gone(kube, namespace, wanted.seconds, after)


async def _archived(kube: Kube) -> list[Object]:
    try:
        return await genuine(kube, [*filter(is_archived_nmi, await find_all(kube, DAEMON_SETS))])
    except KubeError as error:
        if not error.forbidden:
            raise
        return []


async def _removed(kube: Kube, manifest: Object) -> bool:
    there = await remove(kube, manifest)
    if there:
        click.echo(f"{called(manifest)} deleted")
    return there


async def _nmi_gone(kube: Kube, namespace: str, seconds: float, after: str) -> None:
    try:
        with only_waiting(f"All of it is deleted, and NMI's pods end by themselves. {after}"):
            async with asyncio.timeout(seconds):
                await until_gone(kube, namespace)
    except TimeoutError as error:
        raise CommandError(
            f"Pods of NMI are still there after {seconds:.0f} s",
            f"See kubectl get pods -n {namespace} -l app.kubernetes.io/component=nmi.",
        ) from error
    click.echo(after)


_KEPT = (
    "The nodes keep their rules: pods get no token until NMI is back or the node restarts. To open "
    "the nodes' identities to their pods again: podidentity enable --nmi-arg=--on-exit=remove, and "
    "podidentity disable."
)
_RULES_AFTER = {
    "keep": _KEPT,
    "remove": "NMI took its rules with it (--on-exit=remove): the nodes' identities are open to "
    "their pods.",
    "close": "The nodes are closed (--on-exit=close): pods get no token until another NMI leads "
    "them to itself. Routing rules that stay do it; they go when the node restarts, or by hand: "
    "docs/reference/nmi.md, The rules on the node.",
}


async def _purge(kube: Kube, namespace: str) -> None:
    """Remove the custom resources, all grants and the record of them; say what stays in Azure.

    Where AKS keeps kube-system to itself the record is in NMI's `namespace`.
    """
    for warning in left_attached(await find_all_where_known(kube, AZURE_IDENTITIES)):
        click.echo(warning, err=True)
    for crd in reversed(crds()):
        click.echo(await removal(kube, crd))
    await take_all(kube)
    for place in dict.fromkeys((NAMESPACE, namespace)):
        click.echo(await removal(kube, record_of_grants(place, [])))


async def _without_exceptions(kube: Kube) -> None:
    for exception in aks_exceptions():
        unchanged = await is_unchanged(kube, exception)
        if unchanged is False:
            click.echo(f"{called(exception)} kept: it was changed since enable created it")
        elif unchanged or exception["metadata"]["namespace"] == NAMESPACE:
            await _removed(kube, exception)


NAME = "podidentity-grants"


async def grant_what_is_there(kube: Kube, place: str, *, wanted: bool) -> None:
    """Grant each namespace its bound identities, once for a cluster; a ConfigMap records it.

    It is in kube-system wherever NMI is: after a move nothing is granted again. Where AKS keeps
    kube-system to itself the `place` is NMI's namespace.

    Older releases needed no grants, and the pods that they served must still be served. Identities
    that are created later need a grant by an operator. Not `wanted`: only record it.
    """
    for each in {NAMESPACE, place}:
        if await find(kube, CONFIG_MAPS, each, NAME) is not None:
            return
    bound = await _bound(kube) if wanted else []
    for identity in bound:
        names, grantee = permission_names(identity), Grantee(identity.ref.namespace)
        await give(kube, names, grantee, Giver.ENABLE)
    if bound:
        click.echo(
            f"Granted {len(bound)} AzureIdentities that are bound already. For new ones run "
            "podidentity grant, or add."
        )
    made = record_of_grants(place, [str(identity.ref) for identity in bound])
    click.echo(f"{called(made)} {await apply(kube, made)}")


async def _bound(kube: Kube) -> list[AzureIdentity]:
    identities = await list_parsed(kube, IDENTITIES)
    named = {
        (each.ref.namespace, each.identity)
        for each in await list_parsed(kube, BINDINGS)
        if isinstance(each, AzureIdentityBinding)
    }
    return [
        each
        for each in identities
        if isinstance(each, AzureIdentity) and (each.ref.namespace, each.ref.name) in named
    ]


def record_of_grants(place: str, granted: list[str]) -> Object:
    """Return the ConfigMap by which a later `enable` grants nothing by itself."""
    metadata = {"name": NAME, "namespace": place, "labels": dict(LABELS)}
    data = {"by": f"podidentity enable {__version__}", "for": "\n".join(granted)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
