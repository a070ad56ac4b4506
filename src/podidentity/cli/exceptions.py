"""`podidentity exception`: pods that the node's own IMDS answers; `az aks` has the same verbs.

An exception gives its pods every identity of the node, so each command says whether it has an
effect where it is: that is NMI's to decide (`--exception-namespaces`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.objects import (
    EXCEPTIONS,
    Object,
    apply,
    called,
    find,
    list_parsed,
    removal,
    spec_of,
)
from podidentity.cli.output import CommandError, data, table, terminal_width
from podidentity.cli.rollout import refuse_release
from podidentity.core.decision import Rules, without_effect
from podidentity.core.resources import (
    AzurePodIdentityException,
    ClientId,
    Malformed,
    ObjectRef,
    ResourceId,
)
from podidentity.wire.kube import AZURE_POD_IDENTITY_EXCEPTIONS
from podidentity.wire.manifests import parse_exception, render_exception

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


def put(
    *,
    target: ClusterTarget,
    namespace: str,
    name: str,
    labels: Sequence[tuple[str, str]],
    identities: Sequence[ClientId | ResourceId],
    exists: bool,
) -> None:
    twice = {key for key, value in labels for other, of in labels if key == other and value != of}
    if twice:
        raise click.UsageError(f"a pod has one value of each label, not two of {min(twice)!r}")
    wanted = AzurePodIdentityException(
        ref=ObjectRef(namespace, name),
        pod_labels=dict(labels),
        identities=tuple(dict.fromkeys(identities)),
    )
    on_cluster(target, lambda kube: (_update if exists else _add)(kube, wanted))


def list_exceptions(*, target: ClusterTarget, namespace: str | None, output: str) -> None:
    async def read(kube: Kube) -> list[ListedException]:
        found = await list_parsed(kube, EXCEPTIONS, namespace or "")
        choices = await choices_of_nmi(kube)
        return [entry_of(each, choices.rules) for each in found]

    entries = sorted(on_cluster(target, read), key=lambda each: each.found.ref)
    if output != "table":
        click.echo(data([each.as_data() for each in entries], output))
    elif entries:
        click.echo(table(HEAD, [each.row() for each in entries], width=terminal_width()))
    else:
        where = f"namespace {namespace}" if namespace else "this cluster"
        click.echo(f"There is no AzurePodIdentityException in {where}.")
    for entry in entries if output == "table" else ():
        if entry.why:
            click.echo(f"{entry.found.ref}: {entry.why}")


def delete(*, target: ClusterTarget, namespace: str, name: str) -> None:
    manifest = render_exception(
        AzurePodIdentityException(ref=ObjectRef(namespace, name), pod_labels={})
    )
    click.echo(on_cluster(target, lambda kube: removal(kube, manifest)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedException:
    """An exception of the cluster, and why it has no effect; "" where it has."""

    found: AzurePodIdentityException | Malformed
    why: str

    def row(self) -> tuple[str, ...]:
        found = self.found
        labels, identities = ("-", "-")
        if isinstance(found, AzurePodIdentityException):
            labels = _shown(found) or "-"
            identities = ",".join(map(str, found.identities)) or "all"
        state = "without effect" if self.why else "in effect"
        return found.ref.namespace, found.ref.name, labels, identities, state

    def as_data(self) -> dict[str, object]:
        found = self.found
        known = render_exception(found)["spec"] if not isinstance(found, Malformed) else {}
        why = {"why": self.why} if self.why else {}
        ref = {"namespace": found.ref.namespace, "name": found.ref.name}
        return {**ref, **known, "inEffect": not self.why, **why}


HEAD = ("NAMESPACE", "NAME", "POD LABELS", "IDENTITIES", "STATE")


def entry_of(found: AzurePodIdentityException | Malformed, rules: Rules) -> ListedException:
    if isinstance(found, Malformed):
        return ListedException(found=found, why=f"it cannot be used: {found.why}.")
    if not found.pod_labels:
        return ListedException(found=found, why="It names no label, so it is for no pod.")
    refusal = without_effect(found, rules)
    return ListedException(
        found=found, why=f"{refusal.message} {refusal.next_step}" if refusal else ""
    )


async def _add(kube: Kube, wanted: AzurePodIdentityException) -> None:
    there = await find(kube, AZURE_POD_IDENTITY_EXCEPTIONS, *wanted.ref)
    if there is not None and not _same(there, wanted):
        raise CommandError(
            f"AzurePodIdentityException {wanted.ref} exists, for other pods or identities",
            "Choose another --name, or run podidentity exception update.",
        )
    manifest = render_exception(wanted)
    result = "unchanged" if there is not None else await apply(kube, manifest)
    click.echo(f"{called(manifest)} {result}")
    await _say_effect(kube, wanted)


async def _update(kube: Kube, wanted: AzurePodIdentityException) -> None:
    there = await find(kube, AZURE_POD_IDENTITY_EXCEPTIONS, *wanted.ref)
    if there is None:
        raise CommandError(
            f"There is no AzurePodIdentityException {wanted.ref}",
            "podidentity exception list shows all; podidentity exception add makes one.",
        )
    refuse_release(there)
    manifest = render_exception(wanted)
    # A merge keeps what it does not name: labels that go are named as null.
    before = spec_of(there).get("podLabels") or {}
    gone = dict.fromkeys(key for key in before if key not in wanted.pod_labels)
    spec = manifest["spec"]
    change = {**spec, "podLabels": {**spec["podLabels"], **gone}}
    if not wanted.identities:
        change["azureIdentities"] = None
    await kube.merge(AZURE_POD_IDENTITY_EXCEPTIONS.path(*wanted.ref), {"spec": change})
    click.echo(f"{called(manifest)} {'unchanged' if _same(there, wanted) else 'configured'}")
    await _say_effect(kube, wanted)


async def _say_effect(kube: Kube, wanted: AzurePodIdentityException) -> None:
    choices = await choices_of_nmi(kube)
    entry = entry_of(wanted, choices.rules)
    if entry.why:
        click.echo(f"warning: {entry.why}", err=True)
        return
    whose = " or ".join(map(str, wanted.identities)) or "every identity of their node"
    click.echo(f"Pods of namespace {wanted.ref.namespace} with {_shown(wanted)} get {whose}.")


def _same(there: Object, wanted: AzurePodIdentityException) -> bool:
    found = parse_exception(json.dumps(there).encode())
    return isinstance(found, AzurePodIdentityException) and (
        dict(found.pod_labels) == dict(wanted.pod_labels)
        and set(found.identities) == set(wanted.identities)
    )


def _shown(found: AzurePodIdentityException) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(found.pod_labels.items()))
