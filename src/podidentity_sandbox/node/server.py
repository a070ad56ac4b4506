"""The kubelet's own API, for the API server: logs and exec of the pods on this node.

And `/proxy`, which no kubelet has: the real API server reaches pods by itself.

HTTP over a Unix socket in the sandbox's folder, which only the sandbox can open; the paths are
those of a kubelet's port 10250.
https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/server/server.go
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from podidentity_sandbox.node import logs, streams
from podidentity_sandbox.node.containers import Container
from podidentity_sandbox.node.kubelet import Kubelet
from podidentity_sandbox.node.logs import LogRefused
from podidentity_sandbox.node.processes import StartFailed
from podidentity_sandbox.node.streams import STDERR, STDOUT, Console, Session

_RUNTIME = (
    'error executing command in container: failed to exec in container: failed to start exec "{}": '
    "OCI runtime exec failed: exec failed: unable to start container process: {}: unknown"
)
"""Words of kubelet, containerd and runc, one around the other."""
_STOP_SECONDS = 0.1
_PROXY_SECONDS = 30.0
_OF_THE_CONNECTION = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding"}
)
"""Headers of a pod's answer that are not passed on: it is read, and decoded, here."""


class KubeletServer:
    """Serves the API of one kubelet."""

    def __init__(
        self,
        path: Path,
        kubelet: Kubelet,
        asking: aiohttp.ClientSession,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """With `tls` it serves at the node's port 10250 too, as a real API server has it."""
        self._path = path
        self._tls = tls
        self._asking = asking
        self._kubelet = kubelet

    async def run(self) -> None:
        app = web.Application()
        place = "{namespace}/{pod}/{container}"
        app.router.add_get(f"/containerLogs/{place}", self._logs)
        app.router.add_get(f"/exec/{place}", self._exec)
        app.router.add_route("*", "/proxy", self._proxy)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=_STOP_SECONDS
        )
        await runner.setup()
        self._path.unlink(missing_ok=True)
        try:
            await web.UnixSite(runner, str(self._path)).start()
            if self._tls is not None:
                await web.TCPSite(runner, port=10250, ssl_context=self._tls).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def _container(self, request: web.Request) -> Container:
        where = request.match_info
        try:
            pod = self._kubelet.find(where["namespace"], where["pod"])
        except KeyError:
            raise web.HTTPNotFound(text=f'pod "{where["pod"]}" does not exist') from None
        try:
            return pod.container(where["container"])
        except KeyError:
            text = f'container "{where["container"]}" not found in pod "{where["pod"]}"'
            raise web.HTTPNotFound(text=text) from None

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        container = self._container(request)
        try:
            log = container.log_of(previous=_true(query, "previous"))
        except LogRefused as error:
            raise web.HTTPBadRequest(text=str(error)) from None
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        async for text in logs.read(log.path, log, _options(query)):
            await answer.write(text)
        await answer.write_eof()
        return answer

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        container = self._container(request)
        # A caller that disconnects is noticed in there, and the program it started is ended.
        return await asyncio.shield(asyncio.create_task(_execute(request, container)))

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        """Ask a pod for what the API server was asked for; 502 where it does not answer."""
        try:
            async with self._asking.request(
                request.method,
                URL(request.query["url"], encoded=True),
                headers=request.headers,
                data=await request.read(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_PROXY_SECONDS),
                # The API server does not verify the certificates of pods.
                # https://github.com/kubernetes/kubernetes/blob/v1.32.3/cmd/kube-apiserver/app/server.go
                ssl=False,
            ) as found:
                return web.Response(
                    status=found.status,
                    body=await found.read(),
                    headers=CIMultiDict(
                        (name, value)
                        for name, value in found.headers.items()
                        if name.lower() not in _OF_THE_CONNECTION
                    ),
                )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise web.HTTPBadGateway(text=str(error) or type(error).__name__) from None


async def _upgrade(request: web.Request) -> tuple[web.WebSocketResponse, Session]:
    socket = web.WebSocketResponse(protocols=streams.PROTOCOLS)
    await socket.prepare(request)
    wanted = {STDOUT: _true(request.query, "output"), STDERR: _true(request.query, "error")}
    return socket, Session(socket, wanted)


async def _execute(request: web.Request, container: Container) -> web.StreamResponse:
    query = request.query
    socket, session = await _upgrade(request)
    argv, tty = tuple(query.getall("command", [])), _true(query, "tty")
    if container.running is None:
        await session.end(_not_found(container))
        return socket
    console = Console(stdin=_true(query, "input"), tty=tty)
    try:
        process = await container.execute(argv, console.child, terminal=tty)
    except StartFailed as error:
        console.close()
        await session.end(streams.internal_error(_RUNTIME.format(secrets.token_hex(32), error)))
        return socket
    console.started()
    ending = asyncio.create_task(process.wait())
    running = asyncio.create_task(console.run(process.ended, session.write))
    listening = asyncio.create_task(session.listen(console, process.ended))
    await asyncio.wait({ending, listening}, return_when=asyncio.FIRST_COMPLETED)
    if not ending.done():  # it ends with its caller
        await process.signal(signal.SIGKILL, group=True)
    await asyncio.gather(ending, running)
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await session.end(streams.outcome(argv, await process.wait()))
    return socket


def _not_found(container: Container) -> dict[str, Any]:
    return streams.internal_error(
        f'unable to upgrade connection: container not found ("{container.spec.name}")'
    )


def _true(query: Mapping[str, str], name: str) -> bool:
    return query.get(name) in {"1", "true"}


def _options(query: Mapping[str, str]) -> logs.LogOptions:
    """Return the options of the query; the API server has checked them."""
    since = None
    if "sinceSeconds" in query:
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
    elif "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"])
    return logs.LogOptions(
        follow=_true(query, "follow"),
        timestamps=_true(query, "timestamps"),
        tail=int(query["tailLines"]) if "tailLines" in query else None,
        since=since,
        limit=int(query["limitBytes"]) if "limitBytes" in query else None,
    )
