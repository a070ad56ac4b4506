"""The worst objects that one tenant can store, read by NMI and by MIC: memory, pauses, decisions.

    ./scripts/fuzz --objects [--megabytes N] [--seed S] [--json]

A generator, a process of its own, stands in the API server's place and streams lists, page by page
as it is asked. All hostile objects are in namespace red. Namespace shop is ordinary, and its
decisions are timed while the lists are read. Each reader is a process, so that its memory is its
own. Its longest step, and the longest wait of a task beside its six lists, are told in milliseconds
of the processor, and the step in controls: what a megabyte of ordinary JSON takes there. What is
lost to cycles are objects that the collector was told to look at no more, and that are garbage.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryDirectory
from typing import Any

import httpx2

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube
from podidentity.adapters.reflector import Reflectors
from podidentity.cli.programs import keep_passes_short
from podidentity.core.decision import match
from podidentity.mic.calls import Event
from podidentity.mic.controller import Controller, Settings
from podidentity.mic.watches import ControllerWatches
from podidentity.nmi.sync.watches import Scope, Watches
from podidentity.wire import ANY
from tests.fakes import CLIENT, RESOURCE_ID, assigned, binding, identity, pod

READERS = ("nmi", "mic")
LABELS = {f"{each:02}{'a' * 240}/{'b' * 63}": "c" * 63 for each in range(100)}
IDS = [f"{RESOURCE_ID[:-1]}{'x' * 100}{each:03}" for each in range(100)]
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
META = '{"metadata":{"name":"%s","namespace":"red","uid":"%s","creationTimestamp":"%s"'
"""The rest of the metadata, and of the object, follows."""

Json = dict[str, Any]


def rest(spec: object, status: object = None, **meta: object) -> str:
    """Return an object behind its name: the rest of its metadata, its spec, and its status."""
    more = "".join(f",{json.dumps(key)}:{json.dumps(value)}" for key, value in meta.items())
    spec = spec if isinstance(spec, str) else json.dumps(spec)
    return f'{more}}},"spec":{spec},"status":{json.dumps(status)}}}'


def wordy(spec: object) -> list[str]:
    """Return objects with this spec, and as much beside it as an API server stores."""
    own = [
        {"type": kind, "status": "False", "reason": "r" * 1024, "message": "m" * 32_768}
        for kind in ("Ready", "Effective")
    ]
    return [
        rest(spec, annotations={"a": "x" * 15_000}),
        rest(spec, annotations={"a": "x" * (255 << 10)}),
        rest(spec, annotations={f"{each:05}": "" for each in range(50_000)}),
        rest(spec, {"conditions": own[:1]}),
        rest(spec, {"conditions": own}, annotations={"a": "x" * 15_000}),
        rest(spec, {"conditions": [{"type": f"T{each}"} for each in range(3_000)]}),
        rest(spec, {"conditions": [*own, *({"type": f"T{each}"} for each in range(60_000))]}),
    ]


def deep(random_: random.Random) -> str:
    """Return 1.3 MB of JSON, nested as deep as an API server allows at most."""
    levels = random_.choice([900, 1100, 5000, 9980])
    inner = random_.choice(["[]", '["["]', '""', '{"a":0,"a":0}', "1e-9"])
    many = (1_300_000 - 2 * levels) // (len(inner) + 1)
    return "[" * levels + ",".join([inner] * many) + "]" * levels


def shapes(seed: int) -> dict[str, list[str]]:
    """Return the worst objects by the plural of their kind."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    entra = {
        "type": 1,
        "clientID": CLIENT,
        "tenantID": TENANT,
        "adEndpoint": f"https://{'a.' * 125}com/",
        "clientPassword": {"name": "s" * 253, "namespace": "n" * 253},
        "auxiliaryTenantIDs": [f"{'t.' * 120}{each}.com" for each in range(3)],
    }
    bound = {"azureIdentity": "i" * 253, "selector": "s" * 63}
    record = {
        "pod": "p" * 253,
        "podNamespace": "red",
        "nodename": "n1",
        "azureIdentityRef": {"metadata": {"name": "i" * 253, "namespace": "red"}},
    }
    many = {f"l{each}": "" for each in range(100_000)}
    numbers = f'{{"odd":[{",".join(["1e308"] * 10_000)}]}}'  # 60 kB: within the budget
    escaped = '"' + "\\u003c" * 1_300_000 + '"'  # 1.3 MB of etcd
    conditions = [{"type": f"T{each}", "message": "m" * 1000} for each in range(400)]
    odd = f'{{"azureIdentityRef":{deep(chance)}}}'
    return {
        "azureidentities": [
            rest(entra),
            rest({"clientID": CLIENT, "resourceID": RESOURCE_ID}),
            rest({"clientID": CLIENT, "odd": ["x"] * 12_000}),
            rest({}),
            rest(f'{{"odd":{deep(chance)}}}'),
            rest(numbers),
            rest(f'{{"odd":{escaped}}}'),
            rest({"clientID": CLIENT}, managedFields=[{"fieldsV1": {"f": conditions}}]),
            *wordy({"clientID": CLIENT, "resourceID": RESOURCE_ID}),
        ],
        "azureidentitybindings": [
            *(rest(bound), rest({}), rest(f'{{"odd":{deep(chance)}}}')),
            *wordy(bound),
        ],
        "azurepodidentityexceptions": [
            rest({"podLabels": LABELS, "azureIdentities": IDS}),
            rest({"podLabels": {"app": "web"}}),
            rest(f'{{"podLabels":{deep(chance)}}}'),
            *wordy({"podLabels": {"app": "web"}}),
        ],
        "azureassignedidentities": [
            *(rest(record), rest(odd), rest({"pod": "p"}), rest(numbers)),
            *wordy(record),
        ],
        "pods": [
            rest({"nodeName": "n1"}, labels={**LABELS, "aadpodidbinding": "a"}),
            rest(
                {"nodeName": "n1"}, labels={**dict([*LABELS.items()][:20]), "aadpodidbinding": "a"}
            ),
            rest({"nodeName": "n1"}, labels={**many, "aadpodidbinding": "a"}),
            rest({"nodeName": "n1"}, annotations={f"a{each}": "" for each in range(20_000)}),
            *wordy({"nodeName": "n1"}),
        ],
        "serviceaccounts": [
            rest({}, annotations={"azure.workload.identity/client-id": CLIENT}),
            rest({}, annotations={"a" * 60: "<" * 200_000}),
        ],
    }


