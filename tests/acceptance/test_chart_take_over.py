"""The archived chart's release, and ours in its place: by Helm itself, under load, and back.

Two ways, as docs/how-to/take-over.md has them: a release of our own beside the archived one, one
pool of nodes after the other; and ours as the next revision of the archived release. What may fail
is what the archived NMI has in its hands when it ends, and no token is of another identity.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deploy.values import CHART
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.weather import CALM
from tests.acceptance import archived_nmi
from tests.acceptance.archived_nmi import ARCHIVED
from tests.acceptance.asking import OURS, Load
from tests.acceptance.sandbox import PATIENCE, leaked, opened
from tests.acceptance.two_pools import PODS, Cluster
from tests.deploy import archived
from tests.deploy.helm import IMAGE, RELEASE, TAKE_OVER, begun, finish
from tests.sandboxes import own

BESIDE = "podidentity"
"""Release and namespace of ours beside the archived one."""
pytestmark = archived_nmi.needs_archived
OLD_VALUES = {"operationMode": "managed", "installMICException": "false"}
OWN = {"nameOverride": BESIDE, "aks": {"addonException": False}}
PORTS = {"probePort": "8086", "prometheusPort": "9091"}


class Releases:
    """The releases of a cluster of two pools; the archived one is there."""

    def __init__(self, found: Cluster, old: Path) -> None:
        self.found = found
        self.old = old

    async def do(
        self, action: str, name: str, *words: str, values: dict[str, Any] | None = None
    ) -> None:
        """Have Helm do this, and wait for pods where it can.

        It is Helm's own program, whose library has no --take-ownership, and whose name its objects
        have as that of their manager.
        """
        namespace = "default" if name == RELEASE else name
        where = (f"--kubeconfig={self.found.place.plan.kubeconfig}", f"--namespace={namespace}")
        waits = ("--wait", f"--timeout={PATIENCE}s")
        helm = partial(begun, action, name, *words, *waits, *where, values=values)
        await asyncio.to_thread(lambda: finish(helm()))

    async def put(self, action: str, name: str = RELEASE, *flags: str, **values: Any) -> None:
        """Install our chart, or upgrade to it."""
        values = {**OLD_VALUES, "image": {"repository": IMAGE}, **values}
        await self.do(action, name, str(CHART), *flags, values=values)

    async def who(self) -> list[str]:
        return [await self.found.who(pod) for pod in PODS]

    async def leaks(self, nonce: str) -> int:
        return await leaked(self.found.azure, nonce)


@contextmanager
def archived_release(name: str, folder: Path) -> Iterator[tuple[Releases, asyncio.Runner]]:
    """Have a cluster with the archived release, and pods that its NMI serves."""
    with opened(own(name), nodes=2, weather=CALM) as (place, azure, loop):
        found = Cluster(place, azure, loop.run(prepare(place.plan)))
        made = Releases(found, archived.chart(folder))
        loop.run(_begin(made))
        yield made, loop


async def _begin(releases: Releases) -> None:
    found = releases.found
    await found.prepare()
    archived.runs(releases.old, archived_nmi.PROGRAM)
    await releases.do("install", RELEASE, str(releases.old), values=OLD_VALUES)
    await found.until_archived_has_rules()
    await found.start_pods()
    await found.run("podidentity", "migrate", "apply", "--yes")


async def come_beside(releases: Releases) -> Load:
    """Have ours come as a release of its own, pool by pool; return what pods got."""
    found = releases.found
    assert await releases.who() == [ARCHIVED, ARCHIVED]
    async with found.load("coming") as asked:
        canary = {"nodeSelector": {"agentpool": "canary"}}
        flags = (*TAKE_OVER, "--create-namespace")
        await releases.put("install", BESIDE, *flags, **OWN, nmi=canary)
        assert await releases.who() == [OURS, ARCHIVED]
        await releases.put("upgrade", BESIDE, **OWN)
        assert await releases.who() == [OURS, OURS]
        nowhere = {**OLD_VALUES, "nmi": {"nodeSelector": {"podidentity": "none"}}}
        await releases.do("upgrade", RELEASE, str(releases.old), values=nowhere)
        await found.until_ours_has_the_ports()
    return asked


async def go_from_beside(releases: Releases) -> Load:
    """Have the archived release rolled back, and then ours taken away; return what pods got."""
    async with releases.found.load("going") as asked:
        apart = {**PORTS, "extraArgs": ["--host-token=off", "--on-exit=close"]}
        await releases.put("upgrade", BESIDE, **OWN, nmi=apart)
        await releases.do("rollback", RELEASE, "1")
        assert await releases.who() == [OURS, OURS]
        await releases.do("uninstall", BESIDE)
        assert await releases.who() == [ARCHIVED, ARCHIVED]
    return asked


async def come_as_next(releases: Releases) -> Load:
    """Have ours come as the next revision of the archived release; return what pods got."""
    async with releases.found.load("next") as asked:
        await releases.put("upgrade", RELEASE, "--take-ownership")
        assert await releases.who() == [OURS, OURS]
        await releases.found.until_ours_has_the_ports()
    return asked


async def roll_back(releases: Releases) -> Load:
    """Have the archived revision come back; return what pods got."""
    async with releases.found.load("back") as asked:
        await releases.put("upgrade", nmi={"extraArgs": ["--on-exit=close"]})
        await releases.do("rollback", RELEASE, "1")
        assert await releases.who() == [ARCHIVED, ARCHIVED]
    return asked


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Releases, asyncio.Runner]]:
    with archived_release("chart-over", tmp_path_factory.mktemp("archived")) as found:
        yield found


def only_what_the_archived_one_had(asked: Load) -> None:
    assert asked.wrong == []
    assert {by for by, _ in asked.lost} <= {ARCHIVED}, json.dumps(asked.lost)
    assert len(asked.lost) <= len(PODS) * 2, "the connections that are kept"
    assert min(asked.answers[by] for by in (OURS, ARCHIVED)) > 20


def nothing(asked: Load) -> None:
    assert asked.failures == []
    assert min(asked.answers[by] for by in (OURS, ARCHIVED)) > 0


def test_it_comes_beside_the_archived_release_pool_by_pool(
    cluster: tuple[Releases, asyncio.Runner],
) -> None:
    releases, loop = cluster
    only_what_the_archived_one_had(loop.run(come_beside(releases)))
    assert loop.run(releases.leaks("coming")) == 0


def test_a_rollback_of_the_archived_release_has_it_back_beside_ours_which_goes(
    cluster: tuple[Releases, asyncio.Runner],
) -> None:
    releases, loop = cluster
    nothing(loop.run(go_from_beside(releases)))
    assert loop.run(releases.leaks("going")) == 0


def test_it_comes_as_the_next_revision_of_the_archived_release(
    cluster: tuple[Releases, asyncio.Runner],
) -> None:
    releases, loop = cluster
    only_what_the_archived_one_had(loop.run(come_as_next(releases)))
    assert loop.run(releases.leaks("next")) == 0


def test_a_rollback_to_the_archived_revision_opens_no_node_and_keeps_all_objects(
    cluster: tuple[Releases, asyncio.Runner],
) -> None:
    releases, loop = cluster
    nothing(loop.run(roll_back(releases)))
    assert loop.run(releases.leaks("back")) == 0
    place = releases.found.place
    left = json.loads(place.run("kubectl", "get", "azureidentities", "-A", "-o", "json"))["items"]
    assert [each["metadata"]["name"] for each in left] == ["bound"]
    for number in range(len(PODS)):
        assert "podid" not in place.on_node("nft", "list", "tables", number=number)
