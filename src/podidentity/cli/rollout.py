"""Finds NMI in a cluster, waits for it, and says on which node it is not ready, and why."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from podidentity.cli.impostors import genuine
from podidentity.cli.objects import DAEMON_SETS, Object, find_all, ref_of
from podidentity.cli.output import CommandError
from podidentity.core.resources import ObjectRef
from podidentity.manifests import NAMESPACE, crds
from podidentity.wire.events import AGAIN, COMPONENT, OVER
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    EVENTS,
    PODS,
    KubeError,
    Resource,
    parse_object,
)

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

DAEMON_SET = "nmi"
"""NMI's, as `enable` calls it; a Helm release calls it as the archived chart did."""
PODS_OF_NMI = "app.kubernetes.io/component=nmi"
"""Of NMI's pods and DaemonSets; those of AAD Pod Identity are among them, and not ours."""
PROBE_SET = "podidentity-probe"
_PAUSE = 0.1
"""Seconds between two looks at what the API server serves."""
PODS_OF_PROBE = "app.kubernetes.io/name=podidentity,app.kubernetes.io/component=probe"
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
"""Why a kubelet says that it has no image, in its words."""
OF_AGENTS = f"involvedObject.kind=Pod,source={COMPONENT}"
"""Selects the events that agents write about their own pods."""


async def namespace_of_nmi(kube: Kube, wanted: str | None = None) -> str:
    """Return `wanted`, or the namespace in which NMI is; that of `enable`'s default without one.

    Of several it is the default if NMI is there: only one agent can hold a node's rules. Raises
    KubeError; without a `wanted` namespace the caller needs the right to list all DaemonSets.
    """
    if wanted:
        return wanted
    found = await labelled(kube)
    if not found or NAMESPACE in {each["metadata"]["namespace"] for each in found}:
        return NAMESPACE
    return min(
        (each["metadata"]["namespace"] for each in await genuine(kube, found)), default=NAMESPACE
    )


def is_ours(found: Object) -> bool:
    """Whether an object is of NMI of podidentity, and not of AAD Pod Identity, by its labels.

    A Helm release has the archived chart's labels, and one more.
    """
    labels = found["metadata"].get("labels") or {}
    return "podidentity" in {
        labels.get("app.kubernetes.io/name"),
        labels.get("app.kubernetes.io/part-of"),
    }


async def nmis(kube: Kube, namespace: str = "") -> list[Object]:
    """Return NMI's DaemonSets of a namespace, or of the cluster; raise KubeError.

    In a namespace that somebody has named they are its own; elsewhere a tenant may label his so.
    """
    found = await labelled(kube, namespace)
    return found if namespace else await genuine(kube, found)


async def labelled(kube: Kube, namespace: str = "") -> list[Object]:
    found = await find_all(kube, DAEMON_SETS, namespace, labelSelector=PODS_OF_NMI)
    return [each for each in found if is_ours(each)]


async def nmi_of(kube: Kube, namespace: str) -> Object | None:
    found = await nmis(kube, namespace)
    return found[0] if found else None


async def pods_of_nmi(
    kube: Kube, namespace: str, of: str = PODS_OF_NMI, **more: str
) -> list[Object]:
    found = await find_all(kube, PODS, namespace, labelSelector=of, **more)
    return [each for each in found if is_ours(each)]


def release_of(found: Object) -> str:
    """Return the Helm release that an object is of, as NAMESPACE/NAME; "" if of none.

    https://helm.sh/docs/chart_best_practices/labels/
    """
    metadata = found["metadata"]
    if (metadata.get("labels") or {}).get("app.kubernetes.io/managed-by") != "Helm":
        return ""
    said = metadata.get("annotations") or {}
    place = said.get("meta.helm.sh/release-namespace", metadata.get("namespace", "?"))
    return f"{place}/{said.get('meta.helm.sh/release-name', '?')}"


def rollback_of(found: Object) -> str:
    """Return the command that puts the Helm release of an object back; "" if it is of none."""
    namespace, _, name = release_of(found).partition("/")
    return f"helm rollback {name} --namespace {namespace}" if name else ""


def refuse_release(found: Object | None, otherwise: str = "") -> None:
    """Raise CommandError if an object is of a Helm release; `otherwise` ends the next step.

    Each later `helm upgrade` would fail by a conflict, whatever it changes.
    """
    if found and (release := release_of(found)):
        raise CommandError(
            f"{found['kind']} {ref_of(found)} is of the Helm release {release}. "
            "Nothing was changed",
            f"Change the values of that release, and run helm upgrade{otherwise}.",
        )


