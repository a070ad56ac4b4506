"""`podidentity check --bundle`: one archive for a support ticket, of which nobody need be afraid.

It has what a colleague asks for first: versions, findings, the objects of our kinds, of NMI and of
MIC, their events, logs, and the pages that NMI has of its node. Secrets are not read at all. What
is read goes through `redaction`: logs, annotations and pages may be written by others, too.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

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
    parse_object,
)

LOG_BYTES = 512 * 1024
"""Of the end of each container's log."""
MOST_AGENTS = 20
"""Whose logs and pages are read: those that are not ready first."""
_LINES = "5000"
OURS = (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    AZURE_ASSIGNED_IDENTITIES,
)


class Archive:
    """A tar whose files are redacted as they come; no more than a page of a list is held."""

    def __init__(self, tar: tarfile.TarFile, folder: Path) -> None:
        self._tar = tar
        self._folder = folder
        """For files of which the length is not known yet."""
        self.files: list[str] = []
        self.missing: list[str] = []
        """What could not be read, and why."""

    def lacks(self, name: str, why: str) -> None:
        """Take what could not be read; a pod may have written why, for a terminal to obey."""
        told = redacted(f"{name}: {why}")
        self.missing.append("".join(each if each.isprintable() else "?" for each in told))

    def text(self, name: str, text: str) -> None:
        self._add(name, io.BytesIO(redacted(text).encode()))

    @contextmanager
    def objects(self, name: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Make a JSON list with an object a line; where the API server refuses the rest, say so."""
        with tempfile.TemporaryFile(dir=self._folder) as part:

            def add(found: Mapping[str, Any]) -> None:
                part.write(b",\n" if part.tell() > len(b"[\n") else b"")
                part.write(msgspec.json.encode(redacted_object(found)))

            part.write(b"[\n")
            try:
                yield add
            except KubeError as error:
                self.lacks(name, error.message)
            part.write(b"\n]\n")
            self._add(name, part)

    def _add(self, name: str, content: IO[bytes]) -> None:
        info = tarfile.TarInfo(f"podidentity-check/{name}")
        info.size, info.mode = content.seek(0, os.SEEK_END), 0o600
        content.seek(0)
        self._tar.addfile(info, content)
        self.files.append(name)


async def collect(kube: Kube, choices: Choices, archive: Archive) -> None:
    """Add what the cluster has for a ticket; the `choices` are NMI's.

    What the person may not read, and what does not answer, is named in its place.
    """
    namespace = choices.namespace
    for resource, where in (*((each, "") for each in OURS), (NODES, ""), (EVENTS, namespace)):
        with archive.objects(f"objects/{resource.plural}.json") as add:
            async with aclosing(kube.pages(resource.path(where))) as pages:
                async for page in pages:
                    for item in page.items:
                        add(parse_object(item))
    with archive.objects("objects/daemonsets.json") as add:
        for each in await nmis(kube, namespace):
            add(each)
    with archive.objects("objects/deployments.json") as add:
        for each in await deployments_of_mic(kube):
            add(each)
    with archive.objects("objects/customresourcedefinitions.json") as add:
        for manifest in crds():
            if found := await find(kube, CRDS, "", manifest["metadata"]["name"]):
                add(found)
    agents: list[Object] = []
    with archive.objects("objects/pods.json") as add:
        agents += await pods_of_nmi(kube, namespace)
        of_mic = await find_all(kube, PODS, namespace, labelSelector=PODS_OF_MIC)
        agents += filter(is_ours, of_mic)
        for each in agents:
            add(each)
    agents.sort(key=lambda each: (ready(each), each["metadata"]["name"]))
    for pod in agents[:MOST_AGENTS]:
        await _of_pod(kube, pod, archive, choices)
    if len(agents) > MOST_AGENTS:
        archive.lacks(f"logs of {len(agents) - MOST_AGENTS} more pods", "too many")


async def _of_pod(kube: Kube, pod: Object, archive: Archive, choices: Choices) -> None:

    async def take(name: str, asked: Awaitable[bytes]) -> None:
        try:
            archive.text(name, (await asked).decode(errors="replace"))
        except (KubeError, NotTold) as error:
            archive.lacks(name, str(error))

    meta = pod["metadata"]
    path = PODS.path(meta["namespace"], meta["name"])
    for container in pod["spec"]["containers"]:
        name = f"logs/{meta['name']}-{container['name']}.log"
        only = {"container": container["name"], "tailLines": _LINES, "limitBytes": str(LOG_BYTES)}
        await take(name, kube.get(f"{path}/log", only))
    of_nmi = meta["labels"]["app.kubernetes.io/component"] == "nmi"
    port = choices.probe_port if of_nmi else probe_port_of(pod)
    asked = kube.passed_on(f"{path}:{port}/proxy/readyz")
    await take(f"pages/{meta['name']}-readyz.json", asked)
    if of_nmi:
        asked = read_debug(kube, pod, choices.secure_port)
        await take(f"pages/{meta['name']}-debug.json", asked)


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


@contextmanager
def new_archive(path: Path) -> Iterator[Archive]:
    """Make a new file, whole or not at all, which only its owner may read; raise CommandError.

    Its files have no times and no owners: the same contents are the same archive. It is compressed
    in haste: a tenant's texts would take most of the time, and become smaller by a tenth.
    """
    refuse(path)
    made: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".podidentity-", delete=False
        ) as to:
            made = Path(to.name)
            with (
                gzip.GzipFile("", "wb", fileobj=to, compresslevel=1, mtime=0) as compressed,
                tarfile.open(fileobj=compressed, mode="w") as tar,
            ):
                archive = Archive(tar, path.parent)
                yield archive
                archive.text("missing.txt", "".join(f"{each}\n" for each in archive.missing))
            to.flush()
            os.fsync(to.fileno())
        made.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if made is not None:
            made.unlink(missing_ok=True)
