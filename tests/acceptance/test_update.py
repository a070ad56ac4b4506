"""The two programs on a node: each may die, hang or be replaced, and pods' requests go on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import podidentity
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.weather import CALM
from tests.acceptance.asking import OURS, Load, load, until_answered
from tests.acceptance.sandbox import (
    PATIENCE,
    Sandbox,
    leaked,
    needs_control_plane,
    one_node,
    opened,
)
from tests.sandboxes import own

AGENTS = ("-l", "app.kubernetes.io/component=nmi")


@dataclass
class Node:
    """A pod that is served, and what serves it."""

    place: Sandbox
    azure: AzureOperator

    def load(self, nonce: str) -> AbstractAsyncContextManager[Load]:
        """Have the pod ask from before the block until after it."""
        return load(self.place, nonce)

    async def update(self, *flags: str) -> None:
        """Replace the agent by one with other flags; return when it is ready."""
        given = [f"--nmi-arg={flag}" for flag in flags]
        plain = ("podidentity", "enable", "--forget=nmi-arg")
        await asyncio.to_thread(self.place.run, *plain, *given)

    def kubectl(self, *command: str) -> str:
        return self.place.run("kubectl", "-n", "kube-system", *command)

    async def until_logged(self, pod: str, words: str) -> None:
        """Wait until `serve` of this pod has logged these words."""
        async with asyncio.timeout(PATIENCE):
            while words not in self.kubectl("logs", pod, "-c", "serve"):  # noqa: ASYNC110 - a log
                await asyncio.sleep(0.2)

    def containers(self) -> dict[str, list[dict[str, Any]]]:
        """Return what each pod of NMI says of its containers; nothing before they run."""
        pods = json.loads(self.kubectl("get", "pods", "-o", "json", *AGENTS))["items"]
        return {
            f"pod/{pod['metadata']['name']}": pod["status"].get("containerStatuses", [])
            for pod in pods
        }

    def restarts(self) -> dict[str, int]:
        """Return how often each container was started again."""
        states = [state for pod in self.containers().values() for state in pod]
        return {state["name"]: state["restartCount"] for state in states}


@asynccontextmanager
async def node(name: str) -> AsyncIterator[Node]:
    # Calm: Azure is asked before the subject, which is how the agent's programs follow each other.
    async with one_node(name, weather=CALM) as place, AzureOperator(place.plan) as azure:
        await served(place)
        yield Node(place, azure)


async def served(place: Sandbox) -> None:
    await place.bind()
    place.start_pod()
    assert (await place.ask())[0] == 200


@pytest.fixture(scope="module")
def shared() -> Iterator[Sandbox]:
    """The node of the tests that leave it served as it was."""
    with opened(own("update"), weather=CALM) as (place, _, loop):
        loop.run(served(place))
        yield place


@pytest.fixture
async def found(shared: Sandbox) -> AsyncIterator[Node]:
    async with AzureOperator(shared.plan) as azure:
        found = Node(shared, azure)
        async with asyncio.timeout(PATIENCE):
            while len(found.kubectl("get", "pods", "-o", "name", *AGENTS).split()) > 1:  # noqa: ASYNC110 - of the API server
                await asyncio.sleep(0.2)
        yield found


async def test_updates_one_after_the_other_lose_no_request_and_leak_none(found: Node) -> None:
    async with found.load("of-the-updates") as asked:
        # The last brings back what was there.
        for turn, flags in enumerate((["--hold=1"], ["--hold=2"], []), 1):
            await found.update(*flags)
            await until_answered(found.place, "of-the-updates", 100 * turn)
    assert asked.failures == []
    assert set(asked.answers) == {OURS}
    assert await leaked(found.azure, "of-the-updates") == 0


async def test_an_update_to_another_port_loses_no_request_and_leaks_none(found: Node) -> None:
    async with found.load("of-the-ports") as asked:
        for flags in (["--nmi-port=2580"], []):
            await found.update(*flags)
            assert (await found.place.ask())[0] == 200
    assert asked.failures == []
    assert set(asked.answers) == {OURS}
    assert await leaked(found.azure, "of-the-ports") == 0


@pytest.fixture
def of_version_9() -> Iterator[Path]:
    """The folder of a tree of this product that calls itself version 9.0; all may read it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # a container has a /tmp of its own
        folder = Path(name)
        shutil.copytree(Path(podidentity.__file__).parent, folder / "podidentity")
        module = folder / "podidentity" / "__init__.py"
        text = module.read_text()
        assert f'"{podidentity.__version__}"' in text
        module.write_text(text.replace(podidentity.__version__, "9.0"))
        folder.chmod(0o755)
        yield folder


@needs_control_plane  # kubectl sends a strategic merge patch of a list
async def test_an_update_to_another_version_and_the_way_back_lose_no_request(
    found: Node, of_version_9: Path
) -> None:
    async with found.load("of-the-versions") as asked:
        for version, setting in (
            ("9.0", f"PYTHONPATH={of_version_9}"),
            (podidentity.__version__, "PYTHONPATH-"),
        ):
            before = found.kubectl("get", "pods", "-o", "name", *AGENTS).split()
            log = asyncio.to_thread(found.kubectl, "logs", "-f", *before, "-c", "serve")
            told = asyncio.create_task(log)
            await asyncio.to_thread(found.kubectl, "set", "env", "daemonset/nmi", setting)
            wait = ("rollout", "status", "daemonset/nmi", f"--timeout={PATIENCE}s")
            await asyncio.to_thread(found.kubectl, *wait)
            assert f"version {version} serves" in await told
    assert asked.failures == []
    assert set(asked.answers) == {OURS}
    assert await leaked(found.azure, "of-the-versions") == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root")
