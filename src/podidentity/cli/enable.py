"""`podidentity enable` and `disable`: put the custom resources and NMI into a cluster, or out."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
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
    DEPLOYMENTS,
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
    PODS_OF_NMI,
    has_one_container,
    is_archived_nmi,
    namespace_of_nmi,
    nmi_of,
    nmis,
    progress,
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
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding, ObjectRef
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
    mic,
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
    wanted = _Wanted(
        # Before the first question to the cluster: an error of the options needs no cluster.
        told=Told().and_now(now),
        agents=agents,
        node_labels=dict(node_labels),
        mic=with_mic,
        mic_flags=mic_arg,
        grants=grants,
        wait=wait,
        seconds=timeout,
    )
    if dry_run:
        click.echo(documents(list(map(without_none, _without_cluster(wanted))), output))
    else:
        work = partial(_enable_as, now=now, forget=forget, given=wanted)
        on_cluster(target, work, undo=lambda _: "  podidentity disable")


@dataclass(frozen=True, kw_only=True)
class _Wanted:
    """What somebody wants of `enable`; raise CommandError for what does not fit together."""

    told: Told
    """Given now, or kept: the next `enable` is to know of it."""
    agents: str | None
    """Namespace of NMI; None: where it is, or the usual one."""
    node_labels: Mapping[str, str | None]
    mic: bool | None
    """None: as it is."""
    mic_flags: tuple[str, ...]
    grants: bool
    wait: bool
    seconds: float

    def __post_init__(self) -> None:
        self.redirect  # noqa: B018 - NMI's flags are read
        more = self.option("tolerations", ())
        if more and not self.automatic:
            raise CommandError(
                "NMI tolerates every taint", "Leave --toleration out, or choose another --profile."
            )
        if any(each["key"] == CRITICAL for each in more):
            raise CommandError(
                f"AKS Automatic refuses pods that tolerate {CRITICAL}",
                "Its own nodes have that taint, and no pods of yours.",
            )
        if self.automatic and self.agents == NAMESPACE:
            raise CommandError(
                f"AKS Automatic keeps {NAMESPACE} to itself",
                f"Choose another --namespace, or none: NMI is in {OWN_NAMESPACE} then.",
            )

    def option(self, name: str, otherwise: Any = None) -> Any:  # noqa: ANN401 - as click has it
        return self.told.options.get(name, otherwise)

    @property
    def usual(self) -> str:
        return OWN_NAMESPACE if self.automatic else NAMESPACE

    @property
    def automatic(self) -> bool:
        return bool(self.option("profile") == command_line.Profile.AKS_AUTOMATIC)

    @property
    def exceptions(self) -> list[Object]:
        return aks_exceptions() if self.option("with_aks", True) and not self.automatic else []

    @cached_property
    def choices(self) -> Choices:
        return choices_of_flags(self.told.flags)

    @cached_property
    def redirect(self) -> LocalRedirect | None:
        """Where Cilium leads requests from and to, by NMI's own flags; None if it leads none."""
        redirect = self.choices.redirect
        if self.option("backend") != Backend.LRP:
            return None
        return LocalRedirect(
            metadata_ip=redirect.metadata_ip,
            metadata_port=redirect.metadata_port,
            port=redirect.listen_port,
            probe_port=self.choices.probe_port,
        )

    def is_standard(self, derived: Iterable[str]) -> bool:
        """Return whether NMI, with the flags `derived`, too, waits for a controller's records."""
        return chosen(nmi(extra_args=(*derived, *self.told.flags))[-1]).rules.standard

    def policies(self, minor: int) -> list[Object]:
        return admission_policies.wanted(
            minor,
            asked=self.option("with_policies"),
            foreign_secrets=self.choices.rules.foreign_secrets,
        )

    def manifests(self, derived: Sequence[str], namespace: str, minor: int) -> list[Object]:
        """Return NMI's manifests; `derived` are flags that follow from what is in the cluster."""
        as_node = self.option("node_tokens")
        manifests = nmi(
            image=self.option("image", IMAGE),
            extra_args=self.told.flags,
            derived_args=derived,
            namespace=namespace,
            as_node=minor >= NODE_TOKENS_SINCE if as_node is None else as_node,
            policy=minor >= admission_policies.SINCE,
            audiences=self.option("audiences", ()),
            identities=self.choices.identities_namespace,
            startup_taint=self.option("startup_taint", ""),
            tolerations=[*automatic_tolerations(), *self.option("tolerations", ())]
            if self.automatic
            else [],
            node_labels=self.node_labels,
            redirect=self.redirect,
            proxy_secret=self.option("proxy_secret", ""),
            standard=self.is_standard(derived),
            types=[int(each) for each in self.option("types", ())] or EVERY_TYPE,
        )
        if record := shlex.join(self.told.record(command_line.enable)):
            manifests[-1]["metadata"]["annotations"] = {RECORD: record}
        return manifests

    def manifests_of_mic(
        self, flags: Sequence[str], namespace: str, *, admin_identity: bool = False
    ) -> list[Object]:
        """Return MIC's; `admin_identity`: its Secret has it sign in by a managed identity."""
        settings = controller.chosen_of(flags)
        return mic(
            image=self.option("image", IMAGE),
            extra_args=flags,
            namespace=namespace,
            managed_identity=settings.managed_identity,
            cloud_config=settings.cloud_config,
            proxy_secret=self.option("proxy_secret", ""),
            admin_identity=admin_identity,
        )


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
    if wanted.mic:
        mode = controller.flags_of_nmi(controller.chosen_of(wanted.mic_flags))
        of_mic = wanted.manifests_of_mic(wanted.mic_flags, namespace)
    since = admission_policies.SINCE
    manifests = wanted.manifests(mode, namespace, since)
    return [*crds(), *wanted.policies(since), *manifests, *of_mic, *always]


