"""The agent's two programs and the container runtime: each may die, and pods' requests go on."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from podidentity_sandbox.world.api import ready
from tests.acceptance.runtime.node import IMAGE, NEXT, SECONDS, SYSTEM, Node

# Opens a connection for each request, so many a second, whatever becomes of those before; nothing
# is asked twice. Prints how many answers of each status there were, and what failed. Ends when its
# time is over, or with its file.
RATE = """
import json, os, selectors, socket, sys, time
rate, seconds, goes_on = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
open(goes_on, "w").close()
request = (
    b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    b" HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\nMetadata: true\\r\\nConnection: close\\r\\n\\r\\n"
)
watched, answers, failures = selectors.DefaultSelector(), {}, []
began, asked, patience = time.monotonic(), 0, 60
def fail(what, key):
    now, (opened, said) = time.monotonic(), key.data
    state = "asked" if key.events == selectors.EVENT_READ else "connecting"
    state = f"answered {said[:60]!r}" if said else state
    failures.append(f"{now - began:.2f} s, {state}, after {now - opened:.3f} s: {what}")
    done(key)
def done(key):
    watched.unregister(key.fileobj)
    key.fileobj.close()
while asked < rate * seconds or watched.get_map():
    now = time.monotonic()
    if not os.path.exists(goes_on):
        seconds = 0
    while asked < rate * seconds and now - began >= asked / rate:
        asked += 1
        one = socket.socket()
        one.setblocking(False)
        one.connect_ex(("169.254.169.254", 80))
        watched.register(one, selectors.EVENT_WRITE, [now, b""])
    due = began + asked / rate if asked < rate * seconds else now + 0.1
    for key, event in watched.select(max(0, due - now)):
        try:
            if event == selectors.EVENT_WRITE:
                key.fileobj.send(request)
                watched.modify(key.fileobj, selectors.EVENT_READ, key.data)
                continue
            piece = key.fileobj.recv(65536)
        except OSError as error:
            fail(repr(error), key)
            continue
        key.data[1] += piece
        if piece:
            continue
        status = key.data[1][9:12].decode()
        if status != "200":
            fail(key.data[1][:200].decode(), key)
            continue
        answers[status] = answers.get(status, 0) + 1
        done(key)
    for key in [k for k in watched.get_map().values() if now - k.data[0] > patience]:
        fail("no answer", key)
print(json.dumps({"asked": asked, "answers": answers, "failures": failures}))
"""
_GOES_ON = "/dev/shm/asking"  # noqa: S108 - in the pod
_PAUSE = 0.05


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(_PAUSE)


class Load:
    """A pod that asks at a fixed rate, meanwhile, for so many seconds at most."""

    def __init__(self, node: Node, pod: str, rate: float, seconds: float) -> None:
        self._node, self._pod = node, pod
        self._result: dict[str, Any] = {}
        command = ("python3", "-ISc", RATE, f"{rate:g}", f"{seconds:g}", _GOES_ON)

        def run() -> None:
            self._result = json.loads(node.inside(pod, *command, seconds=seconds + SECONDS))

        self._thread = threading.Thread(target=run)
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def enough(self) -> dict[str, Any]:
        """Have it ask no more; return what became of the requests."""
        assert self.goes_on, "its time was over before"
        self._node.inside(self._pod, "python3", "-ISc", f"import os; os.remove('{_GOES_ON}')")
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return what became of the requests, when all are answered."""
        self._thread.join()
        return self._result


def test_an_update_of_the_agent_costs_no_request(node: Node) -> None:
    node.ready(node.start("asking"))
    before = node.agent()
    loads = [Load(node, pod, 20, 600) for pod in ("app", "asking")]
    node.enable(NEXT if node.image() == IMAGE else IMAGE)
    assert node.agent() != before
    for load in loads:
        told = load.enough()
        assert told["failures"] == []
        assert told["answers"] == {"200": told["asked"]}
    node.drop("asking")


def test_net_that_is_killed_comes_back_and_serve_is_left_alone(node: Node) -> None:
    serve, before = node.program("serve"), node.restarts()
    os.kill(node.program("net"), signal.SIGKILL)
    until(lambda: node.restarts()["net"] == before["net"] + 1)
    until(lambda: node.ask("app").status == 200)
    assert node.program("serve") == serve
    assert node.restarts()["serve"] == before["serve"]
    node.agent()


def test_serve_that_is_killed_comes_back_and_net_keeps_the_rules(node: Node) -> None:
    net, before = node.program("net"), node.restarts()
    os.kill(node.program("serve"), signal.SIGKILL)
    until(lambda: node.restarts()["serve"] == before["serve"] + 1)
    assert "dnat" in node.on_node("nft list table ip podid")
    until(lambda: node.ask("app").status == 200)
    assert node.program("net") == net
    assert node.restarts()["net"] == before["net"]
    node.agent()


def test_a_worker_that_is_killed_is_replaced_without_the_kubelet(node: Node) -> None:
    before = node.restarts()
    worker = node.place.processes("serve")[-1]
    os.kill(worker, signal.SIGKILL)
    until(lambda: node.ask("app").status == 200)
    assert worker not in node.place.processes("serve")
    assert node.restarts() == before


def test_each_program_lives_in_memory_of_its_own(node: Node) -> None:
    limits = {"serve": 192 << 20, "net": 96 << 20}
    for program, limit in limits.items():
        given, used = memory(node.program(program))
        assert given == limit
        assert used < limit * 0.6, f"{program}: {used >> 20} MiB of {limit >> 20}"


def test_what_takes_more_memory_than_serve_may_is_ended_and_net_is_not(node: Node) -> None:
    net, before = node.program("net"), node.restarts()
    hog = "print('begun', flush=True); x = bytearray(400 << 20); print('done')"
    command = ("python3", "-ISc", hog)
    said = node.inside(node.agent(), *command, namespace=SYSTEM, container="serve")
    assert said == "begun\n"
    until(lambda: node.ask("app").status == 200)
    assert node.program("net") == net
    assert node.restarts()["net"] == before["net"]
    node.agent()


def memory_folder(pid: int) -> Path:
    """Return the cgroup of a process that limits its memory."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for root in {"memory": ["memory"], "": ["", "unified"]}.get(controllers, []):
            folder = Path("/sys/fs/cgroup", root, path.lstrip("/"))
            if any((folder / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
                return folder
    raise AssertionError("no memory controller holds it")


def memory(pid: int) -> tuple[int, int]:
    """Return limit and use of a process's cgroup."""
    folder = memory_folder(pid)
    v2 = (folder / "memory.max").exists()
    names = (
        ("memory.max", "memory.current")
        if v2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    limit, used = (int((folder / name).read_text()) for name in names)
    return limit, used


def test_a_container_runtime_that_starts_again_disturbs_nobody(node: Node) -> None:
    before, held = node.restarts(), node.agent()
    load = Load(node, "app", 20, 600)
    node.on_node("kill -9 $(cat /run/containerd/containerd.pid)")
    assert node.ask("app").status == 200
    node.ready(node.start("after-restart"))
    assert node.ask("after-restart").status == 200
    assert (node.restarts(), node.agent()) == (before, held)
    told = load.enough()
    assert told["failures"] == []
    assert told["answers"] == {"200": told["asked"]}
    node.drop("after-restart")


def test_after_a_reboot_every_pod_is_served_again(node: Node) -> None:
    node.reboot()
    node.agent()
    node.ready("app", "other")
    assert node.ask("app").status == 200
    assert node.ask("other").status == 400
    assert all(ready(pod) for pod in node.agents())