@dataclass(frozen=True, slots=True)
class Rollout:
    """The progress of a DaemonSet."""

    ready: int
    desired: int
    current: bool
    """Whether the numbers are those of its newest template."""

    @property
    def done(self) -> bool:
        return self.current and self.ready >= self.desired

    def __str__(self) -> str:
        if not self.desired:
            return "There is no Linux node yet; NMI will run on each new one"
        return f"NMI is ready on {self.ready} of {self.desired} nodes"


def rollout(daemon_set: Object) -> Rollout:
    status = daemon_set.get("status", {})
    desired = status.get("desiredNumberScheduled", 0)
    observed = status.get("observedGeneration", 0) >= daemon_set["metadata"].get("generation", 1)
    updated = status.get("updatedNumberScheduled", 0) >= desired
    return Rollout(status.get("numberReady", 0), desired, observed and updated)


def has_one_container(daemon_set: Object) -> bool:
    containers = daemon_set["spec"]["template"]["spec"]["containers"]
    return "serve" not in {container["name"] for container in containers}


def is_archived_nmi(daemon_set: Object) -> bool:
    """Whether its pods are NMI of AAD Pod Identity, by the labels of its chart or its manifests.

    https://github.com/Azure/aad-pod-identity/tree/master/charts/aad-pod-identity/templates
    https://github.com/Azure/aad-pod-identity/tree/master/deploy/infra
    """
    template = daemon_set["spec"]["template"]
    labels = template["metadata"].get("labels") or {}
    component = labels.get("app.kubernetes.io/component", labels.get("component"))
    return component == "nmi" and not is_ours(template)


def ready(pod: Object) -> bool:
    going = "deletionTimestamp" in pod["metadata"]
    return not going and _condition(pod, "Ready").get("status") == "True"


NODE_SILENT = "its node does not answer the control plane"


def trouble(pod: Object) -> str:
    status = pod.get("status", {})
    for container in status.get("containerStatuses", []):
        if words := _last_words(container):
            return words
        for state in (container.get("state", {}), container.get("lastState", {})):
            waiting, ended = state.get("waiting"), state.get("terminated")
            if waiting:
                return _said(waiting, "waiting")
            if ended:
                return f"{_said(ended, 'ended')} (exit code {ended.get('exitCode', '?')})"
    for kind in ("PodScheduled", "Ready"):
        condition = _condition(pod, kind)
        if condition.get("status") == "False":
            # So the node controller leaves the pods of a node whose kubelet is silent, whose last
            # word was that all containers are ready.
            # https://kubernetes.io/docs/concepts/architecture/nodes/#heartbeats
            told = status.get("containerStatuses", [])
            silent = told and all(container.get("ready") for container in told)
            return _said(condition, NODE_SILENT if silent else f"not {kind}")
    return f"phase {status.get('phase', 'unknown')}"


