"""`podidentity check --bundle`: one archive for a support ticket, of which nobody need be afraid.

It has what a colleague asks for first: versions, findings, the objects of our kinds, of NMI and of
MIC, their events, logs, and the pages that NMI has of its node. Secrets are not read at all. What
is read goes through `redaction`: logs, annotations and pages may be written by others, too.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from podidentity.adapters.kube import Kube
from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks.redaction import redacted, redacted_object
from podidentity.cli.mic import PODS_OF_MIC, deployments_of_mic, probe_port_of
from podidentity.cli.nmi_debug import NotTold, read_debug
from podidentity.cli.objects import CRDS, Object, find, find_all
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import is_ours, nmis, pods_of_nmi, ready
from podidentity.manifests import crds
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    EVENTS,
    NODES,
    PODS,
    KubeError,
    Resource,
)

LOG_BYTES = 512 * 1024
"""Of the end of each container's log."""
MOST_AGENTS = 20
"""Whose logs and pages are read: those that are not ready first."""
_LINES = "5000"
PAGE = "readyz"
"""What NMI and MIC say of themselves to everybody."""
DEBUG = "debug"
"""What NMI alone says, to who may read it: what it knows of the pods of its node."""
OURS = (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    AZURE_ASSIGNED_IDENTITIES,
)


@dataclass(slots=True)
class Contents:
    """The files of an archive, each redacted as it comes."""

    files: dict[str, bytes] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """What could not be read, and why."""

    def lacks(self, name: str, why: str) -> None:
        """Take what could not be read; a pod may have written why, for a terminal to obey."""
        told = redacted(f"{name}: {why}")
        self.missing.append("".join(each if each.isprintable() else "?" for each in told))

    def text(self, name: str, text: str) -> None:
        self.files[name] = redacted(text).encode()

    def data(self, name: str, value: object) -> None:
        shown = json.dumps(redacted_object(value), indent=1, ensure_ascii=False)
        self.files[name] = redacted(shown).encode()


async def collect(kube: Kube, choices: Choices) -> Contents:
    """Return what the cluster has for a ticket; the `choices` are NMI's. Raise KubeError.

    What the person may not read, and what does not answer, is named in its place.
    """
    found = Contents()
    async for name, value in _objects(kube, choices.namespace, found):
        found.data(f"objects/{name}.json", value)
    agents = await _agents(kube, choices.namespace, found)
    for pod in agents[:MOST_AGENTS]:
        await _of_pod(kube, pod, found, choices)
    if len(agents) > MOST_AGENTS:
        found.lacks(f"logs of {len(agents) - MOST_AGENTS} more pods", "too many")
    return found


async def _objects(
    kube: Kube, namespace: str, found: Contents
) -> AsyncIterator[tuple[str, Sequence[Object]]]:
    """Yield lists of objects, by the names of their files."""

    async def listed(resource: Resource, where: str = "", **only: str) -> list[Object]:
        try:
            return await find_all(kube, resource, where, **only)
        except KubeError as error:
            found.lacks(resource.plural, error.message)
            return []

    for resource in OURS:
        yield resource.plural, await listed(resource)
    yield "nodes", await listed(NODES)
    yield "events", await listed(EVENTS, namespace)
    for name, look in (
        ("daemonsets", nmis(kube, namespace)),
        ("deployments", deployments_of_mic(kube)),
        ("customresourcedefinitions", _definitions(kube)),
    ):
        try:
            yield name, await look
        except KubeError as error:
            found.lacks(name, error.message)


async def _definitions(kube: Kube) -> list[Object]:
    names = [each["metadata"]["name"] for each in crds()]
    found = [await find(kube, CRDS, "", name) for name in names]
    return [each for each in found if each is not None]


async def _agents(kube: Kube, namespace: str, found: Contents) -> list[Object]:
    """Return the pods of NMI and of MIC, those that are not ready first."""
    try:
        pods = await pods_of_nmi(kube, namespace)
        pods += filter(is_ours, await find_all(kube, PODS, namespace, labelSelector=PODS_OF_MIC))
    except KubeError as error:
        found.lacks(f"pods in {namespace}", error.message)
        return []
    found.data("objects/pods.json", pods)
    return sorted(pods, key=lambda each: (ready(each), each["metadata"]["name"]))


async def _of_pod(kube: Kube, pod: Object, found: Contents, choices: Choices) -> None:

    async def take(name: str, asked: Awaitable[bytes]) -> None:
        try:
            found.text(name, (await asked).decode(errors="replace"))
        except KubeError as error:
            found.lacks(name, error.message)
        except NotTold as error:
            found.lacks(name, str(error))

    meta = pod["metadata"]
    path = PODS.path(meta["namespace"], meta["name"])
    for container in pod["spec"]["containers"]:
        name = f"logs/{meta['name']}-{container['name']}.log"
        only = {"container": container["name"], "tailLines": _LINES, "limitBytes": str(LOG_BYTES)}
        await take(name, kube.get(f"{path}/log", only))
    of_nmi = meta["labels"]["app.kubernetes.io/component"] == "nmi"
    port = choices.probe_port if of_nmi else probe_port_of(pod)
    asked = kube.passed_on(f"{path}:{port}/proxy/{PAGE}")
    await take(f"pages/{meta['name']}-{PAGE}.json", asked)
    if of_nmi:
        asked = read_debug(kube, pod, choices.secure_port)
        await take(f"pages/{meta['name']}-{DEBUG}.json", asked)


def packed(contents: Contents) -> bytes:
    """Return the archive: a tar, compressed by gzip, whose files have no times and no owners."""
    raw = io.BytesIO()
    missing = "".join(f"{each}\n" for each in contents.missing)
    files = {**contents.files, "missing.txt": missing.encode()}
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as archive,
    ):
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(f"podidentity-check/{name}")
            info.size, info.mode = len(content), 0o600
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


def refuse(path: Path) -> None:
    """Raise CommandError where no new file can be written; one that is there stays as it is."""
    if path.exists():
        raise CommandError(f"{path} exists already, and was not changed", "Name another file.")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> CommandError:
    return CommandError(
        f"{path} cannot be written: {error.strerror or error}. Nothing of it is left",
        "Choose another place for the archive.",
    )


def write(path: Path, content: bytes) -> None:
    """Write a new file, whole or not at all, which only its owner may read; raise CommandError."""
    refuse(path)
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".podidentity-", delete=False
        ) as to:
            made = Path(to.name)
            to.write(content)
            to.flush()
            os.fsync(to.fileno())
        made.replace(path)
    except OSError as error:
        if made is not None:
            made.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
