"""`podidentity version`: which builds this command, NMI and MIC are.

The version of a program in the cluster is that which it says itself, or the tag of its image; the
commit only it knows. One of the pods that have the same image is asked for it at `/readyz`, which
NMI and MIC have for their kubelets: through the API server, by the right to `get` pods/proxy.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import click

from podidentity.build import UNKNOWN, build
from podidentity.cli.checks.findings import named
from podidentity.cli.checks.versions import version_of_image
from podidentity.cli.connection import ClusterTarget, on_cluster, right_to
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.output import CommandError, data, table, terminal_width
from podidentity.cli.rollout import nmis, pods_of_nmi, ready
from podidentity.wire.kube import PODS, KubeError

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProgram:
    """NMI or MIC in one pod."""

    program: str
    pod: str
    """NAMESPACE/NAME"""
    node: str
    version: str = UNKNOWN
    commit: str = UNKNOWN
    image: str
    digest: str = ""
    """Of the image that runs, as its node names it; "" if it does not say."""

    @property
    def build(self) -> tuple[str, str, str, str, str]:
        """What pods of the same build have in common."""
        return (self.program, self.version, self.commit, self.image, self.digest)


def program_of(program: str, pod: Object) -> RunningProgram:
    images = list(dict.fromkeys(each.get("image", "") for each in pod["spec"]["containers"]))
    statuses = pod.get("status", {}).get("containerStatuses") or [{}]
    return RunningProgram(
        program=program,
        pod=str(ref_of(pod)),
        node=pod["spec"].get("nodeName", ""),
        version=" and ".join(version_of_image(each) or UNKNOWN for each in images),
        image=" and ".join(images),
        digest=statuses[0].get("imageID", ""),
    )


def alike(found: Iterable[RunningProgram]) -> list[list[RunningProgram]]:
    ordered = sorted(found, key=lambda each: (each.build, each.node, each.pod))
    return [list(each) for _, each in groupby(ordered, key=lambda each: each.build)]


def rows(found: Iterable[RunningProgram]) -> list[tuple[str, ...]]:
    made: list[tuple[str, ...]] = []
    for each in alike(found):
        program = each[0]
        digits, dash, changed = program.commit.partition("-")  # of a changed tree: `-dirty`
        where = f"{program.image} on {_places(each)}"
        made.append((program.program, program.version, f"{digits[:12]}{dash}{changed}", where))
    return made


HEAD = ("PROGRAM", "VERSION", "COMMIT", "IMAGE, AND ITS NODES")


def differing(own: str, found: Iterable[RunningProgram]) -> str:
    """Return a sentence about versions that differ; "" if none does, or none is known."""
    versions: dict[str, list[str]] = {}
    for each in alike(found):
        if each[0].version != UNKNOWN:
            versions.setdefault(each[0].version, []).append(f"{each[0].program} on {_places(each)}")
    if not set(versions) - {own}:
        return ""
    told = [f"{version} {', '.join(where)}" for version, where in sorted(versions.items())]
    return f"Versions differ: {own} this command; {'; '.join(told)}. podidentity check says more."


def _places(programs: Sequence[RunningProgram]) -> str:
    return named([each.node or "no node" for each in programs])


def version(ctx: click.Context, /, *, target: ClusterTarget, client: bool, output: str) -> None:
    own = facts()
    if client:
        click.echo(_own(own) if output == "table" else data(own, output))
        return
    if output == "table":
        click.echo(_own(own))
    try:
        found = on_cluster(target, programs)
    except CommandError as error:
        if output != "table":
            click.echo(data({**own, "cluster": {"error": error.message}}, output))
        without = "Without a cluster: podidentity version --client."
        click.echo(f"error: {error.message} {without}", err=True)
        ctx.exit(1)
    if output == "table":
        told = "Neither NMI nor MIC is in the cluster."
        if found:
            told = table(HEAD, rows(found), width=terminal_width())
        click.echo(f"\n{told}")
    else:
        click.echo(data({**own, "cluster": {"programs": list(map(asdict, found))}}, output))
    if words := differing(own["version"], found):
        click.echo(f"warning: {words}", err=True)


def _own(found: Mapping[str, str]) -> str:
    head, *rest = found.items()
    return table(("podidentity", head[1]), rest)


def facts() -> dict[str, str]:
    return {**build(), "python": platform.python_version(), "machine": platform.machine()}


async def programs(kube: Kube) -> list[RunningProgram]:
    # With all their flags: help and --client need none of them.
    from podidentity.cli.agent_choices import chosen
    from podidentity.cli.controller import pods as pods_of_mic
    from podidentity.cli.mic import deployments_of_mic, probe_port_of

    found: list[RunningProgram] = []
    for agent in await nmis(kube):
        pods = await pods_of_nmi(kube, agent["metadata"]["namespace"])
        port = chosen(agent).probe_port
        found += await _asked(kube, "nmi", [(pod, port) for pod in pods])
    for each in await deployments_of_mic(kube):
        pods = await pods_of_mic(kube, each["metadata"]["namespace"])
        found += await _asked(kube, "mic", [(pod, probe_port_of(pod)) for pod in pods])
    return sorted(found, key=lambda each: (each.program, each.node, each.pod))


async def _asked(
    kube: Kube, program: str, pods: Sequence[tuple[Object, int]]
) -> list[RunningProgram]:
    """Return a program in its pods, with what one of each build says of itself.

    `pods` are given with the port of their probes.
    """
    by_name = {str(ref_of(pod)): (pod, port) for pod, port in pods}
    found: list[RunningProgram] = []
    for each in alike(program_of(program, pod) for pod, _ in pods):
        says = await _says(kube, program, [by_name[one.pod] for one in each])
        known = {name: says[name] for name in ("version", "commit") if says.get(name)}
        found += [replace(one, **known) for one in each]
    return found


async def _says(kube: Kube, program: str, pods: Sequence[tuple[Object, int]]) -> Mapping[str, str]:
    """Return what a ready one of these pods says of its build; {} if none may be asked."""
    for pod, port in pods:
        if not ready(pod):
            continue
        ref = ref_of(pod)
        try:
            return build_in(await kube.passed_on(f"{PODS.path(*ref)}:{port}/proxy/readyz"))
        except KubeError as error:
            if error.forbidden:
                needed = right_to("get", "pods/proxy", ref.namespace)
                click.echo(f"{program.upper()}'s commit is not known: {needed}", err=True)
            return {}
    return {}


def build_in(readiness: bytes) -> dict[str, str]:
    """Return the version, commit and build that `/readyz` names; {} of NMI before 0.2."""
    try:
        found = json.loads(readiness).get("build", {})
        return {name: str(value) for name, value in found.items()}
    except (ValueError, AttributeError):
        return {}