async def _enable_as(kube: Kube, now: Told, forget: Sequence[str], given: _Wanted) -> None:
    await _refuse_release(kube, "`helm upgrade` changes it")
    wanted = replace(given, told=await _told(kube, now, forget))
    if not wanted.automatic:
        await _refuse_automatic(kube)
    if wanted.redirect:
        await local_redirect.require_policies(kube)
    namespace = await _one_place(kube, wanted.agents, wanted.usual)
    await _refuse_archived_of_our_name(kube, namespace)
    exceptions = [
        each
        for each in wanted.exceptions
        if await find(kube, NAMESPACES, "", each["metadata"]["namespace"]) is not None
    ]
    archived = await controller.namespaces_of_archived_exceptions(kube)
    for_mic, of_mic = await _mic(kube, wanted, namespace)
    before = await nmi_of(kube, namespace)
    # NMI serves in managed mode, and changes to standard mode when MIC is ready.
    waits_for_mic = bool(of_mic and before and not chosen(before).rules.standard)
    waits_for_mic = waits_for_mic and wanted.is_standard(for_mic)
    if waits_for_mic and not wanted.wait and not await controller.is_ready(kube, of_mic[-1]):
        for_mic = []
        click.echo(
            "NMI stays in managed mode, for MIC is not ready. When MIC is: podidentity enable",
            err=True,
        )
    minor = await minor_version(kube)
    if wanted.option("startup_taint") and minor < admission_policies.SINCE:
        raise CommandError(
            "--startup-taint needs Kubernetes 1.30: without a ValidatingAdmissionPolicy NMI could "
            "change every node",
            "Close the window by the node unit or AKS's IMDS restriction instead.",
        )
    policies = wanted.policies(minor)
    # A namespace without exceptions is left out: its later owner could make some that count.
    counting = {each["metadata"]["namespace"] for each in exceptions} | {*archived, NAMESPACE}
    derived = list(for_mic)
    if counting != {NAMESPACE}:
        derived = [f"--exception-namespaces={','.join(sorted({*counting, namespace}))}", *for_mic]
    manifests = wanted.manifests(derived, namespace, minor)
    manifests[-1]["metadata"].setdefault("annotations", {RECORD: None})

    # What an earlier `enable` has made, and this one does not want.
    if not wanted.option("startup_taint"):
        await _without_startup_taint(kube)
    if not wanted.redirect:
        await local_redirect.take_away(kube, namespace)

    await _have_crds(kube, wanted.seconds)
    if manifests[0]["kind"] == "Namespace":
        own, *manifests = manifests
        click.echo(f"{called(own)} {await apply(kube, own)}")
    if minor >= admission_policies.SINCE:
        # NMI gets no right before the policy that bounds it is in force.
        bounds = [each for each in manifests if each["kind"] in admission_policies.KINDS]
        manifests = [each for each in manifests if each not in bounds]
        await admission_policies.put(kube, namespace, [*policies, *bounds], wait=wanted.wait)
    record = namespace if wanted.automatic else NAMESPACE
    await grant_what_is_there(kube, record, wanted=wanted.grants)
    await adopt(kube)
    for exception in exceptions:
        click.echo(f"{called(exception)} {await create_once(kube, exception)}")
    await permit_accounts(kube, replace(chosen(manifests[-1]), namespace=namespace))
    await controller.put(kube, of_mic)
    if waits_for_mic and wanted.wait:
        await _mic_ready(kube, of_mic, wanted.seconds, "NMI stays in managed mode. ")
    await _put(kube, manifests)
    await _finish(kube, wanted, namespace, [] if waits_for_mic else of_mic)
    await _tell_of_archived_nmi(kube)