async def test_of_two_nmi_on_a_node_one_stands_back_and_serves_again_when_the_other_goes(
    of_version_9: Path,
) -> None:
    async with node("two") as found:
        (first,) = found.kubectl("get", "pods", "-o", "name", *AGENTS).split()
        async with found.load("of-the-two") as asked:
            await asyncio.to_thread(found.place.apply, _second(found, of_version_9))
            await found.until_logged(first, "version 9.0 serves")
            checked = await asyncio.to_thread(found.place.check)
            (two,) = [each for each in checked if each["reason"] == "TwoAgents"]
            assert (two["namespace"], two["name"]) == ("other", "nmi")
            delete = ("kubectl", "delete", "daemonset/nmi", "-n", "other", "--cascade=foreground")
            await asyncio.to_thread(found.place.run, *delete)
            await found.until_logged(first, "version 9.0 has ended: this agent serves again")
        assert asked.failures == []
        assert set(asked.answers) == {OURS}
        assert await leaked(found.azure, "of-the-two") == 0
        # It is the same pod, and the rules are its own again.
        assert found.kubectl("get", "pods", "-o", "name", *AGENTS).split() == [first]
        assert set(found.restarts().values()) == {0}
        wait = ("wait", "--for=condition=Ready", first, f"--timeout={PATIENCE}s")
        await asyncio.to_thread(found.kubectl, *wait)


def _second(found: Node, tree: Path) -> str:
    """Return the manifest of another NMI, of that tree, in a namespace of its own."""
    dry = ("podidentity", "enable", "--dry-run", "--namespace", "other", "-o", "json")
    made = json.loads(found.place.run(*dry))
    items = made["items"] if isinstance(made, dict) else made
    kept = [each for each in items if each["kind"] in {"ServiceAccount", "DaemonSet"}]
    (binding,) = [
        each
        for each in items
        if each["kind"] == "ClusterRoleBinding" and each["metadata"]["name"] == "podidentity-nmi"
    ]
    binding["metadata"]["name"] = "podidentity-nmi-of-other"
    (agents,) = [each for each in kept if each["metadata"]["name"] == "nmi"]
    for container in agents["spec"]["template"]["spec"]["containers"]:
        container["env"].append({"name": "PYTHONPATH", "value": str(tree)})
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    return "\n---\n".join(map(json.dumps, [namespace, binding, *kept]))


async def test_a_new_version_that_does_not_work_stops_at_the_first_node() -> None:
    async with node("broken") as found:
        before = found.kubectl("get", "pods", "-o", "name", *AGENTS).split()
        async with found.load("of-the-broken") as asked:
            broken = ("podidentity", "enable", "--nmi-arg=--cgroup-root=/proc", "--timeout=8s")
            with pytest.raises(AssertionError, match="NMI is not ready on every node"):
                await asyncio.to_thread(found.place.run, *broken)
        assert asked.failures == []
        assert set(asked.answers) == {OURS}
        # The pod before is still there and ready, the new one waits, once its containers run.
        async with asyncio.timeout(PATIENCE):
            while not all((pods := found.containers()).values()):  # noqa: ASYNC110 - of the API server
                await asyncio.sleep(0.2)
        ready = {name: all(each["ready"] for each in states) for name, states in pods.items()}
        assert [ready[name] for name in before] == [True]
        assert sorted(ready.values()) == [False, True]
        # Mended, it goes on.
        await found.update()
        assert (await found.place.ask())[0] == 200


async def test_a_worker_that_is_killed_costs_what_it_had_in_its_hands_and_no_more(
    found: Node,
) -> None:
    async with found.load("of-the-killed") as asked:
        supervised = len(found.place.processes("serve"))
        for _ in range(3):
            await asyncio.sleep(2)
            # The newest is the worker, once there is a new one: it has answered by then.
            while len(found.place.processes("serve")) < supervised:  # noqa: ASYNC110 - of /proc
                await asyncio.sleep(0.1)
            await found.place.ask()
            os.kill(found.place.processes("serve")[-1], signal.SIGKILL)
    # Four clients: at most what each had under way, each time.
    assert len(asked.failures) <= 3 * 4
    assert set(asked.answers) == {OURS}
    assert found.restarts() == {"serve": 0, "net": 0}
    assert await leaked(found.azure, "of-the-killed") == 0


async def test_a_worker_that_hangs_is_replaced_and_a_request_waits_for_the_next(
    found: Node,
) -> None:
    hung = found.place.processes("serve")[-1]
    os.kill(hung, signal.SIGSTOP)
    assert (await found.place.ask())[0] == 200
    assert hung not in found.place.processes("serve")
    assert found.restarts()["serve"] == 0


async def test_without_net_serve_says_so_and_goes_on_when_it_is_back(found: Node) -> None:
    (net,) = found.place.processes("net")
    os.kill(net, signal.SIGSTOP)
    status, body, _ = await found.place.ask()
    assert status == 503
    assert "cannot be proved" in body["error_description"]
    os.kill(net, signal.SIGKILL)
    await found.place.nmi_ready()
    async with asyncio.timeout(PATIENCE):
        while (await found.place.ask())[0] != 200:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.1)
    assert found.restarts() == {"serve": 0, "net": 1}
