"""exec, attach and logs as a Kubernetes client has them: a WebSocket, through the API server.

https://kubernetes.io/blog/2024/08/20/websockets-transition/
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest

from tests.sandbox.node.site import PODS, Site, container, pod, script, terminated, waits_for

pytestmark = pytest.mark.net
V5, V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
Talk = Callable[[aiohttp.ClientWebSocketResponse], Awaitable[None]]


class Heard:
    """What came on each channel."""

    def __init__(self) -> None:
        self.channels = {1: b"", 2: b"", 3: b""}
        self.protocol: str | None = None

    @property
    def out(self) -> str:
        return self.channels[1].decode()

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.channels[3])
        return found


def converse(site: Site, path: str, talk: Talk | None = None, protocol: str = V5) -> Heard:
    """Open a stream, say something, and listen to its end."""

    async def run() -> Heard:
        heard = Heard()
        trust = ssl.create_default_context(cafile=str(site.plan.ca_certificate))
        headers = {"Authorization": f"Bearer {site.plan.admin_token}"}
        url = f"https://127.0.0.1:{site.plan.apiserver_port}{PODS}/{path}"
        async with (
            aiohttp.ClientSession(headers=headers, trust_env=False) as session,
            session.ws_connect(url, protocols=[protocol], ssl=trust) as socket,
        ):
            heard.protocol = socket.protocol
            connection = socket._response.connection
            assert connection is not None
            assert connection.protocol is not None
            closed = connection.protocol.closed
            if talk is not None:
                await talk(socket)
            async for message in socket:
                heard.channels[message.data[0]] += message.data[1:]
        if closed is not None:  # its transport lives on for a moment
            await closed
        return heard

    return asyncio.run(asyncio.wait_for(run(), 60))


def execution(*command: str, **options: str) -> str:
    query = [*options.items(), *(("command", word) for word in command)]
    return f"pod/exec?{urlencode([('stdout', 'true'), *query])}"


def test_output_error_and_end_come_on_channels_of_their_own(site: Site) -> None:
    site.run(pod("pod"))
    heard = converse(site, execution("sh", "-c", "echo out; echo err >&2; exit 3", stderr="true"))
    assert (heard.channels[1], heard.channels[2]) == (b"out\n", b"err\n")
    assert heard.status["reason"] == "NonZeroExitCode"
    assert heard.status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


@pytest.mark.parametrize("yes", ["True", "", "yes", "1"])
def test_a_stream_is_asked_for_by_anything_but_no(site: Site, yes: str) -> None:
    """As Go reads it; clients for Python send `True`."""
    site.run(pod("pod"))
    query = urlencode([("stdout", yes), ("stderr", "FALSE"), ("command", "pwd")])
    assert converse(site, f"pod/exec?{query}").out == "/\n"


def test_a_program_that_succeeds_ends_with_success(site: Site) -> None:
    site.run(pod("pod"))
    assert converse(site, execution("true")).status == {"metadata": {}, "status": "Success"}


def test_standard_input_ends_where_the_client_closes_its_channel(site: Site) -> None:
    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"\x00" + b"x" * 300_000)
        await socket.send_bytes(b"\xff\x00")

    site.run(pod("pod"))
    heard = converse(site, execution("sh", "-c", "wc -c; echo over", stdin="true"), talk)
    assert heard.out.split() == ["300000", "over"]


def test_an_older_client_speaks_v4(site: Site) -> None:
    site.run(pod("pod"))
    heard = converse(site, execution("echo", "hello"), protocol=V4)
    assert (heard.protocol, heard.out) == (V4, "hello\n")


def test_what_a_client_says_as_text_is_taken_as_well(site: Site) -> None:
    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_str("\x00\N{HEAVY BLACK HEART}\n")

    site.run(pod("pod"))
    heard = converse(site, execution("head", "-n1", stdin="true"), talk, protocol=V4)
    assert heard.out == "\N{HEAVY BLACK HEART}\n"


def test_a_terminal_has_the_clients_size(site: Site) -> None:
    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"\x04" + b'{"Width":77,"Height":33}')
        await socket.send_bytes(b"\x00stty size; exit 5\n")

    site.run(pod("pod"))
    heard = converse(site, execution("sh", stdin="true", tty="true"), talk)
    assert "33 77\r\n" in heard.out
    assert heard.status["details"]["causes"][0]["message"] == "5"


def test_a_client_that_goes_away_ends_its_program(site: Site) -> None:
    async def leave(socket: aiohttp.ClientWebSocketResponse) -> None:
        assert (await socket.receive_bytes())[1:] == b"started\n"
        await socket.close()

    site.run(pod("pod"))
    converse(site, execution("sh", "-c", "echo started; sleep 993; true"), leave)
    site.says("pod", "while ps ax -o args | grep -q '^[s]leep 993'; do :; done")


def test_a_program_that_is_not_there_is_said_in_the_runtimes_words(site: Site) -> None:
    site.run(pod("pod"))
    message = converse(site, execution("no-such-program")).status["message"]
    assert message.startswith(
        "Internal error occurred: error executing command in container: failed to exec in container"
    )
    assert 'exec: "no-such-program": executable file not found in $PATH: unknown' in message


def test_who_attaches_hears_and_is_heard(site: Site) -> None:
    async def talk(socket: aiohttp.ClientWebSocketResponse) -> None:
        await socket.send_bytes(b"\x00over there\n")

    echoing = script("read word; echo got $word; exit 4", stdin=True)
    site.run(pod("pod", echoing))
    heard = converse(site, "pod/attach?stdin=true&stdout=true", talk)
    assert heard.out == "got over there\n"
    found = site.until("pod", terminated)
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    assert site.log(found) == "got over there\n"


def test_nobody_talks_to_a_container_that_has_ended(site: Site) -> None:
    site.run(pod("pod", container("true")), terminated)
    message = converse(site, execution("true")).status["message"]
    assert message == (
        'Internal error occurred: unable to upgrade connection: container not found ("main")'
    )


def logs(site: Site, query: str = "") -> str:
    return b"".join(site.api.stream(f"{PODS}/pod/log{query}")).decode()


def test_a_log_is_read_from_its_end_by_time_and_up_to_a_limit(site: Site) -> None:
    site.run(pod("pod", script("for i in 1 2 3 4; do echo $i; done")), terminated)
    assert logs(site) == "1\n2\n3\n4\n"
    assert logs(site, "?tailLines=2") == "3\n4\n"
    assert logs(site, "?tailLines=0") == ""
    assert logs(site, "?limitBytes=3") == "1\n2"
    assert logs(site, "?sinceTime=2999-01-01T00:00:00Z") == ""
    stamp, text = logs(site, "?timestamps=true&tailLines=1").split(" ")
    assert (stamp[10], stamp[-1], text) == ("T", "Z", "4\n")


def test_who_follows_a_log_has_each_line_at_once_until_the_end(site: Site) -> None:
    site.run(pod("pod", script("echo first; while ! test -e /go; do sleep 0.05; done; echo last")))
    lines = site.api.stream(f"{PODS}/pod/log?follow=true")
    assert next(lines) == b"first\n"
    # The container ends by it, and may take this shell with it.
    site.sh("pod", "touch /go")
    assert b"".join(lines) == b"last\n"


def test_the_log_of_the_run_before_is_there_too(site: Site) -> None:
    counting = script(
        "echo run $(cat /v/n || true); echo x >> /v/n; exit 1",
        volumeMounts=[{"name": "v", "mountPath": "/v"}],
    )
    made = pod("pod", counting, restartPolicy="Always", volumes=[{"name": "v", "emptyDir": {}}])
    site.run(made, waits_for("CrashLoopBackOff"))
    assert "run x\n" in logs(site)
    assert "run x\n" in logs(site, "?previous=true")


def test_what_has_no_log_says_why(site: Site) -> None:
    site.create(pod("pod", container(env=[_missing()])))
    site.until("pod", waits_for("CreateContainerConfigError"))
    with pytest.raises(Exception, match="is waiting to start: CreateContainerConfigError"):
        logs(site)
    with pytest.raises(Exception, match='previous terminated container "main" in pod "pod" not'):
        logs(site, "?previous=true")
    with pytest.raises(Exception, match="container other is not valid for pod pod"):
        logs(site, "?container=other")


def _missing() -> dict[str, Any]:
    return {"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}