async def _finish(kube: Kube, wanted: _Wanted, namespace: str, of_mic: Sequence[Object]) -> None:
    if wanted.wait:
        with nullcontext() if wanted.redirect else only_waiting(_COMES_UP):
            if of_mic:
                await _mic_ready(kube, of_mic, wanted.seconds)
            await _nmi_ready(kube, namespace, wanted.seconds)
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


async def _mic(kube: Kube, wanted: _Wanted, namespace: str) -> tuple[list[str], list[Object]]:
    """Return NMI's flags because of MIC, and MIC's manifests; take MIC away if it is not wanted."""
    deployments = await deployments_of_mic(kube)
    if wanted.mic is False or not (wanted.mic or deployments):
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
    flags = list(wanted.mic_flags)
    if deployments:
        flags = flags or controller.flags_of(deployments[0])
        namespace = deployments[0]["metadata"]["namespace"]
    of_nmi = controller.flags_of_nmi(controller.chosen_of(flags))
    secret = admin_secret.AdminSecret()
    if not controller.says_how_it_signs_in(flags):
        secret = await admin_secret.read(kube, namespace)
    if wanted.mic:
        controller.refuse_without_sign_in(flags, secret)
    return of_nmi, wanted.manifests_of_mic(flags, namespace, admin_identity=secret.managed)


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


async def _have_crds(kube: Kube, seconds: float) -> None:
    for crd in crds():
        click.echo(f"{called(crd)} {await apply(kube, crd)}")
    try:
        await asyncio.wait_for(until_served(kube), seconds)
    except TimeoutError as error:
        raise CommandError(
            f"The custom resources are not served after {seconds:.0f} s",
            "See kubectl describe crd azureidentities.aadpodidentity.k8s.io.",
        ) from error


async def _put(kube: Kube, manifests: Sequence[Object]) -> None:
    for manifest in manifests:
        if (manifest["kind"], manifest["metadata"]["name"]) == ("DaemonSet", DAEMON_SET):
            found = await find(kube, DAEMON_SETS, manifest["metadata"]["namespace"], DAEMON_SET)
            # Pods of 0.1 would keep the ports from those that replace them.
            if found is not None and has_one_container(found):
                click.echo(
                    f"{called(manifest)} deleted: it cannot hand over, and pods get no token until "
                    "the new one is ready"
                )
                await remove(kube, manifest)
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
        await asyncio.wait_for(
            until_ready(kube, DEPLOYMENTS, ref_of(of_mic[-1]), controller.replicas), seconds
        )
    except TimeoutError as error:
        await _say_why(namespace, controller.troubles(kube, namespace))
        raise CommandError(
            f"MIC is not ready after {seconds:.0f} s",
            f"{otherwise}See kubectl logs -n {namespace} deployment/mic, and run enable again. "
            "To go back: podidentity enable --no-mic.",
        ) from error


