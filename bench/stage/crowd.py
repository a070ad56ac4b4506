"""Many pods that need an identity at once: when MIC has assigned it, and when they have a token.

The pods run before, without the label: to start 200 processes, each with a network of its own,
takes the sandbox's kubelets longer on two cores than all that is measured here. Then all get the
label at once, which is when MIC sees a pod that needs an identity. In each pod a client asks as
soon as its pod has the label. NMI holds the request until the identity is Assigned; a client that
was faster than NMI's watch is refused and asks again 0.1 s later, as SDKs do, which counts.
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from podidentity_sandbox.world.api import MERGE_PATCH, ready
from tests.acceptance.directory import pod
from tests.acceptance.mic.controlled import CUSTOM, SECONDS, TOKEN, VAULTS, Controlled

PODS, IDENTITIES = 200, 20
_AT_ONCE = 20
"""Requests to the API server."""
_LABEL = "aadpodidbinding"
_ALL = "/api/v1/namespaces/default/pods"
_HOST, _, _PATH = TOKEN.removeprefix("http://").partition("/")
# Of bash alone, to its end: to start 200 programs at once would be most of what is measured.
_CLIENT = rf"""
exec 4<>/gate/$HOSTNAME
read -r -u 4 go
tries=0 body=
until [[ $body == *access_token* ]]; do
  [ $((tries++)) = 0 ] || read -r -u 4 -t 0.1 pause
  exec 3<>/dev/tcp/{_HOST}/80
  printf 'GET /{_PATH}&resource={VAULTS} HTTP/1.1\r\nHost: {_HOST}\r\nMetadata: true\r\n' >&3
  printf 'Connection: close\r\n\r\n' >&3
  while read -r -u 3 body; do :; done
  exec 3>&-
done
echo "$EPOCHREALTIME $tries" > /gate/answers
read -r -u 4 end
"""


class Crowd(NamedTuple):
    """What the pods waited for, in seconds from the first label on."""

    assigned: float
    """The last record says Assigned."""
    token: float
    """The last pod has its token."""
    median: float
    """Half of the pods have theirs."""
    refused: int
    """Requests that came before NMI had seen the label."""


def crowd(place: Controlled) -> Crowd:
    """Bind the identities, run the pods on both nodes, label them, and return how long it took."""
    for number in range(IDENTITIES):
        place.bind(_identity(number), place.identity(_identity(number)))
    with _gate() as gate:
        _start(place, gate.folder)
        return _at_once(place, gate)


class _Gate(NamedTuple):
    """Pipes between here and the clients."""

    folder: Path
    doors: list[int]
    """Where each client waits for its pod's label."""
    answers: int


@contextmanager
def _gate() -> Iterator[_Gate]:
    with ExitStack() as stack:
        # The nodes have a /tmp and a /run of their own.
        made = tempfile.TemporaryDirectory(prefix="podidentity-bench-", dir="/var/tmp")
        folder = Path(stack.enter_context(made))
        folder.chmod(0o755)
        pipes = []
        for name in (*map(_pod, range(PODS)), "answers"):
            os.mkfifo(folder / name)
            # Both ways, so that nobody waits for the other to open it.
            pipes.append(os.open(folder / name, os.O_RDWR))
            stack.callback(os.close, pipes[-1])
        yield _Gate(folder, pipes[:-1], pipes[-1])


def _start(place: Controlled, gate: Path) -> None:
    """Return when all pods run, without the label."""
    api, nodes = place.sandbox.api, place.sandbox.plan.nodes

    def make(number: int) -> None:
        body = json.loads(pod(_pod(number), label=""))
        container = body["spec"]["containers"][0]
        container["command"] = ["bash", "-c", _CLIENT]
        container["volumeMounts"] = [{"name": "gate", "mountPath": "/gate"}]
        body["spec"] |= {
            "nodeName": nodes[number % 2].name,
            "volumes": [{"name": "gate", "hostPath": {"path": str(gate), "type": "Directory"}}],
        }
        api.request("POST", _ALL, body)

    def run() -> bool:
        found = api.request("GET", _ALL)["items"]
        return {_pod(number) for number in range(PODS)} <= {
            each["metadata"]["name"] for each in found if ready(each)
        }

    with ThreadPoolExecutor(_AT_ONCE) as threads:
        list(threads.map(make, range(PODS)))
    place.until(run, "not all pods run")


def _at_once(place: Controlled, gate: _Gate) -> Crowd:
    api = place.sandbox.api

    def label(number: int) -> None:
        body = {"metadata": {"labels": {_LABEL: _identity(number % IDENTITIES)}}}
        api.request("PATCH", f"{_ALL}/{_pod(number)}", body, content_type=MERGE_PATCH)
        os.write(gate.doors[number], b"go\n")

    wanted = set(map(_pod, range(PODS)))
    # The pods' clock, and the one that nobody sets.
    told, began = time.time(), time.monotonic()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        labelling = [threads.submit(label, number) for number in range(PODS)]
        # Polled, the lists would be half of what the API server does.
        for _, record in api.follow(f"{CUSTOM}/azureassignedidentities", SECONDS):
            if record["status"]["status"] == "Assigned":
                wanted.discard(record["spec"]["pod"])
            if not wanted:
                break
    assigned = time.monotonic() - began
    for each in labelling:
        each.result()
    if wanted:
        sys.exit(f"{len(wanted)} of {PODS} pods are not Assigned after {assigned:.0f} s")
    lines = [line.split() for line in _answers(gate.answers)]
    tokens = sorted(float(at) - told for at, _ in lines)
    refused = sum(int(tries) - 1 for _, tries in lines)
    return Crowd(assigned, tokens[-1], tokens[PODS // 2], refused)


def _answers(pipe: int) -> list[str]:
    """Return what each client says when it has its token."""
    said, ends = "", time.monotonic() + SECONDS
    while said.count("\n") < PODS:
        if not select.select([pipe], [], [], max(0.0, ends - time.monotonic()))[0]:
            sys.exit(f"{PODS - said.count(chr(10))} of {PODS} pods have no token")
        said += os.read(pipe, 65536).decode()
    return said.splitlines()


def _pod(number: int) -> str:
    return f"pod-{number}"


def _identity(number: int) -> str:
    return f"identity-{number}"