ORDINARY: dict[str, list[Json]] = {
    "azureidentities": [{"spec": {"clientID": CLIENT, "resourceID": RESOURCE_ID}, "labels": {}}],
    "azureidentitybindings": [
        {"spec": {"azureIdentity": "orders", "selector": "orders"}, "labels": {}}
    ],
    "pods": [
        {"spec": {"nodeName": "n1"}, "labels": {"aadpodidbinding": "orders"}},
    ],
}


class Generator:
    """Answers lists with so many bytes of hostile objects, and watches with silence."""

    def __init__(self, megabytes: int, seed: int) -> None:
        self.requests = 0
        self.sent = 0
        self._lists: dict[str, list[tuple[int, str]]] = {}
        found = shapes(seed)
        share = (megabytes << 20) // sum(map(len, found.values()))  # bytes of each shape
        for plural, kinds in found.items():
            self._lists[plural] = [(1 + share // (len(kind) + 150), kind) for kind in kinds]

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection. The reader ends it where a page is too large."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parts: Iterable[bytes]
        while head := await reader.readuntil(b"\r\n\r\n"):
            url = httpx2.URL(head.split()[1].decode())
            plural = url.path.rpartition("/")[2]
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            if "watch" in url.params:
                await asyncio.Event().wait()
            if plural == "sent":
                parts = [json.dumps({"requests": self.requests, "sent": self.sent}).encode()]
            else:
                self.requests += 1
                parts = self._page(plural, int(url.params.get("continue", 0)), url.params["limit"])
            for part in parts:
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                await writer.drain()
            writer.write(b"0\r\n\r\n")

    def _page(self, plural: str, first: int, limit: str) -> Iterator[bytes]:
        kinds, end = self._lists.get(plural, []), first + int(limit)
        total = sum(number for number, _ in kinds)
        more = str(end) if end < total else ""
        yield b'{"metadata":{"resourceVersion":"9","continue":"%s"},"items":[' % more.encode()
        comma = ""
        for found in [] if first else ORDINARY.get(plural, []):
            meta = {"name": "orders", "namespace": "shop", "uid": "u", "labels": found["labels"]}
            yield json.dumps({"metadata": meta, "spec": found["spec"]}).encode()
            comma = ","
        at = 0
        for number, kind in kinds:
            for index in range(max(first, at), min(end, at + number)):
                created = f"2026-01-{1 + index % 28:02}T00:00:00Z"
                data = (comma + META % (f"n{index:07}", f"u-{index}", created) + kind).encode()
                comma = ","
                self.sent += len(data)
                yield data
            at += number
        yield b"]}"


async def serve(path: str, megabytes: int, seed: int) -> None:
    """Answer at a Unix socket until killed."""
    server = await asyncio.start_unix_server(Generator(megabytes, seed).answer, path)
    print("ready", flush=True)  # noqa: T201
    await server.serve_forever()


def resident() -> int:
    """Return the bytes of resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def quantile(times: Sequence[float], part: float) -> float:
    """Return a quantile in milliseconds."""
    return round(sorted(times)[int(part * (len(times) - 1))] * 1e3, 2)


class Clocked:
    """Times the turns of the event loop, and decisions of the ordinary namespace."""

    def __init__(self) -> None:
        directory = WatchedCluster.of(
            SystemClock(),
            pods=[pod()],
            identities=[identity()],
            bindings=[binding()],
            assigned=[assigned()],
        )
        self._directory = directory
        self.decisions: list[float] = []
        self.longest_wait = 0.0
        self.peak = 0

    async def run(self) -> None:
        """Decide every two milliseconds."""
        while True:
            # By the processor's time: what else runs on the machine does not count.
            asked = time.thread_time()
            await asyncio.sleep(0.002)
            late = time.thread_time()
            match(pod(), self._directory)
            self.decisions.append(time.thread_time() - asked)
            self.longest_wait = max(self.longest_wait, late - asked)
            self.peak = max(self.peak, resident())


steps: list[float] = []
"""Seconds that each run of the event loop's tasks took, from `time_steps` on."""


def time_steps() -> None:
    """Note how long each step takes; asyncio's debug mode takes too much time itself."""
    run = asyncio.Handle._run

    def timed(self: asyncio.Handle) -> None:
        begun = time.thread_time()
        run(self)
        steps.append(time.thread_time() - begun)

    asyncio.Handle._run = timed  # type: ignore[method-assign]


def control() -> float:
    """Return the seconds of the processor that a megabyte of ordinary JSON takes, in the middle."""
    meta = {"name": "orders-7d4b9c7f6d-x2x4z", "namespace": "shop", "labels": {"app": "orders"}}
    pods = [{"metadata": meta, "spec": {"nodeName": "n1", "priority": 0}} for _ in range(8_000)]
    body, times = json.dumps(pods).encode()[: 1 << 20], []
    body = body[: body.rindex(b", {")] + b"]"
    for _ in range(9):
        begun = time.thread_time()
        ANY.decode(body)
        times.append(time.thread_time() - begun)
    return sorted(times)[4]


async def read(reader: str, megabytes: int, seed: int) -> Json:
    """Have one reader read all lists; return what that took."""
    quiet = Clocked()
    task = asyncio.create_task(quiet.run())
    await asyncio.sleep(1.0)
    task.cancel()
    with TemporaryDirectory() as folder:
        where = f"{folder}/api"
        command = ["-m", "tests.nmi.object_fuzzing", "--seed", str(seed), "--serve", where]
        command += ["--megabytes", str(megabytes)]
        generator = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)
        assert generator.stdout
        await generator.stdout.readline()
        transport = httpx2.AsyncHTTPTransport(uds=where)
        client = httpx2.AsyncClient(base_url="http://api", transport=transport, timeout=None)
        try:
            return await read_all(reader, client, quiet)
        finally:
            generator.kill()
            await generator.wait()


async def read_all(reader: str, client: httpx2.AsyncClient, quiet: Clocked) -> Json:
    """Have one reader read all lists of the generator; return what that took."""
    kube, clock = Kube(client), SystemClock()
    watches: Reflectors
    if reader == "nmi":
        cluster = WatchedCluster(clock)
        watches = Watches(kube, cluster, clock, scope=Scope(node="n1", records=True))
    else:
        follower = ControllerWatches(kube, clock, namespace="ns", asks_permission=False)
        controller = Controller(Settings())
        numbers = count(1)

        def take(event: Event) -> None:
            controller.on_event(event, float(next(numbers)))

        follower.follow(take)
        watches = follower
    await kube.get("/sent")  # the first request loads modules
    unit = control()
    gc.collect()
    gc.freeze()
    keep_passes_short()
    time_steps()
    before, begun = resident(), time.perf_counter()
    busy = Clocked()
    tasks = [asyncio.create_task(watches.run()), asyncio.create_task(busy.run())]
    while not watches.all_read and not tasks[0].done():  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.05)
    ended = tasks[0].done()
    longest, longest_wait = max(steps), busy.longest_wait
    seconds, settled = time.perf_counter() - begun, resident()
    gc.unfreeze()
    lost = gc.collect()
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    sent = json.loads(await kube.get("/sent"))
    await kube.close()
    return {
        "reader": reader,
        "failed": ended,
        "megabytes_sent": round(sent["sent"] / (1 << 20), 1),
        "requests": sent["requests"],
        "seconds": round(seconds, 1),
        "grown_mib": round((settled - before) / (1 << 20), 1),
        "peak_mib": round((busy.peak - before) / (1 << 20), 1),
        "resident_peak_mib": round(busy.peak / (1 << 20), 1),
        "lost_to_cycles": lost,
        "longest_step_ms": round(longest * 1e3, 1),
        "longest_step_in_controls": round(longest / unit, 1),
        "longest_wait_ms": round(longest_wait * 1e3, 1),
        "control_ms": round(unit * 1e3, 2),
        "decision_p99_ms": quantile(busy.decisions, 0.99),
        "quiet_p99_ms": quantile(quiet.decisions, 0.99),
    }