async def _nmi_ready(kube: Kube, namespace: str, seconds: float) -> None:
    try:
        await asyncio.wait_for(
            until_ready(kube, DAEMON_SETS, ObjectRef(namespace, DAEMON_SET), progress), seconds
        )
    except TimeoutError as error:
        lines = await _say_why(namespace, troubles(kube, namespace))
        step = f"See kubectl logs -n {namespace} daemonset/nmi, and run enable again."
        if any(reason in line for reason in NO_IMAGE for line in lines):
            step = (
                "Build its image with ./scripts/image, push it where the nodes may pull it, and "
                "run enable --image with its name there."
            )
        raise CommandError(f"NMI is not ready on every node after {seconds:.0f} s", step) from error


async def _say_why(namespace: str, asked: Awaitable[list[str]]) -> list[str]:
    unread = [f"why is not known: {right_to('list', 'pods and events', namespace)}"]
    lines = await unless_forbidden(asked, unread)
    for line in lines:
        click.echo(f"  {line}", err=True)
    return lines


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
    on_cluster(
        target,
        partial(
            _disable,
            agents=agents,
            purge=not keep_crds,
            seconds=timeout,
            cloud=cloud,
            detaches=detach,
        ),
    )


async def _disable(
    kube: Kube,
    *,
    agents: str | None,
    purge: bool,
    seconds: float,
    cloud: Cloud | None,
    detaches: bool,
) -> None:
    await _refuse_release(kube, "`helm uninstall` takes it away")
    there = await nmis(kube)
    # Without NMI: of a removal that did not end there may be something in its namespace.
    left = "" if there else await place_of(kube, ACCOUNT)
    namespace = await namespace_of_nmi(kube, agents or left)
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
    if detaches:
        await attachments.detach(kube, cloud or choices.cloud, of_mic, seconds)
    else:
        await attachments.say_left(kube, of_mic, forgotten=purge)
    await attachments.take_finalizers_off(kube)
    await lost_releases.say_lost(kube)
    await _without_startup_taint(kube)
    await local_redirect.take_away(kube, namespace)
    made = [*every_policy(), *nmi(namespace=namespace, as_node=True, policy=True)]
    objects = [each for each in in_order_of_removal(made) if each["kind"] != "Namespace"]
    if not any([await _removed(kube, each) for each in objects]):
        click.echo(f"{called(objects[0])} not found")
    await _without_exceptions(kube)
    if purge:
        await _purge(kube, namespace)
    await _gone(kube, namespace, seconds, after, purged=purge)


async def _archived(kube: Kube) -> list[Object]:
    try:
        return await genuine(kube, [*filter(is_archived_nmi, await find_all(kube, DAEMON_SETS))])
    except KubeError as error:
        if not error.forbidden:
            raise
        return []


async def _removed(kube: Kube, manifest: Object) -> bool:
    if there := await remove(kube, manifest):
        click.echo(f"{called(manifest)} deleted")
    return there


async def _gone(kube: Kube, namespace: str, seconds: float, after: str, *, purged: bool) -> None:
    with only_waiting(f"All of it is deleted, and NMI's pods end by themselves. {after}"):
        try:
            await asyncio.wait_for(until_gone(kube, namespace), seconds)
        except TimeoutError as error:
            raise CommandError(
                f"Pods of NMI are still there after {seconds:.0f} s",
                f"See kubectl get pods -n {namespace} -l {PODS_OF_NMI}.",
            ) from error
        try:
            if purged:
                await asyncio.wait_for(until_served(kube, served=False), seconds)
        except TimeoutError as error:
            raise CommandError(
                f"Custom resources are still there after {seconds:.0f} s: a finalizer holds one",
                "See kubectl get crds, and kubectl get KIND -A -o yaml: whoever set the finalizer "
                "must take it off. Kubernetes deletes the kind then.",
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
    identities = await list_parsed(kube, IDENTITIES) if wanted else []
    named = {
        (each.ref.namespace, each.identity)
        for each in (await list_parsed(kube, BINDINGS) if wanted else ())
        if isinstance(each, AzureIdentityBinding)
    }
    bound = [
        each
        for each in identities
        if isinstance(each, AzureIdentity) and (each.ref.namespace, each.ref.name) in named
    ]
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


def record_of_grants(place: str, granted: list[str]) -> Object:
    metadata = {"name": NAME, "namespace": place, "labels": dict(LABELS)}
    data = {"by": f"podidentity enable {__version__}", "for": "\n".join(granted)}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
