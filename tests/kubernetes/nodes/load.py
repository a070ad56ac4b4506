"""A pod that asks for tokens at a fixed rate by its own program, with no stream of ours."""

from __future__ import annotations

import json
from typing import Any

from tests.acceptance.runtime.node import SECONDS, SERVED, Node

NONCE = "load"
"""Of all requests: none of them may come to IMDS."""
# Opens a connection for each request, so many a second, whatever becomes of those before; nothing
# is asked twice. Prints how many answers of each status there were, what failed, and when that was
# asked. Ends when its time is over, or with its file.
RATE = """
import json, os, selectors, socket, sys, time
rate, seconds, goes_on = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
open(goes_on, "w").close()
request = (
    b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    b" HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\nMetadata: true\\r\\nX-Nonce: load\\r\\n"
    b"Connection: close\\r\\n\\r\\n"
)
watched, answers, failures, times = selectors.DefaultSelector(), {}, [], []
began, asked, patience = time.monotonic(), 0, 60
def fail(what, key):
    now, (opened, said) = time.monotonic(), key.data
    state = "asked" if key.events == selectors.EVENT_READ else "connecting"
    state = f"answered {said[:60]!r}" if said else state
    failures.append(f"{now - began:.2f} s, {state}, after {now - opened:.3f} s: {what}")
    times.append(opened - began)
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
print(json.dumps({"asked": asked, "answers": answers, "failures": failures, "times": times}))
"""
# The same on one connection, which is kept.
KEPT = """
import http.client, json, os, sys, time
rate, seconds, goes_on = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
open(goes_on, "w").close()
path = (
    "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
)
kept, answers, failures = None, {}, []
began, asked = time.monotonic(), 0
while asked < rate * seconds and os.path.exists(goes_on):
    time.sleep(max(0, began + asked / rate - time.monotonic()))
    asked += 1
    try:
        kept = kept or http.client.HTTPConnection("169.254.169.254", timeout=60)
        kept.request("GET", path, headers={"Metadata": "true", "X-Nonce": "load"})
        answer = kept.getresponse()
        body = answer.read()
        if answer.status == 200:
            answers["200"] = answers.get("200", 0) + 1
        else:
            failures.append(f"{answer.status} {body[:200]!r}")
        if answer.will_close:
            kept = None
    except (OSError, http.client.HTTPException) as error:
        failures.append(f"{time.monotonic() - began:.2f} s: {error!r}")
        kept = None
print(json.dumps({"asked": asked, "answers": answers, "failures": failures}))
"""
_GOES_ON = "/dev/shm/asking"  # noqa: S108 - in the pod


class Load:
    """A pod that asks at a fixed rate, for so many seconds at most."""

    def __init__(
        self, node: Node, pod: str, rate: float, seconds: float, program: str = RATE
    ) -> None:
        self._node, self._pod = node, pod
        command = ["python3", "-ISc", program, f"{rate:g}", f"{seconds:g}", _GOES_ON]
        node.start(pod, container={"command": command}, restartPolicy="Never")
        node.become(lambda found: found["status"].get("phase") == "Running", pod)

    @property
    def goes_on(self) -> bool:
        return bool(self._node.get(self._pod)["status"]["phase"] == "Running")

    def enough(self) -> dict[str, Any]:
        """Have it ask no more; return what became of the requests."""
        assert self.goes_on, "its time was over before"
        self._node.inside(self._pod, "python3", "-ISc", f"import os; os.remove('{_GOES_ON}')")
        return self.result()

    def result(self) -> dict[str, Any]:
        """Return what became of the requests, when all are answered."""
        self._node.become(_has_ended, self._pod, seconds=SECONDS * 5)
        told = self._node.place.run("kubectl", "logs", self._pod, "-n", SERVED)
        self._node.drop(self._pod)
        result: dict[str, Any] = json.loads(told)
        return result


def _has_ended(pod: dict[str, Any]) -> bool:
    return pod["status"].get("phase") in {"Succeeded", "Failed"}
