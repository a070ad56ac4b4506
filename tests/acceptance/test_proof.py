"""What the whole agent says, and `check`, where a node lacks what the proof of callers needs.

In calm weather: a node lacks it whatever Azure does.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import podidentity
from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.sandbox import ANSWERED, ASK, PATIENCE, Sandbox, opened
from tests.sandboxes import own

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root")


BETWEEN = 4
"""Seconds between two runs of `check`, each of which takes half a second of a processor."""


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A node on that kind of network, and a pod on it that is served; each test leaves it so."""
    with opened(own(f"proof-{request.param}"), request.param, weather=CALM) as (place, _, loop):
        loop.run(place.bind())
        place.start_pod()
        yield place


@pytest.fixture
async def place(served: Sandbox) -> Sandbox:
    """The node, once nothing is wrong with it: what another test had taken comes back by itself."""
    async with asyncio.timeout(PATIENCE):
        while await asyncio.to_thread(found_by_check, served):  # noqa: ASYNC110 - of NMI
            await asyncio.sleep(BETWEEN)
    assert (await served.ask())[0] == 200
    return served


def found_by_check(place: Sandbox) -> dict[str, dict[str, str]]:
    """Return what `podidentity check` finds of NMI itself, by its reason."""
    found = [each for each in place.check() if each["namespace"] == "kube-system"]
    return {each["reason"]: each for each in found}


async def until_found(place: Sandbox, reason: str, text: str = "") -> dict[str, str]:
    """Return what `check` finds for this reason, once it says this: warnings must last 10 s."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await asyncio.to_thread(found_by_check, place)
            if reason in found and text in found[reason]["message"]:
                return found[reason]
            await asyncio.sleep(BETWEEN)


@contextmanager
def taken_table(place: Sandbox, family: str) -> Iterator[None]:
    """Have another program of the node own the table of the source guard: nobody can change it."""
    taken = subprocess.Popen(
        ("nsenter", "-t", str(place.nmi()), "-n", sys.executable, "-c", _TAKE, family),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with taken:
        assert taken.stdout is not None
        assert taken.stdout.readline() == b"taken\n"
        yield
        taken.terminate()


_TAKE = """
import json, sys
from podidentity.kernel.nftables import Nftables
table = {"family": sys.argv[1], "name": "podid_source"}
mine = {"add": {"table": {**table, "flags": ["owner"]}}}
Nftables().run(json.dumps({"nftables": [{"delete": {"table": table}}, mine]}))
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("served", "family", "open_to", "mend"),
    [
        (
            Network.BRIDGE,
            "bridge",
            "a pod on a bridge can speak with its neighbour's address",
            "use a network plugin with routed links.",
        ),
        (
            Network.ROUTED,
            "ip",
            "a pod can send to IMDS with an address that is not its own",
            "load nf_tables' fib expression",
        ),
    ],
    indirect=["served"],
)
async def test_a_node_that_cannot_guard_sources_is_named_by_check_with_the_mend(
    place: Sandbox, family: str, open_to: str, mend: str
) -> None:
    with taken_table(place, family):
        said = await until_found(place, "SourcesUnguarded")
        assert list(found_by_check(place)) == ["SourcesUnguarded"]
        node = place.plan.nodes[0].name
        assert said["message"].startswith(f"On {node}: {open_to}")
        assert mend in said["nextStep"]
        assert open_to in json.dumps(place.readiness()["warnings"])


_WITHOUT_BRIDGES = """
_run = Nftables.run

def _refuse_bridges(self, commands):
    if '"family": "bridge"' in commands and '"list"' not in commands:
        raise NftablesError("Error: Could not process rule: Operation not supported")
    return _run(self, commands)

Nftables.run = _refuse_bridges
"""


@pytest.mark.parametrize("served", [Network.BRIDGE], indirect=True)
async def test_on_a_kernel_without_rules_for_bridges_pods_are_served_once_a_connection(
    place: Sandbox,
) -> None:
    """The kernel is a stand-in: what libnftables would say of one is said in its place."""
    assert "close" not in await headers(place)
    command = ("kubectl", "-n", "kube-system")
    delete = (*command, "delete", "daemonset/nmi", "--cascade=foreground")
    agents = json.loads(place.run(*command, "get", "daemonset", "nmi", "-o", "json"))
    with tree_without_bridges() as tree:
        place.run(*delete)
        # On such a kernel there were no such rules before, either.
        place.on_node("nft", "flush", "ruleset")
        del agents["metadata"]["resourceVersion"]
        for container in agents["spec"]["template"]["spec"]["containers"]:
            container["env"].append({"name": "PYTHONPATH", "value": str(tree)})
        place.run(*command, "create", "-f", "-", given=json.dumps(agents))
        try:
            place.run(*command, "rollout", "status", "daemonset/nmi", f"--timeout={PATIENCE}s")
            said = await headers(place)
            assert said.startswith("HTTP/1.1 200")
            assert "connection: close" in said.lower()
            found = await until_found(place, "SourcesUnguarded", "Operation not supported")
            assert "load nf_tables' bridge family" in found["nextStep"].lower()
            assert place.readiness()["ready"] is True
        finally:
            place.run(*delete)
            place.run("podidentity", "enable")


@contextmanager
def tree_without_bridges() -> Iterator[Path]:
    """Yield a folder with this product, for a kernel that refuses each rule for bridges."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # a container has a /tmp of its own
        tree = Path(name)
        shutil.copytree(Path(podidentity.__file__).parent, tree / "podidentity")
        with (tree / "podidentity/kernel/nftables.py").open("a") as module:
            module.write(_WITHOUT_BRIDGES)
        tree.chmod(0o755)
        yield tree


async def headers(place: Sandbox) -> str:
    """Return the head of the answer to a pod's request, on a connection that it would keep."""
    asking = ASK.format(seconds=ANSWERED, nonce="n", resource="https://vault.azure.net")
    ran = await place.shell(f"{asking} -D - -o /dev/null")
    return ran.stdout.decode()


@pytest.mark.parametrize("served", Network, indirect=True)
async def test_an_agent_that_cannot_prove_by_cgroup_is_not_ready_and_serves_nobody(
    place: Sandbox,
) -> None:
    assert place.readiness()["attestation"] == "kernel"
    # An update to it would stop at the first node, and the agent before go on serving.
    await asyncio.to_thread(place.run, "podidentity", "disable")
    elsewhere = "--nmi-arg=--cgroup-root=/proc"
    try:
        with pytest.raises(AssertionError, match="not ready"):
            await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, "--timeout=10s")
        found = place.readiness()
        assert found["ready"] is False
        assert "no cgroup v2 at /proc" in json.dumps(found)
        await until_found(place, "NotReady", "no cgroup v2 at /proc")
        assert (await place.ask())[0] == 503

        weaker = "--nmi-arg=--attestation=namespace"
        await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, weaker)
        found = place.readiness()
        assert (found["ready"], found["attestation"]) == (True, "namespace")
        assert "nodes with cgroup v2 can have --attestation=kernel" in json.dumps(found["warnings"])
        assert list(found_by_check(place)) == ["WeakerProof"]
        assert (await place.ask())[0] == 200
    finally:
        await asyncio.to_thread(place.run, "podidentity", "enable", "--forget=nmi-arg")
