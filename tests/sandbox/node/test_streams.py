"""What reaches into a pod from outside: exec, logs and requests to its ports.

What kubectl does and is told is in tests/sandbox/kubectl; here are other clients of the API server,
and those of the node's own socket.

https://kubernetes.io/blog/2024/08/20/websockets-transition/
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

import aiohttp
import pytest

from podidentity_sandbox.node.client import ExecFailed
from tests.sandbox.node.site import (
    PODS,
    Site,
    container,
    eventually,
    pod,
    script,
    terminated,
    waits_for,
)

pytestmark = pytest.mark.net
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]


def converse(
    site: Site, path: str, talk: Talk | None = None, protocol: str = V5
) -> tuple[str | None, str]:
    """Open a stream, say something; return its protocol and what came on standard output."""

    async def run() -> tuple[str | None, str]:
        heard = b""
        trust = ssl.create_default_context(cafile=str(site.plan.ca_certificate))
        headers = {"Authorization": f"Bearer {site.plan.admin_token}"}
        url = f"https://127.0.0.1:{site.plan.apiserver_port}{PODS}/{path}"
        async with (
            aiohttp.ClientSession(headers=headers, trust_env=False) as session,
            session.ws_connect(url, protocols=[protocol], ssl=trust) as socket,
        ):
            connection = socket._response.connection
            assert connection is not None
            assert connection.protocol is not None
            closed = connection.protocol.closed
            if talk is not None:
                await talk(socket)
            async for message in socket:
                heard += message.data[1:] if message.data[0] == 1 else b""
        if closed is not None:  # its transport lives on for a moment
            await closed
        return socket.protocol, heard.decode()

    return asyncio.run(asyncio.wait_for(run(), 60))


def execution(*command: str, **options: str) -> str:
    query = [*options.items(), *(("command", word) for word in command)]
    return f"pod/exec?{urlencode([('stdout', 'true'), *query])}"


@pytest.mark.parametrize("yes", ["True", "", "yes", "1"])
def test_a_stream_is_asked_for_by_anything_but_no(site: Site, yes: str) -> None:
    """As Go reads it; clients for Python send `True`."""
    site.run(pod("pod"))
    query = urlencode([("stdout", yes), ("stderr", "FALSE"), ("command", "pwd")])
    assert converse(site, f"pod/exec?{query}") == (V5, "/\n")


def test_an_older_client_speaks_v4_and_may_say_text(site: Site) -> None:
    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_str("\x00\N{HEAVY BLACK HEART}\n")

    site.run(pod("pod"))
    heard = converse(site, execution("head", "-n1", stdin="true"), talk, protocol=V4)
    assert heard == (V4, "\N{HEAVY BLACK HEART}\n")


def test_a_client_that_goes_away_ends_its_program(site: Site) -> None:
    async def leave(socket: aiohttp.ClientWebSocketResponse) -> None:
        assert (await socket.receive_bytes())[1:] == b"started\n"
        await socket.close()

    site.run(pod("pod"))
    converse(site, execution("sh", "-c", "echo started; sleep 993; true"), leave)
    site.says("pod", "while ps ax -o args | grep -q '^[s]leep 993'; do :; done")


def logs(site: Site, query: str = "") -> str:
    return b"".join(site.api.stream(f"{PODS}/pod/log{query}")).decode()


def test_of_a_log_no_line_and_so_many_bytes_are_read(site: Site) -> None:
    site.run(pod("pod", script("for i in 1 2 3 4; do echo $i; done")), terminated)
    assert logs(site) == "1\n2\n3\n4\n"
    assert logs(site, "?tailLines=0") == ""
    assert logs(site, "?limitBytes=3") == "1\n2"


def test_who_follows_a_log_has_each_line_at_once_until_the_end(site: Site) -> None:
    site.run(pod("pod", script("echo first; while ! test -e /go; do sleep 0.05; done; echo last")))
    lines = site.api.stream(f"{PODS}/pod/log?follow=true")
    assert next(lines) == b"first\n"
    # The container ends by it, and may take this shell with it.
    site.sh("pod", "touch /go")
    assert b"".join(lines) == b"last\n"


def test_a_program_that_ends_runs_again_at_once_and_then_after_a_while_and_both_logs_are_there(
    site: Site,
) -> None:
    counting = script(
        "echo run $(cat /v/n || true); echo wrong >&2; echo x >> /v/n; exit 1",
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    made = pod("pod", counting, restartPolicy="Always", volumes=[{"name": "v", "emptyDir": {}}])
    found = site.run(made, waits_for("CrashLoopBackOff"))["status"]["containerStatuses"][0]
    assert found["restartCount"] == 1
    assert found["state"]["waiting"]["message"].startswith("back-off 10s restarting failed")
    assert {"run x", "wrong"} <= set(logs(site).splitlines())
    assert "run x\n" in logs(site, "?previous=true")


# ---- Requests to a port of a pod, as `kubectl get --raw` makes them

ECHO = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Echo(BaseHTTPRequestHandler):
    def do_POST(self):
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        head = {name.lower(): value for name, value in self.headers.items()}
        passed = [head.get(name) for name in ("x-own", "authorization", "te")]
        said = repr([self.command, self.path, sent, passed, head["host"]])
        self.send_response(418)
        self.send_header("Content-Type", "text/odd")
        self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(said.encode())
    do_GET = do_POST
HTTPServer(("", 8080), Echo).serve_forever()
"""