def measured(reader: str, megabytes: int, seed: int) -> Json:
    """Return what a process of its own measures."""
    command = [sys.executable, "-m", "tests.nmi.object_fuzzing", "--seed", str(seed)]
    command += ["--megabytes", str(megabytes), "--read", reader]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: Json = json.loads(found.stdout)
    return answer


def main(arguments: Sequence[str]) -> int:
    """Print what the readers needed, and what 2 GB of such objects would need."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz --objects")
    parser.add_argument("--objects", action="store_true", help="always on here")
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--read", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", metavar="SOCKET", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        asyncio.run(serve(chosen.serve, chosen.megabytes, chosen.seed))
    if chosen.read:
        logging.disable(logging.CRITICAL)
        print(json.dumps(asyncio.run(read(chosen.read, chosen.megabytes, chosen.seed))))  # noqa: T201
        return 0
    found = []
    for reader in READERS:
        short = measured(reader, 60, chosen.seed)
        found.append(short)
        if chosen.megabytes > 60:
            long = measured(reader, chosen.megabytes, chosen.seed)
            slope = (long["peak_mib"] - short["peak_mib"]) / (chosen.megabytes - 60)
            long["peak_mib_of_2_gb"] = round(long["peak_mib"] + slope * (2048 - chosen.megabytes))
            found.append(long)
    for each in found:
        text = json.dumps(each) if chosen.json else "  ".join(f"{k} {v}" for k, v in each.items())
        print(text)  # noqa: T201
    return int(any(each["failed"] for each in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
