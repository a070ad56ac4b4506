"""Parts are taken away and brought back, and callers never meet a closed door."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import sys

import pytest

from podidentity_sandbox.plan import AZURE_ADDRESS, IMDS_ADDRESS, Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.inspection import ask, status
from tests.sandbox.world.places import Place, pid_of, traces

pytestmark = pytest.mark.net


@pytest.fixture
def plan(place: Place) -> Plan:
    return place.up()


def order(plan: Plan, operation: str, part: str) -> str:
    answer = ask(plan.path / "world.sock", {"op": operation, "part": part})
    return str(answer["state"])


def test_callers_of_a_paused_part_wait_and_lose_nothing(plan: Plan) -> None:
    assert order(plan, "pause", "cluster") == "paused"
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    with socket.create_connection(("127.0.0.1", plan.apiserver_port), 5) as caller:
        caller.sendall(hello.read())
        assert not answered(caller, 0.2)
        assert order(plan, "resume", "cluster") == "ready"
        assert answered(caller, 60)


def answered(caller: socket.socket, seconds: float) -> bool:
    return bool(select.select([caller], [], [], seconds)[0])


def test_a_sandbox_with_parts_paused_and_killed_says_so_and_ends_cleanly(
    plan: Plan, place: Place
) -> None:
    assert order(plan, "kill", "azure") == "ended"
    order(plan, "pause", plan.nodes[0].name)
    order(plan, "pause", "cluster")
    found = status(place.folder())
    states = [(part["state"], part["exit"]) for part in found.parts]
    assert states == [("paused", None), ("ended", -9), ("paused", None), ("ready", None)]
    left = traces(place)
    place.down()
    assert left.seen() == []


def test_each_node_reaches_azure_and_its_neighbour_and_sees_none_of_its_namespaces(
    plan: Plan, place: Place
) -> None:
    first = pid_of(place, plan.nodes[0].name)
    assert connects(first, IMDS_ADDRESS, 80)
    assert connects(first, AZURE_ADDRESS, 443)
    refused = "ConnectionRefusedError"  # an answer: the neighbour is there and listens to nothing
    assert refused in attempt(first, plan.nodes[1].address, 9)
    for node in plan.nodes:
        pid = pid_of(place, node.name)
        names = inside(pid, "ls", "/run/netns").stdout.split()
        assert names == [f"cni-of-{node.name}"]


WRONG: tuple[tuple[dict[str, str], str], ...] = (
    ({"op": "start", "part": "azure"}, r"azure is running \(ready\)"),
    ({"op": "kill", "part": "nobody"}, "no part 'nobody'; there are cluster, azure, "),
)


def test_wrong_orders_are_refused_with_the_reason(plan: Plan) -> None:
    for message, answer in WRONG:
        with pytest.raises(SandboxError, match=answer):
            ask(plan.path / "world.sock", message)


def inside(pid: int, *command: str) -> subprocess.CompletedProcess[str]:
    enter = ["nsenter", f"--target={pid}", "--user", "--net", "--mount", "--preserve-credentials"]
    return subprocess.run([*enter, *command], capture_output=True, text=True, check=False)


def attempt(pid: int, address: str, port: int) -> str:
    script = f"import socket; socket.create_connection(({address!r}, {port}), 2)"
    return inside(pid, sys.executable, "-c", script).stderr


def connects(pid: int, address: str, port: int) -> bool:
    return not attempt(pid, address, port)
