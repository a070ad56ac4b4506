"""The sandbox's API server: creates with 10 watchers, a list of 5,000 pods, and memory then."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from bench.bars import Bar, show, wants_json
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import Shape, draw_plan
from podidentity_sandbox.world.network import listen_tcp

PODS = 5000
WATCHERS = 10
WRITERS = 8
"""Clients that create at the same time."""
LISTS = 5
LABELS = {"app": "bench", "aadpodidbinding": "bench"}
CONTAINER = {"name": "main", "image": "busybox", "command": ["sleep", "1000"]}
NODE = "bench-node"
SPEC = {"nodeName": NODE, "containers": [CONTAINER]}
"""Bound from the first, so that what is measured is the server and not the scheduler."""
PATH = "/api/v1/namespaces/default/pods"


def say(line: str) -> None:
    """Tell the person who waits what goes on."""
    print(line, file=sys.stderr)


@contextlib.contextmanager
def server() -> Iterator[tuple[Plan, int]]:
    """Run an API server alone, as the sandbox does; yield its plan and process id."""
    with tempfile.TemporaryDirectory() as folder, listen_tcp("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        plan = draw_plan(
            "bench",
            Path(folder),
            Shape(nodes=1, rootless=True),
            apiserver_port=port,
        )
        plan.save()
        write_certificates(plan)
        reader, writer = os.pipe()
        module = [sys.executable, "-m", "podidentity_sandbox.cluster", "--folder", folder]
        fds = ["--listen-fd", str(listener.fileno()), "--ready-fd", str(writer)]
        process = subprocess.Popen(
            [*module, *fds], pass_fds=(listener.fileno(), writer), stderr=subprocess.DEVNULL
        )
        os.close(writer)
        try:
            if os.read(reader, 64) != b"ready\n":
                sys.exit("the API server did not start")
            yield plan, process.pid
        finally:
            os.close(reader)
            process.terminate()
            process.wait()


async def follow(session: aiohttp.ClientSession, revision: str, started: asyncio.Event) -> None:
    """Watch until all pods were seen."""
    seen = 0
    async with session.get(PATH, params={"watch": "true", "resourceVersion": revision}) as answer:
        started.set()
        async for chunk in answer.content.iter_any():
            seen += chunk.count(b'{"type":"ADDED"')
            if seen >= PODS:
                return
    sys.exit(f"a watch ended after {seen} pods")


async def create(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
    """Create pods until there are enough."""
    for number in numbers:
        metadata = {"name": f"pod-{number:05}", "labels": LABELS}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": SPEC}
        async with session.post(PATH, json=pod) as answer:
            if answer.status != 201:
                sys.exit(f"a pod was refused: {await answer.text()}")


async def measure(plan: Plan, pid: int) -> list[Bar]:
    """Fill the cluster and read it."""
    headers = {"Authorization": f"Bearer {plan.admin_token}"}
    base = f"https://127.0.0.1:{plan.apiserver_port}"
    tls = ssl.create_default_context(cafile=str(plan.ca_certificate))
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    async with aiohttp.ClientSession(base, headers=headers, connector=connector) as session:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
        async with session.post("/api/v1/nodes", json=node) as answer:
            answer.raise_for_status()
        async with session.get(PATH) as answer:
            revision = (await answer.json())["metadata"]["resourceVersion"]
        events = [asyncio.Event() for _ in range(WATCHERS)]
        watches = [asyncio.create_task(follow(session, revision, event)) for event in events]
        await asyncio.gather(*(event.wait() for event in events))
        numbers = iter(range(PODS))
        began = time.perf_counter()
        await asyncio.gather(*(create(session, numbers) for _ in range(WRITERS)))
        await asyncio.gather(*watches)
        took = (time.perf_counter() - began) / PODS
        say(f"{PODS} pods made, {1 / took:.0f} a second, told {WATCHERS} watchers as they came")
        lists = [await read(session) for _ in range(LISTS)]
    return [
        Bar(f"one create, {WATCHERS} watchers told of it, ms", took * 1000, 2),
        Bar(f"list of {PODS} pods, slowest of {LISTS}, s", max(lists), 0.5),
        Bar("memory of the server that holds them, MB", memory(pid), 400),
    ]


async def read(session: aiohttp.ClientSession) -> float:
    """List all pods; return the seconds that it took."""
    began = time.perf_counter()
    async with session.get("/api/v1/pods") as answer:
        raw = await answer.read()
    took = time.perf_counter() - began
    found = len(json.loads(raw)["items"])
    if found != PODS:
        sys.exit(f"the list has {found} pods")
    return took


def memory(pid: int) -> float:
    """Return the proportional set size of a process in MB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss: +(\d+)", rollup, re.MULTILINE)
    return int(found[1]) / 1024 if found else float("nan")


def main() -> int:
    """Measure, and print the table."""
    with server() as (plan, pid):
        bars = asyncio.run(measure(plan, pid))
    return show(bars, as_json=wants_json())


if __name__ == "__main__":
    raise SystemExit(main())
