"""A pod's log, exec and proxy: asked of the kubelet of its node, and passed on as it comes.

Refusals are those of the real server:
https://github.com/kubernetes/kubernetes/blob/master/pkg/registry/core/pod/strategy.go
exec is served by WebSocket, as clients since 1.31 speak it, and not by SPDY.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import NoReturn
from urllib.parse import urlencode

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.paths import RequestInfo, truth
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Record, field_of
from podidentity_sandbox.plan import Plan

VERBS = {
    "log": ["get"],
    "exec": ["create", "get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
}
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_ERROR_CHANNEL = b"\x03"
_LOG_OPTIONS = ("follow", "previous", "timestamps", "tailLines", "sinceSeconds", "sinceTime",
                "limitBytes")  # fmt: skip
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
"""Options of exec, and their names at the kubelet."""


class PodStreams:
    """Serves what only a pod's kubelet knows."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    async def serve(
        self, request: web.Request, info: RequestInfo, pod: Record
    ) -> web.StreamResponse:
        """Answer a request on one of VERBS; raise 400, 405, 422 or 500."""
        what = info.subresource
        if info.verb not in VERBS[what]:
            raise status.method_not_supported("pods", "", info.verb)
        if what == "proxy":
            return await self._proxy(request, info, pod)
        container = _container(pod, request.query.get("container", ""))
        node = pod.object["spec"].get("nodeName")
        if what == "log":
            options = [(o, request.query[o]) for o in _LOG_OPTIONS if request.query.get(o)]
            if not node:
                return web.Response(status=204)
            return await self._log(request, node, _path("containerLogs", pod, container, options))
        if not node:
            raise status.bad_request(f"pod {pod.name} does not have a host assigned")
        options = _stream_options(request)
        if not any(name == "command" for name, _ in options):
            raise status.bad_request("you must specify at least one command for the container")
        return await self._stream(request, node, _path(what, pod, container, options))

    async def _proxy(
        self, request: web.Request, info: RequestInfo, pod: Record
    ) -> web.StreamResponse:
        """Pass a request on to a port of a pod, by its node: no pod can be reached from here.

        The path is required, the host stays that of this server, and a certificate is not verified.
        https://github.com/kubernetes/kubernetes/blob/v1.32.3/staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go
        """
        address, node = field_of(pod.object, "status.podIP"), pod.object["spec"].get("nodeName")
        scheme, port = _place(info.name, pod)
        if not address or not node:
            raise status.bad_request("address not allowed")
        path = request.rel_url.raw_path.partition("/proxy")[2]
        query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
        url = f"{scheme}://{address}:{port}{path or '/'}{query}"
        headers = CIMultiDict(_others(request.headers))
        async with self._session(node) as session:
            try:
                async with session.request(
                    request.method,
                    f"http://kubelet/proxy?{urlencode({'url': url})}",
                    headers=headers,
                    data=await request.read(),
                ) as found:
                    raw = await found.read()
                    if found.status == 502:
                        why = f"error trying to reach service: {raw.decode()}"
                        raise StatusError(503, "ServiceUnavailable", why)
                    kept = CIMultiDict(_others(found.headers))
                    return web.Response(status=found.status, body=raw, headers=kept)
            except aiohttp.ClientConnectorError:
                self._away(node, "error trying to reach service")

    async def _log(self, request: web.Request, node: str, path: str) -> web.StreamResponse:
        async with self._session(node) as session:
            try:
                async with session.get(f"http://kubelet{path}") as found:
                    if found.status != 200:
                        raise _told(found.status, await found.text())
                    answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
                    await answer.prepare(request)
                    async for data in found.content.iter_any():
                        await answer.write(data)
                    await answer.write_eof()
                    return answer
            except aiohttp.ClientConnectorError:
                self._away(node, f'Get "https://{{}}{path}"')
            except (aiohttp.ClientError, ConnectionError):
                return answer

    async def _stream(self, request: web.Request, node: str, path: str) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise status.bad_request("Upgrade request required")
        ours = web.WebSocketResponse(protocols=PROTOCOLS)
        await ours.prepare(request)
        async with self._session(node) as session:
            try:
                async with session.ws_connect(
                    f"http://kubelet{path}", protocols=PROTOCOLS[:1]
                ) as theirs:
                    await _exchange(ours, theirs)
            except aiohttp.ClientError as error:
                why = f"error dialing backend: {error}"
                message, cause = f"Internal error occurred: {why}", {"message": why}
                told = StatusError(500, "InternalError", message, details={"causes": [cause]})
                await ours.send_bytes(_ERROR_CHANNEL + json.dumps(told.body()).encode())
        await ours.close()
        return ours

    def _session(self, node: str) -> aiohttp.ClientSession:
        try:
            socket = self._plan.path / self._plan.node(node).api_socket
        except KeyError:
            raise status.bad_request(f'nodes "{node}" not found') from None
        return aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(socket)),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def _away(self, node: str, what: str) -> NoReturn:
        """Raise 500: no kubelet answers; `what` may name its place as `{}`."""
        where = f"{self._plan.node(node).address}:10250"
        message = f"{what.format(where)}: dial tcp {where}: connect: connection refused"
        raise StatusError(500, "", message)