def _last_words(container: Object) -> str:
    """Return what a container that does not run said last; "" if its kubelet does not know."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended = state.get("terminated") or {}
        lines = ended.get("message", "").strip().splitlines()
        if lines and not container.get("ready"):
            code = ended.get("exitCode", "?")
            return f"container {container['name']} ended with exit code {code}: {lines[-1]}"
    return ""


def _said(state: Mapping[str, Any], otherwise: str) -> str:
    return ": ".join(filter(None, (state.get("reason") or otherwise, state.get("message"))))


def _condition(found: Object, kind: str) -> Mapping[str, Any]:
    conditions = found.get("status", {}).get("conditions", [])
    return next((entry for entry in conditions if entry.get("type") == kind), {})


async def until_served(kube: Kube, *, served: bool = True) -> None:
    """Return when the API server serves all our custom resources, or none, by its discovery.

    It serves a kind some moments after the condition Established, and until some moments after the
    definition is gone.
    """
    ours = {crd["spec"]["names"]["plural"] for crd in crds()}
    while True:
        try:
            found = parse_object(await kube.get(AZURE_IDENTITIES.api))
        except KubeError as error:
            if not error.not_found:
                raise
            found = {}
        there = ours & {resource["name"] for resource in found.get("resources", ())}
        if there == (ours if served else set()):
            return
        await asyncio.sleep(_PAUSE)


def progress(daemon_set: Object) -> tuple[bool, str]:
    """Return whether NMI is ready on every node, and it in words; "" of an older template."""
    now = rollout(daemon_set)
    return now.done, str(now) if now.current else ""


async def until_ready(
    kube: Kube,
    resource: Resource,
    ref: ObjectRef,
    progress: Callable[[Object], tuple[bool, str]],
) -> None:
    """Return when the object is ready by its `progress`; print each change of that."""
    said = ""

    def look(found: Mapping[str, Object]) -> bool:
        nonlocal said
        if ref.name not in found:
            return False
        done, now = progress(found[ref.name])
        if now not in {"", said}:
            said = now
            click.echo(said)
        return done

    only = {"fieldSelector": f"metadata.name={ref.name}"}
    await until(kube, resource.path(ref.namespace), only, look)


async def until_gone(kube: Kube, namespace: str, pods_of: str = PODS_OF_NMI) -> None:
    """Return when no pod of NMI is left, or of whom else of ours `pods_of` selects."""
    of = {"labelSelector": pods_of}
    await until(kube, PODS.path(namespace), of, lambda pods: not any(map(is_ours, pods.values())))


async def until(
    kube: Kube,
    path: str,
    params: Mapping[str, str],
    look: Callable[[Mapping[str, Object]], bool],
) -> None:
    """Return when `look`, called after each change with the objects by name, returns True.

    A watch that ends, or fails where the server may answer in a moment, is begun again after a
    pause; raise KubeError.
    """
    while True:
        page = await kube.list_all(path, params)
        objects = {found["metadata"]["name"]: found for found in map(parse_object, page.items)}
        if look(objects):
            return
        try:
            watch = kube.watch(path, params, resource_version=page.resource_version)
            async with aclosing(watch) as events:
                async for event in events:
                    found = parse_object(event.object)
                    if event.type == "DELETED":
                        objects.pop(found["metadata"]["name"], None)
                    elif event.type != "BOOKMARK":
                        objects[found["metadata"]["name"]] = found
                    if look(objects):
                        return
        except KubeError as error:
            await kube.after(error)
        else:
            await kube.pause()


async def troubles(
    kube: Kube, namespace: str, pods_of: str = PODS_OF_NMI, name: str = DAEMON_SET
) -> list[str]:
    """Return a line for each node whose pod is not ready, with the reason and the last warning.

    `pods_of` selects the pods of the DaemonSet `name`.
    """
    pods = await pods_of_nmi(kube, namespace, pods_of)
    lines = await troubles_of(kube, pods)
    if not pods:
        found = await find_all(kube, DAEMON_SETS, namespace, fieldSelector=f"metadata.name={name}")
        lines += [f"no pod{await _warning(kube, 'DaemonSet', each)}" for each in found]
    return lines


async def troubles_of(kube: Kube, pods: Sequence[Object]) -> list[str]:
    lines = []
    for pod in pods:
        if not ready(pod):
            node = pod.get("spec", {}).get("nodeName") or "no node"
            told = any(map(_last_words, pod.get("status", {}).get("containerStatuses", [])))
            more = "" if told else await _warning(kube, "Pod", pod)
            lines.append(f"{node}: {trouble(pod)}{more}")
    return lines


async def _warning(kube: Kube, kind: str, about: Object) -> str:
    name = about["metadata"]["name"]
    selector = f"involvedObject.kind={kind},involvedObject.name={name}"
    events = await find_all(kube, EVENTS, about["metadata"]["namespace"], fieldSelector=selector)
    words = "; ".join(last_warnings(events))
    return f" ({words})" if words else ""


def last_warnings(events: Sequence[Object]) -> list[str]:
    """Return the last warning of each container and of the object itself, oldest first.

    A warning that is repeated is one event, whose name and place in a list are those of its first.
    """
    last: dict[str, str] = {}
    for each in sorted(events, key=seen):
        # What NMI says of itself does not keep it from being ready.
        if each.get("type") == "Warning" and not _is_of_agents(each):
            where = each["involvedObject"].get("fieldPath", "")
            last.pop(where, None)
            last[where] = _readable(each.get("message", ""))
    return list(dict.fromkeys(last.values()))


def _readable(message: str) -> str:
    """Return what NMI said to a failed probe without the JSON around it."""
    before, brace, text = message.partition("{")
    try:
        page = json.loads(f"{brace}{text}")
        # `serve` answers `/readyz`, `net` for it what was wrong last.
        checks = {name: found for name, found in page.get("checks", page).items() if found != "ok"}
        problems = [f"{name}: {each}" for name, found in checks.items() for each in found]
    except (ValueError, TypeError, AttributeError):
        return message
    return f"{before.rstrip(': ')}: {', '.join(problems)}" if problems else message


def seen(event: Object) -> float:
    """Return when an event was last written, in seconds since 1970; 0 if it does not say."""
    try:
        return datetime.fromisoformat(event.get("lastTimestamp") or "").timestamp()
    except ValueError:
        return 0.0


def lasts(event: Object, now: float) -> bool:
    """Whether an event is the agents', and still repeated; `now` in seconds since 1970."""
    over = event.get("message") == OVER
    return _is_of_agents(event) and not over and seen(event) > now - 2 * AGAIN


def _is_of_agents(event: Object) -> bool:
    return bool((event.get("source") or {}).get("component") == COMPONENT)