def asked(site: Site, path: str, body: bytes | None = None) -> tuple[int, str, str]:
    """Return status, type and text of an answer through the API server."""
    url = f"https://127.0.0.1:{site.plan.apiserver_port}{PODS}/{path}"
    headers = {
        "Authorization": f"Bearer {site.plan.admin_token}",
        "X-Own": "mine",
        "TE": "trailers",
    }
    tls = ssl.create_default_context(cafile=str(site.plan.ca_certificate))
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        answer = urllib.request.urlopen(request, context=tls)  # noqa: S310 - the same
    except urllib.error.HTTPError as error:
        answer = error
    assert answer.headers.get("Retry-After", "7") == "7"
    return answer.status, answer.headers["Content-Type"], answer.read().decode()


def test_a_request_reaches_the_port_and_the_answer_comes_back(site: Site) -> None:
    ready = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    serving = container("python3", "-c", ECHO, readinessProbe=ready, ports=ports)
    site.run(pod("echo", serving))
    host, mine = f"127.0.0.1:{site.plan.apiserver_port}", ["mine", None, None]
    for name in ("echo", "echo:8080", "echo:web", "http:echo:8080"):
        said = repr(["GET", "/a%20b?c=d", "", mine, host])
        assert asked(site, f"{name}/proxy/a%20b?c=d") == (418, "text/odd", said)
    said = repr(["POST", "/", "body", mine, host])
    assert asked(site, "echo/proxy/", b"body")[2] == said
    status, _, text = asked(site, "echo:9/proxy/")
    assert status == 503
    assert json.loads(text)["message"].startswith("error trying to reach service: ")


# ---- exec by the node's own socket


NONE = "\t0000000000000000\n"
ZOMBIES = "grep -sl '^State:.Z' /proc/[0-9]*/status"


@pytest.mark.parametrize(
    ("text", "ended", "out", "err"),
    [
        ("echo out; echo err >&2; exit 7", 7, "out\n", "err\n"),
        ("kill -KILL $$", 128 + signal.SIGKILL, "", ""),
        ("sleep 999 & echo started", 0, "started\n", ""),
        ("grep -E 'Sig(Blk|Ign)' /proc/self/status", 0, f"SigBlk:{NONE}SigIgn:{NONE}", ""),
        (f"for i in 1 2 3; do (true & ); done; {ZOMBIES} | wc -l", 0, "0\n", ""),
    ],
    ids=[
        "output, error and exit code come apart",
        "an end by a signal has 128 and its number",
        "what it leaves running does not hold up its end",
        "signals have their defaults",
        "orphans leave no zombies",
    ],
)
def test_a_program_is_executed_as_a_container_runtime_does_it(
    site: Site, text: str, ended: int, out: str, err: str
) -> None:
    site.run(pod("pod"))
    result = site.sh("pod", text)
    said = (result.exit, result.stdout.decode(), result.stderr.decode())
    assert said == (ended, out, err)


def test_standard_input_reaches_the_program_whole(site: Site) -> None:
    site.run(pod("pod"))
    given = os.urandom(300_000)
    result = site.execute("pod", "cat", stdin=given)
    assert result.stdout == given


def test_a_caller_that_goes_away_ends_the_program_and_its_children(site: Site) -> None:
    site.run(pod("pod"))
    with pytest.raises(TimeoutError):
        site.execute("pod", "sh", "-c", "sleep 998; true", timeout=0.5)
    eventually(lambda: site.sh("pod", "ps ax -o args | grep -q '^[s]leep 998'").exit == 1)


def test_the_program_has_the_rights_and_the_cgroup_of_its_container(site: Site) -> None:
    limited = container(
        securityContext={"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    )
    found = site.run(pod("pod", limited))
    assert int(site.says("pod", "grep CapBnd /proc/self/status | cut -f2"), 16) == 0
    assert site.says("pod", "grep NoNewPrivs /proc/self/status | cut -f2") == "1"
    own = site.says("pod", "grep '^0::' /proc/self/cgroup").removeprefix("0::")
    expected = f"/{site.node.name}/kubepods/burstable/pod{found['metadata']['uid']}/main"
    assert own.endswith(expected) is not site.plan.rootless


@pytest.mark.parametrize(
    ("name", "kind", "program", "why"),
    [
        ("nobody", None, "true", r'pods "nobody" not found in namespace default on any node'),
        ("pod", "other", "true", "container other is not valid for pod pod"),
        ("pod", None, "no-such-program", "executable file not found"),
        ("ended", None, "true", "container main is not running"),
    ],
)
def test_what_cannot_be_executed_says_why(
    site: Site, name: str, kind: str | None, program: str, why: str
) -> None:
    site.run(pod("pod"))
    site.run(pod("ended", container("true")), terminated)
    with pytest.raises(ExecFailed, match=why):
        site.execute(name, program, container=kind)


def test_a_new_pod_is_meant_while_an_old_one_of_its_name_still_ends(site: Site) -> None:
    deaf = script("trap '' TERM; echo deaf >/who; while :; do sleep 0.05; done")
    site.run(pod("pod", deaf))
    site.delete("pod", grace=0)  # its object goes at once, its programs have a second more
    site.run(pod("pod"))
    assert site.says("pod", "cat /who 2>/dev/null || echo new") == "new"