_MESSAGES = (WSMsgType.BINARY, WSMsgType.TEXT)


async def _exchange(ours: web.WebSocketResponse, theirs: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages on in both directions until one side hangs up.

    Clients may send text as well as bytes, and the one for Python does:
    https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/httpstream/wsstream/conn.go
    """

    async def up() -> None:
        async for message in ours:
            if message.type in _MESSAGES:
                said = message.data
                await theirs.send_bytes(said.encode() if isinstance(said, str) else said)

    async def down() -> None:
        async for message in theirs:
            if message.type is WSMsgType.BINARY:
                await ours.send_bytes(message.data)

    tasks = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_OUR_HEADERS = frozenset(
    {
        # Who asks is the server's to know. The others are of one connection.
        *("authorization", "connection", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-connection", "content-length", "accept-encoding"),
    }
)


def _others(headers: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in headers.items():
        if name.lower() not in _OUR_HEADERS:
            yield name, value


def _place(name: str, pod: Record) -> tuple[str, str]:
    """Return scheme and port of `[SCHEME:]NAME[:PORT]`; the first that the pod declares."""
    scheme, port = "http", ""
    match name.split(":"):
        case [_, given]:
            port = given
        case [how, _, given]:
            scheme, port = how or "http", given
    ports = [each for c in pod.object["spec"]["containers"] for each in c.get("ports", [])]
    known = {each.get("name"): each["containerPort"] for each in ports}
    first = str(ports[0]["containerPort"]) if ports and not port else port
    return scheme, str(known.get(first, first)) or "80"


def name_of(name: str) -> str:
    """Return the pod that `[SCHEME:]NAME[:PORT]` names."""
    parts = name.split(":")
    return parts[1] if len(parts) == 3 else parts[0]


def _container(pod: Record, wanted: str) -> str:
    """Return the container that is meant; raise 400."""
    spec = pod.object["spec"]
    names = [c["name"] for field in ("initContainers", "containers") for c in spec.get(field, [])]
    if wanted:
        if wanted not in names:
            raise status.bad_request(f"container {wanted} is not valid for pod {pod.name}")
        return wanted
    regular = [c["name"] for c in spec["containers"]]
    if len(regular) > 1:
        raise status.bad_request(
            f"a container name must be specified for pod {pod.name}, "
            f"choose one of: [{' '.join(regular)}]"
        )
    return str(regular[0])


def _stream_options(request: web.Request) -> list[tuple[str, str]]:
    """Return the options of a program's streams by the kubelet's names; raise 400."""
    query = request.query
    # Convert_Slice_string_To_bool: an empty value is true as well, as is Python's `True`.
    # https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/runtime/conversion.go
    asked = {name for name in _STREAMS if truth(query.get(name))}
    if not asked & {"stdin", "stdout", "stderr"}:
        raise status.bad_request("you must specify at least 1 of stdin, stdout, stderr")
    if {"tty", "stderr"} <= asked:
        raise status.bad_request("tty and stderr cannot both be true")
    options = [(_STREAMS[name], "1") for name in _STREAMS if name in asked]
    return options + [("command", word) for word in query.getall("command", [])]


def _path(what: str, pod: Record, container: str, options: list[tuple[str, str]]) -> str:
    return f"/{what}/{pod.namespace}/{pod.name}/{container}?{urlencode(options)}"


def _told(code: int, text: str) -> StatusError:
    """Return the kubelet's refusal as the server passes it on."""
    if code == 400:
        return status.bad_request(text)
    return StatusError(code, "NotFound" if code == 404 else "", text)
